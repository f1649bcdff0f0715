"""What `resadapt bench mllm` says: measured on a random model and small pictures, so that it takes seconds."""

import asyncio
import json
from dataclasses import replace

import pytest

from pipeline.cli.bench_mllm import measure
from pipeline.cli.bench_report import MOST_HOPS, SHARES, BenchPlan, MLLMReport, full_s, rules_of, table
from pipeline.clock import SystemClock
from pipeline.config.mllm import OpenAIConfig, TinyConfig
from pipeline.errors import ConfigError
from pipeline.mllm.openai.backend import OpenAIMLLM
from pipeline.mllm.transformers.backend import TransformersMLLM
from tests.checkpoints import tiny
from tests.mllm_server import MODEL, serving

PLAN = BenchPlan(streams=2, watches=(1, 3), hops=1, size=(64, 96))
SLIDING_S = {"qwen3_vl": 33, "qwen3_5": 63}
"""Long enough for one restart."""
QUESTION_TOKENS = 64
"""More than any question of the bench has."""


@pytest.fixture(scope="module", params=["qwen3_vl", "qwen3_5"])
def report(request: pytest.FixtureRequest) -> MLLMReport:
    plan = replace(PLAN, sliding_s=SLIDING_S[request.param])
    return asyncio.run(
        measure(TransformersMLLM(tiny(request.param), TinyConfig(use=request.param)), SystemClock(), plan)
    )


@pytest.mark.parametrize("share", SHARES)
def test_further_watches_encode_nothing_and_compute_their_question(report: MLLMReport, share: float) -> None:
    ratios = report.ratios(share)
    assert ratios["encoded_ratio"] == 1.0
    assert 0 < ratios["prefill_per_further_watch"] < QUESTION_TOKENS
    assert 0 < ratios["prefill_vs_naive"] < 1
    assert ratios["encoded_vs_video"] == pytest.approx(report.cost("ours", share, 3).encoded / 18)


def test_what_peers_send_is_a_chunk_of_two_frame_patches_per_watch(report: MLLMReport) -> None:
    assert report.cost("video", 1.0, 3).encoded == 3 * 6  # watches, and 2 x 3 cells for each second
    assert report.cost("naive", 1.0, 3).encoded == 3 * 6 * full_s(rules_of(report.mllm))


def test_a_context_that_is_appended_to_saves_prefill_and_answers_as_one_never_seen_before(report: MLLMReport) -> None:
    assert report.saving.restarts == 1
    assert 0.3 < report.saving.saved < 1
    assert report.saving.compared == 8
    assert report.saving.worst_difference < 1e-4
    assert report.saving.verdicts_differ == 0


def test_a_report_is_told_as_a_table_and_as_json(report: MLLMReport) -> None:
    told = json.loads(json.dumps(report.as_json()))
    assert {"encoded_ratio", "prefill_vs_naive", "wall_vs_naive", "sliding_saved"} <= told.keys()
    assert told["prefill_vs_naive"] == told["at_share"]["1"]["prefill_vs_naive"]
    assert table(report).row_count == len(told["costs"]) == 7


async def test_where_only_images_are_taken_every_frame_is_one() -> None:
    with serving() as server:
        mllm = OpenAIMLLM(server.url, MODEL, OpenAIConfig(use="openai:test"))
        report = await measure(mllm, SystemClock(), BenchPlan(watches=(1, 2), hops=1, sliding_s=2, size=(64, 96)))
    assert report.cost("video", 1.0, 2).encoded == 2 * 2 * 6
    assert report.saving.restarts == report.saving.compared == 0


@pytest.mark.parametrize(
    ("plan", "named"),
    [({"watches": ()}, "--watches"), ({"streams": 0}, "--streams"), ({"hops": 9}, "--hops is 9; expected at most 8"),
     ({"sliding_s": 0}, "--sliding is 0")],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(plan: dict[str, int], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        BenchPlan(**plan)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "qwen3_5"])
def test_no_context_restarts_while_hops_are_counted(family: str) -> None:
    rules = rules_of(family)
    assert full_s(rules) + MOST_HOPS <= rules.max_s

"""Evaluation end to end, with the yard's MLLM before any training: its answers mean nothing, their path does."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from allocator_engine.errors import EngineFailed
from allocator_engine.evaluate.equal import purse
from allocator_engine.evaluate.run import ALLOCATORS, Pass, Show
from allocator_engine.fit import Allocation, FitRules
from allocator_engine.runtime import torch_engine
from allocator_engine.spec import STREAM
from pipeline.allocators.fixed import FixedAllocator
from pipeline.allocators.motion import MotionAllocator
from pipeline.clock import SystemClock
from pipeline.config.mllm import OpenAIConfig, TransformersConfig
from pipeline.errors import AllocationFailed, ConfigError, MLLMOverloaded, MLLMUnavailable
from pipeline.lab.cli.main import app
from pipeline.lab.comparison import Comparison
from pipeline.lab.exam import TrialRuntime, as_hops
from pipeline.lab.examiner import Examiner, Setup
from pipeline.lab.patience import TRIES
from pipeline.lab.training import identity_of
from pipeline.lab.trial import show, spend
from pipeline.metrics import Metrics
from pipeline.mllm.null import NullMLLM
from pipeline.types import WatchQuery
from samples.yard.episodes.tasks import YardTasks
from samples.yard.shape import grid
from samples.yard.world.codec import write_video
from samples.yard.world.scene import Scene
from tests.checkpoints import untrained_yard
from tests.engines import untrained

pytestmark = pytest.mark.timeout(300)  # processes start slowly on busy cores

SEED, SECONDS = 800_003, 6.0
RULES = FitRules(grid(), 2, min_tokens_per_segment=1)
NATIVE = 112 * 6


def always(question: str, hops) -> list[list[WatchQuery]]:
    """One question that stands in all hops."""
    return [[WatchQuery("a", question)]] * len(hops)


@pytest.fixture(scope="module")
def source() -> YardTasks:
    return YardTasks(range(SEED, SEED + 1), SECONDS)


@pytest.fixture(scope="module")
def examiner():
    config = TransformersConfig(use=f"transformers:{untrained_yard()}", min_tokens_per_segment=1)
    with pytest.MonkeyPatch.context() as patch:
        # The network itself: exporting it takes longer than all that is tested here.
        opened = {
            f"{name}.json": (torch_engine(checkpoint.network, STREAM), checkpoint.encoder.embed)
            for name, checkpoint in (("learned", untrained()), ("learned:other", untrained(seed=1)))
        }
        patch.setattr("pipeline.lab.examiner.open_engine", lambda path: opened[path.name])
        engines = {name: Path(f"{name}.json") for name in ("learned", "learned:other")}
        made = Examiner(Setup(partial(YardTasks, range(SEED, SEED + 1), SECONDS), config, engines))
    yield made
    made.close()


@pytest.mark.parametrize("kind", [FixedAllocator, MotionAllocator])
async def test_a_dry_pass_grants_and_spends_what_the_loop_does(source, kind, monkeypatch):
    class Noting(kind):
        """The allocator, which notes what it was granted and what it made of that."""

        def __init__(self):
            super().__init__(RULES)
            self.noted = []

        async def allocate(self, hop, queries, grant):
            self.noted.append((grant, await super().allocate(hop, queries, grant)))
            return self.noted[-1][1]

    task = source.tasks(0)[0]
    hops, table = as_hops(source.hops(task.clip)), TrialRuntime(SystemClock(), RULES, Metrics())
    pocket, dry, wet = purse(NATIVE, 112, SECONDS, 0.2, 0), Noting(), Noting()
    allocations, _ = await spend(hops, always("is it so?", hops), dry, pocket, table)
    monkeypatch.setattr("pipeline.lab.trial.GivenAllocations", lambda allocations: wet)
    await show(hops, allocations, [task], pocket, NullMLLM(grid=grid()), table)
    assert wet.noted == dry.noted
    assert len(wet.noted) == len(hops)


async def test_a_dry_pass_of_an_allocator_that_fails_is_refused(source):
    class Failing(FixedAllocator):
        async def allocate(self, hop, queries, grant):
            raise AllocationFailed("no answer")

    task = source.tasks(0)[0]
    hops, table = as_hops(source.hops(task.clip)), TrialRuntime(SystemClock(), RULES, Metrics())
    with pytest.raises(AllocationFailed, match="fixed failed on the hop at"):
        await spend(hops, always("?", hops), Failing(RULES), purse(NATIVE, 112, SECONDS, 0.5, 0), table)


@pytest.mark.parametrize("make", [FixedAllocator, MotionAllocator])
async def test_what_a_dry_pass_spends_is_shown_and_no_more_than_its_purse_has(source, make):
    task = source.tasks(0)[0]
    hops, table = as_hops(source.hops(task.clip)), TrialRuntime(SystemClock(), RULES, Metrics())
    pocket = purse(NATIVE, 112, SECONDS, 0.2, 0)
    allocations, _ = await spend(hops, always("is it so?", hops), make(RULES), pocket, table)
    assert 0.1 * NATIVE < sum(allocation.tokens for allocation in allocations) <= 0.2 * NATIVE
    outcome = (await show(hops, allocations, [task], pocket, NullMLLM(grid=grid()), table))[0]
    assert len(outcome.events) == len(task.watches)
    with pytest.raises(ConfigError, match="does not fit into null"):
        poorer = replace(pocket, tokens_per_s=pocket.tokens_per_s / 3)
        await show(hops, allocations, [task], poorer, NullMLLM(grid=grid()), table)


async def test_who_asks_late_is_heard_late_and_has_what_was_saved_from_the_beginning(source):
    class Hearing(FixedAllocator):
        """Shows nothing until it is asked."""

        def __init__(self):
            super().__init__(RULES)
            self.heard = []

        async def allocate(self, hop, queries, grant):
            self.heard.append([query.question for query in queries])
            return await super().allocate(hop, queries, grant) if queries else Allocation()

    hops, table = as_hops(source.hops(source.tasks(0)[0].clip)), TrialRuntime(SystemClock(), RULES, Metrics())
    standing = [[] for _ in hops[1:]] + [[WatchQuery("late", "is it so now?")]]
    hearing = Hearing()
    allocations, _ = await spend(hops, standing, hearing, purse(NATIVE, 112, SECONDS, 1 / len(hops), 0), table)
    assert hearing.heard == [[]] * (len(hops) - 1) + [["is it so now?"]]
    assert [one.tokens for one in allocations] == [0] * (len(hops) - 1) + [112]


async def test_an_mllm_that_has_too_much_to_do_is_asked_again_and_nothing_comes_of_it(source, monkeypatch):
    class Busy(NullMLLM):
        """Refuses the first so many asks."""

        def __init__(self, refusals):
            super().__init__(grid=grid())
            self.refusals = refusals

        async def ask(self, *arguments):
            if self.refusals:
                self.refusals -= 1
                raise MLLMOverloaded("busy", sent=False)
            return await super().ask(*arguments)

    monkeypatch.setattr("pipeline.lab.patience.back_off_s", lambda failures, least_s, most_s: 0.0)
    task = source.tasks(0)[0]
    hops, table = as_hops(source.hops(task.clip)), TrialRuntime(SystemClock(), RULES, Metrics())
    pocket = purse(NATIVE, 112, SECONDS, 0.2, 0)
    allocations, _ = await spend(hops, always("is it so?", hops), FixedAllocator(RULES), pocket, table)
    found = [await show(hops, allocations, [task], pocket, Busy(refusals), table) for refusals in (0, TRIES - 1)]
    assert found[0][0].events == found[1][0].events
    with pytest.raises(MLLMUnavailable, match="busy"):
        await show(hops, allocations, [task], pocket, Busy(TRIES), table)


async def test_quiet_time_is_paid_for_and_not_shown():
    class Seeing(NullMLLM):
        """Remembers the times of what it was shown."""

        def __init__(self):
            super().__init__(grid=grid())
            self.seen = set()

        async def ask(self, context, *more):
            self.seen |= {time for segment in context.segments for time in segment.pts_s}
            return await super().ask(context, *more)

    quiet = YardTasks(range(SEED, SEED + 1), SECONDS, quiet_s=4.0)
    task, mllm = quiet.tasks(0)[0], Seeing()
    hops, table = as_hops(quiet.hops(task.clip)), TrialRuntime(SystemClock(), RULES, Metrics())
    pocket = purse(112 * len(hops), 112, 10.0, 0.2, 0)
    standing = always("is it so?", hops)
    saved, _ = await spend(hops, standing, FixedAllocator(RULES), pocket, table)
    assert all(allocation.tokens for allocation in saved[1:4])
    shown = await FixedAllocator(RULES).allocate(hops[4], standing[4], 80)
    saving = [*[Allocation()] * 4, shown, *[Allocation()] * 5]
    (outcome,) = await show(hops, saving, [task], pocket, mllm, table)
    assert mllm.seen == {frame.pts_s for frame in hops[4].frames}
    assert len(outcome.events) == len(task.watches)


async def test_nothing_is_kept_back_in_a_context_that_never_restarts(source):
    task = source.tasks(0)[0]
    hops, table = as_hops(source.hops(task.clip)), TrialRuntime(SystemClock(), RULES, Metrics())
    allocations, _ = await spend(
        hops, always("is it so?", hops), FixedAllocator(RULES), purse(NATIVE, 112, SECONDS, 0.5, 0), table
    )
    assert sum(allocation.tokens for allocation in allocations) > 0.97 * 0.5 * NATIVE


def test_allocators_by_name_stay_inside_the_bucket_and_only_some_hear_the_questions(examiner):
    watches, questions = (task.name for task in examiner.tasks(0) if task.family in ("watch_f1", "qa"))
    hearing = set()
    for name in (*ALLOCATORS, "learned:other"):
        for budget in (0.25, 1.0):
            found = [examiner.spend(Pass(0, task, name, budget, 0)) for task in (watches, questions)]
            assert all(one.native == NATIVE and one.tokens <= budget * NATIVE + 1 for one in found), name
            if len({one.digest for one in found}) > 1:
                hearing.add(name)
    assert hearing == {"learned", "learned:other", "learned-reworded", "oracle"}
    one, other = (examiner.spend(Pass(0, watches, name, 0.25, 0)) for name in ("learned", "learned:other"))
    assert one.digest != other.digest, "each has its own engine"


def test_answers_of_two_models_of_a_server_are_kept_apart_and_a_new_password_changes_nothing():
    uses = [f"openai:http://{login}h/v1#{model}" for login, model in (("u:old@", "A"), ("u:new@", "A"), ("", "B"))]
    comparisons = [
        Comparison("yard", range(1), 4.0, (0.5,), ("fixed",), ("qa",), None, OpenAIConfig(use=use)) for use in uses
    ]
    one, other, another = (comparison.hashes() for comparison in comparisons)
    assert one == other
    assert one["mllm"] != another["mllm"]
    assert len({identity_of(comparison.mllm) for comparison in comparisons}) == 2


def test_each_allocator_hears_what_stands_when_it_stands(examiner, monkeypatch):
    class Hearing(FixedAllocator):
        def __init__(self):
            super().__init__(RULES)
            self.heard = []

        async def allocate(self, hop, queries, grant):
            self.heard.append(tuple(query.question for query in queries))
            return await super().allocate(hop, queries, grant)

    def heard(name: str, task) -> list[tuple[str, ...]]:
        engine = Hearing()
        monkeypatch.setitem(examiner.engines, "learned", engine)
        examiner.spend(Pass(0, task.name, name, 0.3, 0))
        return engine.heard

    hops = round(SECONDS)
    watching, asking = (task for task in examiner.tasks(0) if task.family in ("watch_f1", "qa"))
    assert asking.standing_in(0) != asking.standing
    assert heard("learned", asking) == [asking.standing_in(hop) for hop in range(hops)]
    assert heard("learned", watching) == [watching.standing] * hops
    assert heard("learned-no-text", watching) == [()] * hops
    assert heard("learned-reworded", watching) == [watching.reworded] * hops


def test_equal_allocations_have_equal_outcomes_however_they_are_asked_together(examiner):
    tasks = [task.name for task in examiner.tasks(0) if task.family in ("watch_f1", "qa")]
    dry = Pass(0, tasks[0], "fixed", 0.25, 0)
    digest = examiner.spend(dry).digest
    together = examiner.show(Show(dry, digest, tuple(tasks)))
    alone = [examiner.show(Show(dry, digest, (name,)))[0] for name in tasks]
    assert [(one.grades, one.events) for one in together] == [(one.grades, one.events) for one in alone]
    with pytest.raises(EngineFailed, match=r"fixed makes of .* is not what was kept"):
        examiner.show(Show(dry, "another", (tasks[0],)))


def run(*arguments: str) -> dict:
    result = CliRunner().invoke(app, ["evaluate", *arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_the_command_prints_the_frontier_and_goes_on_from_what_it_kept(tmp_path):
    command = ("--seeds", f"{SEED}:{SEED + 1}", "--seconds", "4", "--mllm", str(untrained_yard()), "--json")
    command += ("--budgets", "0.25,1", "--resume", str(tmp_path), "--families", "watch_f1,qa")
    said = run(*command, "--allocators", "fixed")
    kept = {file: file.read_text() for file in tmp_path.glob("*.jsonl")}
    again = run(*command, "--allocators", "fixed,fewer")
    points = {(point["allocator"], point["budget"]): point for point in again["points"]}
    assert [points["fixed", 0.25], points["fixed", 1.0]] == said["points"]
    assert points["fixed", 1.0]["realised"] == points["fewer", 1.0]["realised"] == 1.0
    assert points["fixed", 1.0]["qa"] == points["fewer", 1.0]["qa"]
    assert points["fixed", 0.25]["image"] is None
    assert {one["other"] for one in again["differences"]} == {"fewer", "native"}
    for file, lines in kept.items():
        assert file.read_text().startswith(lines), "what was known is not found out again"
    assert (tmp_path / "frontier.png").stat().st_size > 10_000


def test_at_equal_rates_each_spends_what_it_wants(tmp_path):
    command = ("--seeds", f"{SEED}:{SEED + 1}", "--seconds", "4", "--mllm", str(untrained_yard()), "--json")
    command += ("--budgets", "0.3", "--families", "watch_f1", "--allocators", "motion", "--resume", str(tmp_path))
    tokens, rates = run(*command), run(*command, "--equal", "rates")
    assert (tokens["equal"], rates["equal"]) == ("tokens", "rates")
    assert rates["points"][0]["realised"] == rates["points"][0]["at_rate"] == tokens["points"][0]["at_rate"]
    assert {file.name for file in tmp_path.glob("*.png")} == {"frontier.png", "frontier_at_rates.png"}


def test_video_questions_of_any_form_run_through_the_same_comparison(tmp_path):
    write_video(tmp_path / "clip.mp4", Scene(SEED, 3.0))
    rows = [
        {"video": "clip.mp4", "question": "is the gate open?", "answer": "no"},
        {"video": "clip", "question": "what is here?", "options": ["a yard", "a pond"], "answer": "A"},
        {"video": "clip", "question": "what colour is the sky?", "answer": "grey"},
        {"video": "clip", "question": "when is it day?", "interval": [0, 2]},
    ]
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("--tasks", str(tmp_path / "qa.jsonl"), "--budgets", "0.5", "--allocators", "fixed,video", "--json")
    said = run(*command, "--mllm", str(untrained_yard()))
    for point in said["points"]:
        assert point["qa"]["n"] == 3
        assert point["grounding"]["n"] == 1
        assert point["realised"] == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", "5:5"), "expected A:B"),
        (("--budgets", "0,2"), "expected shares above 0"),
        (("--families", "watch"), "expected some of watch_f1"),
        (("--allocators", "best"), "expected some of learned"),
        (("--jobs", "0"), "expected 1 or more"),
        (("--equal", "money"), "expected one of tokens, rates"),
        (("--plot", "frontier.txt"), "expected a file .png"),
        (("--plot", "nowhere/frontier.png"), "in a folder that is there"),
        (("--device", "tpu", "--allocators", "fixed", "--jobs", "2"), "the device 'tpu' cannot be used here"),
        (("--seconds", "1"), "expected 2 to 600"),
        (("--quiet-s", "601"), "expected whole seconds from 1 to 600"),
        (("--quiet-s", "2.5"), "expected whole seconds from 1 to 600"),
        (("--quiet-s", "60", "--families", "qa"), "expected watch_f1 alone"),
        (("--quiet-s", "60", "--tasks", "clips.jsonl"), "has its own times"),
        (("--tasks", "nowhere.jsonl", "--allocators", "fixed"), "nowhere.jsonl"),
        (("--mllm", "nobody", "--allocators", "fixed"), "expected yard"),
        (("--against", "old/engine.json"), "expected NAME=ENGINE"),
        (("--against", "old=a", "--against", "old=b"), "names 'old' twice"),
        (("--against", "old=nowhere", "--allocators", "fixed"), "there is no engine nowhere"),
    ],
)
def test_what_is_asked_for_wrongly_is_refused_by_name(arguments, message):
    result = CliRunner().invoke(app, ["evaluate", *arguments])
    assert isinstance(result.exception, ValueError)
    assert message in str(result.exception)

"""Which checkpoint for which memory: arithmetic of published shapes, and of a folder's own."""

import json

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.mllm.checkpoints import CHECKPOINTS, facts_of, plan_memory
from tests.checkpoints import tiny

NAMED = {one.name: one for one in CHECKPOINTS}


def test_a_frame_costs_what_the_grid_says_and_a_tenth_of_it_ten_times_less_room():
    plan = plan_memory(NAMED["Qwen/Qwen3-VL-2B-Instruct"], 24.0, (1080, 1920))
    assert plan.frame_tokens == 34 * 60 // 2
    assert plan.tenth_frames == pytest.approx(10 * plan.native_frames, abs=10)
    assert plan.needs_gib < 24


def test_more_memory_keeps_more_frames_and_too_little_none():
    for one in CHECKPOINTS:
        frames = [plan_memory(one, gib, (1080, 1920)).native_frames for gib in (1.0, 24.0, 80.0)]
        assert frames == sorted(frames)
        assert frames[0] == 0
    assert plan_memory(NAMED["Qwen/Qwen3-VL-32B-Instruct"], 24.0, (1080, 1920)).native_frames == 0


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "qwen3_5"])
def test_a_folder_is_read_from_its_own_files(family):
    folder = tiny(family)
    facts = facts_of(str(folder))
    text = json.loads((folder / "config.json").read_text()).get("text_config", {})
    assert facts.family == family
    assert 0 < facts.layers <= text["num_hidden_layers"]
    assert facts.kv_heads == text["num_key_value_heads"]
    assert facts.head_width > 0
    assert 0 < facts.weights_gib < 0.1


def test_the_command_says_what_fits_and_how_it_was_tested():
    done = CliRunner().invoke(app, ["models", "--memory", "24", "--json"])
    found = {one["name"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert set(found) == set(NAMED)
    assert found["Qwen/Qwen3-VL-32B-Instruct"]["native_frames"] == 0
    assert all("not run here" in one["tested"] for one in found.values())
    assert "does not fit" in CliRunner().invoke(app, ["models", "--memory", "4"]).stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(("--memory", "0"), "above 0"), (("--size", "big"), "WIDTHxHEIGHT"), (("nowhere",), "nowhere")],
)
def test_what_is_asked_for_wrongly_is_refused_by_name(arguments, named):
    done = CliRunner().invoke(app, ["models", *arguments])
    assert isinstance(done.exception, ValueError)
    assert named in str(done.exception)

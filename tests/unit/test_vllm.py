"""What can be shown of the vLLM backend without vLLM: the prompts it writes, what vLLM is told, what it refuses."""

import sys

import pytest

from allocator_engine.grid import GRIDS, Grid
from pipeline.config.mllm import VllmConfig
from pipeline.errors import ConfigError, EngineMismatch, MLLMUnavailable
from pipeline.mllm.prompt import IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START, markup, prefix, suffix
from pipeline.mllm.vllm.backend import VllmMLLM
from pipeline.mllm.vllm.prompt import PromptWriter
from pipeline.mllm.vllm.settings import Settings, arguments
from tests.checkpoints import context, segment, tiny

MARKERS = (IMAGE_PAD, VIDEO_PAD, VISION_START, VISION_END)
FAMILIES = ("qwen2_5_vl", "qwen3_vl")


def encode(text: str) -> list[int]:
    """One token per character, and one per marker of a picture."""
    ids: list[int] = []
    while text:
        marker = next((one for one in MARKERS if text.startswith(one)), None)
        ids.append(-1 - MARKERS.index(marker) if marker else ord(text[0]))
        text = text.removeprefix(marker or text[0])
    return ids


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frames", [1, 2])
def test_a_prompt_is_to_become_the_one_that_all_backends_read(family: str, frames: int) -> None:
    shown = context(*(segment(GRIDS[family], 7.35 + second, 2, 1 + second, frames) for second in range(3)))
    prompt = PromptWriter(family, encode).prefix(shown)
    assert prompt.ids == encode(markup(prefix(shown, family), expanded=True))
    assert prompt.ends[-1] == len(prompt.ids)


def test_images_are_sent_with_one_placeholder_after_their_time() -> None:
    shown = context(segment(GRIDS["qwen3_vl"], 0.0, 2, 3))
    prompt = PromptWriter("qwen3_vl", encode).prefix(shown)
    assert prompt.sent == encode(markup(prefix(shown, "qwen3_vl"), expanded=False))
    assert prompt.names == {"image": [shown.segments[0].content_id]}
    assert prompt.pictures["image"][0].shape == (64, 96, 3)


def test_where_vllm_writes_the_time_of_a_video_its_name_holds_the_time() -> None:
    """vLLM keeps the text with the pixels under the name: after a new anchor the old text would come back."""
    pair = segment(GRIDS["qwen3_vl"], 6.0, frames=2)
    first, anchored = context(segment(GRIDS["qwen3_vl"], 0.0), pair), context(pair)
    writer = PromptWriter("qwen3_vl", encode)
    names = [writer.prefix(shown).names["video"] for shown in (first, anchored)]
    assert names == [[f"{pair.content_id}@<6.2 seconds>"], [f"{pair.content_id}@<0.2 seconds>"]]
    ours = PromptWriter("qwen2_5_vl", encode).prefix(context(segment(GRIDS["qwen2_5_vl"], 6.0, frames=2)))
    assert ours.names == {"video": [pair.content_id]}


@pytest.mark.parametrize("pts_s", [0.0, 86_400.05, 0.1 + 0.2, 3599.95])
def test_the_times_told_of_a_video_come_out_as_our_own_time_text(pts_s: float) -> None:
    grid = GRIDS["qwen3_vl"]
    for second in range(20):
        shown = context(segment(grid, pts_s), segment(grid, pts_s + 0.15 * second, frames=2))
        prompt = PromptWriter("qwen3_vl", encode).prefix(shown)
        _, told = prompt.pictures["video"][0]
        mean_s = sum(index / told["fps"] for index in told["frames_indices"]) / 2
        assert f"<{mean_s:.1f} seconds>" == prompt.names["video"][0].partition("@")[2]


def test_what_is_shown_aside_comes_behind_the_context() -> None:
    grid = GRIDS["qwen3_vl"]
    one, two = segment(grid, 0.0), segment(grid, 1.0, 3, 3)
    writer = PromptWriter("qwen3_vl", encode)
    together, aside = writer.prefix(context(one, two)), writer.prefix(context(one), [two])
    assert aside.ids == together.ids
    assert aside.ends == together.ends


def test_a_question_is_written_as_for_all_backends() -> None:
    asked = PromptWriter("qwen3_vl", encode).question(f"Is it {IMAGE_PAD} day?")
    assert asked == encode(suffix("Is it day?", "qwen3_vl").text)


def test_a_tokenizer_without_the_markers_is_refused() -> None:
    with pytest.raises(EngineMismatch, match="vision_start"):
        PromptWriter("qwen3_vl", lambda text: [ord(letter) for letter in text])


def engine_settings(grid: Grid, **options: float) -> Settings:
    return Settings("x", grid, 4096, VllmConfig(use="vllm:x", **options))


def test_the_processor_may_neither_enlarge_a_cell_nor_shrink_the_largest_pair() -> None:
    grid = GRIDS["qwen3_vl"]
    told = arguments(engine_settings(grid, gpu_memory=0.5), on_cpu=False)
    assert told["mm_processor_kwargs"] == {
        "images_kwargs": {"size": {"shortest_edge": 32 * 32, "longest_edge": 4096 * 32 * 32}},
        "videos_kwargs": {"size": {"shortest_edge": 32 * 32, "longest_edge": 2 * 4096 * 32 * 32}},
    }
    assert told["dtype"] == "auto"
    assert "block_size" not in told
    assert told["kv_cache_memory_bytes"] is None
    assert "mamba_cache_mode" not in told


def test_on_a_cpu_the_engine_takes_no_share_of_the_machines_memory() -> None:
    told = arguments(engine_settings(GRIDS["qwen3_vl"]), on_cpu=True)
    assert (told["dtype"], told["block_size"], told["kv_cache_memory_bytes"]) == ("float32", 32, 2 * 2**30)
    told = arguments(engine_settings(GRIDS["qwen3_vl"], kv_cache_gib=2**-10), on_cpu=True)
    assert told["kv_cache_memory_bytes"] == 2**20


def test_of_a_family_with_a_running_state_the_engine_keeps_snapshots() -> None:
    told = arguments(engine_settings(GRIDS["qwen3_5"]), on_cpu=False)
    assert told["mamba_cache_mode"] == "align"


async def test_an_ask_before_the_start_is_refused_by_name() -> None:
    mllm = VllmMLLM(tiny(), VllmConfig(use="vllm:tiny"))
    with pytest.raises(MLLMUnavailable, match="vllm:tiny"):
        await mllm.ask(context(segment(mllm.info.grid, 0.0)), [])


async def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.delitem(sys.modules, "pipeline.mllm.vllm.engine", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'resadapt-stream\[vllm\]'"):
        await VllmMLLM(tiny(), VllmConfig(use="vllm")).start()


async def test_a_checkpoint_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match="/nowhere does not exist"):
        await VllmMLLM("/nowhere", VllmConfig(use="vllm")).start()

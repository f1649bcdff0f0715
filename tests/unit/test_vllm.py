"""What can be shown of the vLLM backend without vLLM: the prompts it writes, how it restarts, what it refuses."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from allocator_engine.grid import GRIDS
from pipeline.clock import ManualClock
from pipeline.errors import ConfigError, EngineMismatch, MLLMUnavailable
from pipeline.mllm.prompt import IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START, markup, prefix, suffix
from pipeline.mllm.vllm import VllmMLLM
from pipeline.mllm.vllm_prompt import Writer
from pipeline.mllm.vllm_running import Care, Running, begin_in_thread
from pipeline.mllm.vllm_settings import Settings, arguments
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
    prompt = Writer(family, encode).prefix(shown)
    assert prompt.ids == encode(markup(prefix(shown, family), expanded=True))
    assert prompt.ends[-1] == len(prompt.ids)


def test_images_are_sent_with_one_placeholder_after_their_time() -> None:
    shown = context(segment(GRIDS["qwen3_vl"], 0.0, 2, 3))
    prompt = Writer("qwen3_vl", encode).prefix(shown)
    assert prompt.sent == encode(markup(prefix(shown, "qwen3_vl"), expanded=False))
    assert prompt.names == {"image": [shown.segments[0].content_id]}
    assert prompt.pictures["image"][0].shape == (64, 96, 3)


def test_where_vllm_writes_the_time_of_a_video_its_name_holds_the_time() -> None:
    """vLLM keeps the text with the pixels under the name: after a new anchor the old text would come back."""
    pair = segment(GRIDS["qwen3_vl"], 6.0, frames=2)
    first, anchored = context(segment(GRIDS["qwen3_vl"], 0.0), pair), context(pair)
    writer = Writer("qwen3_vl", encode)
    names = [writer.prefix(shown).names["video"] for shown in (first, anchored)]
    assert names == [[f"{pair.content_id}@<6.2 seconds>"], [f"{pair.content_id}@<0.2 seconds>"]]
    ours = Writer("qwen2_5_vl", encode).prefix(context(segment(GRIDS["qwen2_5_vl"], 6.0, frames=2)))
    assert ours.names == {"video": [pair.content_id]}


@pytest.mark.parametrize("pts_s", [0.0, 86_400.05, 0.1 + 0.2, 3599.95])
def test_the_times_told_of_a_video_come_out_as_our_own_time_text(pts_s: float) -> None:
    grid = GRIDS["qwen3_vl"]
    for second in range(20):
        shown = context(segment(grid, pts_s), segment(grid, pts_s + 0.15 * second, frames=2))
        prompt = Writer("qwen3_vl", encode).prefix(shown)
        _, told = prompt.pictures["video"][0]
        mean_s = sum(index / told["fps"] for index in told["frames_indices"]) / 2
        assert f"<{mean_s:.1f} seconds>" == prompt.names["video"][0].partition("@")[2]


def test_what_is_shown_aside_comes_behind_the_context() -> None:
    grid = GRIDS["qwen3_vl"]
    one, two = segment(grid, 0.0), segment(grid, 1.0, 3, 3)
    writer = Writer("qwen3_vl", encode)
    together, aside = writer.prefix(context(one, two)), writer.prefix(context(one), [two])
    assert aside.ids == together.ids
    assert aside.ends == together.ends


def test_a_question_is_written_as_for_all_backends() -> None:
    asked = Writer("qwen3_vl", encode).question(f"Is it {IMAGE_PAD} day?")
    assert asked == encode(suffix("Is it day?", "qwen3_vl").text)


def test_a_tokenizer_without_the_markers_is_refused() -> None:
    with pytest.raises(EngineMismatch, match="vision_start"):
        Writer("qwen3_vl", lambda text: [ord(letter) for letter in text])


def test_the_processor_may_neither_enlarge_a_cell_nor_shrink_the_largest_pair() -> None:
    grid = GRIDS["qwen3_vl"]
    told = arguments(Settings("x", grid, "auto", None, 0.5, 1.0, 4096), on_cpu=False)
    assert told["mm_processor_kwargs"] == {
        "images_kwargs": {"size": {"shortest_edge": 32 * 32, "longest_edge": 4096 * 32 * 32}},
        "videos_kwargs": {"size": {"shortest_edge": 32 * 32, "longest_edge": 2 * 4096 * 32 * 32}},
    }
    assert told["dtype"] == "auto"
    assert "block_size" not in told
    assert told["kv_cache_memory_bytes"] is None
    assert "mamba_cache_mode" not in told


def test_on_a_cpu_the_engine_takes_no_share_of_the_machines_memory() -> None:
    told = arguments(Settings("x", GRIDS["qwen3_vl"], "auto", None, 0.85, 1.0, 4096), on_cpu=True)
    assert (told["dtype"], told["block_size"], told["kv_cache_memory_bytes"]) == ("float32", 32, 2 * 2**30)
    told = arguments(Settings("x", GRIDS["qwen3_vl"], "auto", 2**20, 0.85, 1.0, 4096), on_cpu=True)
    assert told["kv_cache_memory_bytes"] == 2**20


def test_of_a_family_with_a_running_state_the_engine_keeps_snapshots() -> None:
    told = arguments(Settings("x", GRIDS["qwen3_5"], "auto", None, 0.85, 1.0, 4096), on_cpu=False)
    assert told["mamba_cache_mode"] == "align"


class Machine:
    """An engine that dies and hangs when told to."""

    def __init__(self) -> None:
        self.dead = self.closed = False
        self.works = asyncio.Event()
        self.works.set()

    async def canary(self) -> None:
        await self.works.wait()

    def close(self) -> None:
        self.closed = True


def caring(
    clock: ManualClock, begin: Callable[[], Awaitable[Machine]], on_death: Callable[[], None] = lambda: None
) -> Running[Machine]:
    return Running("test", clock, Care(begin, Machine.canary, 0.05, on_death))


async def turn(clock: ManualClock, seconds: float) -> None:
    """Advance, once somebody sleeps, and let what wakes up run."""
    while not clock._sleepers:
        await asyncio.sleep(0.001)
    clock.advance(seconds)
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_engine_that_dies_is_closed_and_started_again_after_longer_and_longer_waits() -> None:
    clock, made, deaths = ManualClock(), [], []
    failing = iter([False, True, True, False])

    async def begin() -> Machine:
        if next(failing):
            raise EngineMismatch("not now")
        made.append(Machine())
        return made[-1]

    running = caring(clock, begin, lambda: deaths.append(1))
    await running.start()
    await running.start()
    assert running.now() is made[0]
    made[0].dead = True
    for _ in range(2):
        with pytest.raises(MLLMUnavailable, match="being started again") as refusal:
            running.now()
        assert not refusal.value.sent
    assert deaths == [1]
    for longest_s in (1.0, 2.0, 4.0):
        assert len(made) == 1
        await turn(clock, longest_s)
    assert running.now() is made[1]
    assert made[0].closed
    running.died(made[0])
    assert running.now() is made[1], "the death of an engine long replaced is no news"
    await running.close()
    assert made[1].closed
    with pytest.raises(MLLMUnavailable, match="closed or not started"):
        running.now()


async def test_closing_ends_the_restarting() -> None:
    clock, made = ManualClock(), []

    async def begin() -> Machine:
        made.append(Machine())
        return made[-1]

    running = caring(clock, begin)
    await running.start()
    running.died(made[0])
    await running.close()
    clock.advance(100.0)
    await asyncio.sleep(0)
    assert len(made) == 1


@pytest.fixture
async def hanging() -> AsyncIterator[tuple[ManualClock, Running[Machine], list[Machine]]]:
    """One that runs, and all machines that were made for it. The first hangs."""
    clock, made = ManualClock(), []

    async def begin() -> Machine:
        made.append(Machine())
        return made[-1]

    running = caring(clock, begin)
    await running.start()
    made[0].works.clear()
    clock.advance(10.0)
    yield clock, running, made
    await running.close()


async def test_an_engine_that_hangs_is_asked_on_until_the_canary_gets_no_answer_and_then_replaced(
    hanging: tuple[ManualClock, Running[Machine], list[Machine]],
) -> None:
    clock, running, made = hanging
    for _ in range(2):
        running.doubt(made[0], asked_s=5.0)
        assert running.now() is made[0], "one ask that came too late is no reason to refuse all others"
    await settled(running)
    with pytest.raises(MLLMUnavailable, match="being started again") as refusal:
        running.now()
    assert not refusal.value.sent
    await turn(clock, 1.0)
    assert made[0].closed
    while len(made) < 2:
        await asyncio.sleep(0.001)
    assert running.now() is made[1]
    running.doubt(made[0], asked_s=5.0)
    assert running.now() is made[1], "what an engine long replaced did not answer is no news"


async def test_an_engine_that_is_only_slow_is_kept(
    hanging: tuple[ManualClock, Running[Machine], list[Machine]],
) -> None:
    _, running, made = hanging
    running.doubt(made[0], asked_s=5.0)
    made[0].works.set()
    await settled(running)
    assert running.now() is made[0]


async def test_an_answer_to_anybody_ends_the_doubt_and_prevents_it(
    hanging: tuple[ManualClock, Running[Machine], list[Machine]],
) -> None:
    clock, running, made = hanging
    running.doubt(made[0], asked_s=5.0)
    running.answered()
    await settled(running)
    clock.advance(1.0)
    running.doubt(made[0], asked_s=9.0)
    assert running.now() is made[0]
    assert len(made) == 1


async def test_closing_ends_the_doubting(hanging: tuple[ManualClock, Running[Machine], list[Machine]]) -> None:
    _, running, made = hanging
    running.doubt(made[0], asked_s=5.0)
    await running.close()
    assert made[0].closed
    await asyncio.sleep(0.1)
    assert len(made) == 1


async def settled(running: Running[Machine]) -> None:
    """Wait until no engine is doubted."""
    while running._check:
        await asyncio.sleep(0.001)


async def test_an_engine_whose_start_was_cancelled_is_closed() -> None:
    machine, may_start = Machine(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def begin() -> Machine:
        asyncio.run_coroutine_threadsafe(may_start.wait(), loop).result()
        return machine

    starting = asyncio.create_task(begin_in_thread(begin))
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.sleep(0)
    may_start.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert machine.closed


async def test_an_ask_before_the_start_is_refused_by_name() -> None:
    mllm = VllmMLLM(tiny(), name="vllm:tiny")
    with pytest.raises(MLLMUnavailable, match="vllm:tiny"):
        await mllm.ask(context(segment(mllm.info.grid, 0.0)), [])


async def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.delitem(sys.modules, "pipeline.mllm.vllm_engine", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'resadapt-stream\[vllm\]'"):
        await VllmMLLM(tiny(), name="vllm").start()


async def test_a_checkpoint_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match="/nowhere does not exist"):
        await VllmMLLM("/nowhere", name="vllm").start()

"""The multimodal LLM through vLLM: the same answers as the embedded backend, what they cost, and what may go wrong.

One engine serves all tests but the last few of its own: it takes about a minute to start.
"""

import asyncio
import importlib.util
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import pytest_asyncio

from pipeline.config.mllm import TinyConfig, VllmConfig
from pipeline.core.context import Context, ContextRules
from pipeline.errors import ConfigError, EngineMismatch, MLLMOverloaded, MLLMTimeout, MLLMUnavailable
from pipeline.mllm.transformers.backend import TransformersMLLM
from pipeline.mllm.vllm.backend import VllmMLLM
from pipeline.mllm.vllm.supervisor import EngineGone
from pipeline.types import Answers, Segment, WatchQuery
from tests.checkpoints import context, segment, tiny
from tests.patience import until
from tests.services import require

if TYPE_CHECKING:
    from pipeline.mllm.vllm.engine import VllmEngine

pytestmark = [pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]

MAX_PROMPT_TOKENS = 8192
QUERIES = [WatchQuery(str(n), f"Is there {'more than ' * (n % 4)}{n} of {'very ' * (n % 5)}them?") for n in range(16)]
RESTART_S = 400.0
"""Longest wait for an engine that is started again, on a machine that has other things to do."""
FAR_S = 86_400.05
"""Stream seconds at which clocks of cameras have become inexact."""


@asynccontextmanager
async def started(checkpoint: Path) -> AsyncIterator[VllmMLLM]:
    require(importlib.util.find_spec("vllm") is not None, "the package vllm")
    mllm = VllmMLLM(checkpoint, VllmConfig(use="vllm", kv_cache_gib=0.25, max_prompt_tokens=MAX_PROMPT_TOKENS))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OMP_NUM_THREADS", "1")
        environment.setenv("HF_HUB_OFFLINE", "1")
        try:
            await mllm.start()
            yield mllm
        finally:
            await mllm.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mllm() -> AsyncIterator[VllmMLLM]:
    async with started(tiny()) as backend:
        yield backend


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def embedded() -> AsyncIterator[TransformersMLLM]:
    backend = TransformersMLLM(tiny(), TinyConfig(use="embedded", device="cpu"))
    await backend.start()
    yield backend
    await backend.close()


@pytest.fixture
def engine(mllm: VllmMLLM) -> "VllmEngine":
    return mllm.supervisor.now()


def mixed(mllm: VllmMLLM | TransformersMLLM, seconds: int, start_s: float = 0.0) -> list[Segment]:
    """Images and pairs of many sizes, from one cell on."""
    sizes = [(1, 1, 1), (3, 2, 2), (2, 5, 1), (1, 4, 2), (4, 4, 1), (1, 1, 2)]
    return [segment(mllm.info.grid, start_s + second, *sizes[second % len(sizes)]) for second in range(seconds)]


def scores(answers: Answers) -> list[float]:
    return [answer.score for answer in answers.answers]


async def both(mllm: VllmMLLM, embedded: TransformersMLLM, shown: Context) -> tuple[list[float], list[float]]:
    return scores(await mllm.ask(shown, QUERIES)), scores(await embedded.ask(shown, QUERIES))


async def test_the_answers_are_those_of_the_embedded_backend(
    mllm: VllmMLLM, embedded: TransformersMLLM, stream_id: str
) -> None:
    whole = context(*mixed(mllm, 9, FAR_S), stream_id=stream_id)
    seen = set()
    for count in range(1, 10):
        ours, theirs = await both(mllm, embedded, replace(whole, segments=whole.segments[:count]))
        assert ours == pytest.approx(theirs, abs=0.02)
        seen |= {score > 0.5 for score in ours}
    assert seen == {True, False}, "answers that never differ would agree with anything"


async def test_sixteen_queries_cost_one_look(mllm: VllmMLLM, stream_id: str) -> None:
    segments = [segment(mllm.info.grid, float(second), 10, 10) for second in range(5)]
    shown = context(*segments, stream_id=stream_id)
    usage = (await mllm.ask(shown, QUERIES)).usage
    assert usage.encoded_tokens == shown.tokens == 500
    assert usage.prefilled_tokens < 3 * shown.tokens, "the pictures were read once, and sixteen questions"
    assert usage.cached_tokens > 15 * shown.tokens
    again = (await mllm.ask(shown, QUERIES)).usage
    assert again.encoded_tokens == 0
    assert again.prefilled_tokens < usage.prefilled_tokens - 0.9 * shown.tokens


async def test_a_new_anchor_gives_new_times_to_videos_seen_before(
    mllm: VllmMLLM, embedded: TransformersMLLM, stream_id: str
) -> None:
    shown = Context.empty(stream_id, ContextRules(max_s=4.0, keep_s=2.0))
    for second in range(10):
        shown = shown.append([segment(mllm.info.grid, FAR_S + second, 2, 3, frames=2)])
        ours, theirs = await both(mllm, embedded, shown)
        assert ours == pytest.approx(theirs, abs=0.02)
    assert shown.epoch > 1


async def test_pictures_that_the_engine_has_lost_are_sent_again(
    mllm: VllmMLLM, engine: "VllmEngine", stream_id: str
) -> None:
    shown = context(*mixed(mllm, 4), stream_id=stream_id)
    before = scores(await mllm.ask(shown, QUERIES[:2]))
    resent = mllm.counters.resent
    await engine.llm.engine_core.reset_mm_cache_async()
    assert scores(await mllm.ask(shown, QUERIES[:2])) == pytest.approx(before, abs=1e-3)
    assert mllm.counters.resent == resent + 1, "pixels travel once: without them vLLM could not answer"


async def test_a_prefix_gone_behind_our_back_is_counted_and_read_again(
    mllm: VllmMLLM, engine: "VllmEngine", stream_id: str
) -> None:
    shown = context(*mixed(mllm, 6), stream_id=stream_id)
    before = scores(await mllm.ask(shown, QUERIES[:2]))
    evicted = mllm.counters.evicted
    assert await engine.llm.reset_prefix_cache()
    assert mllm.pending(shown) == 0
    answers = await mllm.ask(shown, QUERIES[:2])
    assert mllm.counters.evicted == evicted + 1
    assert answers.usage.encoded_tokens == shown.tokens
    assert scores(answers) == pytest.approx(before, abs=1e-3)


async def test_an_ask_that_takes_too_long_is_aborted(
    mllm: VllmMLLM, engine: "VllmEngine", stream_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = context(*mixed(mllm, 6), stream_id=stream_id)
    with monkeypatch.context() as impatient, pytest.raises(MLLMTimeout, match=r"timeout_s = 0\.001"):
        impatient.setattr(mllm, "settings", replace(mllm.settings, timeout_s=0.001))
        await mllm.ask(shown, QUERIES)
    assert engine.unfinished == 0
    assert mllm.pending(shown) == shown.tokens
    assert mllm.supervisor.doubted, "it is seen to whether the engine answers at all"
    assert len(scores(await mllm.ask(shown, QUERIES))) == len(QUERIES), "and meanwhile it is asked by others"
    await until(lambda: not mllm.supervisor.doubted, "the engine is no longer doubted")
    assert mllm.supervisor.now() is engine


async def test_an_engine_that_pauses_is_asked_on_and_not_replaced(
    mllm: VllmMLLM, engine: "VllmEngine", stream_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = context(*mixed(mllm, 5), stream_id=stream_id)
    with stopped(core()):
        with monkeypatch.context() as impatient, pytest.raises(MLLMTimeout):
            impatient.setattr(mllm, "settings", replace(mllm.settings, timeout_s=1.0))
            await mllm.ask(shown, QUERIES)
        assert engine.unfinished == 0
        asking = await under_way(mllm, engine, shown, QUERIES)
    answers = await asking
    await until(lambda: not mllm.supervisor.doubted, "the engine is no longer doubted")
    assert mllm.supervisor.now() is engine
    assert scores(await mllm.ask(shown, QUERIES)) == pytest.approx(scores(answers), abs=1e-3)


async def test_a_cancelled_ask_leaves_no_request_behind(mllm: VllmMLLM, engine: "VllmEngine", stream_id: str) -> None:
    asking = await under_way(mllm, engine, context(*mixed(mllm, 6), stream_id=stream_id), QUERIES)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert engine.unfinished == 0


async def test_more_asks_than_the_queue_holds_are_refused(
    mllm: VllmMLLM, stream_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mllm, "settings", replace(mllm.settings, max_queue=2))
    contexts = [context(*mixed(mllm, 2), stream_id=f"{stream_id} {number}") for number in range(3)]
    asked = await asyncio.gather(*(mllm.ask(one, QUERIES) for one in contexts), return_exceptions=True)
    assert [type(one) for one in asked] == [Answers, Answers, MLLMOverloaded]
    assert isinstance(asked[2], MLLMOverloaded)
    assert not asked[2].sent


async def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(mllm: VllmMLLM, stream_id: str) -> None:
    shown = context(*(segment(mllm.info.grid, float(s), 30, 30) for s in range(10)), stream_id=stream_id)
    with pytest.raises(MLLMUnavailable, match=rf"a prompt of 9\d\d\d tokens.* into {MAX_PROMPT_TOKENS}") as refusal:
        await mllm.ask(shown, QUERIES)
    assert not refusal.value.sent
    assert mllm.pending(shown) == shown.tokens


async def test_a_schema_that_cannot_be_followed_is_refused(mllm: VllmMLLM, stream_id: str) -> None:
    shown = context(*mixed(mllm, 2), stream_id=stream_id)
    with pytest.raises(ConfigError, match="nonsense"):
        await mllm.say(shown, ["What?"], schema={"type": "nonsense"})


async def test_forgetting_a_stream_while_it_asks_forgets_what_comes_of_it(
    mllm: VllmMLLM, engine: "VllmEngine", stream_id: str
) -> None:
    shown = context(*mixed(mllm, 2), stream_id=stream_id)
    asking = await under_way(mllm, engine, shown, QUERIES[:1])
    mllm.forget(stream_id)
    await asking
    assert mllm.pending(shown) == shown.tokens
    await mllm.ask(shown, QUERIES[:1])
    assert mllm.pending(shown) == 0


async def test_an_engine_that_was_killed_is_named_and_comes_back(mllm: VllmMLLM, stream_id: str) -> None:
    shown, died = context(*mixed(mllm, 3), stream_id=stream_id), mllm.counters.died
    before = scores(await mllm.ask(shown, QUERIES))
    os.kill(core().pid, signal.SIGKILL)
    with pytest.raises(MLLMUnavailable, match="has died"):
        await mllm.ask(shown, QUERIES)
    with pytest.raises(MLLMUnavailable, match="has died and is being started again") as refusal:
        await mllm.ask(shown, QUERIES)
    assert not refusal.value.sent
    assert mllm.pending(shown) == shown.tokens
    assert mllm.counters.died == died + 1
    assert scores(await asked_until_answered(mllm, shown, QUERIES)) == pytest.approx(before, abs=1e-3)


async def test_an_engine_that_hangs_is_named_and_replaced(
    mllm: VllmMLLM, stream_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, died = context(*mixed(mllm, 3), stream_id=stream_id), mllm.counters.died
    before = scores(await mllm.ask(shown, QUERIES))
    hanging = core()
    with stopped(hanging), monkeypatch.context() as impatient:
        impatient.setattr(mllm.supervisor, "hooks", replace(mllm.supervisor.hooks, patience_s=2.0))
        with monkeypatch.context() as hasty, pytest.raises(MLLMTimeout):
            hasty.setattr(mllm, "settings", replace(mllm.settings, timeout_s=2.0))
            await mllm.ask(shown, QUERIES)
        with pytest.raises(EngineGone, match="answers nobody and is being started again"):
            await mllm.ask(shown, QUERIES)
        with pytest.raises(MLLMUnavailable, match="answers nobody and is being started again") as refusal:
            await mllm.ask(shown, QUERIES)
        assert not refusal.value.sent
        assert mllm.counters.died == died + 1
        assert mllm.pending(shown) == shown.tokens
        assert scores(await asked_until_answered(mllm, shown, QUERIES)) == pytest.approx(before, abs=1e-3)
    assert core() != hanging


def core() -> psutil.Process:
    """The one process that the engine runs in, beside this one."""
    (child,) = multiprocessing.active_children()
    return psutil.Process(child.pid)


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """While the process is stopped, as one that hangs. It goes on in the end, if it is still there."""
    process.suspend()
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.resume()


async def under_way(
    mllm: VllmMLLM, engine: "VllmEngine", shown: Context, queries: Sequence[WatchQuery]
) -> asyncio.Task[Answers]:
    """An ask that has reached the engine, or has ended before it could."""
    asking = asyncio.create_task(mllm.ask(shown, queries))
    await until(lambda: (mllm.unfinished and engine.unfinished) or asking.done(), "the ask reaches the engine")
    return asking


async def asked_until_answered(mllm: VllmMLLM, shown: Context, queries: Sequence[WatchQuery]) -> Answers:
    async with asyncio.timeout(RESTART_S):
        while True:
            try:
                return await mllm.ask(shown, queries)
            except MLLMUnavailable:
                await asyncio.sleep(0.5)


async def test_another_checkpoint_answers_alike_and_leaves_no_process() -> None:
    folder = tiny("qwen2_5_vl")
    embedded = TransformersMLLM(folder, TinyConfig(use="embedded", device="cpu"))
    await embedded.start()
    before = set(processes())
    async with started(folder) as mllm:
        for count in (2, 5):
            ours, theirs = await both(mllm, embedded, context(*mixed(mllm, count, FAR_S)))
            assert ours == pytest.approx(theirs, abs=0.02)
        own = set(processes()) - before
    await embedded.close()
    assert own
    assert not psutil.wait_procs(own, timeout=10)[1]


async def test_a_family_with_a_running_state_answers_alike_or_says_what_this_cpu_lacks() -> None:
    embedded, lacking = TransformersMLLM(tiny("qwen3_5"), TinyConfig(use="embedded", device="cpu")), ""
    await embedded.start()
    try:
        async with started(tiny("qwen3_5")) as mllm:
            for count in (2, 5):
                ours, theirs = await both(mllm, embedded, context(*mixed(mllm, count, FAR_S)))
                assert ours == pytest.approx(theirs, abs=0.02)
    except EngineMismatch as error:
        lacking = str(error)
    finally:
        await embedded.close()
    assert not lacking or "vLLM has no linear attention in float32, which qwen3_5 needs" in lacking


def processes() -> list[psutil.Process]:
    """Those that this one has started, but for the one by which Python tidies up."""
    found = [one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]
    return [one for one in found if "resource_tracker" not in " ".join(one.cmdline())]


# Behind the tests above: the last one of these closes the engine.
from tests.mllm_contract import *  # noqa: E402, F403


@pytest.fixture
def tolerance() -> float:
    """Batches of other sizes are summed in another order."""
    return 1e-3

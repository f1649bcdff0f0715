"""How an engine of vLLM is kept running, shown without vLLM: one that dies, one that hangs, one that is only slow."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest

from pipeline.config.mllm import VllmConfig
from pipeline.errors import ConfigError, EngineMismatch, MLLMTimeout, MLLMUnavailable, ResadaptError
from pipeline.mllm.vllm.asking import VllmReply
from pipeline.mllm.vllm.backend import VllmMLLM
from pipeline.mllm.vllm.prompt import VllmPrompt
from pipeline.mllm.vllm.settings import SamplingOptions
from pipeline.mllm.vllm.supervisor import EngineGone, EngineHooks, EngineSupervisor, begin_in_thread
from pipeline.testing import ManualClock
from pipeline.types import Answers, WatchQuery
from tests.checkpoints import context, segment, tiny
from tests.patience import BOUND_S, until

PATIENT_S, IMPATIENT_S = 10 * BOUND_S, 0.05
"""Patience that outlasts every test of an engine that is only slow, and that ends at once for one that hangs."""


class Machine:
    """An engine that dies and hangs when told to, and answers all questions alike. It gives `left` more replies before
    it hangs by itself. What `refusals` holds is raised instead, once each: by name, in reading or in replying; `lost`
    more passes are answered by nothing but the loss of a picture."""

    on_cpu, block_tokens, cache_tokens = True, 32, 100_000

    def __init__(self) -> None:
        self.dead = self.closed = False
        self.works = asyncio.Event()
        self.works.set()
        self.left = -1
        self.waiting = 0
        self.lost = 0
        self.refusals: list[tuple[str, ResadaptError]] = []

    def _refuse(self, where: str) -> None:
        if self.refusals and self.refusals[0][0] == where:
            raise self.refusals.pop(0)[1]

    async def canary(self) -> None:
        await self.works.wait()

    async def read(self, prompt: VllmPrompt) -> VllmPrompt:
        if not self.lost:
            self._refuse("read")
        return prompt

    async def reply(
        self, read: VllmPrompt, questions: Sequence[Sequence[int]], how: SamplingOptions, heard: Callable[[], None]
    ) -> list[VllmReply]:
        if self.lost:
            self.lost -= 1
            return [VllmReply(lost=True) for _ in questions]
        self._refuse("reply")
        self.waiting += 1
        try:
            for _ in questions:
                while not self.works.is_set():
                    await self.works.wait()
                self.left -= 1
                if self.left == 0:
                    self.works.clear()
                heard()
        finally:
            self.waiting -= 1
        return [VllmReply(cached_tokens=len(read.ids)) for _ in questions]

    def close(self) -> None:
        self.closed = True


async def nothing() -> None:
    pass


def caring(
    clock: ManualClock, begin: Callable[[], Awaitable[Machine]], on_death: Callable[[], None] = lambda: None
) -> EngineSupervisor[Machine]:
    return EngineSupervisor("test", clock, EngineHooks(begin, Machine.canary, PATIENT_S, on_death, nothing))


def impatient(running: EngineSupervisor[Machine]) -> None:
    running.hooks = replace(running.hooks, patience_s=IMPATIENT_S)


async def turn(clock: ManualClock, seconds: float) -> None:
    """Advance, once somebody sleeps, and let what wakes up run."""
    await until(lambda: clock.sleepers, "somebody sleeps")
    clock.advance(seconds)
    for _ in range(5):
        await asyncio.sleep(0)


async def settled(running: EngineSupervisor[Machine]) -> None:
    await until(lambda: not running.doubted, "no engine is doubted")


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
        with pytest.raises(MLLMUnavailable, match="has died and is being started again") as refusal:
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


class Kept(NamedTuple):
    """A machine that is kept running, and all that were made for it. It is 10 s."""

    clock: ManualClock
    running: EngineSupervisor[Machine]
    made: list[Machine]


@pytest.fixture
async def kept() -> AsyncIterator[Kept]:
    clock, made = ManualClock(), list[Machine]()

    async def begin() -> Machine:
        made.append(Machine())
        return made[-1]

    running = caring(clock, begin)
    await running.start()
    clock.advance(10.0)
    yield Kept(clock, running, made)
    await running.close()


async def test_closing_ends_the_restarting_and_closes_what_was_lost(kept: Kept) -> None:
    clock, running, made = kept
    running.died(made[0])
    await running.close()
    clock.advance(100.0)
    await asyncio.sleep(0)
    assert len(made) == 1
    assert made[0].closed


async def test_an_engine_in_doubt_is_asked_on_and_replaced_if_it_answers_nobody(kept: Kept) -> None:
    clock, running, made = kept
    made[0].works.clear()
    impatient(running)
    for _ in range(2):
        running.doubt(made[0], asked_s=5.0)
        assert running.now() is made[0], "one ask that came too late is no reason to refuse all others"
    await settled(running)
    with pytest.raises(MLLMUnavailable, match="answers nobody and is being started again") as refusal:
        running.now()
    assert not refusal.value.sent
    await turn(clock, 1.0)
    await until(lambda: len(made) == 2, "another engine is started")
    assert made[0].closed
    assert running.now() is made[1]
    running.doubt(made[0], asked_s=5.0)
    running.answered(made[0])
    assert not running.doubted, "what an engine long replaced did not answer is no news"


async def test_an_engine_that_is_only_slow_is_kept(kept: Kept) -> None:
    _, running, made = kept
    made[0].works.clear()
    running.doubt(made[0], asked_s=5.0)
    await asyncio.sleep(0)
    made[0].works.set()
    await settled(running)
    assert running.now() is made[0]


async def test_an_answer_to_anybody_ends_the_doubt_and_prevents_it(kept: Kept) -> None:
    clock, running, made = kept
    made[0].works.clear()
    running.doubt(made[0], asked_s=5.0)
    running.answered(made[0])
    await settled(running)
    clock.advance(1.0)
    running.doubt(made[0], asked_s=9.0)
    assert not running.doubted, "it has answered since"
    assert running.now() is made[0]
    running.doubt(made[0], asked_s=10.5)
    assert running.doubted, "it has not"


async def test_a_canary_that_fails_leaves_the_proof_to_the_others(kept: Kept) -> None:
    _, running, made = kept
    failed = asyncio.Event()

    async def canary(machine: Machine) -> None:
        failed.set()
        raise MLLMUnavailable("vLLM has lost pictures twice")

    running.hooks = replace(running.hooks, canary=canary)
    running.doubt(made[0], asked_s=5.0)
    await failed.wait()
    assert running.now() is made[0]
    assert running.doubted
    running.answered(made[0])
    await settled(running)
    assert running.now() is made[0]


async def test_an_engine_that_dies_in_doubt_is_replaced_without_waiting_for_it(kept: Kept) -> None:
    clock, running, made = kept

    async def canary(machine: Machine) -> None:
        raise EngineGone("dead")

    running.hooks = replace(running.hooks, canary=canary)
    running.doubt(made[0], asked_s=5.0)
    await settled(running)
    with pytest.raises(MLLMUnavailable, match="has died and is being started again"):
        running.now()
    await turn(clock, 1.0)
    assert running.now() is made[1]
    made[1].works.clear()
    running.doubt(made[1], asked_s=12.0)
    assert running.doubted, "the next engine can be doubted"


async def test_closing_ends_the_doubting(kept: Kept) -> None:
    _, running, made = kept
    made[0].works.clear()
    impatient(running)
    running.doubt(made[0], asked_s=5.0)
    await running.close()
    assert made[0].closed
    await asyncio.sleep(2 * IMPATIENT_S)
    assert len(made) == 1


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


QUERIES = [WatchQuery("gate", "Is the gate open?"), WatchQuery("boat", "Is there a boat at the dock?")]


class Site:
    """A backend on machines instead of vLLM, and the machines that were made for it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.clock, self.made = ManualClock(), list[Machine]()
        self.mllm = VllmMLLM(tiny(), VllmConfig(use="vllm", timeout_s=PATIENT_S), self.clock)
        self.shown = context(segment(self.mllm.info.grid, 0.0))
        patch.setattr(self.mllm, "open_engine", self.open)

    def open(self) -> Machine:
        self.made.append(Machine())
        return self.made[-1]

    @property
    def machine(self) -> Machine:
        return self.made[-1]

    async def ask_too_late(self) -> None:
        """An ask that the machine, which hangs, does not answer in time: it is doubted from then on."""
        self.machine.works.clear()
        self.mllm.settings = replace(self.mllm.settings, timeout_s=IMPATIENT_S)
        with pytest.raises(MLLMTimeout, match=r"timeout_s = 0\.05"):
            await self.mllm.ask(self.shown, QUERIES)
        self.mllm.settings = replace(self.mllm.settings, timeout_s=PATIENT_S)
        assert self.mllm.supervisor.doubted

    async def asking(self) -> asyncio.Task[Answers]:
        """An ask that has reached the machine."""
        before = self.machine.waiting
        asking = asyncio.create_task(self.mllm.ask(self.shown, QUERIES))
        await until(lambda: self.machine.waiting > before or asking.done(), "the ask reaches the engine")
        assert not asking.done()
        return asking


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    site = Site(monkeypatch)
    await site.mllm.start()
    yield site
    await site.mllm.close()


async def test_one_ask_that_came_too_late_makes_no_other_be_refused(site: Site) -> None:
    await site.ask_too_late()
    asking = await site.asking()
    site.machine.works.set()
    assert len((await asking).answers) == len(QUERIES)
    await settled(site.mllm.supervisor)
    assert len((await site.mllm.ask(site.shown, QUERIES)).answers) == len(QUERIES)
    assert (site.mllm.counters.timed_out, site.mllm.counters.died, len(site.made)) == (1, 0, 1)


async def test_one_question_answered_is_proof_enough_though_no_ask_is_complete(site: Site) -> None:
    await site.ask_too_late()
    asking = await site.asking()
    site.machine.left = 1
    site.machine.works.set()
    await settled(site.mllm.supervisor)
    assert not asking.done()
    assert site.mllm.counters.died == 0
    site.machine.works.set()
    await asking


async def test_what_is_asked_of_an_engine_that_hangs_ends_by_name_and_the_next_one_answers(site: Site) -> None:
    impatient(site.mllm.supervisor)
    await site.ask_too_late()
    with pytest.raises(EngineGone, match="the engine of vllm answers nobody and is being started again") as ended:
        await site.mllm.ask(site.shown, QUERIES)
    assert ended.value.sent
    with pytest.raises(MLLMUnavailable, match="answers nobody and is being started again") as refusal:
        await site.mllm.ask(site.shown, QUERIES)
    assert not refusal.value.sent
    assert site.mllm.pending(site.shown) == site.shown.tokens
    await turn(site.clock, 1.0)
    await until(lambda: not site.mllm.supervisor.restarting, "the engine is started again")
    assert site.made[0].closed
    assert len((await site.mllm.ask(site.shown, QUERIES)).answers) == len(QUERIES)
    assert (site.mllm.counters.timed_out, site.mllm.counters.died, len(site.made)) == (1, 1, 2)


async def test_what_is_asked_when_the_backend_is_closed_ends_by_name(site: Site) -> None:
    site.machine.works.clear()
    asking = await site.asking()
    await site.mllm.close()
    with pytest.raises(MLLMUnavailable, match="closed before it could answer"):
        await asking
    assert site.machine.closed
    assert site.mllm.counters.died == 0


MISREAD, REFUSED = EngineMismatch("vLLM reads a prompt as 7 tokens"), ConfigError("vLLM refuses it: nonsense")


@pytest.mark.parametrize(
    ("where", "refusal", "lost", "asked", "sent"),
    [
        ("read", MISREAD, 0, QUERIES, False),
        ("read", MISREAD, 1, QUERIES, True),  # it is read again because pictures were lost of what was sent
        ("reply", REFUSED, 0, QUERIES[:1], False),
        ("reply", REFUSED, 0, QUERIES, True),  # the other question may have been sent
        ("reply", REFUSED, 1, QUERIES[:1], True),
    ],
)
async def test_what_the_engine_does_not_take_of_an_ask_costs_this_ask_alone(
    site: Site, where: str, refusal: ResadaptError, lost: int, asked: Sequence[WatchQuery], sent: bool
) -> None:
    site.machine.refusals, site.machine.lost = [(where, refusal)], lost
    with pytest.raises(MLLMUnavailable) as skipped:
        await site.mllm.ask(site.shown, asked)
    assert (str(skipped.value), skipped.value.sent) == (str(refusal), sent)
    assert skipped.value.__cause__ is refusal
    assert len((await site.mllm.ask(site.shown, asked)).answers) == len(asked)
    assert len(site.made) == 1


async def test_a_schema_that_cannot_be_followed_is_told_to_whoever_gave_it(site: Site) -> None:
    site.machine.refusals = [("reply", REFUSED)] * 2
    with pytest.raises(ConfigError, match="nonsense"):
        await site.mllm.say(site.shown, ["What?"], schema={"type": "nonsense"})
    with pytest.raises(MLLMUnavailable, match="nonsense"):
        await site.mllm.say(site.shown, ["What?"])


@pytest.mark.parametrize(("where", "refusal"), [("read", MISREAD), ("reply", REFUSED)])
async def test_an_engine_that_does_not_take_the_proof_does_not_start(
    monkeypatch: pytest.MonkeyPatch, where: str, refusal: ResadaptError
) -> None:
    site, machine = Site(monkeypatch), Machine()
    machine.refusals = [(where, refusal)]
    monkeypatch.setattr(site.mllm, "open_engine", lambda: machine)
    with pytest.raises(EngineMismatch, match=str(refusal)):
        await site.mllm.start()
    assert machine.closed
    await site.mllm.close()

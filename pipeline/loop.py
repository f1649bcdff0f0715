"""The main loop: hops of frames in, decisions out.

    source -> hop -> grant -> allocation -> context -> answers -> decision

What may go wrong here, and what happens then:

    AllocationFailed        one fixed scale inside the same grant; counted, marked on the event
    MLLMUnavailable         this hop's questions are skipped; what was sent stays charged; counted by reason
    SourceUnavailable       passed on: the service reattaches
    StoreUnavailable        never seen here: the outbox waits and commits the same decision again
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from allocator_engine.fit import Allocation, FitRules
from pipeline.allocators.base import Allocator
from pipeline.allocators.fixed import fixed_scale
from pipeline.budget import Ledger
from pipeline.clock import Clock
from pipeline.context import Context
from pipeline.decision import Decision
from pipeline.errors import AllocationFailed, MLLMUnavailable
from pipeline.hops import HopRules, hops
from pipeline.judge import judge, standing
from pipeline.metrics import Metrics
from pipeline.mllm.base import MLLM
from pipeline.sources.base import Source
from pipeline.state import Counts, StreamState
from pipeline.types import Answers, Event, Hop, Json, WatchQuery
from pipeline.understanding import NEVER_KNOWN, Understanding

log = structlog.get_logger()


class Outbox(Protocol):
    """Where decisions become durable."""

    async def commit(self, decision: Decision) -> None:
        """Return when the decision's state and events are durable together. Waits while the store cannot take them."""
        ...


class Watches(Protocol):
    """The watches that stand now."""

    def on(self, stream_id: str) -> Sequence[WatchQuery]:
        """The queries on a stream, in the order they are asked."""
        ...


@dataclass(slots=True)
class StreamRun:
    """What one stream carries from hop to hop; the loop is its only writer."""

    stream_id: str
    hop_rules: HopRules
    context: Context
    state: StreamState = StreamState()
    counts: Counts = Counts()
    decided_s: float = 0.0
    understanding: Understanding = Understanding()


@dataclass(frozen=True, slots=True)
class House:
    """What all streams of the process share."""

    clock: Clock
    watches: Watches
    budget: Ledger
    allocator: Allocator
    fit_rules: FitRules
    mllm: MLLM
    outbox: Outbox
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of asking: the answers, or why there are none; and the vision tokens that are gone with it."""

    answers: Answers
    spent: int
    skipped: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one hop came to."""

    hop: Hop
    grant: int
    allocation: Allocation
    fell_back: bool
    reply: Reply


async def watch_stream(run: StreamRun, source: Source, house: House) -> None:
    """Watch one stream until its source ends. One hop in flight."""
    async with aclosing(hops(source, run.stream_id, run.hop_rules, run.decided_s)) as cut:
        async for hop in cut:
            began_s = house.clock.monotonic_s()
            queries = house.watches.on(hop.stream_id)
            grant = grant_tokens(run.context, hop, queries, house)
            allocation, fell_back = await allocate(hop, queries, grant, house)
            run.context = run.context.append(await asyncio.to_thread(hop.render, allocation))
            run.context, paid = pay(run.context, hop, queries, allocation, house)
            reply = await ask(run.context, queries, paid, house.mllm)
            house.budget.settle(hop.stream_id, reply.spent)
            outcome = Outcome(hop, grant, allocation, fell_back, reply)
            decision, state, counts = decide(run, queries, outcome, house)
            await house.outbox.commit(decision)
            run.state, run.counts, run.decided_s = state, counts, hop.end_s
            doubt(run, queries, reply.answers)
            measure(run, outcome, decision.events, source, house.metrics, house.clock.monotonic_s() - began_s)


def grant_tokens(context: Context, hop: Hop, queries: Sequence[WatchQuery], house: House) -> int:
    """Vision tokens for the hop's frames; none when nobody watches. What the next restart of the context will send
    again, and what an unanswered hop left unsent, is kept back."""
    if not queries:
        return 0
    owed, resent = context.owed(hop.end_s)
    return house.budget.grant(hop.stream_id, hop.end_s, owed + house.mllm.pending(context), resent)


async def allocate(hop: Hop, queries: Sequence[WatchQuery], grant: int, house: House) -> tuple[Allocation, bool]:
    """The allocator's spending, or one fixed scale inside the same grant (and True) when it fails."""
    if not grant:
        return Allocation(), False
    try:
        allocation = await house.allocator.allocate(hop, queries, grant)
        if allocation.tokens > grant:
            raise AllocationFailed(f"{house.allocator.name} spent {allocation.tokens} tokens of a grant of {grant}")
        return allocation, False
    except AllocationFailed as error:
        log.warning("allocation_failed", stream=hop.stream_id, hop_start_s=hop.start_s, reason=str(error))
        return fixed_scale(hop, grant, house.fit_rules), True


def pay(
    context: Context, hop: Hop, queries: Sequence[WatchQuery], allocation: Allocation, house: House
) -> tuple[Context, int]:
    """Charge what has to be sent besides the new frames: a restarted context, one that the MLLM has lost, or frames of
    a hop that could not be asked about.

    What the budget cannot pay for is not sent: of the context the oldest segments go first. Returns the context that
    may be sent and the vision tokens paid for; nothing is sent when nobody asks.
    """
    if not queries:
        return context, 0
    unsent = house.mllm.pending(context)
    again = unsent - allocation.tokens
    if again <= 0:
        return context, allocation.tokens
    paid = allocation.tokens + house.budget.take(hop.stream_id, hop.end_s, again)
    if paid >= unsent:
        return context, unsent
    context = context.afford(unsent, paid)
    return context, house.mllm.pending(context)


async def ask(context: Context, queries: Sequence[WatchQuery], paid: int, mllm: MLLM) -> Reply:
    """Ask for at most what was paid. Unless it is certain that nothing was sent, all of that is spent."""
    if not queries or not context.segments:
        return Reply(Answers(), 0, "no_watches" if not queries else "empty_context")
    try:
        return Reply(await mllm.ask(context, queries, paid), paid)
    except MLLMUnavailable as error:
        log.warning("questions_skipped", stream=context.stream_id, error=type(error).__name__, reason=str(error))
        return Reply(Answers(), paid if error.sent else 0, type(error).__name__)


def decide(
    run: StreamRun, queries: Sequence[WatchQuery], outcome: Outcome, house: House
) -> tuple[Decision, StreamState, Counts]:
    """Judge the answers. The decision holds the state after it, which counts once the decision is durable."""
    hop = outcome.hop
    evidence: dict[str, Json] = {
        "allocator": house.allocator.name,
        "allocation_fell_back": outcome.fell_back,
        "granted_tokens": outcome.grant,
        "allocated_tokens": outcome.allocation.tokens,
        "context_tokens": run.context.tokens,
    }
    watches, events = judge(
        run.state.lineage, run.state.watches, queries, outcome.reply.answers.answers, hop, house.clock.now(), evidence
    )
    state = replace(run.state, watches=watches)
    verdicts = [answer.verdict for answer in outcome.reply.answers.answers]
    counts = run.counts.add(
        hops=1,
        frames=len(hop.frames),
        lost=hop.lost,
        kept=sum(len(segment.frames) for segment in outcome.allocation.segments),
        granted=outcome.grant,
        spent=outcome.reply.spent,
        answers=len(verdicts),
        unknown=verdicts.count("unknown"),
        skipped=int(outcome.reply.skipped is not None),
        fallbacks=int(outcome.fell_back),
        events=len(events),
    )
    return Decision(hop.stream_id, state.to_json(), events, hop.end_s), state, counts


def doubt(run: StreamRun, queries: Sequence[WatchQuery], answers: Answers) -> None:
    """Say, once for each, which watches the MLLM has answered with nothing but `unknown`."""
    run.understanding, strange = run.understanding.hear(queries, answers.answers)
    for query in strange:
        log.warning(
            "watch_not_understood",
            stream=run.stream_id,
            watch=query.id,
            question=query.question,
            reason=f"its first {NEVER_KNOWN} answers were all unknown; word it another way, or ask another MLLM",
        )


def measure(
    run: StreamRun, outcome: Outcome, events: Sequence[Event], source: Source, metrics: Metrics, seconds: float
) -> None:
    """Write one hop's numbers down."""
    stream, usage = run.stream_id, outcome.reply.answers.usage
    metrics.hops.labels(stream).inc()
    metrics.hop_seconds.labels(stream).observe(seconds)
    metrics.frames.labels(stream).inc(len(outcome.hop.frames))
    metrics.frames_lost.labels(stream).inc(outcome.hop.lost)
    metrics.tokens_granted.labels(stream).inc(outcome.grant)
    metrics.tokens_allocated.labels(stream).inc(outcome.allocation.tokens)
    metrics.tokens_spent.labels(stream).inc(outcome.reply.spent)
    metrics.tokens_prefilled.labels(stream).inc(usage.prefilled_tokens)
    metrics.tokens_cached.labels(stream).inc(usage.cached_tokens)
    metrics.context_tokens.labels(stream).set(run.context.tokens)
    metrics.context_epoch.labels(stream).set(run.context.epoch)
    metrics.frames_decoded.labels(stream).set(source.counts.decoded)
    metrics.frames_corrupt.labels(stream).set(source.counts.corrupt)
    metrics.decode_errors.labels(stream).set(source.counts.decode_errors)
    metrics.discontinuities.labels(stream).set(source.counts.discontinuities)
    metrics.hwaccel_fallbacks.labels(stream).set(source.counts.hwaccel_fallbacks)
    if outcome.fell_back:
        metrics.fallbacks.labels(stream).inc()
    if outcome.reply.skipped:
        metrics.skipped.labels(stream, outcome.reply.skipped).inc()
    else:
        metrics.mllm_seconds.observe(usage.seconds)
    for event in events:
        metrics.events.labels(event.type).inc()
    for answer in outcome.reply.answers.answers:
        metrics.answers.labels(stream, answer.verdict).inc()
    for watch_id, is_open in standing(run.state.watches).items():
        metrics.watch_open.labels(stream, watch_id).set(is_open)

"""The main loop: hops of frames in, decisions out.

    source -> hop -> (crop) -> grant -> allocation -> context -> answers -> decision

What may go wrong here, and what happens then:

    AllocationFailed        one fixed scale inside the same grant; counted, marked on the event
    MLLMUnavailable         this hop's questions are skipped; what was sent stays charged; counted by reason.
                            MLLMOverloaded and MLLMTimeout, as frames lost for lateness, lead up the overload ladder
    SourceUnavailable       passed on: the service reattaches
    StoreUnavailable        never seen here: the outbox waits and commits the same decision again
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

import structlog

from allocator_engine.encode import native_tokens
from allocator_engine.fit import Allocation, FitRules
from pipeline.allocators.base import Allocator
from pipeline.allocators.fixed import fixed_scale
from pipeline.clock import Clock
from pipeline.core.budget import Ledger
from pipeline.core.context import Context, Room
from pipeline.core.cropping import crop_of
from pipeline.core.describing import DESCRIBE_S, MOST_TOKENS, SCHEMA, described, question_of, sentence_in, with_texts
from pipeline.core.health import judge_health
from pipeline.core.hops import hops
from pipeline.core.judge import judge
from pipeline.core.ladder import SPARE, Ladder
from pipeline.core.looks import PictureLook, look_at
from pipeline.core.outcome import Decision, HopRecord, HopReply, Outcome, SeenByModel
from pipeline.core.questions import distinct, doubtful, due, spread
from pipeline.core.relook import closer
from pipeline.core.state import Counts, StreamRun, StreamState
from pipeline.core.watches import NEVER_KNOWN, mark
from pipeline.errors import AllocationFailed, ConfigError, MLLMOverloaded, MLLMTimeout, MLLMUnavailable
from pipeline.logs import Seldom
from pipeline.metrics import Metrics
from pipeline.mllm.base import MLLM
from pipeline.mllm.packing import packed
from pipeline.sources.base import Source
from pipeline.sources.cropping import cropped
from pipeline.types import Answers, Event, Hop, Json, WatchQuery, render

log = structlog.get_logger()

_OVERLOADED = {MLLMOverloaded.__name__, MLLMTimeout.__name__}


class Committer(Protocol):
    """Makes decisions durable."""

    async def commit(self, decision: Decision) -> None:
        """Return when the decision's state and events are durable together. Waits while the store cannot take them."""
        ...


class Watches(Protocol):
    """The watches that stand now."""

    def on(self, stream_id: str) -> Sequence[WatchQuery]:
        """The queries on a stream, in the order they are asked."""
        ...


class Tracing(Protocol):
    """Traces of some of the hops."""

    def begin(self, hop: Hop) -> Hop:
        """The hop to go on with; one that is traced notes how it is rendered."""
        ...


Observe = Callable[[Outcome, Sequence[Event]], None]
"""Called after each hop is durable, with its outcome and its events. It must neither block nor raise."""


def unobserved(_outcome: Outcome, _events: Sequence[Event]) -> None:
    """Nobody observes the hops."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """The parts that all streams of a process share."""

    clock: Clock
    watches: Watches
    budget: Ledger
    allocator: Allocator
    fit_rules: FitRules
    mllm: MLLM
    outbox: Committer
    metrics: Metrics
    observe: Observe = unobserved
    tracing: Tracing | None = None
    seldom: Seldom = field(default_factory=Seldom)

    def warn(self, trouble: str, stream_id: str, error: Exception, **more: Json) -> None:
        """Log a trouble that may last: one line a minute of each kind for all streams, and how often it was met."""
        kind = type(error).__name__
        if times := self.seldom.times(f"{trouble} {kind}", self.clock.monotonic_s()):
            log.warning(trouble, stream=stream_id, error=kind, reason=str(error), times=times, **more)


async def watch_stream(run: StreamRun, source: Source, runtime: Runtime) -> None:
    """Watch one stream until its source ends. One hop in flight."""
    async with aclosing(hops(source, run.stream_id, run.hop_rules, run.decided_s, run)) as cut:
        async for complete in cut:
            hop = runtime.tracing.begin(complete) if runtime.tracing else complete
            await watch_hop(run, hop, source, runtime)
            del complete, hop  # its pictures need not stay until the next hop is there


async def watch_hop(run: StreamRun, hop: Hop, source: Source, runtime: Runtime) -> None:
    """Allocate a hop, ask about it, decide, and make that durable."""
    began_s, epoch = runtime.clock.monotonic_s(), run.context.epoch
    queries = runtime.watches.on(hop.stream_id)
    run.warming = run.warming.join(queries, hop)
    shown = await show(run, hop, queries, runtime)
    grant = grant_tokens(run, shown, queries, runtime)
    allocation, fell_back = await allocate(shown, queries, grant, runtime)
    allocation = newest(allocation, runtime.mllm.room(run.context))
    runtime.budget.keep(hop.stream_id, allocation.tokens)
    run.ring = run.ring.push(shown, allocation)
    grown = await grow(run.context, shown, allocation, runtime.mllm)
    asked = due(queries, hop, run.ladder)
    run.context, paid = pay(grown, hop, asked, allocation, runtime)
    reply = await ask(run, asked, paid, runtime)
    reply = await re_ask(run, hop, asked, reply, runtime)
    runtime.budget.settle(hop.stream_id, reply.spent)
    seen = SeenByModel(run.context, tuple(queries))
    if run.context.rules.packed:
        run.context = await asyncio.to_thread(packed, run.context)
    restarted = grown.restarted_since(epoch) or run.context.restarted_since(epoch)
    seconds = runtime.clock.monotonic_s() - began_s
    native = native_tokens([frame.size for frame in shown.frames], runtime.fit_rules)
    outcome = Outcome(hop, shown, grant, allocation, fell_back, reply, seconds, restarted, native, seen, run.crop)
    run.ladder, stepped = climb(run, outcome, source)
    look = await examine(run, hop)
    decision, state, counts = decide(run, queries, outcome, stepped, look, runtime)
    decision = await describe(run, queries, decision, runtime)
    await runtime.outbox.commit(decision)
    run.state, run.counts, run.decided_s = state, counts, hop.end_s
    run.remember(reply.answers.answers)
    doubt(run, queries, reply.answers)
    runtime.metrics.hop(outcome, run, source.counts, decision.events, runtime.clock.monotonic_s() - began_s)
    runtime.observe(outcome, decision.events)


async def show(run: StreamRun, hop: Hop, queries: Sequence[WatchQuery], runtime: Runtime) -> Hop:
    """The hop as the MLLM is to be shown it: the part of its pictures that its watches are about, while nobody watches
    the same as before. The context, the ring and the allocator's memory begin anew where they are of another part."""
    crop = crop_of(queries) if queries else run.crop
    if crop != run.crop:
        run.crop, run.context, run.ring = crop, run.context.cleared("crop"), run.ring.cleared()
        runtime.allocator.forget(hop.stream_id)
    return hop if crop is None else await asyncio.to_thread(cropped, hop, crop)


def grant_tokens(run: StreamRun, hop: Hop, queries: Sequence[WatchQuery], runtime: Runtime) -> int:
    """Vision tokens for the hop's frames; none when nobody watches, no more than the MLLM has room for, and of what was
    saved up no more than a few native hops. What the next restart of the context will send again, what an unanswered
    hop left unsent, and the reserve for a second look are kept back."""
    if not queries:
        return 0
    room = runtime.mllm.room(run.context)
    owed, resent = run.context.owed(hop.end_s, room)
    owed += runtime.mllm.pending(run.context)
    full_hop = native_tokens([hop.frames[-1].size] * run.hop_rules.slots, runtime.fit_rules)
    native = native_tokens([frame.size for frame in hop.frames], runtime.fit_rules)
    runtime.budget.resize(hop.stream_id, round(run.burst_hops * full_hop), native)
    granted = runtime.budget.grant(hop.stream_id, hop.end_s, owed, resent, run.ring.tokens)
    if run.ladder.saves:
        granted = run.ladder.grant(granted, native)
    return min(granted, room.tokens)


async def allocate(hop: Hop, queries: Sequence[WatchQuery], grant: int, runtime: Runtime) -> tuple[Allocation, bool]:
    """The allocator's spending, or one fixed scale inside the same grant (and True) when it fails."""
    if not grant:
        return Allocation(), False
    began_s = runtime.clock.monotonic_s()
    try:
        allocation = await runtime.allocator.allocate(hop, queries, grant)
        if allocation.tokens > grant:
            raise AllocationFailed(f"{runtime.allocator.name} spent {allocation.tokens} tokens of a grant of {grant}")
        return allocation, False
    except AllocationFailed as error:
        runtime.warn("allocation_failed", hop.stream_id, error, hop_start_s=hop.start_s)
        return fixed_scale(hop, grant, runtime.fit_rules), True
    finally:
        runtime.metrics.allocation_seconds.observe(runtime.clock.monotonic_s() - began_s)


def newest(allocation: Allocation, room: Room) -> Allocation:
    """The allocation without its oldest segments, where the MLLM takes fewer in one prompt than a hop has."""
    return replace(allocation, segments=allocation.segments[-room.segments :])


async def grow(context: Context, hop: Hop, allocation: Allocation, mllm: MLLM) -> Context:
    """The context with the hop's frames at their allocated sizes, re-anchored where its rules or the MLLM's room
    want it."""
    return context.append(await asyncio.to_thread(hop.render, allocation), mllm.room(context))


def pay(
    context: Context, hop: Hop, queries: Sequence[WatchQuery], allocation: Allocation, runtime: Runtime
) -> tuple[Context, int]:
    """Charge what has to be sent besides the new frames: a restarted context, one that the MLLM has lost, or frames of
    a hop that could not be asked about.

    What the budget cannot pay for is not sent: of the context the oldest segments go first. Returns the context that
    may be sent and the vision tokens paid for; nothing is sent when nobody asks.
    """
    if not queries:
        return context, 0
    unsent = runtime.mllm.pending(context)
    again = unsent - allocation.tokens
    if again <= 0:
        return context, allocation.tokens
    paid = allocation.tokens + runtime.budget.take(hop.stream_id, hop.end_s, again)
    if paid >= unsent:
        return context, unsent
    context = context.afford(unsent, paid)
    return context, runtime.mllm.pending(context)


async def ask(run: StreamRun, queries: Sequence[WatchQuery], paid: int, runtime: Runtime) -> HopReply:
    """Ask for at most what was paid, each question once. Unless it is certain that nothing was sent, all is spent."""
    context = run.context
    if not queries or not context.segments:
        return HopReply(Answers(), 0, "nothing_due" if not queries else "empty_context")
    once = distinct(queries)
    try:
        said = await runtime.mllm.ask(context, once, paid)
        answers = mark(spread(queries, once, said.answers), run.warming.unsettled(queries, context))
        return HopReply(Answers(answers, said.usage), paid)
    except MLLMUnavailable as error:
        runtime.warn("questions_skipped", context.stream_id, error)
        return HopReply(Answers(), paid if error.sent else 0, type(error).__name__)


async def re_ask(
    run: StreamRun, hop: Hop, queries: Sequence[WatchQuery], reply: HopReply, runtime: Runtime
) -> HopReply:
    """Ask the watches whose answer is between their thresholds once more, with the newest frames of the ring, and
    earlier ones that matter, shown larger, if the reserve can pay for that. Whatever fails leaves the first answers."""
    unsure = doubtful(queries, reply.answers.answers) if run.ring.tokens and not reply.skipped else ()
    if not unsure:
        return reply
    tokens = runtime.budget.take(hop.stream_id, hop.end_s, run.ring.tokens)
    seen = run.ring.since(run.context.anchor_s)
    allocation = closer(seen, tokens, runtime.fit_rules)
    if not allocation.segments:
        return reply
    aside = await asyncio.to_thread(render, hop.stream_id, seen.frames, allocation)
    once = distinct(unsure)
    try:
        said = await runtime.mllm.ask(run.context, once, allocation.tokens, aside)
    except MLLMUnavailable as error:
        runtime.warn("second_look_failed", hop.stream_id, error)
        return replace(reply, spent=reply.spent + (allocation.tokens if error.sent else 0))
    second = {one.watch_id: one for one in spread(unsure, once, said.answers)}
    merged = tuple(
        replace(second[one.watch_id], relooked=True, warming=one.warming) if one.watch_id in second else one
        for one in reply.answers.answers
    )
    answers = Answers(merged, reply.answers.usage + said.usage)
    spent = reply.spent + allocation.tokens
    return replace(reply, answers=answers, spent=spent, relooked=len(unsure), aside=tuple(aside))


def climb(run: StreamRun, outcome: Outcome, source: Source) -> tuple[Ladder, str | None]:
    """The overload ladder after this hop, and the type of the event to send if it stepped up or down."""
    hop = outcome.hop
    pressed = hop.lost > 0 or outcome.reply.skipped in _OVERLOADED
    spare = not source.live or outcome.seconds < SPARE * (hop.end_s - hop.start_s)
    ladder = run.ladder.update(pressed, spare)
    if ladder.step == run.ladder.step:
        return ladder, None
    return ladder, "stream.degraded" if ladder.step > run.ladder.step else "stream.restored"


async def examine(run: StreamRun, hop: Hop) -> PictureLook | None:
    """A look at the hop's newest picture, now and then."""
    if run.checkup is None or not run.checkup.is_due(run.state.health, hop.end_s):
        return None
    return await asyncio.to_thread(look_at, hop.frames[-1], run.checkup.masks)


def check_up(
    run: StreamRun,
    state: StreamState,
    queries: Sequence[WatchQuery],
    outcome: Outcome,
    look: PictureLook | None,
    now: datetime,
) -> tuple[StreamState, tuple[Event, ...]]:
    """Judge the stream's health. Returns the state with it and the events of what has changed."""
    if run.checkup is None:
        return state, ()
    hop, answers = outcome.hop, outcome.reply.answers.answers
    span_s = hop.start_s, hop.end_s
    health, findings = judge_health(state.health, look, queries, answers, run.checkup, span_s)
    for one in findings:
        log.warning(one.kind, stream=hop.stream_id, watch=one.watch_id, **one.data)
    return replace(state, health=health).found(hop.stream_id, findings, now, hop.end_s)


def decide(
    run: StreamRun,
    queries: Sequence[WatchQuery],
    outcome: Outcome,
    stepped: str | None,
    look: PictureLook | None,
    runtime: Runtime,
) -> tuple[Decision, StreamState, Counts]:
    """Judge the answers. The decision holds the state after it, which counts once the decision is durable."""
    hop, reply = outcome.hop, outcome.reply
    evidence: dict[str, Json] = {
        "allocator": runtime.allocator.name,
        "allocation_fell_back": outcome.fell_back,
        "granted_tokens": outcome.grant,
        "allocated_tokens": outcome.allocation.tokens,
        "context_tokens": run.context.tokens,
    }
    answers = reply.answers.answers
    known = run.state.meeting(queries)
    watches, events = judge(run.state.lineage, known, queries, answers, hop, runtime.clock.now(), evidence)
    state = run.state.keeping(watches, queries)
    if stepped:
        data: dict[str, Json] = {"step": run.ladder.step, "name": run.ladder.name, "stream_s": hop.end_s}
        state, event = state.stream_event(hop.stream_id, stepped, runtime.clock.now(), data)
        events = (*events, event)
        log.warning(stepped, stream=hop.stream_id, step=run.ladder.step, name=run.ladder.name)
    state, ails = check_up(run, state, queries, outcome, look, runtime.clock.now())
    events = (*events, *ails)
    counts = run.counts.add(
        hops=1,
        frames=len(hop.frames),
        lost=hop.lost,
        kept=sum(len(segment.frames) for segment in outcome.allocation.segments),
        native=outcome.native,
        allocated=outcome.allocation.tokens,
        granted=outcome.grant,
        spent=reply.spent,
        encoded=reply.answers.usage.encoded_tokens,
        prefilled=reply.answers.usage.prefilled_tokens,
        cached=reply.answers.usage.cached_tokens,
        answers=len(answers),
        unknown=sum(answer.verdict == "unknown" for answer in answers),
        relooked=reply.relooked,
        skipped=int(reply.skipped is not None),
        fallbacks=int(outcome.fell_back),
        events=len(events),
    )
    record = HopRecord.of(outcome, run.ladder.step)
    return Decision(hop.stream_id, state.to_json(), events, hop.end_s, record), state, counts


async def describe(run: StreamRun, queries: Sequence[WatchQuery], decision: Decision, runtime: Runtime) -> Decision:
    """The decision, its events described by the MLLM where their watches want it, in the time that there is for that.
    What was decided never depends on it: what cannot be had is left out and counted."""
    wanted = described(queries, decision.events)
    if not wanted:
        return decision
    questions = [question_of(query) for query in wanted]
    try:
        async with asyncio.timeout(DESCRIBE_S):
            try:
                said = await runtime.mllm.say(run.context, questions, MOST_TOKENS, SCHEMA)
            except ConfigError:  # it cannot be held to a form
                said = await runtime.mllm.say(run.context, questions, MOST_TOKENS)
    except (MLLMUnavailable, TimeoutError) as error:
        runtime.metrics.descriptions_missing.labels(run.stream_id).inc(len(wanted))
        runtime.warn("events_not_described", run.stream_id, error)
        return decision
    found = {query.id: sentence_in(text) for query, text in zip(wanted, said, strict=True)}
    return replace(decision, events=with_texts(decision.events, {k: v for k, v in found.items() if v is not None}))


def doubt(run: StreamRun, queries: Sequence[WatchQuery], answers: Answers) -> None:
    """Say, once for each, which watches the MLLM has answered with nothing but `unknown`."""
    run.understanding, strange = run.understanding.update(queries, answers.answers)
    for query in strange:
        log.warning(
            "watch_not_understood",
            stream=run.stream_id,
            watch=query.id,
            question=query.question,
            reason=f"its first {NEVER_KNOWN} answers were all unknown; word it another way, or ask another MLLM",
        )

"""Traces of hops: a span for each hop that is sampled, and one below it for each of its stages.

    hop -> allocate, render, ask (one for each call of the MLLM), judge, commit

The parts that the loop uses are wrapped, so that it needs to know nothing of them but that a hop begins.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from allocator_engine.fit import Allocation
from pipeline.allocators.base import Allocator
from pipeline.clock import Clock
from pipeline.core.context import Context, Room
from pipeline.core.outcome import Decision, Outcome
from pipeline.errors import ResadaptError
from pipeline.mllm.base import MLLM, MLLMInfo
from pipeline.tracing.base import Attributes, SpanKind, Spans, TraceSpan
from pipeline.types import Answers, Event, Hop, Json, Segment, Usage, WatchQuery

_NANO = 1_000_000_000


class StageClock:
    """Wall time that never goes back: `now_ns` is nanoseconds since 1970 by the clock at its making, and from then on
    by monotonic seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_s = clock.monotonic_s()
        self._began_ns = round(clock.now().timestamp() * 1_000_000) * 1000

    def now_ns(self) -> int:
        """Now."""
        return self._began_ns + round((self._clock.monotonic_s() - self._began_s) * _NANO)


@dataclass(frozen=True, slots=True)
class _Stage:
    """A stage of a hop that is over."""

    name: str
    began_ns: int
    ended_ns: int
    attributes: Attributes
    kind: SpanKind
    error: str | None


class HopTrace:
    """The trace of one hop while it is decided. Its stages go out with it, so that none is seen without it."""

    def __init__(self, hop: Hop, spans: Spans, clock: Clock) -> None:
        self._hop = hop
        self._spans = spans
        self._clock = StageClock(clock)
        self._last_ns = self.now_ns()
        self._stages: list[_Stage] = []
        self._judged = False
        self.span: TraceSpan = spans.begin("hop", self._last_ns)

    def now_ns(self) -> int:
        """Now, by the clock of this trace."""
        return self._clock.now_ns()

    def stage(
        self,
        name: str,
        began_ns: int,
        attributes: Attributes,
        kind: SpanKind = "internal",
        error: BaseException | None = None,
    ) -> None:
        """A stage that began at `began_ns` is over now."""
        self._last_ns = self.now_ns()
        kind_of_error = type(error).__name__ if error else None
        self._stages.append(_Stage(name, began_ns, self._last_ns, attributes, kind, kind_of_error))

    def judged(self) -> None:
        """End the stage in which its answers were judged. Only the first call of a hop counts."""
        if not self._judged:
            self._judged = True
            self.stage("judge", self._last_ns, {})

    def end(self, attributes: Attributes, error: str | None = None) -> None:
        """The hop is over: it and its stages go out."""
        for one in self._stages:
            span = self._spans.begin(one.name, one.began_ns, self.span.context, one.kind)
            span.end(one.ended_ns, one.attributes, one.error)
        hop = self._hop
        own: Attributes = {
            "resadapt.stream": hop.stream_id,
            "resadapt.hop.start_s": hop.start_s,
            "resadapt.hop.end_s": hop.end_s,
            "resadapt.hop.frames": len(hop.frames),
            "resadapt.hop.frames_lost": hop.lost,
        }
        self.span.end(self.now_ns(), {**own, **attributes}, error)


@dataclass(frozen=True, slots=True)
class TracedHop(Hop):
    """A hop whose rendering is a stage of its trace."""

    trace: HopTrace | None = field(default=None, compare=False, repr=False)

    def render(self, allocation: Allocation) -> tuple[Segment, ...]:
        assert self.trace is not None
        began_ns = self.trace.now_ns()
        segments = Hop.render(self, allocation)
        noted: Attributes = {"resadapt.segments": len(segments), "resadapt.tokens.allocated": allocation.tokens}
        self.trace.stage("render", began_ns, noted)
        return segments


class HopTracer:
    """Traces a `share` of all hops (0 to 1), each chosen for itself: `draw` gives numbers from 0 to below 1."""

    def __init__(self, spans: Spans, clock: Clock, share: float, draw: Callable[[], float]) -> None:
        self._spans = spans
        self._clock = clock
        self._share = share
        self._draw = draw
        self._open: dict[str, HopTrace] = {}

    def begin(self, hop: Hop) -> Hop:
        """The hop to go on with. One hop of a stream is under way at a time: the one before was given up, if it is not
        over."""
        self.abandon(hop.stream_id)
        if self._draw() >= self._share:
            return hop
        trace = self._open[hop.stream_id] = HopTrace(hop, self._spans, self._clock)
        return TracedHop(hop.stream_id, hop.start_s, hop.end_s, hop.frames, hop.lost, trace)

    def of(self, stream_id: str) -> HopTrace | None:
        """The trace of the hop of a stream that is decided now, if it has one."""
        return self._open.get(stream_id)

    def finish(self, outcome: Outcome, events: Sequence[Event]) -> None:
        """A hop is durable."""
        trace = self._open.pop(outcome.hop.stream_id, None)
        if trace is not None:
            trace.end(_noted(outcome, events))

    def abandon(self, stream_id: str) -> None:
        """Nothing was decided by the hop under way."""
        trace = self._open.pop(stream_id, None)
        if trace is not None:
            trace.end({}, "undecided")


def _noted(outcome: Outcome, events: Sequence[Event]) -> Attributes:
    reply = outcome.reply
    noted: dict[str, str | bool | int | float | Sequence[str]] = {
        "resadapt.tokens.granted": outcome.grant,
        "resadapt.tokens.allocated": outcome.allocation.tokens,
        "resadapt.tokens.spent": reply.spent,
        "resadapt.answers": len(reply.answers.answers),
        "resadapt.answers.relooked": reply.relooked,
        "resadapt.events": len(events),
    }
    if reply.skipped:
        noted["resadapt.skipped"] = reply.skipped
    if outcome.reanchored:
        noted["resadapt.context.reanchored"] = outcome.reanchored
    return noted


class TracedAllocator:
    """An allocator whose work for traced hops is a stage of them."""

    def __init__(self, allocator: Allocator, tracer: HopTracer) -> None:
        self._allocator = allocator
        self._tracer = tracer

    @property
    def name(self) -> str:
        return self._allocator.name

    async def allocate(self, hop: Hop, queries: Sequence[WatchQuery], grant: int) -> Allocation:
        trace = self._tracer.of(hop.stream_id)
        if trace is None:
            return await self._allocator.allocate(hop, queries, grant)
        began_ns = trace.now_ns()
        noted: dict[str, str | int] = {"resadapt.allocator": self.name, "resadapt.tokens.granted": grant}
        try:
            allocation = await self._allocator.allocate(hop, queries, grant)
        except ResadaptError as error:
            trace.stage("allocate", began_ns, noted, error=error)
            raise
        trace.stage("allocate", began_ns, noted | {"resadapt.tokens.allocated": allocation.tokens})
        return allocation

    def forget(self, stream_id: str) -> None:
        self._allocator.forget(stream_id)

    async def close(self) -> None:
        await self._allocator.close()


class TracedMLLM:
    """An MLLM whose answers about traced hops are stages of them, in the words of OpenTelemetry's conventions for
    generative AI. `provider` and `model` name it there."""

    def __init__(self, mllm: MLLM, tracer: HopTracer, provider: str, model: str) -> None:
        self._mllm = mllm
        self._tracer = tracer
        self._asked: dict[str, str] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.output.type": "text",
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": model,
        }

    @property
    def info(self) -> MLLMInfo:
        return self._mllm.info

    async def start(self) -> None:
        await self._mllm.start()

    def pending(self, context: Context) -> int:
        return self._mllm.pending(context)

    def room(self, context: Context) -> Room:
        return self._mllm.room(context)

    async def ask(
        self,
        context: Context,
        queries: Sequence[WatchQuery],
        limit: int | None = None,
        aside: Sequence[Segment] = (),
    ) -> Answers:
        trace = self._tracer.of(context.stream_id)
        if trace is None:
            return await self._mllm.ask(context, queries, limit, aside)
        began_ns = trace.now_ns()
        noted: dict[str, str | int] = {**self._asked, "resadapt.questions": len(queries)}
        noted["resadapt.ask"] = "second look" if aside else "watches"
        try:
            answers = await self._mllm.ask(context, queries, limit, aside)
        except ResadaptError as error:
            trace.stage("ask", began_ns, {**noted, "error.type": type(error).__name__}, "client", error)
            raise
        trace.stage("ask", began_ns, {**noted, **_usage(answers.usage)}, "client")
        return answers

    async def say(
        self, context: Context, questions: Sequence[str], most: int = 64, schema: Mapping[str, Json] | None = None
    ) -> list[str]:
        trace = self._tracer.of(context.stream_id)
        if trace is None:
            return await self._mllm.say(context, questions, most, schema)
        trace.judged()
        began_ns = trace.now_ns()
        noted: dict[str, str | int] = {**self._asked, "resadapt.questions": len(questions), "resadapt.ask": "words"}
        noted |= {"gen_ai.request.max_tokens": most, "gen_ai.output.type": "text" if schema is None else "json"}
        try:
            said = await self._mllm.say(context, questions, most, schema)
        except ResadaptError as error:
            trace.stage("ask", began_ns, {**noted, "error.type": type(error).__name__}, "client", error)
            raise
        trace.stage("ask", began_ns, noted, "client")
        return said

    def forget(self, stream_id: str) -> None:
        self._tracer.abandon(stream_id)
        self._mllm.forget(stream_id)

    async def close(self) -> None:
        await self._mllm.close()


def _usage(usage: Usage) -> Attributes:
    return {
        "gen_ai.usage.input_tokens": usage.prefilled_tokens + usage.cached_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.output_tokens": usage.answer_tokens,
        "resadapt.tokens.encoded": usage.encoded_tokens,
        "resadapt.ask.queued_s": usage.queued_s,
        "resadapt.ask.first_answer_s": usage.first_answer_s,
    }


class TracedCommits:
    """Commits whose decisions about traced hops are stages of them; the events of these name the trace from then on,
    in the store and wherever they are delivered. `commit` makes a decision durable."""

    def __init__(self, commit: Callable[[Decision], Awaitable[None]], tracer: HopTracer) -> None:
        self._commit = commit
        self._tracer = tracer

    async def commit(self, decision: Decision) -> None:
        trace = self._tracer.of(decision.stream_id)
        if trace is None or decision.record is None:  # what is decided beside a hop belongs to none
            await self._commit(decision)
            return
        trace.judged()
        began_ns, noted = trace.now_ns(), {"resadapt.events": len(decision.events)}
        events = tuple(replace(event, trace=trace.span.context) for event in decision.events)
        try:
            await self._commit(replace(decision, events=events))
        except ResadaptError as error:
            trace.stage("commit", began_ns, noted, error=error)
            raise
        trace.stage("commit", began_ns, noted)

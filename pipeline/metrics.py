"""Every Prometheus metric, in one table. Seconds are wall time, tokens are vision tokens.

What has no label `stream` is of the process, which is one MLLM's and hence one GPU's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from pipeline.core.health import WHATS
from pipeline.core.judge import standing
from pipeline.core.outcome import HopReply, Outcome
from pipeline.core.state import StreamRun
from pipeline.sources.base import SourceCounts
from pipeline.types import Event, Usage

M = TypeVar("M", Counter, Gauge, Histogram)

_BRIEF = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_HOPS = (1, 2, 4, 8, 16, 32, 64)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The process's metrics. The labels `stream` and `watch` hold slugs of what is configured now: the series of a
    stream that is detached, or of a watch that is removed, go with it. `labels` are those of each metric by its name.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.labels: dict[str, tuple[str, ...]] = {_Troubles.NAME: ("what",)}
        self._watches: dict[str, frozenset[str]] = {}
        self._series: dict[str, _Series] = {}
        self._of_streams: list[Counter | Gauge | Histogram] = []
        stream = ["stream"]

        def noted(metric: M, labels: list[str]) -> M:
            self.labels[next(iter(metric.describe())).name] = tuple(labels)
            if "stream" in labels:
                self._of_streams.append(metric)
            return metric

        def counter(name: str, meaning: str, labels: list[str]) -> Counter:
            return noted(Counter(f"resadapt_{name}", meaning, labels, registry=self.registry), labels)

        def gauge(name: str, meaning: str, labels: list[str]) -> Gauge:
            return noted(Gauge(f"resadapt_{name}", meaning, labels, registry=self.registry), labels)

        def histogram(name: str, meaning: str, labels: list[str], buckets: Sequence[float] = _SECONDS) -> Histogram:
            made = Histogram(f"resadapt_{name}", meaning, labels, registry=self.registry, buckets=buckets)
            return noted(made, labels)

        self.stream_up = gauge("stream_up", "1 while the stream gives frames", stream)
        self.alarms = gauge("stream_alarm", "1 while it is frozen, blind or moved", [*stream, "what"])
        self.losses = counter("stream_losses", "times it was lost, however often tried since", [*stream, "type"])
        self.attempts_failed = counter("stream_attempts_failed", "connections that broke or were refused", stream)
        self.crashes = counter("stream_crashes", "unforeseen failures after which the stream was restarted", stream)
        self.frames = counter("frames", "sampled frames that reached the loop", stream)
        self.frames_lost = counter("frames_lost", "sampled frames overwritten unread because the loop was late", stream)
        self.frames_decoded = gauge("frames_decoded", "frames decoded since the stream was attached", stream)
        self.frames_corrupt = gauge("frames_corrupt", "frames damaged or built on one, since attachment", stream)
        self.frames_restamped = gauge(
            "frames_restamped", "frames whose time stamp was not believed since attachment", stream
        )
        self.gaps = gauge("stream_gaps", "places where data were lost on the way since attachment", stream)
        self.decode_errors = gauge("decode_errors", "packets that could not be decoded since attachment", stream)
        self.discontinuities = gauge("discontinuities", "jumps of the time stamps since attachment", stream)
        self.hwaccel_fallbacks = gauge("hwaccel_fallbacks", "times decoding fell back to the CPU", stream)
        self.hops = counter("hops", "hops decided", stream)
        self.hop_seconds = histogram("hop_seconds", "hop complete to decision durable", stream)
        self.tokens_native = counter(
            "tokens_native", "tokens of all sampled frames at native size, of cropped ones that of the crop", stream
        )
        self.tokens_granted = counter("tokens_granted", "tokens hops were allowed to spend", stream)
        self.tokens_allocated = counter("tokens_allocated", "tokens allocators spent on new frames", stream)
        self.tokens_spent = counter("tokens_spent", "tokens charged: new frames and what was sent again", stream)
        self.tokens_encoded = counter("tokens_encoded", "tokens sent through the vision encoder", stream)
        self.tokens_prefilled = counter("tokens_prefilled", "prompt tokens computed, text included", stream)
        self.tokens_cached = counter("tokens_cached", "prompt tokens found in a prefix cache", stream)
        self.context_tokens = gauge("context_tokens", "tokens resident in the context", stream)
        self.prefix_hit_ratio = gauge("prefix_hit_ratio", "part of the last prompts found in a prefix cache", stream)
        self.context_epoch = gauge("context_epoch", "times the context was re-anchored", stream)
        self.context_reanchors = counter(
            "context_reanchors",
            "times it was, by age, tokens, pressure, unpaid segments or another crop",
            [*stream, "reason"],
        )
        self.fallbacks = counter("allocation_fallbacks", "hops allocated at one fixed scale after a failure", stream)
        self.allocation_seconds = histogram("allocation_seconds", "hop to allocation, waiting included", [], _BRIEF)
        self.engine_seconds = histogram("engine_seconds", "one call of the allocator engine", [], _BRIEF)
        self.engine_hops = histogram("engine_hops", "hops that shared a call of the allocator engine", [], _HOPS)
        self.skipped = counter("hops_skipped", "hops whose questions were not answered", [*stream, "reason"])
        self.answers = counter("answers", "answers by verdict", [*stream, "verdict"])
        self.descriptions_missing = counter("descriptions_missing", "events that the MLLM did not describe", stream)
        self.relooks = counter("relooks", "answers given after a second look at more pixels", stream)
        self.ladder_step = gauge("ladder_step", "step of the overload ladder, 0 normal to 4 shed", stream)
        self.mllm_tokens = counter("mllm_tokens", "granted, encoded, prefilled and cached, of all streams", ["what"])
        self.mllm_seconds = histogram("mllm_seconds", "one asking of all watches of a hop, waiting included", [])
        self.mllm_queue_seconds = histogram("mllm_queue_seconds", "an asking's wait before the model came to it", [])
        self.mllm_first_seconds = histogram("mllm_first_answer_seconds", "from then to its first answer", [])
        self.watch_warming = gauge("watch_warming", "1 while it sees frames sized without it", [*stream, "watch"])
        self.watch_open = gauge("watch_open", "1 while the watch is open", [*stream, "watch"])
        self.events = counter("events", "events decided; of the stream itself: no watch", ["type", *stream, "watch"])
        self.commit_retries = gauge("commit_retries", "commits tried again because the store could not take them", [])
        self.commits_stale = gauge("commits_stale", "decisions not written: another process has the stream", [])
        self.service_alarms = gauge("service_alarms", "what is wrong with the service itself for long now", [])
        self.event_conflicts = gauge("event_conflicts", "events dropped because another one had their id", [])
        self.evidence_written = gauge("evidence_written", "events of which evidence was written", [])
        self.evidence_lost = gauge("evidence_lost", "events of which none could be, by what was short", ["reason"])
        self.evidence_bytes = gauge("evidence_bytes", "bytes of all files of evidence", [])
        self.task_crashes = gauge("task_crashes", "unforeseen ends of background work, which began again", ["task"])
        self.sink_pending = gauge("sink_pending", "events waiting for a sink", ["sink"])
        self.sink_published = counter("sink_published", "events a sink acknowledged", ["sink"])
        self.sink_failures = gauge("sink_failures", "batches a sink could not take", ["sink"])
        self.sink_filtered = gauge("sink_filtered", "events that a sink's filter keeps from it", ["sink"])
        self.sink_held_back = gauge("sink_held_back", "events held back by a sink's rate limit, summarised", ["sink"])
        self.trace_spans_sent = gauge("trace_spans_sent", "spans of traces that their receiver has taken", [])
        self.trace_spans_dropped = gauge("trace_spans_dropped", "spans that it did not, or for which was no room", [])
        self.api_refused = counter("api_refused", "requests refused at a limit, by what it bounds", ["limit"])
        self.api_listeners = gauge("api_listeners", "clients that listen to events, answers or pictures", [])
        self.event_seconds = histogram("event_seconds", "event decided to acknowledged by the sink", ["sink"])

    def hop(
        self, outcome: Outcome, run: StreamRun, decoded: SourceCounts, events: Sequence[Event], seconds: float
    ) -> None:
        """Write down one hop, decided `seconds` after it was complete."""
        stream, reply, usage = run.stream_id, outcome.reply, outcome.reply.answers.usage
        series = self._series.setdefault(stream, _Series())
        self._tokens(stream, series, outcome.grant, usage)
        for count, more in (
            (self.hops, 1),
            (self.frames, len(outcome.hop.frames)),
            (self.frames_lost, outcome.hop.lost),
            (self.tokens_native, outcome.native),
            (self.tokens_allocated, outcome.allocation.tokens),
            (self.tokens_spent, reply.spent),
            (self.fallbacks, outcome.fell_back),
            (self.relooks, reply.relooked),
        ):
            series.count(count, more, stream)
        for level, value in (
            (self.context_tokens, run.context.tokens),
            (self.context_epoch, run.context.epoch),
            (self.ladder_step, run.ladder.step),
            (self.frames_decoded, decoded.decoded),
            (self.frames_corrupt, decoded.corrupt),
            (self.frames_restamped, decoded.restamped),
            (self.gaps, decoded.gaps),
            (self.decode_errors, decoded.decode_errors),
            (self.discontinuities, decoded.discontinuities),
            (self.hwaccel_fallbacks, decoded.hwaccel_fallbacks),
        ):
            series.set(level, value, stream)
        if run.checkup is not None:
            on = run.state.health.on
            for what in WHATS:
                series.set(self.alarms, what in on, stream, what)
        if outcome.reanchored:
            self.context_reanchors.labels(stream, outcome.reanchored).inc()
        series.of(self.hop_seconds, stream).observe(seconds)
        for event in events:
            self.event(event)
        self._answers(stream, series, reply, run)

    def event(self, event: Event) -> None:
        """Count one event that was decided."""
        self.events.labels(event.type, event.stream_id, event.watch_id or "").inc()

    def watch_mllm(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Show the troubles that the MLLM counts, by kind, as they are when somebody looks."""
        self.registry.register(_Troubles(counts))

    def forget(self, stream: str) -> None:
        """Drop every series of a stream that was detached."""
        self._watches.pop(stream, None)
        self._series.pop(stream, None)
        for metric in self._of_streams:
            metric.remove_by_labels({"stream": stream})

    def forget_sink(self, sink: str) -> None:
        """Drop every series of a sink that is gone."""
        for metric in (self.sink_pending, self.sink_published, self.sink_failures, self.event_seconds):
            metric.remove_by_labels({"sink": sink})
        for metric in (self.sink_filtered, self.sink_held_back):
            metric.remove_by_labels({"sink": sink})

    def _tokens(self, stream: str, series: "_Series", granted: int, usage: Usage) -> None:
        for what, count, tokens in (
            ("granted", self.tokens_granted, granted),
            ("encoded", self.tokens_encoded, usage.encoded_tokens),
            ("prefilled", self.tokens_prefilled, usage.prefilled_tokens),
            ("cached", self.tokens_cached, usage.cached_tokens),
        ):
            series.count(count, tokens, stream)
            series.count(self.mllm_tokens, tokens, what)
        if prompt := usage.prefilled_tokens + usage.cached_tokens:
            series.set(self.prefix_hit_ratio, usage.cached_tokens / prompt, stream)

    def engine_call(self, hops: int, seconds: float) -> None:
        """Write down one call of the allocator engine."""
        self.engine_hops.observe(hops)
        self.engine_seconds.observe(seconds)

    def _answers(self, stream: str, series: "_Series", reply: HopReply, run: StreamRun) -> None:
        usage = reply.answers.usage
        if reply.skipped:
            series.count(self.skipped, 1, stream, reply.skipped)
        else:
            self.mllm_seconds.observe(usage.seconds)
            self.mllm_queue_seconds.observe(usage.queued_s)
            self.mllm_first_seconds.observe(usage.first_answer_s)
        for answer in reply.answers.answers:
            series.count(self.answers, 1, stream, answer.verdict)
            series.set(self.watch_warming, answer.warming, stream, answer.watch_id)
        stand, is_open = run.warming.watch_ids, standing(run.state.watches)
        for watch_id in stand:
            series.set(self.watch_open, is_open.get(watch_id, False), stream, watch_id)
        for watch_id in self._watches.get(stream, frozenset()) - stand:
            self._series.pop(stream, None)
            for metric in (self.watch_open, self.watch_warming, self.events):
                metric.remove_by_labels({"stream": stream, "watch": watch_id})
        self._watches[stream] = stand

    def value(self, name: str, **labels: str) -> float:
        """The current value of a sample, such as `hops_total`, summed over the labels that are not named; 0 where
        nothing was counted yet."""
        samples = (sample for metric in self.registry.collect() for sample in metric.samples)
        return sum(
            sample.value
            for sample in samples
            if sample.name == f"resadapt_{name}" and labels.items() <= sample.labels.items()
        )

    def mllm_worked_s(self) -> float:
        """Seconds the MLLM has spent on questions so far, of all streams together, their waiting left out."""
        return _sum_of(self.mllm_seconds) - _sum_of(self.mllm_queue_seconds)


def _sum_of(histogram: Histogram) -> float:
    """The sum of what a histogram without labels has observed."""
    samples = (sample for metric in histogram.collect() for sample in metric.samples)
    return sum(sample.value for sample in samples if sample.name.endswith("_sum"))


class _Series:
    """The series of a stream, each looked up by its labels once: a hop writes some fifty, most of which stay as they
    are."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], Counter | Gauge | Histogram] = {}
        self._levels: dict[tuple[object, ...], float] = {}

    def of(self, metric: M, *labels: str) -> M:
        """The series of a metric with these labels."""
        key = metric, *labels
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = metric.labels(*labels)
        return found  # type: ignore[return-value]  # it is of the metric's own type

    def count(self, metric: Counter, more: float, *labels: str) -> None:
        """Add to a counter, which is there from its first hop on."""
        series = self.of(metric, *labels)
        if more:
            series.inc(more)

    def set(self, metric: Gauge, level: float, *labels: str) -> None:
        """Set a gauge, of which nobody else writes this series, where it stands at another level."""
        key = metric, *labels
        if self._levels.get(key) != level:
            self._levels[key] = level
            self.of(metric, *labels).set(level)


class _Troubles(Collector):
    NAME = "resadapt_mllm_trouble"

    def __init__(self, counts: Callable[[], Mapping[str, int]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        meaning = "asks refused or late, requests sent again, prefixes and engines lost, by kind"
        troubles = CounterMetricFamily(self.NAME, meaning, labels=["what"])
        for what, count in self._counts().items():
            troubles.add_metric([what], count)
        yield troubles

"""Every Prometheus metric, in one table. Seconds are wall time, tokens are vision tokens."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The process's metrics. The label `stream` holds slugs of configured streams, so its cardinality is theirs."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        stream = ["stream"]

        def counter(name: str, meaning: str, labels: list[str]) -> Counter:
            return Counter(f"resadapt_{name}", meaning, labels, registry=self.registry)

        def gauge(name: str, meaning: str, labels: list[str]) -> Gauge:
            return Gauge(f"resadapt_{name}", meaning, labels, registry=self.registry)

        def histogram(name: str, meaning: str, labels: list[str]) -> Histogram:
            return Histogram(f"resadapt_{name}", meaning, labels, registry=self.registry, buckets=_SECONDS)

        self.stream_up = gauge("stream_up", "1 while the stream gives frames", stream)
        self.losses = counter("stream_losses", "connections lost or refused", stream)
        self.crashes = counter("stream_crashes", "unforeseen failures after which the stream was restarted", stream)
        self.frames = counter("frames", "sampled frames that reached the loop", stream)
        self.frames_lost = counter("frames_lost", "sampled frames overwritten unread because the loop was late", stream)
        self.frames_decoded = gauge("frames_decoded", "frames decoded since the stream was attached", stream)
        self.frames_corrupt = gauge("frames_corrupt", "damaged frames since the stream was attached", stream)
        self.decode_errors = gauge("decode_errors", "packets that could not be decoded since attachment", stream)
        self.discontinuities = gauge("discontinuities", "jumps of the time stamps since attachment", stream)
        self.hwaccel_fallbacks = gauge("hwaccel_fallbacks", "times decoding fell back to the CPU", stream)
        self.hops = counter("hops", "hops decided", stream)
        self.hop_seconds = histogram("hop_seconds", "hop complete to decision durable", stream)
        self.tokens_granted = counter("tokens_granted", "tokens hops were allowed to spend", stream)
        self.tokens_allocated = counter("tokens_allocated", "tokens allocators spent on new frames", stream)
        self.tokens_spent = counter("tokens_spent", "tokens charged: new frames and what was sent again", stream)
        self.tokens_prefilled = counter("tokens_prefilled", "prompt tokens computed, text included", stream)
        self.tokens_cached = counter("tokens_cached", "prompt tokens found in a prefix cache", stream)
        self.context_tokens = gauge("context_tokens", "tokens resident in the context", stream)
        self.context_epoch = gauge("context_epoch", "times the context was re-anchored", stream)
        self.fallbacks = counter("allocation_fallbacks", "hops allocated at one fixed scale after a failure", stream)
        self.skipped = counter("hops_skipped", "hops whose questions were not answered", [*stream, "reason"])
        self.answers = counter("answers", "answers by verdict", [*stream, "verdict"])
        self.mllm_seconds = histogram("mllm_seconds", "one asking of all watches of a hop", [])
        self.watch_open = gauge("watch_open", "1 while the watch is open", [*stream, "watch"])
        self.events = counter("events", "events decided", ["type"])
        self.commit_retries = gauge("commit_retries", "commits tried again because the store could not take them", [])
        self.sink_pending = gauge("sink_pending", "events waiting for a sink", ["sink"])
        self.sink_published = counter("sink_published", "events a sink acknowledged", ["sink"])
        self.sink_failures = gauge("sink_failures", "batches a sink could not take", ["sink"])
        self.event_seconds = histogram("event_seconds", "event decided to acknowledged by the sink", ["sink"])

    def mllm_worked_s(self) -> float:
        """Seconds the MLLM has spent on questions so far, of all streams together."""
        return self.registry.get_sample_value("resadapt_mllm_seconds_sum") or 0.0

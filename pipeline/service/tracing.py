"""The traces of a service: of its hops, and of what its sinks deliver."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from pipeline.build import build_tracing
from pipeline.clock import Clock
from pipeline.config.site import SiteConfig
from pipeline.core.outcome import Outcome
from pipeline.loop import Observe, Runtime
from pipeline.metrics import Metrics
from pipeline.redact import redact_mllm
from pipeline.sinks.base import Sink
from pipeline.tracing.base import Spans
from pipeline.tracing.deliveries import TracedSink
from pipeline.tracing.hops import HopTracer, TracedAllocator, TracedCommits, TracedMLLM
from pipeline.types import Event


@dataclass(frozen=True, slots=True)
class ServiceTraces:
    """Makes the parts of a service traced; `use` is the MLLM as the site names it, `sample` the share of hops,
    which `draw` decides for each."""

    spans: Spans
    clock: Clock
    use: str
    sample: float
    draw: Callable[[], float] = random.random

    def sink(self, sink: Sink) -> Sink:
        """A sink whose deliveries are traced."""
        return TracedSink(sink, self.spans, self.clock)

    def runtime(self, runtime: Runtime) -> Runtime:
        """The parts that streams share, traced. A hop is over when it is observed."""
        tracer = HopTracer(self.spans, self.clock, self.sample, self.draw)
        provider, _, model = redact_mllm(self.use).partition(":")
        observe: Observe = partial(_observed, tracer, runtime.observe)
        return replace(
            runtime,
            allocator=TracedAllocator(runtime.allocator, tracer),
            mllm=TracedMLLM(runtime.mllm, tracer, provider, model.rpartition("#")[2] or provider),
            outbox=TracedCommits(runtime.outbox.commit, tracer),
            observe=observe,
            tracing=tracer,
        )


def _observed(tracer: HopTracer, observe: Observe, outcome: Outcome, events: Sequence[Event]) -> None:
    tracer.finish(outcome, events)
    observe(outcome, events)


def open_traces(site: SiteConfig, clock: Clock, metrics: Metrics, instance: str | None) -> ServiceTraces | None:
    """The traces of a site, counted in the metrics; None where it has none. Raises ConfigError."""
    spans = build_tracing(site.tracing, clock, instance)
    if spans is None:
        return None
    metrics.trace_spans_sent.set_function(partial(getattr, spans.counts, "sent"))
    metrics.trace_spans_dropped.set_function(partial(getattr, spans.counts, "dropped"))
    return ServiceTraces(spans, clock, site.mllm.use, site.tracing.sample)

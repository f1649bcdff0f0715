"""Spans handed to a receiver of OTLP over HTTP by OpenTelemetry's SDK: the only module that imports it.

The SDK sends in a thread of its own. Its queue is bounded here, where what does not fit is counted.
"""

import asyncio
import importlib.metadata
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind as OtelKind
from opentelemetry.trace import Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pipeline.clock import Clock
from pipeline.logs import Seldom
from pipeline.redact import scrub
from pipeline.sinks.cloudevents import trace_headers
from pipeline.tracing.base import Attributes, SpanKind
from pipeline.types import TraceContext
from pipeline.waiting import first

log = structlog.get_logger()

QUEUE_SPANS = 4096
"""Most spans that wait to be sent; a further one is dropped and counted."""
BATCH_SPANS = 512
"""Most spans of one request."""
EVERY_S = 2.0
"""How often spans are sent, while fewer wait than a request takes."""
SEND_S = 10.0
"""How long one request may take, tried again included, before its spans are dropped."""
CLOSE_S = 3.0
"""How long what waits is still sent at the end."""

_SCOPE = "resadapt_stream"
_W3C = TraceContextTextMapPropagator()
_KINDS = {"internal": OtelKind.INTERNAL, "client": OtelKind.CLIENT, "producer": OtelKind.PRODUCER}

# The SDK logs every try. What became of a request is reported here, once a minute, with the reason.
_chatter = logging.getLogger("opentelemetry")
_chatter.propagate = False
_chatter.addHandler(logging.NullHandler())


@dataclass(slots=True)
class SpanCounts:
    """Running totals: spans that the receiver has taken, and those that were dropped since it did not, or not in
    time."""

    sent: int = 0
    dropped: int = 0


class _Reason(logging.Handler):
    """Keeps the newest line that the SDK logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = "no reason was given"

    def emit(self, record: logging.LogRecord) -> None:
        self.text = scrub(record.getMessage())


class _CountingExporter(SpanExporter):
    """An exporter that reports what became of its spans: `taken` is called with their number when they leave the
    queue, `done` with it and the success."""

    def __init__(self, exporter: SpanExporter, taken: Callable[[int], None], done: Callable[[int, bool], None]) -> None:
        self._exporter = exporter
        self._taken = taken
        self._done = done

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._taken(len(spans))
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self._done(len(spans), result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class _BoundedProcessor(BatchSpanProcessor):
    """Sends spans for which there is room, by `admit`, and no others."""

    def __init__(self, exporter: SpanExporter, admit: Callable[[], bool]) -> None:
        super().__init__(
            exporter,
            max_queue_size=QUEUE_SPANS,
            schedule_delay_millis=EVERY_S * 1000,
            max_export_batch_size=BATCH_SPANS,
        )
        self._admit = admit

    def on_end(self, span: ReadableSpan) -> None:
        if self._admit():
            super().on_end(span)


class _SdkSpan:
    """A span of the SDK."""

    def __init__(self, span: OtelSpan) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, set_span_in_context(span, Context()))
        self.context = TraceContext(carrier["traceparent"], carrier.get("tracestate", ""))

    def end(self, at_ns: int, attributes: Attributes, error: str | None = None) -> None:
        self._span.set_attributes(attributes)
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end(at_ns)


class OtelSpans:
    """Spans that go to `endpoint`, the whole URL of a receiver, with `headers`; `counts` says what became of them.

    `instance` names this process among several of the same service. The service's name and further attributes are
    those of OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, if they are set. `exporter` stands in for the one that
    sends by HTTP.
    """

    def __init__(
        self,
        endpoint: str,
        headers: Mapping[str, str],
        clock: Clock,
        instance: str | None = None,
        exporter: SpanExporter | None = None,
    ) -> None:
        self.counts = SpanCounts()
        self._clock = clock
        self._waiting = 0
        self._lock = threading.Lock()
        self._seldom = Seldom()
        self._reason = _Reason()
        _chatter.addHandler(self._reason)
        self._exporter = exporter or OTLPSpanExporter(endpoint, headers=dict(headers), timeout=SEND_S)
        self._provider = TracerProvider(ALWAYS_ON, _resource(instance), shutdown_on_exit=False)
        counting = _CountingExporter(self._exporter, self._taken, self._done)
        self._provider.add_span_processor(_BoundedProcessor(counting, self._has_room))
        self._tracer = self._provider.get_tracer(_SCOPE, importlib.metadata.version("resadapt-stream"))

    def begin(self, name: str, at_ns: int, within: TraceContext | None = None, kind: SpanKind = "internal") -> _SdkSpan:
        around = _W3C.extract(trace_headers(within), Context())
        return _SdkSpan(self._tracer.start_span(name, around, _KINDS[kind], start_time=at_ns))

    async def close(self) -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(done.set)

        # Not a thread of the event loop's pool, whose end is waited for: a receiver may be away.
        threading.Thread(target=shut_down, name="traces", daemon=True).start()
        await first(done.wait(), self._clock.sleep(CLOSE_S))
        if not done.is_set():
            self._exporter.shutdown()
        _chatter.removeHandler(self._reason)

    def _has_room(self) -> bool:
        with self._lock:
            if self._waiting >= QUEUE_SPANS:
                self.counts.dropped += 1
                return False
            self._waiting += 1
            return True

    def _taken(self, spans: int) -> None:
        with self._lock:
            self._waiting -= spans

    def _done(self, spans: int, well: bool) -> None:
        with self._lock:
            if well:
                self.counts.sent += spans
            else:
                self.counts.dropped += spans
        if not well and (times := self._seldom.times("traces", self._clock.monotonic_s())):
            log.warning("traces_not_sent", reason=self._reason.text, times=times, dropped=self.counts.dropped)


def _resource(instance: str | None) -> Resource:
    own = {SERVICE_NAME: "resadapt", SERVICE_VERSION: importlib.metadata.version("resadapt-stream")}
    more = {SERVICE_INSTANCE_ID: instance} if instance else {}
    return Resource({**own, **more}).merge(OTELResourceDetector().detect())

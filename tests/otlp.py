"""A receiver of OTLP over HTTP: it takes spans as a collector does, and keeps them."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

from tests.services import require


def require_otel() -> None:
    """Skip the calling test where the extra is not installed, and fail it in CI."""
    require(find_spec("opentelemetry") is not None and find_spec("opentelemetry.proto") is not None, "the extra otel")


@dataclass(frozen=True)
class Received:
    """A span as it was on the wire: ids in hexadecimal, attributes as plain values."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    start_ns: int
    end_ns: int
    failed: bool
    attributes: dict[str, object]


@dataclass
class Receiver:
    """What has come: spans, headers of each request, and attributes of what sent them. With `status` it refuses."""

    url: str
    status: int = 200
    spans: list[Received] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    resource: dict[str, object] = field(default_factory=dict)

    def take(self, body: bytes) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource |= plain(resource.resource.attributes)
            self.spans += [span(one) for scope in resource.scope_spans for one in scope.spans]

    def named(self, name: str) -> list[Received]:
        return [one for one in self.spans if one.name == name]


def plain(pairs) -> dict[str, object]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}


def span(one) -> Received:
    ids = (one.trace_id.hex(), one.span_id.hex(), one.parent_span_id.hex())
    times = (one.start_time_unix_nano, one.end_time_unix_nano)
    return Received(one.name, *ids, one.kind, *times, one.status.code == 2, plain(one.attributes))


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver for the time of a test."""
    require_otel()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            packed = self.headers.get("Content-Encoding") == "gzip"
            receiver.paths.append(self.path)
            receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
            if receiver.status == 200:
                receiver.take(gzip.decompress(body) if packed else body)
            self.send_response(receiver.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

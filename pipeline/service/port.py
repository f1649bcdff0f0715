"""The port beside a service: its Prometheus metrics, and /health/live and /health/ready for its supervisor."""

import json
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

from pipeline.config.site import MetricsConfig
from pipeline.errors import ConfigError
from pipeline.service.health import Health

CLOSE_S = 5.0
"""How long the port's thread may take to end."""


class Port:
    """Serves in threads of its own until it is closed. Raises ConfigError for an address that cannot be taken.

    `health` is called from those threads.
    """

    def __init__(self, address: MetricsConfig, registry: CollectorRegistry, health: Callable[[], Health]) -> None:
        self._health = health
        self._metrics = make_wsgi_app(registry)
        try:
            self._server = _MetricsServer((address.host, address.port), _Quiet)
        except OSError as error:
            why = error.strerror or str(error)
            raise ConfigError(f"metrics cannot be offered on {address.host}:{address.port}: {why}") from error
        self._server.set_app(self._answer)
        self._thread = Thread(target=self._server.serve_forever, name="port", daemon=True)

    def open(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Answer no more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(CLOSE_S)
        self._server.server_close()

    def _answer(self, request: WSGIEnvironment, respond: StartResponse) -> Iterable[bytes]:
        path = request.get("PATH_INFO", "")
        if not path.startswith("/health"):
            pages: Iterable[bytes] = self._metrics(request, respond)
            return pages
        health = self._health()
        good = {"/health/live": health.live, "/health/ready": health.ready, "/health": health.ready}.get(path)
        status = "404 Not Found" if good is None else "200 OK" if good else "503 Service Unavailable"
        respond(status, [("Content-Type", "application/json"), ("Cache-Control", "no-store")])
        return [json.dumps(health.as_json()).encode()]


class _MetricsServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    timeout = 10.0  # of a caller that sends nothing

    def log_message(self, *_: object) -> None:
        return

"""An HTTP server, uvicorn, on the loop that the streams run on."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from pipeline.errors import ConfigError

HEAD_BYTES = 262_144
"""Longest head of a request: the longest query that the API takes, each of its characters written as twelve."""
_BACKLOG = 256


class _LoopServer(uvicorn.Server):
    """Leaves signals to the program."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class LoopHttp:
    """Serves an app from `start` until `close`; `what` names it to people. At most `connections` are open at a time;
    open requests may take `goodbye_s` seconds at the end."""

    def __init__(
        self,
        app: ASGIApp,
        what: str,
        connections: int,
        goodbye_s: int,
        cert_file: str | None = None,
        key_file: str | None = None,
    ) -> None:
        self._what = what
        self._server = _LoopServer(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=connections,
                timeout_graceful_shutdown=goodbye_s,
                timeout_keep_alive=10,
                http="h11",  # the other implementation has a bound of its own, which is too low
                h11_max_incomplete_event_size=HEAD_BYTES,
                ssl_certfile=cert_file,
                ssl_keyfile=key_file,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Begin to listen; port 0 is any free one. Returns the port. Raises ConfigError where the address cannot be
        had."""
        listening = self._bound(host, port)
        self._task = asyncio.create_task(self._server.serve([listening]), name=self._what)
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.01)
        if self._task.done():
            await self._task
        return int(listening.getsockname()[1])

    @property
    def is_open(self) -> bool:
        """True while it listens."""
        return self._task is not None and not self._task.done()

    async def close(self) -> None:
        """Finish what is asked, stop listening."""
        if self._task and not self._task.done():
            self._server.should_exit = True
            await self._task

    def _bound(self, host: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(_BACKLOG)
        except OSError as error:
            listening.close()
            raise ConfigError(f"{self._what} cannot be offered on {host}:{port}: {error.strerror}") from error
        listening.setblocking(False)
        return listening

"""The API's server, beside the streams."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import structlog
from fastapi import FastAPI

from pipeline.api.app import make_app
from pipeline.api.auth import OPEN_NOTICE
from pipeline.api.limits import is_loopback
from pipeline.api.loop_http import LoopHttp
from pipeline.clock import Clock
from pipeline.config.api import ApiConfig
from pipeline.config.site import SiteConfig
from pipeline.errors import ConfigError
from pipeline.service.reconciler import Reconciler

log = structlog.get_logger()

GOODBYE_S = 3
"""How long open requests may take when the service stops."""

ExtendApp = Callable[[FastAPI], None]
"""Adds to an app."""


def bare(_app: FastAPI) -> None:
    """Add nothing."""


class ApiServer:
    """Serves the API of a reconciler: from `start` on what needs no store, everything once it is `ready`."""

    def __init__(self, reconciler: Reconciler, clock: Clock, extend: ExtendApp) -> None:
        self.config: ApiConfig = reconciler.service.site.api
        self.app = make_app(reconciler, self.config, clock)
        extend(self.app)
        self.port = 0
        self._reconciler = reconciler

    async def start(self) -> None:
        """Begin to listen. Raises ConfigError where the address cannot be had."""
        config = self.config
        self._http = LoopHttp(self.app, "the API", config.max_connections, GOODBYE_S, config.cert_file, config.key_file)
        self.port = await self._http.start(config.host, config.port)

    async def close(self) -> None:
        """Send listeners away, finish what is asked, stop listening."""
        if not self._http.is_open:
            return
        state = self.app.state
        state.ready = False
        for hub in (state.events, state.answers):
            hub.close()
        await self._http.close()
        await state.gallery.close()
        await state.far_nodes.close()

    async def ready(self) -> None:
        """The service has started. Raises ConfigError where the API would be open to others."""
        gate, service = self.app.state.gate, self._reconciler.service
        if not is_loopback(self.config.host) and not await asyncio.to_thread(self.app.state.keys().any_stands):
            raise ConfigError(
                f"api.host is {self.config.host}, which others reach, and there is no key yet; make one with"
                " `resadapt key create NAME --role admin -c SITE`, or listen on 127.0.0.1"
            )
        if await asyncio.to_thread(gate.is_open):
            log.warning("api_open", notice=OPEN_NOTICE)
        events, answers = self.app.state.events, self.app.state.answers

        def committed() -> None:
            events.wake()
            answers.wake()

        service.on_commit = committed
        self.app.state.ready = True
        scheme = "https" if self.config.cert_file else "http"
        log.info("api", url=f"{scheme}://{self.config.host}:{self.port}/", docs="/docs")


class Serving:
    """A service with its API, if its site wants one. Use as `async with`: the API listens while the service starts, and
    stops before it drains. `extend` adds to the app what is no part of the API: the page."""

    def __init__(self, reconciler: Reconciler, clock: Clock, extend: ExtendApp = bare) -> None:
        self.reconciler = reconciler
        self.api = ApiServer(reconciler, clock, extend) if reconciler.service.site.api.port else None

    @property
    def site(self) -> SiteConfig:
        """The site that runs."""
        return self.reconciler.service.site

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opened:
            if self.api:
                await self.api.start()
                opened.push_async_callback(self.api.close)
            await self.reconciler.__aenter__()
            opened.push_async_exit(self.reconciler)
            if self.api:
                await self.api.ready()
                opened.push_async_callback(self.api.close)
            self._opened = opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.__aexit__(kind, error, trace)

    def hurry(self) -> None:
        """Cut short what drains, now or later."""
        self.reconciler.service.hurry()

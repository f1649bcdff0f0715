"""A page of a run that a person has started: served beside it, and opened in a browser if wanted."""

import asyncio
import socket
import webbrowser
from collections.abc import Mapping, Sequence
from contextlib import suppress

from rich.console import Console

from pipeline.api.server import Serving
from pipeline.clock import Clock
from pipeline.config.site import SiteConfig, parse_site
from pipeline.loop import Observe
from pipeline.page.app import install
from pipeline.registry.desired import Composer
from pipeline.service.reconciler import Reconciler
from pipeline.service.service import Service
from pipeline.sinks.base import Sink

_HOST = "127.0.0.1"


class RunPage:
    """The service of a run with its page; `opened` also in a browser. `described` is the site as plain mappings."""

    def __init__(
        self,
        site: SiteConfig,
        described: Mapping[str, object],
        clock: Clock,
        sinks: Sequence[Sink],
        observe: Observe,
        console: Console,
        opened: bool,
    ) -> None:
        said = Composer(site, described, None)
        self._reconciler = Reconciler(None, clock, observe, said, sinks, insist=False)
        self.serving = Serving(self._reconciler, clock, install)
        self._console = console
        self._opened = opened

    @property
    def service(self) -> Service:
        """The running service."""
        return self._reconciler.service

    @property
    def url(self) -> str:
        """The URL of the page, once it is served."""
        return f"http://{_HOST}:{self.serving.api.port if self.serving.api else 0}/"

    async def announce(self) -> None:
        """Print where the page is, and open it if wanted."""
        self._console.print(f"Page: {self.url}", highlight=False, soft_wrap=True)
        if self._opened:
            with suppress(webbrowser.Error):
                await asyncio.to_thread(webbrowser.open, self.url)

    def ended(self) -> None:
        """The streams have ended, and the page goes on."""
        self._console.print(f"The streams have ended; the page stays at {self.url} until Ctrl-C.", highlight=False)


def with_page(described: Mapping[str, object]) -> tuple[SiteConfig, dict[str, object]]:
    """A described site whose page is on loopback, at the usual port if nobody else is there."""
    usual = parse_site(described).api
    port = usual.port if usual.port and _is_free(usual.port) else _any_free()
    api = {"host": _HOST, "port": port, "allow_addresses": usual.allow_addresses, "rate_per_s": usual.rate_per_s}
    found = {**described, "api": api}
    return parse_site(found), found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True


def _any_free() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])

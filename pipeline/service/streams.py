"""Running streams become those that are wanted, each by itself: none waits for another that is slow to stop."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Set
from dataclasses import replace

from pipeline.config.site import StreamConfig
from pipeline.service.attachment import EndReason
from pipeline.service.supervisor import StreamSupervisor


class RunningStreams:
    """The streams of a service, by slug.

    `start` begins a stream, `stopped` is awaited after one has ended for a reason; stopping may take `drain_s()`
    seconds, or until it is `hurried`; then the stream is cut.
    """

    def __init__(
        self,
        start: Callable[[str, StreamConfig], StreamSupervisor],
        stopped: Callable[[str, EndReason], Awaitable[None]],
        drain_s: Callable[[], float],
        hurried: asyncio.Event,
    ) -> None:
        self.running: dict[str, StreamSupervisor] = {}
        self._start = start
        self._stopped = stopped
        self._drain_s = drain_s
        self._hurried = hurried
        self._wanted: Mapping[str, StreamConfig] = {}
        self._known: Mapping[str, StreamConfig] = {}
        self._turning: dict[str, asyncio.Task[None]] = {}
        self._retried: set[str] = set()
        self._draining = False

    def want(
        self, streams: Mapping[str, StreamConfig], retry: bool, known: Mapping[str, StreamConfig] | None = None
    ) -> Awaitable[object]:
        """From now on these streams are to run, but for those that are paused; with `retry` also those that had given
        up. Those that are `known` and not wanted here go on elsewhere. Returns what can be awaited to see it done."""
        self._wanted = streams
        self._known = streams if known is None else known
        if retry:
            self._retried |= {slug for slug, running in self.running.items() if running.failed}
        return self._turn(set(streams) | set(self.running))

    @property
    def busy(self) -> Set[str]:
        """Those that run, or are being stopped or started."""
        return set(self.running) | set(self._turning)

    def renew(self, slugs: Set[str]) -> None:
        """Begin these anew when they are wanted next."""
        self._retried |= slugs

    def drain(self) -> Awaitable[object]:
        """Stop all of them, to go on another time."""
        self._draining = True
        return self._turn(set(self.running) | set(self._turning))

    def _turn(self, slugs: set[str]) -> Awaitable[object]:
        for slug in sorted(slugs):
            if slug in self._turning or self._is_right(slug):
                continue
            if slug not in self.running:
                self.running[slug] = self._start(slug, self._wanted[slug])
            else:
                self._turning[slug] = asyncio.create_task(self._follow(slug), name=f"reconcile {slug}")
        return asyncio.gather(*(task for slug, task in self._turning.items() if slug in slugs))

    async def _follow(self, slug: str) -> None:
        """Stop and start one stream until it is as it is wanted, which may change meanwhile."""
        try:
            while not self._is_right(slug):
                if slug in self.running:
                    await self._stop(slug)
                else:
                    self.running[slug] = self._start(slug, self._wanted[slug])
        finally:
            del self._turning[slug]

    async def _stop(self, slug: str) -> None:
        self._retried.discard(slug)
        reason = self._reason(slug)
        await self.running[slug].stop(self._drain_s(), self._hurried, reason)
        del self.running[slug]
        await self._stopped(slug, reason)

    def _is_right(self, slug: str) -> bool:
        wanted, running = self._to_run(slug), self.running.get(slug)
        if wanted is None or running is None:
            return wanted is None and running is None
        return _what_runs(running.stream) == _what_runs(wanted) and slug not in self._retried

    def _to_run(self, slug: str) -> StreamConfig | None:
        stream = None if self._draining else self._wanted.get(slug)
        return None if stream is None or stream.paused else stream

    def _reason(self, slug: str) -> EndReason:
        if self._draining:
            return "drained"
        stream = self._known.get(slug)
        return "detached" if stream is None else "paused" if stream.paused else "drained"


def _what_runs(stream: StreamConfig) -> StreamConfig:
    """A stream without what only people, selectors and watches read."""
    return replace(
        stream, display_name="", site="", live_url="", tags=(), zones={}, crop="zones", node=None, paused=False
    )

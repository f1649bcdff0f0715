"""The life of one attached stream: attached, lost and recovered any number of times, ended. Each is an event."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from typing import Literal

import structlog

from pipeline.config.site import ReconnectConfig
from pipeline.core.outcome import Decision
from pipeline.core.state import StreamRun
from pipeline.errors import ConfigError, SourceStalled, SourceUnavailable
from pipeline.loop import Runtime, watch_stream
from pipeline.redact import redact_url, scrub
from pipeline.service.tap import FrameTap
from pipeline.sources.base import Sampler, Source, SourceCounts
from pipeline.types import Frame, Json
from pipeline.waiting import back_off_s

log = structlog.get_logger()

Phase = Literal["connecting", "up", "lost", "ended"]
StopReason = Literal["drained", "detached", "paused"]
"""Why a stream is stopped: to go on with the next start, for good, or until it is resumed."""


class Attachment:
    """Keeps one stream attached until it ends or is told to stop. `phase` is where it stands, `since` when (UTC), for
    what `reason` if there is one; `tap` gives its frames to who looks, `seen_at` is when the newest was taken (UTC).

    A live stream that breaks is reattached for ever. With `insist` False a stream that never gave a frame is given up
    with SourceUnavailable instead, which is what a person who has just typed its URL wants.
    """

    def __init__(
        self,
        run: StreamRun,
        source: Source,
        url: str,
        runtime: Runtime,
        reconnect: ReconnectConfig,
        insist: bool = True,
    ) -> None:
        self.run = run
        self.source = source
        self.phase: Phase = "connecting"
        self.since = runtime.clock.now()
        self.reason = ""
        self.tap = FrameTap()
        self.seen_at: datetime | None = None
        self._url = redact_url(url)
        self._runtime = runtime
        self._reconnect = reconnect
        self._insist = insist
        self._failures = 0
        self._lost_at_s = 0.0
        self._stopping: StopReason | None = None

    async def live(self) -> None:
        """Watch until the end. Raises ConfigError for a recording that cannot be read, however long one waits."""
        reason = "internal error"
        try:
            await self._attached()
            await self._watch()
            reason = self._stopping or "end of stream"
        except (ConfigError, SourceUnavailable) as error:
            reason = scrub(str(error))
            raise
        except asyncio.CancelledError:
            reason = ""  # cut: whether the hop under way was decided is known to the store alone
            raise
        finally:
            if reason:
                await self._ended(reason)
            self._enter("ended", reason)
            await self.source.close()
            self._runtime.mllm.forget(self.run.stream_id)
            self._runtime.allocator.forget(self.run.stream_id)

    async def stop(self, reason: StopReason) -> None:
        """Take no new frames; `live` returns once the hop under way is decided."""
        self._stopping = reason
        await self.source.close()

    async def _watch(self) -> None:
        noticed = _Noticed(self.source, self._up, self._seen)
        while not self._stopping:
            try:
                await watch_stream(self.run, noticed, self._runtime)
                return
            except SourceUnavailable as error:
                if self._stopping:
                    return
                if self.phase == "connecting" and not self._insist:
                    raise
                await self._lost(error)
            await self._runtime.clock.sleep(back_off_s(self._failures, self._reconnect.first_s, self._reconnect.cap_s))

    async def _attached(self) -> None:
        info = self._runtime.mllm.info
        mllm: dict[str, Json] = {"name": info.name, "family": info.family, "meaningful": info.meaningful}
        data: dict[str, Json] = {
            "url": self._url,
            "mllm": mllm,
            "allocator": self._runtime.allocator.name,
            "sample_fps": self.run.hop_rules.sample_fps,
            "resume_s": self.run.decided_s,
        }
        await self._announce("stream.attached", data)
        if not info.meaningful:
            warning = f"{info.name} answers without looking: its events mean nothing and only show the plumbing"
            await self._announce("mllm.meaningless", {"mllm": mllm, "warning": warning})

    async def _ended(self, reason: str) -> None:
        if reason in ("detached", "paused"):
            await self._clear_watches(f"stream {reason}")
        await self._announce("stream.ended", {"reason": reason, "counts": self.run.counts.as_json()})

    async def _up(self) -> None:
        if self.phase == "lost":
            gone_s = self._runtime.clock.monotonic_s() - self._lost_at_s
            await self._announce("stream.recovered", {"lost_for_s": round(gone_s, 3), "attempts": self._failures})
        self._failures = 0
        self._enter("up")

    def _seen(self, frame: Frame) -> None:
        self.seen_at = frame.captured_at
        self.tap.offer(frame)

    async def _lost(self, error: SourceUnavailable) -> None:
        self._failures += 1
        self._runtime.metrics.losses.labels(self.run.stream_id).inc()
        reason = scrub(str(error))
        if self.phase == "lost":
            self.reason = reason  # the newest is what a person can act on
            return
        log.warning("stream_lost", stream=self.run.stream_id, reason=reason)
        self._lost_at_s = self._runtime.clock.monotonic_s()
        self._enter("lost", reason)
        await self._announce("stream.lost", {"reason": reason, "stalled": isinstance(error, SourceStalled)})

    async def _clear_watches(self, reason: str) -> None:
        """Nobody looks any more: what is open would stay open for ever."""
        run = self.run
        state, events = run.state.clear_watches(run.stream_id, run.decided_s, self._runtime.clock.now(), reason)
        if not events:
            return
        await self._runtime.outbox.commit(Decision(run.stream_id, state.to_json(), events, run.decided_s))
        self._runtime.metrics.events.labels("watch.cleared").inc(len(events))
        run.state, run.counts = state, run.counts.add(events=len(events))

    async def _announce(self, kind: str, data: dict[str, Json]) -> None:
        run = self.run
        data = {"stream_s": run.decided_s, **data}
        state, event = run.state.stream_event(run.stream_id, kind, self._runtime.clock.now(), data)
        await self._runtime.outbox.commit(Decision(run.stream_id, state.to_json(), (event,), run.decided_s))
        self._runtime.metrics.events.labels(kind).inc()
        log.info(kind, stream=run.stream_id, stream_s=run.decided_s)
        run.state, run.counts = state, run.counts.add(events=1)

    def _enter(self, phase: Phase, reason: str = "") -> None:
        self.phase, self.reason, self.since = phase, reason, self._runtime.clock.now()
        self._runtime.metrics.stream_up.labels(self.run.stream_id).set(phase == "up")


class _Noticed:
    """A source that says when each connection gives its first frame, and shows every frame."""

    def __init__(self, source: Source, notice: Callable[[], Awaitable[None]], show: Callable[[Frame], None]) -> None:
        self._source = source
        self._notice = notice
        self._show = show

    @property
    def live(self) -> bool:
        return self._source.live

    @property
    def counts(self) -> SourceCounts:
        return self._source.counts

    async def frames(self, sampler: Sampler) -> AsyncGenerator[Frame, None]:
        first = True
        async with aclosing(self._source.frames(sampler)) as frames:
            async for frame in frames:
                if first:
                    await self._notice()
                first = False
                self._show(frame)
                yield frame

    async def close(self) -> None:
        await self._source.close()

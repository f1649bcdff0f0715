"""The life of one attached stream: attached, lost and recovered any number of times, ended. Each is an event."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from typing import Literal

import structlog

from pipeline.config.site import ReconnectConfig
from pipeline.core.judge import retire
from pipeline.core.outcome import Decision
from pipeline.core.state import StreamRun
from pipeline.errors import (
    ConfigError,
    NotOwner,
    SourceRefused,
    SourceStalled,
    SourceUnavailable,
    StoreDamaged,
    StoreUnavailable,
)
from pipeline.loop import Runtime, watch_stream
from pipeline.redact import redact_url, scrub
from pipeline.service.logged import log_watch_events
from pipeline.service.removed import CLEARED
from pipeline.service.tap import FrameTap
from pipeline.sources.base import Notice, Notify, Sampler, Source, SourceCounts, ignore
from pipeline.types import Frame, Json
from pipeline.waiting import back_off_s, first

log = structlog.get_logger()

Phase = Literal["connecting", "up", "lost", "ended"]
EndReason = Literal["end of stream", "drained", "detached", "paused", "failed"]
"""Why a run of a stream ended: by itself, with its process, because it was removed or paused, or by an error."""


class Attachment:
    """Keeps one stream attached until it ends or is told to stop.

    A live stream that breaks is reattached for ever, after a refused password in minutes only. With `insist` False a
    stream that never gave a frame is given up with SourceUnavailable instead and has no events, which is what a person
    who has just typed its URL wants. `phase` is where it stands, `since` when (UTC); `tap` gives its frames to who
    looks, `seen_at` is when the newest was taken (UTC).
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
        self.tap = FrameTap()
        self.seen_at: datetime | None = None
        self._url = redact_url(url)
        self._runtime = runtime
        self._reconnect = reconnect
        self._insist = insist
        self._failures = 0
        self._lost_at_s = 0.0
        self._attached = False
        self._stop = asyncio.Event()
        self._lost_reason: str | None = None
        self._stopping: EndReason | None = None

    @property
    def trouble(self) -> str | None:
        """Why it gives no pictures now, if it was lost."""
        return self._lost_reason if self.phase == "lost" else None

    async def live(self) -> None:
        """Watch until the end. Raises ConfigError for a recording that cannot be read, however long one waits."""
        reason: EndReason | None = "failed"
        error_text = "internal error"
        try:
            await self._watch()
            await self._attach()
            reason = self._stopping or "end of stream"
        except (ConfigError, SourceUnavailable) as error:
            error_text = scrub(str(error))
            raise
        except (asyncio.CancelledError, StoreUnavailable, StoreDamaged, NotOwner):
            reason = None  # cut: whether the hop under way was decided is known to the store alone
            raise
        finally:
            try:
                if reason and (self._attached or self._insist):
                    await self._ended(reason, error_text if reason == "failed" else None)
            finally:  # the end of a stream that another process has taken is not written
                self._enter("ended")
                await self.source.close()
                self._runtime.mllm.forget(self.run.stream_id)
                self._runtime.allocator.forget(self.run.stream_id)

    async def stop(self, reason: EndReason = "drained") -> None:
        """Take no new frames; `live` returns once the hop under way is decided. A stream that is detached or paused
        clears its open watches."""
        self._stopping = reason
        self._stop.set()
        await self.source.close()

    async def _watch(self) -> None:
        attended = _Attended(self.source, self._up, self._seen, self._found)
        while not self._stopping:
            try:
                await watch_stream(self.run, attended, self._runtime)
                return
            except SourceUnavailable as error:
                if self._stopping:
                    return
                if self.phase == "connecting" and not self._insist:
                    raise
                await self._lost(error)
                pause_s = self._pause_s(error)
            await first(self._runtime.clock.sleep(pause_s), self._stop.wait())

    def _pause_s(self, error: SourceUnavailable) -> float:
        bounds = self._reconnect
        if isinstance(error, SourceRefused):
            return back_off_s(1, bounds.refused_s, bounds.refused_s)
        return back_off_s(self._failures, bounds.first_s, bounds.cap_s)

    async def _attach(self) -> None:
        """Announce the stream, once: with its first frame, loss or end, so that what never was has no events."""
        if self._attached:
            return
        self._attached = True
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

    async def _ended(self, reason: EndReason, error: str | None) -> None:
        if reason in CLEARED:
            await self._clear_watches(CLEARED[reason])
        why: dict[str, Json] = {"reason": reason} | ({"error": error} if error else {})
        await self._announce("stream.ended", why | {"counts": self.run.counts.as_json()})

    async def _clear_watches(self, reason: str) -> None:
        run, now = self.run, self._runtime.clock.now()
        watches, events = retire(run.state.lineage, run.stream_id, run.state.watches, (), run.decided_s, now, reason)
        state, ends = run.state.keeping(watches).well(run.stream_id, now, run.decided_s, reason)
        events += ends
        await self._runtime.outbox.commit(Decision(run.stream_id, state.to_json(), tuple(events), run.decided_s))
        for event in events:
            self._runtime.metrics.event(event)
        log_watch_events(events)
        run.state, run.counts = state, run.counts.add(events=len(events))

    async def _up(self) -> None:
        await self._attach()
        if self.phase == "lost":
            gone_s = self._runtime.clock.monotonic_s() - self._lost_at_s
            await self._announce("stream.recovered", {"lost_for_s": round(gone_s, 3), "attempts": self._failures})
        self._failures = 0
        self._enter("up")

    async def _lost(self, error: SourceUnavailable) -> None:
        self._failures += 1
        self._runtime.metrics.attempts_failed.labels(self.run.stream_id).inc()
        reason = scrub(str(error))
        if isinstance(error, SourceRefused):
            reason += f"; asked again after about {self._reconnect.refused_s:g} s, for cameras lock accounts"
        if self.phase == "lost":
            self._lost_reason = reason  # the newest is what a person can act on
            return
        self._runtime.metrics.losses.labels(self.run.stream_id, type(error).__name__).inc()
        await self._attach()
        log.warning("stream_lost", stream=self.run.stream_id, reason=reason)
        self._lost_at_s, self._lost_reason = self._runtime.clock.monotonic_s(), reason
        self._enter("lost")
        await self._announce("stream.lost", {"reason": reason, "stalled": isinstance(error, SourceStalled)})

    def _seen(self, frame: Frame) -> None:
        self.seen_at = frame.captured_at
        self.tap.offer(frame)

    async def _found(self, notice: Notice) -> None:
        """Send out what the source found out; between two hops, or the loop would decide on an older state."""
        told: dict[str, Json] = {"reason": notice.reason}
        if notice.advice:
            told["advice"] = notice.advice
        log.warning(notice.kind, stream=self.run.stream_id, **told)
        await self._announce(notice.kind, {**told, **notice.data})

    async def _announce(self, kind: str, data: dict[str, Json]) -> None:
        run = self.run
        data = {"stream_s": run.decided_s, **data}
        state, event = run.state.stream_event(run.stream_id, kind, self._runtime.clock.now(), data)
        await self._runtime.outbox.commit(Decision(run.stream_id, state.to_json(), (event,), run.decided_s))
        self._runtime.metrics.event(event)
        log.info(kind, stream=run.stream_id, stream_s=run.decided_s)
        run.state, run.counts = state, run.counts.add(events=1)

    def _enter(self, phase: Phase) -> None:
        self.phase, self.since = phase, self._runtime.clock.now()
        self._runtime.metrics.stream_up.labels(self.run.stream_id).set(phase == "up")


class _Attended:
    """A source whose notices are attended to, and the first frame of each connection too."""

    def __init__(
        self,
        source: Source,
        up: Callable[[], Awaitable[None]],
        seen: Callable[[Frame], None],
        found: Notify,
    ) -> None:
        self._source = source
        self._up = up
        self._seen = seen
        self._found = found

    @property
    def live(self) -> bool:
        return self._source.live

    @property
    def counts(self) -> SourceCounts:
        return self._source.counts

    async def frames(self, sampler: Sampler, notify: Notify = ignore) -> AsyncGenerator[Frame, None]:
        async def found(notice: Notice) -> None:
            await self._found(notice)
            await notify(notice)

        first = True
        async with aclosing(self._source.frames(sampler, found)) as frames:
            async for frame in frames:
                if first:
                    await self._up()
                first = False
                self._seen(frame)
                yield frame

    async def close(self) -> None:
        await self._source.close()

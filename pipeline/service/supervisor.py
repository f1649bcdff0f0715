"""Keeping one configured stream attached: restarted after what nobody foresaw, stopped within a deadline."""

import asyncio
import hashlib
import uuid
from collections.abc import Callable
from dataclasses import replace

import structlog

from pipeline.build import build_source
from pipeline.config.site import StreamConfig
from pipeline.core.context import Context, ContextRules
from pipeline.core.health import Checkup
from pipeline.core.relook import PictureRing
from pipeline.core.state import StreamRun, StreamState
from pipeline.delivery.outbox import FATAL
from pipeline.delivery.store import Store
from pipeline.errors import ResadaptError, StoreUnavailable, StreamTaken
from pipeline.loop import Runtime
from pipeline.redact import plain_traceback, redact_url, scrub
from pipeline.service.attachment import Attachment, EndReason
from pipeline.sources.packets import PacketRing
from pipeline.waiting import back_off_s, first

log = structlog.get_logger()

RESTART_S = (1.0, 30.0)
"""First and longest pause before a stream that failed unexpectedly is attached again, in seconds."""
TAKE_S = 0.2
"""How often a stream that another process still holds is asked for, in seconds."""


def checkup_of(stream: StreamConfig) -> Checkup:
    """The terms on which a stream's health is judged. Another address or other masks make another picture."""
    masks = tuple(stream.masks.values())
    picture = repr((redact_url(stream.url), masks, stream.video_track))
    of = hashlib.blake2b(picture.encode(), digest_size=4).hexdigest()
    return Checkup(stream.health.rules(), of, masks)


class StreamSupervisor:
    """One stream of a site, from the start of its task to the end of it. `insist` is explained in Attachment; `packets`
    gives each attachment a ring for its packets, or none."""

    def __init__(
        self,
        slug: str,
        stream: StreamConfig,
        runtime: Runtime,
        store: Store,
        insist: bool,
        packets: Callable[[], PacketRing | None] = lambda: None,
    ) -> None:
        self.stream = stream
        self.attachment: Attachment | None = None
        self._slug = slug
        self._runtime = runtime
        self._store = store
        self._insist = insist
        self._packets = packets
        self._stopping = asyncio.Event()
        self._held: str | None = None
        self.task = asyncio.create_task(self._keep(), name=f"stream {slug}")

    @property
    def failed(self) -> bool:
        """True if it has given up."""
        return self.task.done() and (self.task.cancelled() or self.task.exception() is not None)

    @property
    def trouble(self) -> str | None:
        """Why it gives no pictures now, if it does not."""
        if self.failed and not self.task.cancelled():
            return scrub(str(self.task.exception()))
        return self._held or (self.attachment.trouble if self.attachment else None)

    @property
    def overtaken(self) -> bool:
        """True if another process decides on the stream now, and this one has stopped."""
        return self.failed and not self.task.cancelled() and isinstance(self.task.exception(), StreamTaken)

    async def stop(self, deadline_s: float, hurried: asyncio.Event, reason: EndReason) -> None:
        """Let the hop under way be decided, for at most `deadline_s` seconds or until it is `hurried`; then cut it. A
        cut stream, like one whose process was killed, has no `stream.ended`: the next start goes on from what was
        committed."""
        self._stopping.set()
        if self.attachment:
            await self.attachment.stop(reason)
        await first(asyncio.wait([self.task], timeout=deadline_s), hurried.wait())
        if not self.task.done():
            log.warning("stream_cut", stream=self._slug, waited_at_most_s=deadline_s)
            self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _keep(self) -> None:
        failures, began_s = 0, self._runtime.clock.monotonic_s()
        while not self._stopping.is_set():
            try:
                if not await self._take():
                    return
                self.attachment = await self._attach()
                if not self._stopping.is_set():
                    await self.attachment.live()
                return
            except StoreUnavailable as error:
                log.warning("stream_waits_for_store", stream=self._slug, reason=str(error))
            except StreamTaken as error:
                log.warning("stream_taken", stream=self._slug, reason=str(error))
                raise
            except FATAL:
                raise  # the whole service's, which says so once
            except ResadaptError as error:
                if self._insist:
                    log.error("stream_failed", stream=self._slug, reason=scrub(str(error)))
                raise
            except Exception as error:  # noqa: BLE001 - the only one: a stream's defect stays the stream's
                log.error("stream_crashed", stream=self._slug, traceback=plain_traceback(error))
                self._runtime.metrics.crashes.labels(self._slug).inc()
            finally:
                self._runtime.budget.close(self._slug)
            lasted_s = self._runtime.clock.monotonic_s() - began_s
            failures = 1 if lasted_s > 2 * RESTART_S[1] else failures + 1
            await self._pause(back_off_s(failures, *RESTART_S))
            began_s = self._runtime.clock.monotonic_s()

    async def _take(self) -> bool:
        """Become the one who decides on the stream, once nobody else does; False if it is to stop before that."""
        while not self._stopping.is_set():
            try:
                await asyncio.to_thread(self._store.take, self._slug)
            except StreamTaken as error:
                if self._held is None:
                    log.info("stream_waits_for_owner", stream=self._slug, reason=str(error))
                self._held = str(error)
                await self._pause(TAKE_S)
                continue
            self._held = None
            return True
        return False

    async def _attach(self) -> Attachment:
        slug, stream, runtime = self._slug, self.stream, self._runtime
        stored = await asyncio.to_thread(self._store.load, slug)
        start_s = stored.resume_s if stored else 0.0
        state = StreamState.from_json(stored.state) if stored else StreamState(lineage=uuid.uuid4().hex)
        source = build_source(slug, stream, runtime.clock, start_s, self._packets())
        # A restarted stream begins with an empty bucket: what it had spent is not known, and must not be spent twice.
        runtime.budget.open(slug, stream.budget.rate, start_s, stream.priority, full=stored is None)
        context = Context.empty(slug, self._context_rules())
        ring = PictureRing(stream.relook_tokens, stream.relook_frames)
        run = StreamRun(slug, stream.hop_rules(), context, state, decided_s=start_s, began_s=start_s, ring=ring)
        run.checkup, run.burst_hops = checkup_of(stream), stream.budget.hops
        return Attachment(run, source, stream.url, runtime, stream.reconnect, self._insist)

    def _context_rules(self) -> ContextRules:
        """The rules of the stream's context, which is packed only where that pays."""
        info = self._runtime.mllm.info
        rules = self.stream.context_rules(info.family)
        if rules.packed and info.needs_pixels:
            log.warning("context_not_packed", stream=self._slug, reason=f"{info.name} needs all its pixels at each ask")
            return replace(rules, packed=False)
        return rules

    async def _pause(self, seconds: float) -> None:
        await first(self._runtime.clock.sleep(seconds), self._stopping.wait())

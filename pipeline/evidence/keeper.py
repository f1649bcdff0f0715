"""Keeps evidence: takes what a hop rests on, writes it off the loop, and stays within its bounds."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from pipeline.clock import Clock
from pipeline.config.evidence import EvidenceConfig
from pipeline.core.outcome import Outcome
from pipeline.delivery.manifests import Manifests
from pipeline.errors import NotOwner, ResadaptError, StoreDamaged, StoreUnavailable
from pipeline.evidence.bundle import CLIP_PENDING
from pipeline.evidence.capture import Capture, ScoreBook, capture
from pipeline.evidence.files import EvidenceFiles
from pipeline.evidence.writer import About, Writer
from pipeline.logs import Seldom
from pipeline.sources.packets import SPARE_S, PacketCut, PacketRing
from pipeline.types import Event
from pipeline.waiting import first, stop, supervise

log = structlog.get_logger()

STEP_S = 0.5
"""How often clips under way are looked at."""
PRUNE_S = 60.0
"""How often what is too old is looked for."""
CLIP_WAIT_S = 30.0
"""How much longer than `after_s` a clip is waited for: of a stream that is lost, what there is has to do."""
CLOSE_S = 5.0
"""How long what waits is still written when the service ends."""


@dataclass(frozen=True, slots=True)
class _Awaited:
    """A bundle whose clip is still being cut, and until when (monotonic) that is waited for."""

    event_id: str
    cut: PacketCut
    until_s: float


class EvidenceKeeper:
    """Evidence of a service's events, in `files` and in the store's `manifests`.

    `observe` is called by the loop after each hop and takes microseconds; a supervised worker writes. At most
    `config.queue` decisions wait; beyond that evidence is left out. `lost` counts that by reason: evidence that
    cannot be had costs no decision. `about` gives who answers and who sizes frames; it may take seconds, once.
    """

    def __init__(
        self,
        files: EvidenceFiles,
        manifests: Manifests,
        config: EvidenceConfig,
        clock: Clock,
        about: Callable[[], About],
    ) -> None:
        self.written = 0
        self.lost: Counter[str] = Counter()
        self.bytes = 0
        self.crashes = 0
        self.trouble: str | None = None
        self._config = config
        self._clock = clock
        self._writer = Writer(files, manifests, config, clock, about)
        self._rings: dict[str, PacketRing] = {}
        self._refusals: dict[str, str] = {}
        self._book = ScoreBook()
        self._waiting: deque[Capture] = deque()
        self._awaited: list[_Awaited] = []
        self._arrived = asyncio.Event()
        self._seldom = Seldom()
        self._closing = False
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._worker = asyncio.create_task(
            supervise("evidence", self._run, self._clock, self._note_crash), name="evidence"
        )

    def ring(self, stream: str, refused: str | None) -> PacketRing | None:
        """The packet ring for a stream that is about to be attached; None where it has no clips, or they are refused
        for a reason."""
        self._rings.pop(stream, None)
        self._refusals.pop(stream, None)
        if not self._config.clip:
            refused = "clips are turned off (evidence.clip)"
        if refused is not None:
            self._refusals[stream] = refused
            return None
        ring = self._rings[stream] = PacketRing(self._config.before_s + SPARE_S, self._config.clip_mib * 2**20)
        return ring

    def forget(self, stream: str) -> None:
        """A stream is gone."""
        self._rings.pop(stream, None)
        self._refusals.pop(stream, None)
        self._book.forget(stream)

    def observe(self, outcome: Outcome, events: Sequence[Event]) -> None:
        """A hop was decided, with these events. Neither blocks nor raises."""
        self._book.note(outcome)
        for event in events:
            if event.watch_id is None:
                continue
            if len(self._waiting) >= self._config.queue:
                self._lose("queue", f"{len(self._waiting)} decisions wait for their evidence to be written")
                continue
            scores = self._book.of(event.stream_id, event.watch_id)
            if taken := capture(event, outcome, scores, self._cut(event, outcome)):
                self._waiting.append(taken)
                self._arrived.set()

    async def close(self) -> None:
        """Write what waits, for at most CLOSE_S; clips end where they are."""
        self._closing = True
        self._arrived.set()
        if self._worker is None:
            return
        await first(_ended(self._worker), self._clock.sleep(CLOSE_S))
        await stop([self._worker])
        for _ in range(len(self._waiting)):
            self._lose("closing", "the service ended before it was written")

    def _cut(self, event: Event, outcome: Outcome) -> PacketCut | str:
        stream, hop = event.stream_id, outcome.hop
        if event.type != "watch.opened":
            return "only an opened watch has a clip"
        ring = self._rings.get(stream)
        if ring is None:
            return self._refusals.get(stream, "its source gives no packets")
        return ring.cut(hop.start_s - self._config.before_s, hop.end_s + self._config.after_s)

    async def _run(self) -> None:
        recovered, pruned_s = False, float("-inf")
        while True:
            recovered = recovered or await self._quietly(self._writer.recover)
            if self._clock.monotonic_s() - pruned_s >= PRUNE_S:
                pruned_s = self._clock.monotonic_s()
                await self._quietly(self._prune)
            while self._waiting:
                await self._write(self._waiting.popleft())
            await self._write_clips()
            if self._closing and not self._waiting and not self._awaited:
                return
            wait_s = STEP_S if self._awaited else PRUNE_S
            await first(self._arrived.wait(), self._clock.sleep(wait_s))
            self._arrived.clear()

    async def _write(self, taken: Capture) -> None:
        pending = isinstance(taken.cut, PacketCut)
        if not await self._quietly(lambda: self._writer.write(taken, CLIP_PENDING if pending else str(taken.cut))):
            return
        self.written += 1
        self.bytes = self._writer.bytes
        if isinstance(taken.cut, PacketCut):
            until_s = self._clock.monotonic_s() + self._config.after_s + CLIP_WAIT_S
            self._awaited.append(_Awaited(taken.event.id, taken.cut, until_s))

    async def _write_clips(self) -> None:
        now_s, waiting = self._clock.monotonic_s(), self._awaited
        ready = [one for one in waiting if one.cut.complete or now_s >= one.until_s or self._closing]
        self._awaited = [one for one in waiting if one not in ready]
        for one in ready:
            one.cut.finish()
            event_id, cut = one.event_id, one.cut
            await self._quietly(lambda event_id=event_id, cut=cut: self._writer.add_clip(event_id, cut))  # type: ignore[misc]
            self.bytes = self._writer.bytes

    def _prune(self) -> None:
        self._writer.prune()
        self.bytes = self._writer.bytes

    async def _quietly(self, work: Callable[[], None]) -> bool:
        """Do what may fail for want of room, in a thread; such a failure costs this evidence and nothing else."""
        try:
            await asyncio.to_thread(work)
        except (StoreUnavailable, StoreDamaged, NotOwner) as error:
            self._lose("store", str(error))
        except OSError as error:
            self._lose("disk", error.strerror or str(error))
        except ResadaptError as error:
            self._lose("room", str(error))
        else:
            self.trouble = None
            return True
        return False

    def _lose(self, reason: str, why: str) -> None:
        self.lost[reason] += 1
        self.trouble = why
        if times := self._seldom.times(reason, self._clock.monotonic_s()):
            log.warning("evidence_left_out", reason=reason, why=why, times=times)

    def _note_crash(self, _error: Exception) -> None:
        self.crashes += 1
        self.lost["crash"] += 1

    def counts(self) -> Mapping[str, int]:
        """Number of items left out, by reason."""
        return dict(self.lost)


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait({task})

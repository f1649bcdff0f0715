"""Sampled frames become hops of `[start_s, end_s)` stream seconds."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import SourceUnavailable
from pipeline.sources.base import Sampler, Source
from pipeline.types import Frame, Hop


@dataclass(frozen=True, slots=True)
class HopRules:
    """The cut of a stream: frames sampled per second of stream time, and the length of a hop in seconds.

    A hop holds a whole number of samples, so that its last one is known when it comes and no hop waits for the next.
    """

    sample_fps: float = 2.0
    hop_s: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.sample_fps <= 60:
            raise ValueError(f"sample_fps is {self.sample_fps}; expected more than 0 and at most 60")
        slots = self.sample_fps * self.hop_s
        if slots < 1 or abs(slots - round(slots)) > 1e-9:
            raise ValueError(
                f"hop_s is {self.hop_s}, which holds {slots:g} samples at sample_fps {self.sample_fps:g};"
                " expected a whole number of at least 1"
            )

    @property
    def slots(self) -> int:
        """Samples in a full hop."""
        return round(self.sample_fps * self.hop_s)


class Stretch(Protocol):
    """The number of hop lengths that the next hop spans: 1, or more under load."""

    @property
    def stretch(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Unstretched:
    """Every hop has its own length."""

    stretch: int = 1


class HopCutter:
    """Collects frames in order of PTS and gives back each hop as soon as it is complete.

    `from_s` is the stream time up to which the stream is decided: no hop begins before it. `load` is asked at the first
    frame of each hop for how long it is to be; longer hops end at multiples of their length too.
    """

    def __init__(self, stream_id: str, rules: HopRules, from_s: float = 0.0, load: Stretch = Unstretched()) -> None:
        self._stream_id = stream_id
        self._rules = rules
        self._from_s = from_s
        self._load = load
        self._slots = Sampler(rules.sample_fps)
        self._bounds = (0, 0)
        self._frames: list[Frame] = []

    def push(self, frame: Frame, lost: int) -> list[Hop]:
        """Add a frame; `lost` frames were lost since the last push that gave a hop. Returns the hops completed by it:
        the one before, if this frame belongs to a later one, and its own, if this frame is its last sample."""
        slot = self._slots.slot(frame.pts_s)
        done: list[Hop] = []
        if self._frames and not self._bounds[0] <= slot < self._bounds[1]:
            done.append(self._cut(self._bounds[1], lost))
        if not self._frames:
            slots = self._rules.slots * self._load.stretch
            self._bounds = (slot // slots * slots, (slot // slots + 1) * slots)
        self._frames.append(frame)
        if slot == self._bounds[1] - 1:
            done.append(self._cut(self._bounds[1], 0 if done else lost))
        return done

    def flush(self, lost: int) -> list[Hop]:
        """The hop under way, if it has frames. It ends behind its last sample, so that what comes later in its second
        is decided by a hop of its own."""
        if not self._frames:
            return []
        return [self._cut(self._slots.slot(self._frames[-1].pts_s) + 1, lost)]

    def _cut(self, end_slot: int, lost: int) -> Hop:
        fps = self._rules.sample_fps
        start_s, end_s = max(self._bounds[0] / fps, self._from_s), end_slot / fps
        frames, self._frames, self._from_s = tuple(self._frames), [], end_s
        return Hop(self._stream_id, start_s, end_s, frames, lost)


async def hops(
    source: Source, stream_id: str, rules: HopRules, from_s: float = 0.0, load: Stretch = Unstretched()
) -> AsyncGenerator[Hop, None]:
    """The hops of one connection of `source` from `from_s` stream seconds on, each as soon as its last sample is there.

    A hop that was cut by the end of the stream or of the connection is given too; only then SourceUnavailable is
    passed on. Hops without a frame are not given.
    """
    cutter = HopCutter(stream_id, rules, from_s, load)
    lost = source.counts.lost
    broken: SourceUnavailable | None = None
    async with aclosing(source.frames(Sampler(rules.sample_fps))) as frames:
        try:
            async for frame in frames:
                complete = cutter.push(frame, source.counts.lost - lost)
                del frame  # pictures are large: none is kept here while the next hop is waited for
                while complete:
                    lost = source.counts.lost
                    yield complete.pop(0)
        except SourceUnavailable as error:
            broken = error
    for hop in cutter.flush(source.counts.lost - lost):
        yield hop
    if broken:
        raise broken

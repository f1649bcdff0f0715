"""The allocators that a learned one is compared with, apart from those of production (`fixed`, `motion`).

Pure: a hop's place in the clip, its frames' native sizes and its grant give an Allocation that costs no more.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import median
from typing import Protocol

import numpy as np

from allocator_engine.fit import Allocation, FitRules, SegmentSize, fit

UNBOUNDED = 2**62
"""A grant that pays for everything."""

_STILL_MOTION = 1e-4  # of a diagonal: less is noise of the encoder's search

Sizes = Sequence[tuple[int, int]]
"""Native (height, width) in px of each frame of a hop."""


class Baseline(Protocol):
    """An allocator of one clip, whose hops come in order."""

    def allocate(self, hop: int, sizes: Sizes, grant: int) -> Allocation:
        """The allocation of hop number `hop` of the clip: `tokens <= grant`."""
        ...


def native(sizes: Sizes, rules: FitRules) -> Allocation:
    """Every frame at scale 1."""
    return scaled(tuple(sizes), 1.0, rules)


@lru_cache(maxsize=4096)
def scaled(sizes: tuple[tuple[int, int], ...], scale: float, rules: FitRules) -> Allocation:
    """Every frame at one linear scale, whatever it costs."""
    return fit(sizes, [scale] * len(sizes), UNBOUNDED, rules)


@dataclass(frozen=True, slots=True)
class Fewer:
    """Native size or nothing: as many segments as are paid for, evenly spread."""

    rules: FitRules

    def allocate(self, hop: int, sizes: Sizes, grant: int) -> Allocation:
        """See Baseline."""
        return _evenly(native(sizes, self.rules).segments, grant)


RECENT_FRAMES = 4
"""Newest frames of a hop that `Recent` shows, at most."""


@dataclass(frozen=True, slots=True)
class Recent:
    """The newest frames at native size and nothing else: at most RECENT_FRAMES of each hop, as many as are paid for.

    So streaming video is answered best without any learning: from the last few frames.
    """

    rules: FitRules

    def allocate(self, hop: int, sizes: Sizes, grant: int) -> Allocation:
        """See Baseline."""
        kept: list[SegmentSize] = []
        frames = tokens = 0
        for segment in reversed(native(sizes, self.rules).segments):
            frames, tokens = frames + len(segment.frames), tokens + segment.tokens
            if frames > RECENT_FRAMES or tokens > grant:
                break
            kept.insert(0, segment)
        return Allocation(tuple(kept))


@dataclass(frozen=True, slots=True)
class CodecActivity:
    """An encoder's work since the sampled frame before: mean bytes of the packets that are no key frames, and mean
    motion as a share of the picture's diagonal."""

    bytes: float
    motion: float


@dataclass(frozen=True, slots=True)
class CodecRules:
    """When a frame counts as changed by its encoder's work, as a multiple of what has been usual for `usual_frames`
    sampled frames: less than `still` is dropped, unless `refresh_hops` hops have shown nothing, `moving` or more is
    shown at native size; between them the scale grows with the square root, and is never less than `least_scale`."""

    usual_frames: int = 32
    known_frames: int = 4
    still: float = 1.3
    moving: float = 4.0
    refresh_hops: int = 5
    least_scale: float = 0.25


class Codec:
    """Pixels where the encoder had work to do: `activity` of each frame of each hop, and no pixels at all."""

    def __init__(
        self, rules: FitRules, activity: Sequence[Sequence[CodecActivity]], codec: CodecRules = CodecRules()
    ) -> None:
        self._rules, self._activity, self._codec = rules, activity, codec
        self._usual: deque[CodecActivity] = deque(maxlen=codec.usual_frames)
        self._blind_hops = codec.refresh_hops

    def allocate(self, hop: int, sizes: Sizes, grant: int) -> Allocation:
        """See Baseline."""
        scales = [self._scale(one) for one in self._activity[hop]]
        if self._blind_hops >= self._codec.refresh_hops and scales:
            scales[-1] = 1.0
        allocation = fit(sizes, scales, grant, self._rules)
        self._blind_hops = 0 if allocation.segments else self._blind_hops + 1
        return allocation

    def _scale(self, now: CodecActivity) -> float:
        rules, usual = self._codec, list(self._usual)
        self._usual.append(now)
        if len(usual) < rules.known_frames:
            return 1.0
        times = max(
            now.bytes / max(median(one.bytes for one in usual), 1.0),
            now.motion / max(median(one.motion for one in usual), _STILL_MOTION),
        )
        if times < rules.still:
            return 0.0
        share = (times - rules.still) / (rules.moving - rules.still)
        return max(rules.least_scale, min(1.0, math.sqrt(share)))


@dataclass(frozen=True, slots=True)
class Random:
    """Every frame at a random scale, from half to twice what the grant pays for. The same seed, the same scales."""

    rules: FitRules
    seed: int

    def allocate(self, hop: int, sizes: Sizes, grant: int) -> Allocation:
        """See Baseline."""
        paid = math.sqrt(grant / max(1, native(sizes, self.rules).tokens))
        factors = 2.0 ** np.random.default_rng((self.seed, hop)).uniform(-1, 1, len(sizes))
        return fit(sizes, (paid * factors).tolist(), grant, self.rules)


class Video:
    """A clip as other systems send it: one video item. All temporal patches (segments, of two frames where the MLLM
    takes them) have one size, and where not all are paid for, they are evenly spread.

    The size is the largest at which the first hop that can be shown is shown whole.
    """

    def __init__(self, rules: FitRules) -> None:
        self._rules = rules
        self._size: SegmentSize | None = None

    def allocate(self, hop: int, sizes: Sizes, grant: int) -> Allocation:
        """See Baseline."""
        patches = native(sizes, self._rules).segments
        if self._size is None:
            first = fit(sizes, [1.0] * len(sizes), grant, self._rules).segments
            if len(first) < len(patches) or not patches:
                return Allocation()
            self._size = min(first, key=lambda segment: segment.tokens)
        size = self._size
        resized = [
            patch
            if patch.tokens <= size.tokens
            else replace(patch, height=size.height, width=size.width, tokens=size.tokens)
            for patch in patches
        ]
        return _evenly(resized, grant)


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One scale per hop, decided before the clip began: the oracle's."""

    rules: FitRules
    scales: Sequence[float]

    def allocate(self, hop: int, sizes: Sizes, grant: int) -> Allocation:
        """See Baseline."""
        return fit(sizes, [self.scales[hop]] * len(sizes), grant, self.rules)


def _evenly(segments: Sequence[SegmentSize], grant: int) -> Allocation:
    """As many of the segments as the grant pays for, evenly spread."""
    count = len(segments)
    for kept in range(count, 0, -1):
        chosen = tuple(segments[(2 * i + 1) * count // (2 * kept)] for i in range(kept))
        if sum(segment.tokens for segment in chosen) <= grant:
            return Allocation(chosen)
    return Allocation()

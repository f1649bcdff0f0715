"""Pixels go where something changed: frame differences on thumbnails, without any training."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from allocator_engine.fit import Allocation, FitRules, fit
from pipeline.sources.regions import covered
from pipeline.types import Frame, Hop, WatchQuery

Thumbnail = NDArray[np.uint8]
"""Luma, uint8 `[height, width]`."""

Zones = tuple[tuple[tuple[float, float], ...], ...]
"""Polygons in shares of the picture; none: all of it."""


@dataclass(frozen=True, slots=True)
class MotionRules:
    """When a frame counts as changed.

    A thumbnail of `thumbnail_px` on its longer side is compared with that of the last kept frame. A pixel changed if it
    differs by more than `threshold` (of 255) after blur and after the median difference is taken out, so that
    an exposure step alone is no motion. Less than `still` of the picture changed: the frame is dropped, unless the last
    kept one is `refresh_s` old. `moving` or more: native scale. Between them the scale grows with the square root, so
    that tokens grow in proportion; it is never less than `least_scale`.
    """

    thumbnail_px: int = 112
    threshold: int = 16
    still: float = 0.002
    moving: float = 0.05
    least_scale: float = 0.25
    refresh_s: float = 5.0


class MotionAllocator:
    """Change against the last kept frame of the stream: in the zones, where all its watches are about zones. Remembers
    one thumbnail per stream."""

    name = "motion"

    def __init__(self, rules: FitRules, motion: MotionRules = MotionRules()) -> None:
        self._rules = rules
        self._motion = motion
        self._kept: dict[str, tuple[float, Thumbnail]] = {}

    async def allocate(self, hop: Hop, queries: Sequence[WatchQuery], grant: int) -> Allocation:
        scales, seen = await asyncio.to_thread(self._look, hop, focus(queries))
        allocation = fit([frame.size for frame in hop.frames], scales, grant, self._rules)
        if allocation.segments:
            # What fit dropped for want of tokens was never shown: the next hop is compared with what was.
            self._kept[hop.stream_id] = seen[allocation.segments[-1].frames[-1]]
        return allocation

    def forget(self, stream_id: str) -> None:
        self._kept.pop(stream_id, None)

    async def close(self) -> None:
        return

    def _look(self, hop: Hop, zones: Zones) -> tuple[list[float], list[tuple[float, Thumbnail]]]:
        last = self._kept.get(hop.stream_id)
        scales: list[float] = []
        seen: list[tuple[float, Thumbnail]] = []
        for frame in hop.frames:
            now = (frame.pts_s, thumbnail(frame, self._motion.thumbnail_px))
            scale = self._scale(last, now, zones)
            scales.append(scale)
            seen.append(now)
            last = now if scale else last
        return scales, seen

    def _scale(self, last: tuple[float, Thumbnail] | None, now: tuple[float, Thumbnail], zones: Zones) -> float:
        rules = self._motion
        if last is None or last[1].shape != now[1].shape or now[0] - last[0] >= rules.refresh_s:
            return 1.0
        changed = changed_share(last[1], now[1], rules.threshold, zones)
        if changed < rules.still:
            return 0.0
        return float(max(rules.least_scale, min(1.0, (changed / rules.moving) ** 0.5)))


_LUMA = np.array([9798, 19235, 3735], np.int32)
_BINOMIAL = (1, 4, 6, 4, 1)


def thumbnail(frame: Frame, longer_px: int) -> Thumbnail:
    """The frame's luma with its longer side scaled to `longer_px`, slightly blurred against sensor noise."""
    height, width = frame.size
    shrink = longer_px / max(height, width)
    rgb = frame.picture.render(max(1, round(height * shrink)), max(1, round(width * shrink)))
    return blurred(luma(rgb))


def luma(rgb: NDArray[np.uint8]) -> Thumbnail:
    """Luma of BT.601 in 15 bits, rounded: uint8 `[height, width]`."""
    weighed = rgb.astype(np.int32) @ _LUMA
    return np.asarray((weighed + (1 << 14)) >> 15, np.uint8)


def blurred(picture: Thumbnail) -> Thumbnail:
    """A binomial blur of 5 x 5 px, rounded; the picture is mirrored at its edges, which it has once."""
    padded = np.pad(picture.astype(np.int32), 2, mode="reflect")
    height, width = picture.shape
    rows = np.zeros((height, padded.shape[1]), np.int32)
    both = np.zeros((height, width), np.int32)
    for offset, weight in enumerate(_BINOMIAL):
        rows += weight * padded[offset : offset + height]
    for offset, weight in enumerate(_BINOMIAL):
        both += weight * rows[:, offset : offset + width]
    return np.asarray((both + 128) >> 8, np.uint8)


def focus(queries: Sequence[WatchQuery]) -> Zones:
    """The zones that all of a stream's watches are about, as they are seen; none if one of them is about the whole
    picture."""
    zones = [zone.polygon for query in queries if (zone := query.seen_zone) is not None]
    return tuple(dict.fromkeys(zones)) if len(zones) == len(queries) else ()


def changed_share(before: Thumbnail, after: Thumbnail, threshold: int, zones: Zones = ()) -> float:
    """Share (0 to 1) of the pixels that differ by more than `threshold` once the median difference is taken out: of
    those in the zones, if there are any."""
    difference = after.astype(np.int16) - before.astype(np.int16)
    changed = np.abs(difference - np.median(difference)) > threshold
    return float(np.mean(changed[covered(zones, *changed.shape)] if zones else changed))

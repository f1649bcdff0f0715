"""Pictures and sources made on the spot, for tests that need no decoder."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta

import cv2
import numpy as np

from pipeline.errors import SourceUnavailable
from pipeline.sources.base import Notice, SourceCounts, ignore
from pipeline.types import Frame, Hop

START = datetime(2026, 1, 1, tzinfo=UTC)


class Painted:
    """A picture that is an array."""

    def __init__(self, rgb: np.ndarray) -> None:
        self.rgb = rgb
        self.height, self.width = rgb.shape[:2]
        self.rendered: list[tuple[int, int]] = []

    def render(self, height: int, width: int) -> np.ndarray:
        self.rendered.append((height, width))
        return cv2.resize(self.rgb, (width, height), interpolation=cv2.INTER_AREA)


def yard(height: int = 256, width: int = 448, box: tuple[int, int] | None = None, light: int = 0) -> Painted:
    """A grey scene with texture; `box` puts a bright 64 px square with its corner there (row, column)."""
    rng = np.random.default_rng(0)
    rgb = np.full((height, width, 3), 90 + light, np.uint8) + rng.integers(0, 30, (height, width, 1), np.uint8)
    if box:
        rgb[box[0] : box[0] + 64, box[1] : box[1] + 64] = 250
    return Painted(rgb)


def frame(pts_s: float, picture: Painted | None = None) -> Frame:
    return Frame(pts_s, START + timedelta(seconds=pts_s), "file", round(pts_s * 25), picture or yard())


def hop(start_s: float, *pictures: Painted, stream_id: str = "yard") -> Hop:
    step = 1.0 / max(1, len(pictures))
    frames = tuple(frame(start_s + i * step, picture) for i, picture in enumerate(pictures))
    return Hop(stream_id, start_s, start_s + 1.0, frames)


class ScriptedSource:
    """Gives prepared frames; an exception among them is raised, and the next call goes on behind it. A notice is
    given to whoever is to know it."""

    live = True

    def __init__(self, script: Iterable[Frame | Exception | Notice]) -> None:
        self._script = iter(script)
        self._closed = False
        self.counts = SourceCounts()

    async def frames(self, sampler, notify=ignore) -> AsyncIterator[Frame]:
        for item in self._script:
            await asyncio.sleep(0)
            if self._closed:
                return
            if isinstance(item, Exception):
                raise item
            if isinstance(item, Notice):
                await notify(item)
                continue
            self.counts.decoded += 1
            if sampler.wants(item.pts_s):
                yield item

    async def close(self) -> None:
        self._closed = True


def broken(reason: str = "the camera went away") -> SourceUnavailable:
    return SourceUnavailable(reason)

"""A generated scene: boxes that enter, cross and leave. For tests, demos and trying out a configuration."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from urllib.parse import parse_qsl

import numpy as np
from av import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from pipeline.clock import Clock
from pipeline.errors import ConfigError
from pipeline.sources.base import Notify, Sampler, SourceCounts, ignore
from pipeline.sources.pace import Pacer
from pipeline.sources.ring import Ring, RingClosed
from pipeline.sources.settings import SourceConfig
from pipeline.types import Frame

START = datetime(2000, 1, 1, tzinfo=UTC)
"""UTC of the first frame of a scene that does not play in real time."""

ENTER_S = 2.0
"""A box enters every so many seconds."""

CROSS_S = (4.0, 9.0)
"""Fastest and slowest crossing of the picture, in seconds."""

WAIT_STEP_S = 0.1
"""How long the thread waits at a time before it looks whether it is still wanted."""


@dataclass(frozen=True, slots=True)
class Box:
    """One moving box: left, top, width and height in px (partly outside while it enters and leaves), RGB."""

    left: int
    top: int
    width: int
    height: int
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class SyntheticScene:
    """The scene of `synthetic:?width=640&height=360&fps=25&seconds=30&seed=0`. A function of these numbers alone."""

    width: int = 640
    height: int = 360
    fps: float = 25.0
    seconds: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (1 <= self.width <= 8192 and 1 <= self.height <= 8192):
            raise ConfigError(f"a synthetic scene of {self.width}x{self.height} px; expected 1 to 8192 each")
        if not (0 < self.fps <= 240 and self.seconds > 0 and self.seed >= 0):
            raise ConfigError(
                f"fps={self.fps:g} seconds={self.seconds:g} seed={self.seed}; expected fps of more than 0 and at most"
                " 240, more than 0 seconds (inf for no end) and a seed of at least 0"
            )

    def boxes(self, time_s: float) -> tuple[Box, ...]:
        """The boxes in the picture at stream time `time_s`, in the order they entered: what an observer should see."""
        newest = int(time_s / ENTER_S)
        oldest = max(0, int((time_s - CROSS_S[1]) / ENTER_S))
        boxes = (self._box(number, time_s) for number in range(oldest, newest + 1))
        return tuple(box for box in boxes if box.left < self.width and box.left + box.width > 0)

    def draw(self, time_s: float) -> NDArray[np.uint8]:
        """The picture at stream time `time_s`: uint8 `[height, width, 3]`, RGB."""
        picture = self._background.copy()
        for box in self.boxes(time_s):
            picture[box.top : box.top + box.height, max(0, box.left) : box.left + box.width] = box.colour
        return picture

    @cached_property
    def _background(self) -> NDArray[np.uint8]:
        random = np.random.default_rng(self.seed)
        ramp = np.linspace(70, 130, self.height, dtype=np.float32)[:, None, None]
        grain = random.normal(0, 6, (self.height, self.width, 1))
        return np.clip(ramp + grain, 0, 255).astype(np.uint8).repeat(3, axis=2)

    def _box(self, number: int, time_s: float) -> Box:
        random = np.random.default_rng((self.seed, number))
        width = max(1, int(self.width * random.uniform(0.06, 0.2)))
        height = max(1, int(self.height * random.uniform(0.1, 0.3)))
        top = int(random.uniform(0, self.height - height))
        done = (time_s - number * ENTER_S) / random.uniform(*CROSS_S)
        if random.random() < 0.5:
            done = 1.0 - done
        red, green, blue = (int(value) for value in random.integers(0, 256, 3))
        return Box(round(done * (self.width + width)) - width, top, width, height, (red, green, blue))


class ArrayPicture:
    """A picture that is already RGB: uint8 `[height, width, 3]`."""

    __slots__ = ("_pixels",)

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._pixels = pixels

    @property
    def height(self) -> int:
        """Native height in px."""
        return int(self._pixels.shape[0])

    @property
    def width(self) -> int:
        """Native width in px."""
        return int(self._pixels.shape[1])

    def render(self, height: int, width: int) -> NDArray[np.uint8]:
        """Scaled by area averaging, each colour by itself: uint8 `[height, width, 3]`, RGB."""
        scaler = VideoReformatter()
        planes = [
            VideoFrame.from_ndarray(np.ascontiguousarray(plane), "gray") for plane in np.moveaxis(self._pixels, 2, 0)
        ]
        scaled = [
            scaler.reformat(plane, width=width, height=height, interpolation=Interpolation.AREA, threads=1).to_ndarray()
            for plane in planes
        ]
        return np.ascontiguousarray(np.stack(scaled, axis=2), dtype=np.uint8)


def parse_scene(url: str) -> SyntheticScene:
    """The scene of a `synthetic:` URL. Raises ConfigError for an unknown parameter or a value out of range."""
    head, _, query = url.partition("?")
    if head not in ("synthetic:", "synthetic://"):
        raise ConfigError(f"{head!r} is not a synthetic source; expected synthetic:?width=640&height=360")
    kinds: dict[str, type[int] | type[float]] = {name: type(value) for name, value in asdict(SyntheticScene()).items()}
    values: dict[str, float] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in kinds:
            raise ConfigError(f"a synthetic source has no parameter {name!r}; expected some of {', '.join(kinds)}")
        try:
            values[name] = kinds[name](text)
        except ValueError:
            raise ConfigError(f"{name}={text!r}; expected a number ({kinds[name].__name__})") from None
    return SyntheticScene(**values)  # type: ignore[arg-type]


class SyntheticSource:
    """A Scene as a source: a recording, or with `realtime` one that keeps its own pace and drops the oldest."""

    def __init__(
        self,
        url: str = "synthetic:",
        settings: SourceConfig = SourceConfig(),
        *,
        clock: Clock,
        name: str = "synthetic",
        start_s: float = 0.0,
    ) -> None:
        self.scene = parse_scene(url)
        self._name = name
        self._clock = clock
        self._settings = settings
        self._from_s = start_s
        self._counts = SourceCounts()
        self._ring: Ring[Frame] | None = None

    @property
    def live(self) -> bool:
        """True if it plays at its own pace."""
        return self._settings.realtime

    @property
    def counts(self) -> SourceCounts:
        """Running totals; every frame of the scene counts as decoded, only the sampled ones are drawn."""
        return self._counts

    async def frames(self, sampler: Sampler, notify: Notify = ignore) -> AsyncGenerator[Frame, None]:
        """See Source. Reading again goes on behind the last frame that was consumed."""
        if self._ring is not None and not self._ring.closed:
            raise RuntimeError(f"{self._name} is already being read; close it first")
        ring: Ring[Frame] = Ring(self._settings.ring_frames)
        self._ring = ring
        threading.Thread(target=self._draw, args=(ring, sampler), name=f"source {self._name}", daemon=True).start()
        try:
            while (frame := await ring.get()) is not None:
                self._from_s = frame.pts_s + 0.5 / self.scene.fps
                yield frame
        finally:
            ring.close()

    async def close(self) -> None:
        """See Source."""
        if self._ring is not None:
            self._ring.close()
        await asyncio.sleep(0)

    def _draw(self, ring: Ring[Frame], sampler: Sampler) -> None:
        scene, pacer = self.scene, Pacer(speed=1.0, late_s=1.0)
        self._counts.connects += 1
        seq = int(np.ceil(self._from_s * scene.fps - 1e-6))
        try:
            while (pts_s := seq / scene.fps) < scene.seconds:
                if self._settings.realtime:
                    self._wait(ring, pacer.wait_s(pts_s, self._clock.monotonic_s()))
                self._counts.decoded += 1
                if sampler.wants(pts_s):
                    self._counts.sampled += 1
                    self._counts.lost += ring.put(self._frame(pts_s, seq), drop_oldest=self._settings.realtime)
                seq += 1
        except RingClosed:
            return
        finally:
            ring.end()

    def _frame(self, pts_s: float, seq: int) -> Frame:
        picture = ArrayPicture(self.scene.draw(pts_s))
        if self._settings.realtime:
            return Frame(pts_s, self._clock.now(), "arrival", seq, picture)
        return Frame(pts_s, START + timedelta(seconds=pts_s), "file", seq, picture)

    def _wait(self, ring: Ring[Frame], seconds: float) -> None:
        until_s = self._clock.monotonic_s() + seconds
        while (rest_s := until_s - self._clock.monotonic_s()) > 0:
            if ring.closed:
                raise RingClosed
            self._clock.wait(min(rest_s, WAIT_STEP_S))

"""The script of one episode: who moves where and when. Made once from a seed; can be queried for any time."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from samples.yard.world.draw import Rgb
from samples.yard.world.facts import Colour, Vehicle
from samples.yard.world.layout import below_horizon

Side: TypeAlias = Literal["front", "rear", "side"]
Interval: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Track:
    """A path through (time, x, y) keys in plan px. `eased` keys are reached with a soft stop or start."""

    keys: tuple[tuple[float, float, float], ...]
    eased: bool = False

    @property
    def start(self) -> float:
        return self.keys[0][0]

    @property
    def end(self) -> float:
        return self.keys[-1][0]

    def at(self, time_s: float) -> tuple[float, float]:
        """Position; the distance from the camera changes at an even rate of growth, as a steady drive looks."""
        (t0, x0, y0), (t1, x1, y1) = self._around(time_s)
        part = min(1.0, max(0.0, (time_s - t0) / max(1e-6, t1 - t0)))
        if self.eased:
            stops, starts = self._rests(t1), self._rests(t0)
            if stops and starts:
                part = part * part * (3 - 2 * part)
            elif stops:
                part = 1 - (1 - part) ** 2
            elif starts:
                part = part * part
        near, far = below_horizon(y0), below_horizon(y1)
        y = y0 if y0 == y1 else y0 - near + float(near * (far / near) ** part)
        if abs(y1 - y0) > 5:
            part = (y - y0) / (y1 - y0)
        return x0 + (x1 - x0) * part, y

    def facing(self, time_s: float) -> int:
        """1 towards larger x, -1 towards smaller; of the latest move."""
        facing = 1
        for (t0, x0, _), (_, x1, _) in zip(self.keys, self.keys[1:], strict=False):
            if t0 > time_s and facing:
                break
            if abs(x1 - x0) > 0.5:
                facing = 1 if x1 > x0 else -1
        return facing

    def walked(self, time_s: float) -> float:
        """Plan px travelled along x until now."""
        total = 0.0
        for (t0, x0, _), (t1, x1, _) in zip(self.keys, self.keys[1:], strict=False):
            total += abs(x1 - x0) * min(1.0, max(0.0, (time_s - t0) / max(1e-6, t1 - t0)))
        return total

    def _around(self, time_s: float) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        for before, after in zip(self.keys, self.keys[1:], strict=False):
            if time_s < after[0]:
                return before, after
        return self.keys[-1], self.keys[-1]

    def _rests(self, key_s: float) -> bool:
        """True if it stands still on one side of this key."""
        return any(
            key_s in (before[0], after[0]) and abs(before[1] - after[1]) + abs(before[2] - after[2]) < 0.5
            for before, after in zip(self.keys, self.keys[1:], strict=False)
        )


@dataclass(frozen=True, slots=True)
class VehicleRole:
    """A vehicle: `paint` is its exact colour; `facing` only matters from the side."""

    id: int
    kind: Vehicle
    colour: Colour
    paint: Rgb
    side: Side
    track: Track
    plate: str | None = None
    facing: int = 1
    lights: bool = False
    parked: bool = False
    style: int = 0


@dataclass(frozen=True, slots=True)
class PersonRole:
    """A person. `bare` are the times without a helmet; `bags` the times with a bag in the hand."""

    id: int
    track: Track
    jacket: Rgb
    trousers: Rgb
    skin: Rgb
    hair: Rgb
    helmet: Rgb | None = None
    bare: tuple[Interval, ...] = ()
    vest: Rgb | None = None
    bags: tuple[Interval, ...] = ()
    bag_colour: Rgb = (60, 44, 34)
    stride: float = 0.42

    def wears_helmet(self, time_s: float) -> bool:
        return self.helmet is not None and not any(start <= time_s < end for start, end in self.bare)

    def carries(self, time_s: float) -> bool:
        return any(start <= time_s < end for start, end in self.bags)


@dataclass(frozen=True, slots=True)
class BagRole:
    """A bag that stands on the ground from `start` to `end`; `tall` in plan px."""

    id: int
    x: float
    y: float
    start: float
    end: float
    tall: float
    colour: Rgb


@dataclass(frozen=True, slots=True)
class DogRole:
    id: int
    track: Track
    coat: Rgb
    tall: float


@dataclass(frozen=True, slots=True)
class SmokeRole:
    """A plume that grows and thins out; `size` is its greatest height in plan px."""

    id: int
    x: float
    y: float
    start: float
    end: float
    size: float
    tone: int
    seed: int


@dataclass(frozen=True, slots=True)
class Flyer:
    """A bird or a piece of plastic: seen, but nothing that is asked about."""

    start: float
    end: float
    track: Track
    colour: Rgb
    size: float
    bird: bool


Role: TypeAlias = VehicleRole | PersonRole | BagRole | DogRole | SmokeRole


@dataclass(frozen=True, slots=True)
class Script:
    """All that happens in one episode. A gate or barrier span is (starts to open, starts to close)."""

    roles: tuple[Role, ...] = ()
    gate: tuple[Interval, ...] = ()
    barrier: tuple[Interval, ...] = ()
    flyers: tuple[Flyer, ...] = ()
    gains: tuple[tuple[float, float], ...] = field(default=((-1e9, 1.0),))


GATE_S = 0.6
BARRIER_S = 0.7


def opened(spans: tuple[Interval, ...], time_s: float, travel_s: float) -> float:
    """The opening of something, 0 to 1."""
    share = 0.0
    for start, end in spans:
        part = min((time_s - start) / travel_s, 1 - (time_s - end) / travel_s)
        share = max(share, min(1.0, max(0.0, part)))
    return share * share * (3 - 2 * share)


def life(role: Role) -> Interval:
    """From when to when a role is played."""
    if isinstance(role, (BagRole, SmokeRole)):
        return role.start, role.end
    if isinstance(role, VehicleRole) and role.parked:
        return -1e9, 1e9
    return role.track.start, role.track.end


def gain_at(gains: tuple[tuple[float, float], ...], time_s: float) -> float:
    """Exposure: steps between levels, each taking 0.3 s."""
    times = [time for start, _ in gains for time in (start, start + 0.3)]
    levels = [level for index, (_, value) in enumerate(gains) for level in (gains[max(0, index - 1)][1], value)]
    return float(np.interp(time_s, times, levels))

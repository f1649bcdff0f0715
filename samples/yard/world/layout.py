"""The layout of one yard: the places of everything in it, and the camera's view of it.

Positions are in plan px: a fixed 448 x 256 drawing that a `CameraView` zooms, shifts and mirrors into the picture. The
y of a point on the ground gives its distance: sizes grow linearly with y from the horizon.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from samples.yard.world.draw import Point, Rgb
from samples.yard.world.facts import HEIGHT, WIDTH, Light, Place, Vehicle

HORIZON_Y = 54.0
FENCE_Y = 90.0
FENCE_PX = 31.0
PERSON_PX = 0.60
"""Height of a person per px below the horizon."""
METRE_PX = 0.40
"""Length of a vehicle's metre per px below the horizon."""
LONG_M: dict[Vehicle, float] = {"car": 4.2, "van": 4.9, "truck": 6.4}
"""Length of vehicles in metres."""

Band = Literal["near", "middle", "far"]
BANDS: dict[Band, tuple[float, float]] = {"near": (194.0, 222.0), "middle": (139.0, 165.0), "far": (92.0, 104.0)}
"""y of the feet of people: they walk in three depths, so that their sizes are far apart."""


def below_horizon(y: float) -> float:
    """Size factor of things that stand at y."""
    return max(1.0, y - HORIZON_Y)


@dataclass(frozen=True, slots=True)
class CameraView:
    """From plan px to picture px; `scale` is 1 for the native picture."""

    flip: bool
    zoom: float
    shift: Point
    scale: int = 1

    def at(self, x: float, y: float) -> Point:
        sign = -1 if self.flip else 1
        px = WIDTH / 2 + sign * (x - WIDTH / 2) * self.zoom + self.shift[0]
        py = HEIGHT / 2 + (y - HEIGHT / 2) * self.zoom + self.shift[1]
        return px * self.scale, py * self.scale

    def length(self, plan_px: float) -> float:
        return plan_px * self.zoom * self.scale

    def forward(self, facing: int) -> int:
        return -facing if self.flip else facing

    def scaled(self, scale: int) -> "CameraView":
        return replace(self, scale=scale)


PropKind = Literal["container", "booth", "hut", "crates", "cone", "pole", "tree", "bush", "sign", "bollard"]


@dataclass(frozen=True, slots=True)
class Prop:
    """A fixed thing: middle of its foot, width and height in plan px."""

    kind: PropKind
    x: float
    y: float
    width: float
    height: float
    colour: Rgb
    style: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """One yard. The gate closes the fence from `gate_x` over `gate_width`; `gate_slide` is the side it slides to."""

    view: CameraView
    light: Light
    rain: bool
    clouds: float
    gate_x: float
    gate_width: float
    gate_slide: int
    gate_colour: Rgb
    road_far_x: float
    road_near_x: float
    barrier_y: float
    barrier_length: float
    lane_y: float
    dock_x: float
    wall_colour: Rgb
    bays: tuple[Point, ...]
    props: tuple[Prop, ...]
    lamps: tuple[Point, ...]
    texture_seed: int

    def road_x(self, y: float) -> float:
        """Middle of the road at y."""
        return self.road_far_x + (self.road_near_x - self.road_far_x) * (y - FENCE_Y) / (215.0 - FENCE_Y)

    @property
    def barrier_pivot(self) -> Point:
        """The pivot of the boom; it lies down towards larger x."""
        return (
            self.road_x(self.barrier_y) - 0.53 * self.barrier_length,
            self.barrier_y - 0.36 * below_horizon(self.barrier_y),
        )

    def place(self, x: float, y: float) -> Place:
        """The place of a thing on the ground."""
        if self.gate_x - 14 < x < self.gate_x + self.gate_width + 14 and y < 113:
            return "gate"
        if y < FENCE_Y + 18:
            return "fence"
        if abs(x - (self.dock_x - 58)) < 75 and y < 118.5:
            return "dock"
        if min(bay[0] for bay in self.bays) - 40 < x and 140 < y < 172:
            return "bays"
        return "road"


def make_layout(seed: int) -> Layout:
    """Draw the yard of a seed."""
    rng = np.random.default_rng((seed, 11))
    light: Light = ("day", "dusk", "night")[int(rng.choice(3, p=(0.52, 0.2, 0.28)))]
    jitter = rng.uniform(-1, 1, 12)
    view = CameraView(bool(rng.random() < 0.5), float(rng.uniform(0.95, 1.06)), (4 * jitter[0], 5 * jitter[1]))
    gate_x = 72 + 14 * jitter[2]
    gate_width = 70 + 6 * jitter[3]
    near_x = 152 + 12 * jitter[4]
    barrier_y = 214 + 4 * jitter[5]
    bays = tuple((x + 8 * jitter[6], 152 + 3 * jitter[7]) for x in (318.0, 396.0))
    dock_x = 334 + 10 * jitter[8]
    lamps = ((gate_x + gate_width + 22, 96.0), (near_x - 108, 186.0), (300 + 12 * jitter[9], 128.0))
    return Layout(
        view=view,
        light=light,
        rain=bool(rng.random() < 0.24),
        clouds=float(rng.uniform(0, 1)),
        gate_x=gate_x,
        gate_width=gate_width,
        gate_slide=-1 if rng.random() < 0.5 else 1,
        gate_colour=_pick(rng, ((96, 104, 108), (70, 88, 80), (118, 92, 70), (150, 152, 150), (60, 78, 110))),
        road_far_x=gate_x + gate_width / 2,
        road_near_x=near_x,
        barrier_y=barrier_y,
        barrier_length=126 + 6 * jitter[10],
        lane_y=123 + 3 * jitter[11],
        dock_x=dock_x,
        wall_colour=_pick(rng, ((168, 160, 146), (128, 140, 150), (150, 120, 104), (176, 176, 170), (116, 126, 112))),
        bays=bays,
        props=_make_props(rng, gate_x + gate_width, near_x, lamps),
        lamps=lamps,
        texture_seed=int(rng.integers(1 << 30)),
    )


def _pick(rng: np.random.Generator, colours: tuple[Rgb, ...]) -> Rgb:
    base = np.array(colours[int(rng.integers(len(colours)))], float)
    red, green, blue = (int(value) for value in np.clip(base * rng.uniform(0.85, 1.12) + rng.normal(0, 5, 3), 20, 235))
    return red, green, blue


_CONTAINERS: tuple[Rgb, ...] = ((150, 66, 48), (54, 84, 120), (66, 104, 82), (140, 132, 118), (160, 110, 46))


def _make_props(
    rng: np.random.Generator, gate_right: float, near_x: float, lamps: tuple[Point, ...]
) -> tuple[Prop, ...]:
    def near(value: float, spread: float) -> float:
        return value + float(rng.uniform(-spread, spread))

    props = [
        Prop("hut", gate_right + near(62, 8), 97.0, 25, 33, _pick(rng, ((150, 140, 120), (120, 128, 134)))),
        Prop(
            "booth", near_x + near(104, 6), 174, near(36, 3), near(84, 4), _pick(rng, ((156, 158, 154), (90, 104, 120)))
        ),
        Prop("container", near(8, 5), 176, near(60, 6), near(76, 4), _pick(rng, _CONTAINERS)),
    ]
    if rng.random() < 0.75:
        props.append(
            Prop("container", gate_right + near(130, 10), 111, near(58, 6), near(36, 2), _pick(rng, _CONTAINERS))
        )
    else:
        props.append(Prop("bush", gate_right + near(130, 10), 111, 56, 36, (62, 82, 48)))
    props.append(Prop("bush", near(26, 8), 108, near(44, 5), near(34, 3), _pick(rng, ((60, 84, 46), (84, 88, 50)))))
    for index in range(int(rng.integers(1, 4))):
        x, y = (near(262, 20), near(142, 6)) if index == 0 else (near(250, 40), near(232, 12))
        props.append(Prop("cone", x, y, 0.09 * below_horizon(y), 0.2 * below_horizon(y), (214, 92, 34)))
    if rng.random() < 0.6:
        x, y = near(424, 12), near(128, 3)
        props.append(Prop("crates", x, y, near(40, 6), near(26, 4), _pick(rng, ((140, 108, 70), (120, 96, 72)))))
    if rng.random() < 0.7:
        props.append(Prop("sign", gate_right + near(30, 5), 94, 28, 30, (210, 206, 190), int(rng.integers(1 << 16))))
    props += [
        Prop("tree", near(x, 12), 82, near(44, 12), near(54, 10), _pick(rng, ((58, 80, 46), (74, 86, 54))))
        for x in (232, 296)
    ]
    props += [Prop("bollard", near_x + x, 226, 5, 28, (200, 180, 60)) for x in (-84, 96) if rng.random() < 0.5]
    props += [Prop("pole", x, y, 0.022 * below_horizon(y), 0.95 * below_horizon(y), (104, 108, 110)) for x, y in lamps]
    return tuple(sorted(props, key=lambda prop: prop.y))

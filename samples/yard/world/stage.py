"""Plays a script: draws every role of a moment, far to near, and keeps what the facts are measured from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from samples.yard.world.backdrop import make_backdrop
from samples.yard.world.draw import (
    Box,
    Bytes,
    Painted,
    Point,
    Rgb,
    Sprite,
    as_bytes,
    darken,
    mark,
    overlap,
    paint,
    soft_blob,
)
from samples.yard.world.figures import draw_bag, draw_dog, draw_person, draw_smoke
from samples.yard.world.layout import FENCE_Y, METRE_PX, PERSON_PX, Layout, below_horizon
from samples.yard.world.props import draw_boom, draw_flag, draw_gate, draw_post
from samples.yard.world.script import (
    BARRIER_S,
    GATE_S,
    BagRole,
    DogRole,
    PersonRole,
    Role,
    Script,
    SmokeRole,
    VehicleRole,
    gain_at,
    life,
    opened,
)
from samples.yard.world.vehicles import TALL_M, Bodywork, draw_vehicle
from samples.yard.world.weather import add_glow, light_at, make_weather, through_the_air

SMOKE_COVER = 70
"""Smoke counts as covering a pixel from this coverage on (of 255)."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Cast:
    """One role as drawn: what the facts need. Boxes are in picture px, `x` and `y` in plan px."""

    id: int
    role: Role
    x: float
    y: float
    sprite: Sprite
    painted: Painted | None
    tall: float
    head: Box | None = None
    plate: Box | None = None
    glyph_px: float = 0.0


@dataclass(frozen=True, slots=True)
class DrawnMoment:
    """One drawn moment. `light` is the light on every pixel; `gate` and `barrier` how far they are open, 0 to 1."""

    time_s: float
    pixels: Bytes
    ids: Bytes
    cast: tuple[Cast, ...]
    light: Floats
    gate: float
    barrier: float
    boom: Sprite


class YardStage:
    """The yard of one episode at one size."""

    def __init__(self, seed: int, layout: Layout, script: Script, scale: int) -> None:
        self.layout, self.script, self.scale = layout, script, scale
        self.view = layout.view.scaled(scale)
        self.backdrop = make_backdrop(layout, scale)
        self.weather = make_weather(seed, layout, scale)
        self._blob = soft_blob()
        self._post = draw_post(layout, self.view)
        self._spans = [(role, *life(role)) for role in script.roles]
        self._parked: dict[int, Bodywork] = {}
        self._parts: dict[tuple[str, float], Sprite] = {}

    def show(self, time_s: float, *, measure: bool) -> DrawnMoment:
        """Draw one moment; with `measure` also the id picture and the changes that the facts need."""
        picture = self.backdrop.picture.copy()
        ids = np.zeros(picture.shape[:2], np.uint8)
        gate = opened(self.script.gate, time_s, GATE_S)
        barrier = opened(self.script.barrier, time_s, BARRIER_S)
        moment = _Moment(self, time_s, measure, picture, ids)
        paint(picture, draw_flag(self.layout, self.view, time_s))
        leaf, boom = self._moved("gate", gate), self._moved("boom", barrier)
        y = self.layout.barrier_y
        order: list[tuple[float, Callable[[], None]]] = [
            (FENCE_Y + 0.5, partial(moment.cover, leaf, always=True)),
            (y, partial(moment.cover, self._post, always=True)),
            (y + 0.1, partial(moment.cover, boom, always=True)),
        ]
        order += [(y, partial(moment.cover, sprite)) for y, sprite in self.backdrop.covers]
        for role, start, end in self._spans:
            if start <= time_s < end:
                x, y = self._where(role, time_s)
                order.append((y, partial(moment.play, role, x, y)))
        for _, draw in sorted(order, key=itemgetter(0)):
            draw()
        moment.fly()
        pixels, light = moment.expose()
        return DrawnMoment(time_s, pixels, ids, tuple(moment.cast), light, gate, barrier, boom)

    def _moved(self, part: Literal["gate", "boom"], share: float) -> Sprite:
        """The gate's leaf or the boom; at rest they are drawn once."""
        key = part, share
        sprite = self._parts.get(key)
        if sprite is None:
            sprite = (draw_gate if part == "gate" else draw_boom)(self.layout, self.view, share)
            if share in (0.0, 1.0):
                self._parts[key] = sprite
        return sprite

    def _where(self, role: Role, time_s: float) -> Point:
        if isinstance(role, (BagRole, SmokeRole)):
            return role.x, role.y
        return role.track.at(time_s)

    def body(self, role: VehicleRole, foot: Point, metre_px: float) -> Bodywork:
        """Draw a vehicle; a parked one is drawn once."""
        kept = self._parked.get(role.id) if role.parked else None
        if kept is None:
            forward = self.view.forward(role.facing)
            kept = draw_vehicle(
                role.kind, role.side, role.paint, foot, metre_px, forward=forward, plate=role.plate, style=role.style
            )
            if role.parked:
                self._parked[role.id] = kept
        return kept


class _Moment:
    """One moment while it is drawn."""

    def __init__(self, stage: YardStage, time_s: float, measure: bool, picture: Bytes, ids: Bytes) -> None:
        self.stage, self.time_s, self.measure = stage, time_s, measure
        self.picture, self.ids = picture, ids
        self.cast: list[Cast] = []
        self._touched: list[Box] = []
        self._glows: list[tuple[int, Point, float, Rgb, float]] = []
        self._pools: list[tuple[Point, float, float, Rgb]] = []

    def cover(self, sprite: Sprite, *, always: bool = False) -> None:
        """Paint a fixed thing: a moving one wholly, the others only where they hide something drawn before."""
        boxes = [sprite.box] if always else [box for box in (overlap(sprite.box, one) for one in self._touched) if box]
        for box in boxes:
            paint(self.picture, sprite, box)
            mark(self.ids, sprite, 0, within=box)
        if always:
            self._touched.append(sprite.box)

    def play(self, role: Role, x: float, y: float) -> None:
        """Draw one role at its place."""
        stage = self.stage
        foot = stage.view.at(x, y)
        size = stage.view.length(below_horizon(y))
        head = plate = None
        glyph_px = 0.0
        if isinstance(role, VehicleRole):
            body = stage.body(role, foot, METRE_PX * size)
            sprite, plate, glyph_px, tall = body.sprite, body.plate, body.glyph_px, TALL_M[role.kind] * METRE_PX * size
            self._shadow(foot, ((sprite.box[2] * 0.52), max(3.0, size * 0.085)), 0.75)
            self._headlights(role, body, foot, size)
        elif isinstance(role, PersonRole):
            tall = PERSON_PX * size
            figure = draw_person(
                role,
                self.time_s,
                foot,
                tall,
                forward=stage.view.forward(role.track.facing(self.time_s)),
                step=self._step(role, y),
            )
            sprite, head = figure.sprite, figure.head
            self._shadow(foot, (tall * 0.24, tall * 0.05), 1.0)
        elif isinstance(role, BagRole):
            tall = stage.view.length(role.tall)
            sprite = draw_bag(role, foot, tall).sprite
            self._shadow(foot, (tall * 0.8, tall * 0.18), 0.9)
        elif isinstance(role, DogRole):
            tall = stage.view.length(role.tall)
            step = role.track.walked(self.time_s) / (0.22 * role.tall)
            sprite = draw_dog(
                role, foot, tall, forward=stage.view.forward(role.track.facing(self.time_s)), step=step
            ).sprite
            self._shadow(foot, (tall * 0.9, tall * 0.14), 0.9)
        else:
            tall = stage.view.length(role.size)
            sprite = draw_smoke(role, self.time_s, foot, tall).sprite
        self._put(Cast(role.id, role, x, y, sprite, None, tall, head, plate, glyph_px))

    def fly(self) -> None:
        """Draw birds and blowing plastic in front of everything."""
        for flyer in self.stage.script.flyers:
            if not flyer.start <= self.time_s < flyer.end:
                continue
            x, y = flyer.track.at(self.time_s)
            flap = float(np.sin(self.time_s * (22 if flyer.bird else 7)))
            unit = self.stage.view.length(flyer.size)
            sprite = Sprite(self.stage.view.at(x, y + 3 * flap), unit, (1.5, 1.5, 1.5, 1.5))
            if flyer.bird:
                sprite.poly(((-1, 0.7 * flap), (0, 0.15), (1, 0.7 * flap), (0, -0.2)), flyer.colour)
            else:
                sprite.disc(0, 0, 0.9, 0.5 + 0.3 * abs(flap), flyer.colour)
            paint(self.picture, sprite)

    def expose(self) -> tuple[Bytes, Floats]:
        """Light the picture and send it through the air; also return the light on every pixel."""
        stage = self.stage
        high, wide = self.picture.shape[:2]
        small = light_at(stage.weather, self.time_s, gain_at(stage.script.gains, self.time_s), self._pools)
        light = np.asarray(cv2.resize(small, (wide, high), interpolation=cv2.INTER_LINEAR), np.float32)
        lit = as_bytes(cv2.multiply(self.picture, light, dtype=cv2.CV_8U))
        for prop in stage.layout.props if stage.layout.light == "night" else ():
            if prop.kind == "pole":
                top = stage.view.at(prop.x + prop.width * 3, prop.y - prop.height + prop.width)
                self._glows.append((0, top, stage.view.length(12), (255, 236, 190), 0.9))
        for owner, centre, radius, colour, strength in self._glows:
            x, y = (min(size - 1, max(0, round(value))) for value, size in zip(centre, (wide, high), strict=True))
            if self.ids[y, x] == owner:
                add_glow(lit, centre, radius, colour, strength, stage._blob)
        return through_the_air(lit, stage.weather, self.time_s, stage.scale), light

    def _put(self, cast: Cast) -> None:
        if self.stage.layout.rain and not isinstance(cast.role, SmokeRole):
            wet = paint(self.picture, cast.sprite.mirrored(0.17))
            self._touched += [] if wet is None else [wet.box]
        painted = paint(self.picture, cast.sprite, measure=self.measure)
        if painted is not None:
            self._touched.append(painted.box)
            mark(self.ids, cast.sprite, cast.id, threshold=cover_of(cast.role))
            if self.measure:
                self.cast.append(
                    Cast(
                        cast.id,
                        cast.role,
                        cast.x,
                        cast.y,
                        cast.sprite,
                        painted,
                        cast.tall,
                        cast.head,
                        cast.plate,
                        cast.glyph_px,
                    )
                )

    def _shadow(self, foot: Point, radii: Point, strength: float) -> None:
        lean, depth = self.stage.weather.sun
        centre = (foot[0] + lean * radii[0] * 0.7, foot[1] - radii[1] * 0.1)
        darken(
            self.picture,
            centre,
            (radii[0] * (1 + 0.4 * abs(lean)), radii[1]),
            min(0.8, 1.5 * depth * strength),
            self.stage._blob,
        )

    def _step(self, role: PersonRole, y: float) -> float:
        key_before = role.track.walked(self.time_s - 0.02)
        walked = role.track.walked(self.time_s)
        if walked - key_before < 1e-6:
            return 0.0
        return walked / (role.stride * PERSON_PX * below_horizon(y)) * np.pi

    def _headlights(self, role: VehicleRole, body: Bodywork, foot: Point, size: float) -> None:
        if not role.lights:
            return
        stage = self.stage
        rear = role.side == "rear"
        colour: Rgb = (255, 70, 60) if rear else (255, 246, 220)
        strength = {"day": 0.25, "dusk": 0.5, "night": 0.7}[stage.layout.light] * (0.7 if rear else 1.0)
        if foot[1] < stage.view.at(0, FENCE_Y)[1]:
            return
        for lamp in body.lamps:
            self._glows.append((role.id, lamp, max(3.0, size * 0.13), colour, strength))
        if stage.layout.light != "day" and not rear:
            ahead = stage.view.forward(role.facing) * 0.9 * size if role.side == "side" else 0.0
            centre = ((foot[0] + ahead) / stage.scale, (foot[1] + 0.16 * size) / stage.scale)
            self._pools.append((centre, 0.6 * size / stage.scale, 0.35, (255, 240, 210)))


def cover_of(role: Role) -> int:
    """Coverage (of 255) above which a pixel belongs to the role."""
    return SMOKE_COVER if isinstance(role, SmokeRole) else 127

"""Cars, vans and trucks from the front, the rear and the side; local unit: one metre."""

from dataclasses import dataclass

from samples.yard.world.draw import Box, Point, Rgb, Sprite, shade
from samples.yard.world.facts import Vehicle
from samples.yard.world.glyphs import draw_plate
from samples.yard.world.layout import LONG_M
from samples.yard.world.script import Side

WIDE_M: dict[Vehicle, float] = {"car": 1.8, "van": 1.95, "truck": 2.15}
TALL_M: dict[Vehicle, float] = {"car": 1.45, "van": 2.05, "truck": 2.7}
GLYPH_M = 0.2
"""Height of a plate's characters: plates here are oversized, as the whole picture is small."""

_TYRE, _RUBBER, _CHROME = (22, 22, 24), (38, 38, 42), (150, 152, 156)
_LAMP, _TAIL, _AMBER = (238, 236, 214), (176, 22, 26), (224, 140, 40)
_PLATE_Y: dict[tuple[Vehicle, Side], float] = {
    ("car", "front"): 0.42,
    ("car", "rear"): 0.52,
    ("van", "front"): 0.50,
    ("van", "rear"): 0.55,
    ("truck", "front"): 0.40,
    ("truck", "rear"): 0.50,
}


@dataclass(frozen=True, slots=True)
class Bodywork:
    """A drawn vehicle: where its plate and its lamps ended up, in picture px."""

    sprite: Sprite
    plate: Box | None = None
    glyph_px: float = 0.0
    lamps: tuple[Point, ...] = ()


def draw_vehicle(
    kind: Vehicle, side: Side, paint: Rgb, foot: Point, metre_px: float, *, forward: int, plate: str | None, style: int
) -> Bodywork:
    """Draw a vehicle that stands at `foot` (middle of its near edge, picture px)."""
    half = (LONG_M[kind] if side == "side" else WIDE_M[kind] + 0.3) / 2
    sprite = Sprite(foot, metre_px, (half, half, 0.05, TALL_M[kind] + 0.05), forward=forward)
    glass = ((46, 58, 70), (58, 66, 72), (34, 42, 52))[style % 3]
    if side == "side":
        _SIDES[kind](sprite, paint, glass, style)
        sprite.light_from_above(0.3)
        return Bodywork(sprite, lamps=((foot[0] + forward * half * metre_px * 0.97, foot[1] - 0.68 * metre_px),))
    _ENDS[kind](sprite, paint, glass, side == "front")
    sprite.light_from_above(0.28)
    at: Box | None = None
    glyph_px = GLYPH_M * metre_px
    plate_y = _PLATE_Y[kind, side]
    if plate is not None and glyph_px >= 3:
        paper = (238, 238, 230) if style % 5 else (236, 204, 74)
        at = sprite.image(0, plate_y, draw_plate(plate, glyph_px, paper))
    else:
        sprite.bar(-0.24, plate_y - 0.13, 0.24, plate_y + 0.13, (196, 196, 188))
    apart, high = {"car": (0.68, 0.68), "van": (0.78, 0.86), "truck": (0.84, 0.55)}[kind]
    lamps = tuple((foot[0] + sign * apart * metre_px, foot[1] - high * metre_px) for sign in (-1, 1))
    return Bodywork(sprite, at, glyph_px if at else 0.0, lamps)


def _car_end(sprite: Sprite, paint: Rgb, glass: Rgb, front: bool) -> None:
    for sign in (-1, 1):
        sprite.bar(min(sign * 0.85, sign * 0.56), 0.0, max(sign * 0.85, sign * 0.56), 0.4, _TYRE)
        sprite.disc(sign * 0.93, 0.98, 0.09, 0.06, shade(paint, 0.7))
    sprite.poly(((-0.9, 0.2), (0.9, 0.2), (0.91, 0.72), (0.8, 0.97), (-0.8, 0.97), (-0.91, 0.72)), paint)
    sprite.poly(((-0.74, 0.95), (0.74, 0.95), (0.56, 1.45), (-0.56, 1.45)), shade(paint, 0.94))
    top = 1.36 if front else 1.32
    sprite.poly(((-0.66, 0.97), (0.66, 0.97), (0.5, top), (-0.5, top)), glass)
    sprite.poly(((-0.6, 1.0), (-0.3, 1.0), (-0.2, top - 0.03), (-0.46, top - 0.03)), shade(glass, 1.5))
    sprite.bar(-0.9, 0.2, 0.9, 0.3, shade(paint, 0.55))
    if front:
        sprite.poly(((-0.76, 0.95), (0.76, 0.95), (0.7, 0.86), (-0.7, 0.86)), shade(paint, 1.18))
        sprite.bar(-0.4, 0.6, 0.4, 0.74, _RUBBER)
    else:
        sprite.bar(-0.7, 0.84, 0.7, 0.87, shade(paint, 0.6))
    for sign in (-1, 1):
        sprite.disc(sign * 0.68, 0.7, 0.17, 0.1, _LAMP if front else _TAIL)


def _van_end(sprite: Sprite, paint: Rgb, glass: Rgb, front: bool) -> None:
    for sign in (-1, 1):
        sprite.bar(min(sign * 0.9, sign * 0.62), 0.0, max(sign * 0.9, sign * 0.62), 0.42, _TYRE)
    sprite.poly(((-0.97, 0.22), (0.97, 0.22), (0.96, 1.25), (0.84, 2.05), (-0.84, 2.05), (-0.96, 1.25)), paint)
    sprite.bar(-0.97, 0.22, 0.97, 0.36, shade(paint, 0.5))
    if front:
        sprite.poly(((-0.84, 1.16), (0.84, 1.16), (0.74, 1.74), (-0.74, 1.74)), glass)
        sprite.poly(((-0.7, 1.2), (-0.4, 1.2), (-0.3, 1.7), (-0.6, 1.7)), shade(glass, 1.5))
        sprite.bar(-0.46, 0.76, 0.46, 0.94, _RUBBER)
        sprite.poly(((-0.9, 1.14), (0.9, 1.14), (0.86, 1.02), (-0.86, 1.02)), shade(paint, 1.15))
    else:
        sprite.bar(-0.7, 1.3, -0.08, 1.75, glass)
        sprite.bar(0.08, 1.3, 0.7, 1.75, glass)
        sprite.bar(-0.02, 0.4, 0.02, 1.95, shade(paint, 0.45))
    for sign in (-1, 1):
        sprite.disc(sign * 0.78, 0.86, 0.13, 0.13 if front else 0.24, _LAMP if front else _TAIL)
        if front:
            sprite.disc(sign * 1.06, 1.3, 0.08, 0.16, _RUBBER)


def _truck_end(sprite: Sprite, paint: Rgb, glass: Rgb, front: bool) -> None:
    for sign in (-1, 1):
        sprite.bar(min(sign * 1.02, sign * 0.6), 0.0, max(sign * 1.02, sign * 0.6), 0.6, _TYRE)
    sprite.bar(-1.07, 0.62, 1.07, 2.7, shade(paint, 0.8))
    if not front:
        sprite.bar(-0.98, 0.72, 0.98, 2.6, paint)
        for x in (-0.5, 0.0, 0.5):
            sprite.bar(x - 0.025, 0.72, x + 0.025, 2.6, shade(paint, 0.5))
        sprite.bar(-0.98, 1.5, 0.98, 1.54, shade(paint, 0.6))
        sprite.bar(-1.0, 0.34, 1.0, 0.64, _RUBBER)
        for sign in (-1, 1):
            sprite.bar(min(sign * 0.95, sign * 0.6), 0.44, max(sign * 0.95, sign * 0.6), 0.56, _TAIL)
        return
    sprite.bar(-1.07, 2.58, 1.07, 2.7, shade(paint, 1.1))
    sprite.poly(((-1.0, 0.28), (1.0, 0.28), (1.0, 1.9), (0.9, 2.2), (-0.9, 2.2), (-1.0, 1.9)), paint)
    sprite.bar(-0.9, 1.28, 0.9, 1.9, glass)
    sprite.poly(((-0.8, 1.32), (-0.4, 1.32), (-0.26, 1.86), (-0.66, 1.86)), shade(glass, 1.5))
    sprite.bar(-0.92, 1.88, 0.92, 1.98, _RUBBER)
    for level in (0.68, 0.84, 1.0):
        sprite.bar(-0.62, level, 0.62, level + 0.09, _RUBBER)
    sprite.bar(-1.02, 0.26, 1.02, 0.5, _CHROME)
    for sign in (-1, 1):
        sprite.disc(sign * 0.84, 0.56, 0.14, 0.1, _LAMP)
        sprite.bar(min(sign * 1.2, sign * 1.04), 1.35, max(sign * 1.2, sign * 1.04), 1.85, _RUBBER)


def _wheels(sprite: Sprite, places: tuple[float, ...], radius: float) -> None:
    for x in places:
        sprite.disc(x, radius, radius * 1.12, radius * 1.1, (30, 30, 32))
        sprite.disc(x, radius, radius, radius, _TYRE)
        sprite.disc(x, radius, radius * 0.55, radius * 0.55, _CHROME)


def _car_side(sprite: Sprite, paint: Rgb, glass: Rgb, style: int) -> None:
    tail = -1.35 if style % 2 else -1.75
    sprite.poly(((-2.05, 0.24), (2.05, 0.24), (2.1, 0.6), (1.9, 0.84), (1.0, 0.96), (-2.0, 0.98), (-2.1, 0.6)), paint)
    sprite.poly(((tail - 0.3, 0.95), (tail + 0.25, 1.44), (0.3, 1.45), (1.08, 0.94)), shade(paint, 0.95))
    sprite.poly(((tail - 0.02, 0.99), (tail + 0.32, 1.36), (-0.5, 1.37), (-0.5, 0.99)), glass)
    sprite.poly(((-0.42, 0.99), (-0.42, 1.37), (0.25, 1.37), (0.84, 0.98)), glass)
    sprite.bar(-2.0, 0.24, 2.0, 0.32, shade(paint, 0.5))
    sprite.bar(-0.48, 0.36, -0.44, 0.96, shade(paint, 0.65))
    sprite.bar(1.94, 0.64, 2.08, 0.76, _LAMP)
    sprite.bar(-2.1, 0.68, -1.98, 0.84, _TAIL)
    _wheels(sprite, (-1.3, 1.3), 0.33)


def _van_side(sprite: Sprite, paint: Rgb, glass: Rgb, style: int) -> None:
    outline = ((-2.45, 0.26), (2.45, 0.26), (2.45, 0.8), (2.25, 1.08), (1.75, 1.24), (1.2, 2.02), (-2.38, 2.05))
    sprite.poly(outline, paint)
    sprite.poly(((0.62, 1.28), (0.62, 1.84), (1.16, 1.84), (1.58, 1.26)), glass)
    if style % 2:
        sprite.bar(-2.2, 1.3, -1.3, 1.78, shade(glass, 1.1))
    sprite.bar(-2.4, 0.26, 2.4, 0.4, shade(paint, 0.5))
    for x in (0.5, -1.1):
        sprite.bar(x, 0.45, x + 0.04, 1.95, shade(paint, 0.65))
    sprite.bar(-1.1, 1.12, 0.5, 1.16, shade(paint, 0.7))
    sprite.bar(2.28, 0.78, 2.44, 0.94, _LAMP)
    sprite.bar(-2.45, 0.8, -2.36, 1.2, _TAIL)
    _wheels(sprite, (-1.5, 1.5), 0.36)


def _truck_side(sprite: Sprite, paint: Rgb, glass: Rgb, style: int) -> None:
    sprite.bar(-3.2, 0.48, 3.0, 0.76, _RUBBER)
    sprite.bar(-3.2, 0.78, 1.4, 2.7, shade(paint, 0.86))
    sprite.bar(-3.2, 2.58, 1.4, 2.7, shade(paint, 1.08))
    for step in range(1, 6 + style % 3):
        x = -3.2 + 4.6 * step / (6 + style % 3)
        sprite.bar(x - 0.025, 0.82, x + 0.025, 2.58, shade(paint, 0.66))
    sprite.poly(((1.58, 0.4), (3.12, 0.4), (3.16, 1.2), (2.9, 2.18), (1.58, 2.22)), paint)
    sprite.poly(((2.06, 1.28), (2.06, 1.94), (2.76, 1.94), (2.98, 1.28)), glass)
    sprite.bar(1.98, 0.5, 2.02, 2.0, shade(paint, 0.6))
    sprite.bar(1.6, 0.36, 3.14, 0.5, _CHROME)
    sprite.bar(3.0, 0.56, 3.16, 0.74, _LAMP)
    sprite.bar(-3.2, 0.52, -3.1, 0.7, _TAIL)
    _wheels(sprite, (-2.5, -1.55, 2.35), 0.44)


_ENDS = {"car": _car_end, "van": _van_end, "truck": _truck_end}
_SIDES = {"car": _car_side, "van": _van_side, "truck": _truck_side}

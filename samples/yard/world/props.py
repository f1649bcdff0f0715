"""Fixed things that stand in the yard, and the parts of it that move: gate leaf, boom and flag. Unit: plan px."""

import math

import cv2
import numpy as np

from samples.yard.world.draw import Rgb, Sprite, as_bytes, shade
from samples.yard.world.layout import FENCE_PX, FENCE_Y, CameraView, Layout, Prop

_WORDS = ("NO ENTRY", "STOP", "SLOW", "YARD", "SAFETY", "KEEP OUT", "OFFICE")


def draw_prop(prop: Prop, view: CameraView) -> Sprite:
    """Draw one fixed thing."""
    half = prop.width / 2 + (20 if prop.kind == "pole" else 3)
    sprite = Sprite(view.at(prop.x, prop.y), view.length(1), (half, half, 3, prop.height + 6), forward=view.forward(1))
    _PAINTERS[prop.kind](sprite, prop)
    return sprite


def draw_gate(layout: Layout, view: CameraView, share: float) -> Sprite:
    """The gate's leaf, slid aside by `share` of its width."""
    left = layout.gate_x + layout.gate_slide * share * (layout.gate_width + 1)
    sprite = Sprite(
        view.at(left, FENCE_Y + 1), view.length(1), (3, layout.gate_width + 3, 2, 42), forward=view.forward(1)
    )
    wide, colour = layout.gate_width, layout.gate_colour
    sprite.bar(0, 0, wide, FENCE_PX + 3, shade(colour, 0.62))
    ribs = 11
    for step in range(ribs):
        x = wide * step / ribs
        sprite.bar(x + 1, 1.5, x + wide / ribs - 1.2, FENCE_PX + 1.5, colour)
    sprite.bar(0, FENCE_PX * 0.52, wide, FENCE_PX * 0.6, shade(colour, 0.55))
    sprite.bar(0, FENCE_PX + 1.5, wide, FENCE_PX + 4, shade(colour, 0.5))
    sprite.bar(0, -0.5, wide, 2, shade(colour, 0.5))
    return sprite


def draw_boom(layout: Layout, view: CameraView, share: float) -> Sprite:
    """The barrier's boom, turned up by `share` of its way, with its counterweight."""
    x, y = layout.barrier_pivot
    long = layout.barrier_length
    sprite = Sprite(view.at(x, y), view.length(1), (26, long + 4, 20, long + 4), forward=view.forward(1))
    angle = math.radians(75) * share
    along = (math.cos(angle), math.sin(angle))

    def at(distance: float) -> tuple[float, float]:
        return along[0] * distance, along[1] * distance

    stripes = 9
    for step in range(stripes):
        colour: Rgb = (206, 34, 34) if step % 2 == 0 else (236, 234, 228)
        sprite.stroke(at(long * step / stripes), at(long * (step + 1) / stripes + 0.4), 5.2 - 0.12 * step, colour)
    sprite.stroke(at(-16), at(3), 8.0, (60, 62, 66))
    return sprite


def draw_post(layout: Layout, view: CameraView) -> Sprite:
    """The post that carries the boom, and the fork where the boom's tip rests."""
    x, y = layout.barrier_pivot
    down = layout.barrier_y - y
    sprite = Sprite(
        view.at(x, layout.barrier_y),
        view.length(1),
        (14, layout.barrier_length + 8, 2, down + 14),
        forward=view.forward(1),
    )
    sprite.bar(-7, 0, 7, down + 8, (222, 184, 44))
    sprite.bar(-7, 0, 7, 5, (70, 70, 72))
    sprite.bar(-6, down * 0.4, 6, down * 0.55, (64, 64, 66))
    sprite.disc(0, down, 4.2, 4.2, (70, 70, 74))
    tip = layout.barrier_length - 3
    sprite.bar(tip - 1.6, 0, tip + 1.6, down - 3, (150, 152, 150))
    return sprite


def draw_flag(layout: Layout, view: CameraView, time_s: float) -> Sprite:
    """A waving flag on the warehouse's roof corner."""
    sprite = Sprite(view.at(layout.dock_x + 18, 28), view.length(1), (4, 34, 2, 44), forward=view.forward(1))
    sprite.bar(-0.7, 0, 0.7, 40, (150, 150, 150))
    wave = [(2.2 * math.sin(time_s * 5.0 - x * 0.35) * x / 24) for x in range(0, 25, 4)]
    upper = [(x, 39 + value) for x, value in zip(range(0, 25, 4), wave, strict=True)]
    lower = [(x, 26 + value) for x, value in zip(range(0, 25, 4), wave, strict=True)]
    stripe = ((60, 90, 150), (196, 70, 60), (120, 140, 120))[layout.texture_seed % 3]
    sprite.poly([*upper, *lower[::-1]], stripe)
    middle = [(x, value - 4.5) for x, value in upper], [(x, value + 4.5) for x, value in lower]
    sprite.poly([*middle[0], *middle[1][::-1]], (226, 224, 214))
    return sprite


def _container(sprite: Sprite, prop: Prop) -> None:
    half, high = prop.width / 2, prop.height
    sprite.bar(-half, 0, half, high, prop.colour)
    step = max(2.5, prop.width / 14)
    x = -half + step * 0.5
    while x < half - step * 0.5:
        sprite.bar(x, high * 0.06, x + step * 0.4, high * 0.93, shade(prop.colour, 0.78))
        x += step
    sprite.bar(-half, high * 0.93, half, high, shade(prop.colour, 1.15))
    sprite.bar(-half, 0, half, high * 0.05, shade(prop.colour, 0.5))


def _booth(sprite: Sprite, prop: Prop) -> None:
    half, high = prop.width / 2, prop.height
    sprite.bar(-half, 0, half, high * 0.93, prop.colour)
    sprite.bar(-half - 2.5, high * 0.9, half + 2.5, high, shade(prop.colour, 0.55))
    sprite.bar(-half * 0.8, high * 0.48, half * 0.8, high * 0.82, (58, 70, 82))
    sprite.poly(
        ((-half * 0.7, high * 0.5), (-half * 0.3, high * 0.5), (half * 0.1, high * 0.8), (-half * 0.3, high * 0.8)),
        (92, 106, 118),
    )
    sprite.bar(-half, 0, half, high * 0.06, shade(prop.colour, 0.5))
    sprite.bar(-half, high * 0.4, half, high * 0.43, shade(prop.colour, 0.75))


def _crates(sprite: Sprite, prop: Prop) -> None:
    half, high = prop.width / 2, prop.height
    for left, bottom, right, top, tone in (
        (-half, 0, 0, high * 0.55, 1.0),
        (1, 0, half, high * 0.6, 0.9),
        (-half * 0.6, high * 0.55, half * 0.3, high, 1.1),
    ):
        sprite.bar(left, bottom, right, top, shade(prop.colour, tone))
        for share in (0.3, 0.62):
            level = bottom + (top - bottom) * share
            sprite.bar(left, level, right, level + 1, shade(prop.colour, tone * 0.7))


def _cone(sprite: Sprite, prop: Prop) -> None:
    half, high = prop.width / 2, prop.height
    sprite.bar(-half * 1.1, 0, half * 1.1, high * 0.1, shade(prop.colour, 0.7))
    sprite.poly(
        ((-half * 0.8, high * 0.08), (half * 0.8, high * 0.08), (half * 0.15, high), (-half * 0.15, high)), prop.colour
    )
    sprite.poly(
        (
            (-half * 0.52, high * 0.42),
            (half * 0.52, high * 0.42),
            (half * 0.36, high * 0.64),
            (-half * 0.36, high * 0.64),
        ),
        (228, 226, 220),
    )


def _pole(sprite: Sprite, prop: Prop) -> None:
    half, high = prop.width / 2, prop.height
    sprite.poly(((-half, 0), (half, 0), (half * 0.6, high), (-half * 0.6, high)), prop.colour)
    sprite.bar(-half * 0.5, high - half, half * 7, high, prop.colour)
    sprite.bar(half * 4, high - half * 2.2, half * 8, high - half, (214, 210, 196))


def _tree(sprite: Sprite, prop: Prop) -> None:
    half, high = prop.width / 2, prop.height
    rng = np.random.default_rng(int(prop.width * 1000) % 100_003)
    sprite.stroke((0, 0), (0, high * 0.5), prop.width * 0.1, (70, 56, 44))
    for _ in range(54):
        turn, out = float(rng.uniform(0, 2 * math.pi)), math.sqrt(float(rng.random()))
        x, y = 0.72 * half * out * math.cos(turn), high * (0.64 + 0.26 * out * math.sin(turn))
        size = half * float(rng.uniform(0.12, 0.26))
        sprite.disc(x, y, size, size * 0.8, shade(prop.colour, 0.5 + 0.7 * y / high * float(rng.uniform(0.8, 1.1))))


def _bush(sprite: Sprite, prop: Prop) -> None:
    half, high = prop.width / 2, prop.height
    rng = np.random.default_rng(int(prop.width * 1000) % 100_003)
    sprite.disc(0, high * 0.42, half * 0.94, high * 0.44, shade(prop.colour, 0.7))
    for _ in range(60):
        x = float(rng.uniform(-0.85, 0.85)) * half
        y = high * float(rng.uniform(0.1, 0.86)) * (1 - 0.25 * abs(x / half))
        size = float(rng.uniform(2.0, 4.6))
        sprite.disc(x, y, size, size * 0.7, shade(prop.colour, 0.6 + 0.55 * y / high + float(rng.uniform(-0.1, 0.12))))


def _sign(sprite: Sprite, prop: Prop) -> None:
    half, high = prop.width / 2, prop.height
    sprite.bar(-1.1, 0, 1.1, high, (120, 122, 122))
    sprite.bar(-half, high * 0.55, half, high, shade(prop.colour, 0.6))
    word = _WORDS[prop.style % len(_WORDS)]
    ink = ((150, 40, 40), (40, 60, 110), (50, 50, 50))[prop.style % 3]
    wide, tall = max(8, round(sprite.origin[1] * prop.width * 0.94)), max(5, round(sprite.origin[1] * high * 0.4))
    board = np.full((40, 24 * len(word) + 16, 3), prop.colour, np.uint8)
    cv2.putText(board, word, (8, 31), cv2.FONT_HERSHEY_SIMPLEX, 1.1, ink, 3, cv2.LINE_AA)
    sprite.image(0, high * 0.775, as_bytes(cv2.resize(board, (wide, tall), interpolation=cv2.INTER_AREA)))


def _bollard(sprite: Sprite, prop: Prop) -> None:
    half, high = prop.width / 2, prop.height
    sprite.bar(-half, 0, half, high, prop.colour)
    sprite.bar(-half, high * 0.3, half, high * 0.5, (50, 50, 52))
    sprite.bar(-half, high * 0.7, half, high * 0.88, (50, 50, 52))


def _hut(sprite: Sprite, prop: Prop) -> None:
    half, high = prop.width / 2, prop.height
    sprite.bar(-half, 0, half, high * 0.86, prop.colour)
    sprite.poly(
        ((-half - 2, high * 0.82), (half + 2, high * 0.82), (half * 0.7, high), (-half * 0.7, high)),
        shade(prop.colour, 0.55),
    )
    sprite.bar(-half * 0.7, high * 0.45, half * 0.0, high * 0.72, (60, 70, 80))
    sprite.bar(half * 0.25, 0, half * 0.8, high * 0.68, shade(prop.colour, 0.5))


_PAINTERS = {
    "container": _container,
    "booth": _booth,
    "hut": _hut,
    "crates": _crates,
    "cone": _cone,
    "pole": _pole,
    "tree": _tree,
    "bush": _bush,
    "sign": _sign,
    "bollard": _bollard,
}

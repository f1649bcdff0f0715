"""People, dogs, bags, smoke and birds; local unit: the height of the figure."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from samples.yard.world.draw import Box, Point, Rgb, Sprite, as_bytes, shade
from samples.yard.world.script import BagRole, DogRole, PersonRole, SmokeRole

HEAD = 0.14
"""Height of a head as a part of a person's height."""

_STRIPE = (226, 228, 222)


@dataclass(frozen=True, slots=True)
class DrawnFigure:
    """A drawn figure; `head` is the box of its head in picture px."""

    sprite: Sprite
    head: Box | None = None


def draw_person(role: PersonRole, time_s: float, foot: Point, tall: float, *, forward: int, step: float) -> DrawnFigure:
    """Draw a person of `tall` px; `step` is the phase of the walk in radians, 0 while standing."""
    sprite = Sprite(foot, tall, (0.42, 0.42, 0.02, 1.03), forward=forward)
    swing = math.sin(step)
    _arm(sprite, role, -swing, 0.8)
    for side, tone in ((-1, 0.75), (1, 1.0)):
        _leg(sprite, side * swing, abs(math.cos(step)) if side * math.cos(step) > 0 else 0.0, role, tone)
    sprite.poly(
        ((-0.095, 0.46), (0.095, 0.46), (0.125, 0.8), (0.07, 0.855), (-0.07, 0.855), (-0.125, 0.8)), role.jacket
    )
    if role.vest is not None:
        sprite.poly(((-0.1, 0.5), (0.1, 0.5), (0.122, 0.79), (0.06, 0.85), (-0.06, 0.85), (-0.122, 0.79)), role.vest)
        for level in (0.55, 0.66):
            sprite.bar(-0.108, level, 0.108, level + 0.04, _STRIPE)
    head = _head(sprite, role, time_s)
    worn = role.wears_helmet(time_s)
    hand = _arm(sprite, role, swing if not role.carries(time_s) else 0.1, 1.0)
    if role.helmet is not None and not worn:
        sprite.disc(0.15, 0.44, 0.06, 0.07, shade(role.helmet, 0.85), arc=(0, 180))
    if role.carries(time_s):
        draw_satchel(sprite, hand[0] + 0.01, hand[1] - 0.2, 0.2, role.bag_colour)
    sprite.light_from_above(0.2)
    return DrawnFigure(sprite, head)


def _leg(sprite: Sprite, swing: float, lift: float, role: PersonRole, tone: float) -> None:
    knee = (0.11 * swing + 0.025 * lift, 0.255)
    ankle = (0.2 * swing - 0.03 * lift, 0.03 + 0.035 * lift)
    sprite.stroke((0.0, 0.49), knee, 0.115, shade(role.trousers, tone), taper=0.8)
    sprite.stroke((knee[0], knee[1] + 0.02), ankle, 0.09, shade(role.trousers, tone), taper=0.75)
    heel, sole = ankle[0] - 0.035, 0.03 * lift
    toe = ((heel, sole), (ankle[0] + 0.08, sole), (ankle[0] + 0.03, 0.06), (heel, 0.06))
    sprite.poly(toe, shade((44, 38, 34), tone))


def _arm(sprite: Sprite, role: PersonRole, swing: float, tone: float) -> Point:
    elbow, hand = (0.1 * swing, 0.64), (0.19 * swing + 0.03, 0.485)
    sleeve = shade(role.jacket, 0.82 * tone)
    sprite.stroke((0.0, 0.81), elbow, 0.072, sleeve)
    sprite.stroke((elbow[0], elbow[1] + 0.02), hand, 0.062, sleeve)
    sprite.disc(hand[0], hand[1], 0.028, 0.028, role.skin)
    return hand


def _head(sprite: Sprite, role: PersonRole, time_s: float) -> Box:
    sprite.bar(-0.03, 0.83, 0.035, 0.88, shade(role.skin, 0.85))
    sprite.disc(0.008, 0.92, 0.053, 0.068, role.skin)
    if role.wears_helmet(time_s) and role.helmet is not None:
        sprite.disc(0.0, 0.927, 0.074, 0.076, role.helmet, arc=(0, 180))
        sprite.bar(-0.078, 0.915, 0.1, 0.937, shade(role.helmet, 0.9))
        sprite.disc(-0.02, 0.97, 0.025, 0.014, shade(role.helmet, 1.2))
    else:
        sprite.disc(-0.004, 0.935, 0.058, 0.06, role.hair, arc=(20, 215))
    foot, tall, forward = sprite.origin
    left, right = sorted((foot[0] - forward * 0.08 * tall, foot[0] + forward * 0.09 * tall))
    top = foot[1] - 1.0 * tall
    return round(left), round(top), max(1, round(right - left)), max(1, round(HEAD * tall))


def draw_satchel(sprite: Sprite, x: float, bottom: float, tall: float, colour: Rgb) -> None:
    """A holdall with two handles, about as wide as it is tall."""
    half = tall * 0.62
    sprite.stroke((x - half * 0.4, bottom + tall * 0.75), (x, bottom + tall * 1.05), tall * 0.09, shade(colour, 0.7))
    sprite.stroke((x + half * 0.4, bottom + tall * 0.75), (x, bottom + tall * 1.05), tall * 0.09, shade(colour, 0.7))
    upper = bottom + tall * 0.78
    sprite.poly(((x - half, bottom), (x + half, bottom), (x + half * 0.85, upper), (x - half * 0.85, upper)), colour)
    sprite.bar(x - half * 0.9, bottom + tall * 0.5, x + half * 0.9, bottom + tall * 0.58, shade(colour, 1.7))


def draw_bag(role: BagRole, foot: Point, tall: float) -> DrawnFigure:
    """Draw a bag that stands on the ground."""
    sprite = Sprite(foot, tall, (0.75, 0.75, 0.02, 1.1))
    draw_satchel(sprite, 0.0, 0.0, 1.0, role.colour)
    return DrawnFigure(sprite)


def draw_dog(role: DogRole, foot: Point, tall: float, *, forward: int, step: float) -> DrawnFigure:
    """Draw a running dog, `tall` px at its head."""
    sprite = Sprite(foot, tall, (1.05, 1.05, 0.02, 1.05), forward=forward)
    coat, dark = role.coat, shade(role.coat, 0.7)
    for x, phase in ((-0.45, 0.0), (0.42, 1.3), (-0.38, 3.1), (0.48, 4.2)):
        reach = 0.22 * math.sin(step + phase)
        sprite.stroke((x, 0.5), (x + reach, 0.02), 0.14, dark if phase > 2 else coat, taper=0.6)
    sprite.disc(0.0, 0.56, 0.58, 0.2, coat)
    sprite.disc(-0.4, 0.57, 0.2, 0.19, coat)
    sprite.stroke((0.42, 0.6), (0.68, 0.82), 0.26, coat, taper=0.8)
    sprite.disc(0.72, 0.85, 0.17, 0.13, coat)
    sprite.stroke((0.78, 0.83), (1.0, 0.78), 0.12, coat, taper=0.7)
    sprite.stroke((0.64, 0.9), (0.58, 1.02), 0.09, dark)
    sprite.stroke((-0.54, 0.62), (-0.92, 0.86 + 0.06 * math.sin(step * 1.7)), 0.09, coat, taper=0.6)
    sprite.light_from_above(0.25)
    return DrawnFigure(sprite)


def draw_smoke(role: SmokeRole, time_s: float, foot: Point, tall: float) -> DrawnFigure:
    """Draw a plume of drifting puffs whose full height is `tall` px."""
    age = time_s - role.start
    span = role.end - role.start
    density = min(1.0, age / 0.8, max(0.0, (role.end - time_s) / 1.2))
    grown = min(1.0, 0.35 + 0.65 * age / (0.6 * span))
    sprite = Sprite(foot, tall, (0.55, 0.8, 0.08, 1.05))
    rng = np.random.default_rng(role.seed)
    high, wide = sprite.patch.shape[:2]
    unit = max(10, round(tall / 2))
    small = np.zeros((round(1.13 * unit), round(1.35 * unit)), np.float32)
    for start, lean, size, tone in rng.uniform(0, 1, (34, 4)):
        rise = (start + age * 0.2) % 1.0
        if rise > grown:
            continue
        x = 0.55 + (lean - 0.5) * 0.5 * (0.25 + rise) + 0.2 * rise + 0.03 * math.sin(age * 2 + 6 * lean)
        radius = (0.07 + 0.11 * rise) * (0.7 + 0.6 * size)
        puff = np.zeros_like(small)
        at = (round(x * unit), round((1.0 - 0.72 * rise) * unit))
        cv2.circle(puff, at, max(1, round(radius * unit)), density * (1 - 0.45 * rise) * (0.4 + 0.4 * tone), -1)
        small += puff * (1 - small)
    small = np.asarray(cv2.GaussianBlur(small, (0, 0), max(0.8, unit * 0.04)), np.float32)
    cover = as_bytes((255 * cv2.resize(small, (wide, high), interpolation=cv2.INTER_LINEAR)).astype(np.uint8))
    tone_map = np.clip(role.tone + 26 * (cv2.GaussianBlur(cover, (0, 0), 2).astype(np.float32) / 255 - 0.5), 20, 240)
    grey = cv2.multiply(cover, tone_map.astype(np.float32), scale=1 / 255, dtype=cv2.CV_8U)
    sprite.patch = as_bytes(cv2.merge([grey, grey, grey, cover]))
    return DrawnFigure(sprite)

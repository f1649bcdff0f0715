"""Drawing in sub-pixel polygons: small premultiplied RGBA sprites that are laid over a picture."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Rgb = tuple[int, int, int]
Point = tuple[float, float]
Box = tuple[int, int, int, int]
"""(left, top, width, height) in px."""

_SHIFT = 4


def shade(colour: Rgb, factor: float) -> Rgb:
    """The colour, made darker (factor below 1) or lighter, within 0 to 255."""
    red, green, blue = (min(255, max(0, int(value * factor))) for value in colour)
    return red, green, blue


def as_bytes(pixels: object) -> Bytes:
    """An array from OpenCV, known to be uint8; nothing is copied."""
    return np.asarray(pixels, np.uint8)


def overlap(one: Box, two: Box) -> Box | None:
    """The overlap of two boxes; None where they share nothing."""
    left, top = max(one[0], two[0]), max(one[1], two[1])
    right, bottom = min(one[0] + one[2], two[0] + two[2]), min(one[1] + one[3], two[1] + two[3])
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None


class Sprite:
    """A premultiplied RGBA patch, drawn in local units: x forward, y up, (0, 0) at `foot` (picture px).

    `unit` is px per local unit; `forward` is 1 or -1 and mirrors what is drawn; `reach` is how far the drawing goes
    from the foot: (backward, forward, down, up) in local units.
    """

    __slots__ = ("_foot", "_forward", "_unit", "box", "patch")

    def __init__(self, foot: Point, unit: float, reach: tuple[float, float, float, float], *, forward: int = 1) -> None:
        back, front, down, up = (value * unit for value in reach)
        if forward < 0:
            back, front = front, back
        left, top = int(np.floor(foot[0] - back)) - 1, int(np.floor(foot[1] - up)) - 1
        width, height = int(np.ceil(foot[0] + front)) + 2 - left, int(np.ceil(foot[1] + down)) + 2 - top
        self.box: Box = (left, top, width, height)
        self.patch: Bytes = np.zeros((height, width, 4), np.uint8)
        self._foot = (foot[0] - left - 0.5, foot[1] - top - 0.5)
        self._unit = unit
        self._forward = forward

    @property
    def origin(self) -> tuple[Point, float, int]:
        """The foot in picture px, px per local unit, and the direction of x."""
        x, y = self._foot
        return (x + self.box[0] + 0.5, y + self.box[1] + 0.5), self._unit, self._forward

    @property
    def alpha(self) -> Bytes:
        """Coverage, [height, width], 0 to 255."""
        return self.patch[..., 3]

    def poly(self, points: Sequence[Point], colour: Rgb) -> None:
        """Fill a polygon."""
        factor = 1 << _SHIFT
        x0, y0 = self._foot[0] * factor, self._foot[1] * factor
        unit = self._unit * factor
        step = unit * self._forward
        corners = [[int(x0 + x * step), int(y0 - y * unit)] for x, y in points]
        cv2.fillPoly(self.patch, [np.array(corners, np.int32)], (*colour, 255), cv2.LINE_AA, _SHIFT)

    def bar(self, left: float, bottom: float, right: float, top: float, colour: Rgb) -> None:
        """Fill an upright rectangle."""
        self.poly(((left, bottom), (right, bottom), (right, top), (left, top)), colour)

    def stroke(self, start: Point, end: Point, width: float, colour: Rgb, *, taper: float = 1.0) -> None:
        """Fill a straight limb, `taper` times as wide at its end."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        norm = 0.5 * width / max(1e-6, (dx * dx + dy * dy) ** 0.5)
        nx, ny = -dy * norm, dx * norm
        near, far = start, end
        self.poly(
            (
                (near[0] + nx, near[1] + ny),
                (far[0] + nx * taper, far[1] + ny * taper),
                (far[0] - nx * taper, far[1] - ny * taper),
                (near[0] - nx, near[1] - ny),
            ),
            colour,
        )

    def disc(self, x: float, y: float, rx: float, ry: float, colour: Rgb, *, arc: tuple[int, int] = (0, 360)) -> None:
        """Fill an ellipse, or the part of it between two angles in degrees (0 forward, 90 up)."""
        factor = 1 << _SHIFT
        centre = (
            round((self._foot[0] + x * self._unit * self._forward) * factor),
            round((self._foot[1] - y * self._unit) * factor),
        )
        axes = (max(1, round(rx * self._unit * factor)), max(1, round(ry * self._unit * factor)))
        start, stop = (-arc[1], -arc[0]) if self._forward > 0 else (180 + arc[0], 180 + arc[1])
        cv2.ellipse(self.patch, centre, axes, 0, start, stop, (*colour, 255), -1, cv2.LINE_AA, _SHIFT)

    def image(self, x: float, y: float, pixels: Bytes) -> Box:
        """Lay opaque RGB pixels, centred at a local point; return their box in picture px."""
        high, wide = pixels.shape[:2]
        left = round(self._foot[0] + x * self._unit * self._forward - wide / 2 + 0.5)
        top = round(self._foot[1] - y * self._unit - high / 2 + 0.5)
        at = overlap((left, top, wide, high), (0, 0, self.patch.shape[1], self.patch.shape[0]))
        if at is not None:
            part = pixels[at[1] - top : at[1] - top + at[3], at[0] - left : at[0] - left + at[2]]
            target = self.patch[at[1] : at[1] + at[3], at[0] : at[0] + at[2]]
            target[..., :3] = part
            target[..., 3] = 255
        return left + self.box[0], top + self.box[1], wide, high

    def mirrored(self, strength: float) -> "Sprite":
        """Its weak reflection in wet ground, upside down below the foot."""
        twin = copy(self)
        level = round(self.origin[0][1])
        twin.box = (self.box[0], 2 * level - self.box[1] - self.box[3], self.box[2], self.box[3])
        smear = 1 + 2 * round(0.03 * self.box[3])
        twin.patch = as_bytes(cv2.blur(cv2.convertScaleAbs(cv2.flip(self.patch, 0), alpha=strength), (3, smear + 2)))
        return twin

    def light_from_above(self, strength: float) -> None:
        """Darken towards the bottom, as things lit by the sky are."""
        ramp = np.linspace(1.0, 1.0 - strength, self.patch.shape[0], dtype=np.float32)
        gain = np.empty((self.patch.shape[0], 1, 4), np.float32)
        gain[:, 0, :3], gain[:, 0, 3] = ramp[:, None], 1.0
        self.patch = as_bytes(cv2.multiply(self.patch, np.repeat(gain, self.patch.shape[1], 1), dtype=cv2.CV_8U))


@dataclass(frozen=True, slots=True)
class Painted:
    """The change made by painting a sprite: `box` inside the picture, `change` = |after - before| there, RGB."""

    box: Box
    change: Bytes


def paint(picture: Bytes, sprite: Sprite, within: Box | None = None, *, measure: bool = False) -> Painted | None:
    """Lay a sprite over the picture; None where it lies outside. The change is measured only when asked for."""
    whole: Box = (0, 0, picture.shape[1], picture.shape[0])
    box = overlap(sprite.box, whole if within is None else within)
    if box is None:
        return None
    if within is not None:
        box = overlap(box, whole)
        if box is None:
            return None
    left, top, wide, high = box
    x, y = left - sprite.box[0], top - sprite.box[1]
    part = sprite.patch[y : y + high, x : x + wide]
    keep = cv2.cvtColor(255 - part[..., 3], cv2.COLOR_GRAY2RGB)
    target = picture[top : top + high, left : left + wide]
    after = cv2.add(cv2.multiply(target, keep, scale=1 / 255), cv2.cvtColor(part, cv2.COLOR_RGBA2RGB))
    change = cv2.absdiff(after, target) if measure else after
    target[:] = after
    return Painted(box, as_bytes(change))


def mark(ids: Bytes, sprite: Sprite, value: int, *, threshold: int = 127, within: Box | None = None) -> None:
    """Write an id where the sprite covers the picture."""
    whole: Box = (0, 0, ids.shape[1], ids.shape[0])
    box = overlap(sprite.box, whole if within is None else within)
    box = None if box is None else overlap(box, whole)
    if box is None:
        return
    left, top, wide, high = box
    x, y = left - sprite.box[0], top - sprite.box[1]
    covered = sprite.patch[y : y + high, x : x + wide, 3] > threshold
    np.copyto(ids[top : top + high, left : left + wide], value, where=covered)


def darken(picture: Bytes, centre: Point, radii: Point, strength: float, blob: NDArray[np.float32]) -> None:
    """Lay a soft elliptic shadow: `blob` is a square of 0 to 1."""
    soften(picture, centre, radii, strength, blob, (0, 0, 0))


def soften(
    picture: Bytes, centre: Point, radii: Point, strength: float, blob: NDArray[np.float32], colour: Rgb
) -> None:
    """Blend a soft ellipse of one colour into the picture."""
    wide, high = max(2, round(2 * radii[0])), max(2, round(2 * radii[1]))
    left, top = round(centre[0] - radii[0]), round(centre[1] - radii[1])
    box = overlap((left, top, wide, high), (0, 0, picture.shape[1], picture.shape[0]))
    if box is None:
        return
    weight = cv2.resize(blob, (wide, high), interpolation=cv2.INTER_LINEAR)
    weight = weight[box[1] - top : box[1] - top + box[3], box[0] - left : box[0] - left + box[2]] * strength
    target = picture[box[1] : box[1] + box[3], box[0] : box[0] + box[2]]
    solid = np.empty_like(target)
    solid[:] = colour
    target[:] = cv2.blendLinear(solid, target, np.ascontiguousarray(weight), 1 - weight)


def soft_blob(size: int = 48, power: float = 1.5) -> NDArray[np.float32]:
    """A round soft spot, [size, size], 1 in the middle, 0 at the rim."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    radius = np.sqrt(axis[None] ** 2 + axis[:, None] ** 2)
    return np.asarray(np.clip(1 - radius, 0, 1) ** power, np.float32)

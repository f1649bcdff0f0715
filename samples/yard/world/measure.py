"""Facts from a drawn moment: measured on masks and lit colours, never taken from intentions."""

import cv2
import numpy as np

from samples.yard.world.draw import Box, overlap
from samples.yard.world.facts import HEIGHT, WIDTH, FrameFacts, Kind, Thing
from samples.yard.world.layout import Layout
from samples.yard.world.script import BagRole, DogRole, PersonRole, SmokeRole, VehicleRole
from samples.yard.world.stage import Cast, DrawnMoment, cover_of

_WHOLE: Box = (0, 0, WIDTH, HEIGHT)
_DARK = 0.2
"""Light below which neither a plate nor a head shows its details."""

_KIND_OF: dict[type, Kind] = {PersonRole: "person", DogRole: "dog", BagRole: "bag", SmokeRole: "smoke"}


def facts_of(shown: DrawnMoment, layout: Layout, gate_box: Box) -> FrameFacts:
    """The facts of a native picture. Contrast is the mean over a thing's visible pixels and over R, G and B."""
    things = [thing for cast in shown.cast if (thing := _thing(cast, shown, layout)) is not None]
    left, top, wide, high = gate_box
    hidden = np.count_nonzero(shown.ids[top : top + high, left : left + wide]) > 0.5 * wide * high
    gate = None if hidden or 0.25 < shown.gate < 0.75 else shown.gate >= 0.75
    boom = _boom_share(shown)
    barrier = None if boom < 0.5 or 0.25 < shown.barrier < 0.75 else shown.barrier >= 0.75
    return FrameFacts(shown.time_s, layout.light, layout.rain, gate, barrier, tuple(things))


def _thing(cast: Cast, shown: DrawnMoment, layout: Layout) -> Thing | None:
    assert cast.painted is not None
    left, top, wide, high = cast.painted.box
    own = (shown.ids[top : top + high, left : left + wide] == cast.id).view(np.uint8)
    count = cv2.countNonZero(own)
    if count == 0:
        return None
    threshold = cover_of(cast.role)
    silhouette = int(np.count_nonzero(cast.sprite.alpha > threshold))
    light = shown.light[top : top + high, left : left + wide]
    lit = cv2.multiply(cast.painted.change, light, dtype=cv2.CV_8U)
    contrast = sum(cv2.mean(lit, own)[:3]) / 3
    x, y, box_wide, box_high = cv2.boundingRect(own)
    role = cast.role
    person = role if isinstance(role, PersonRole) else None
    vehicle = role if isinstance(role, VehicleRole) else None
    return Thing(
        id=cast.id,
        kind=kind_of(cast),
        box=(left + x, top + y, box_wide, box_high),
        height_px=round(cast.tall, 2),
        fraction=round(min(1.0, count / max(1, silhouette)), 4),
        contrast=round(contrast, 2),
        place=layout.place(cast.x, cast.y),
        colour=None if vehicle is None else vehicle.colour,
        helmet=None if person is None else person.wears_helmet(shown.time_s),
        vest=None if person is None else person.vest is not None,
        bag=None if person is None else person.carries(shown.time_s),
        head_px=_clear(cast.head, 0.5, cast, shown) * (0 if cast.head is None else cast.head[3]),
        plate=None if vehicle is None else vehicle.plate,
        plate_px=_clear(cast.plate, 0.92, cast, shown) * round(cast.glyph_px, 2),
    )


def kind_of(cast: Cast) -> Kind:
    """The kind of a role."""
    role = cast.role
    return role.kind if isinstance(role, VehicleRole) else _KIND_OF[type(role)]


def _clear(detail: Box | None, least: float, cast: Cast, shown: DrawnMoment) -> int:
    """1 where a detail is inside the picture, uncovered and lit; 0 otherwise."""
    if detail is None:
        return 0
    box = overlap(detail, _WHOLE)
    if box is None:
        return 0
    left, top, wide, high = box
    own = np.count_nonzero(shown.ids[top : top + high, left : left + wide] == cast.id)
    light = float(shown.light[top + high // 2, left + wide // 2].mean())
    return int(own >= least * detail[2] * detail[3] and light >= _DARK)


def _boom_share(shown: DrawnMoment) -> float:
    """The share of the barrier's boom that is in the picture and uncovered."""
    box = overlap(shown.boom.box, _WHOLE)
    if box is None:
        return 0.0
    left, top, wide, high = box
    x, y = left - shown.boom.box[0], top - shown.boom.box[1]
    drawn = shown.boom.patch[y : y + high, x : x + wide, 3] > 127
    free = drawn & (shown.ids[top : top + high, left : left + wide] == 0)
    return float(np.count_nonzero(free)) / max(1, int(np.count_nonzero(shown.boom.patch[..., 3] > 127)))

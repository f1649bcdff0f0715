"""Pictures of the yard for the vision part: whole frames at any size, and crops around what matters."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from samples.yard.train.episodes import SAMPLE_FPS, SECONDS, cells_at, shrunk
from samples.yard.train.pictures import Example
from samples.yard.world.facts import HEIGHT, WIDTH
from samples.yard.world.scene import Look, Scene
from samples.yard.world.script import Interval, Script, VehicleRole, life
from samples.yard.world.targets import Box, Pixels, ShownPart, Teach, either, targets

CROP_CELLS = ((3, 4), (4, 4), (4, 7))
"""Cells of a crop, small ones first: most of a larger one shows nothing."""

_NEXT_S = 1 / SAMPLE_FPS  # between the frames of a two-frame segment
LATEST_S = SECONDS - _NEXT_S
"""The last second from which two frames can be seen."""

_SCENES_KEPT = 8


@dataclass(frozen=True, slots=True)
class Sight:
    """A moment of a scene: one frame, or two that follow each other."""

    looks: tuple[Look, ...]
    plates: tuple[dict[int, Box], ...]
    ways: tuple[Box, Box]


@lru_cache(maxsize=_SCENES_KEPT)
def _scene(seed: int) -> Scene:
    return Scene(seed, SECONDS)


def sight(seed: int, frames: int, rng: np.random.Generator, eventful: float = 0.0) -> Sight:
    """A moment of the scene of a seed; with the probability `eventful` one at which something happens."""
    scene = _scene(seed)
    spans = happening(scene.script) if eventful and rng.random() < eventful else {}
    start_s = _within(spans, rng) if spans else float(rng.uniform(0, LATEST_S))
    return moment(scene, start_s, frames)


def moment(scene: Scene, start_s: float, frames: int) -> Sight:
    """The pictures of a scene from `start_s` on: one frame, or two that follow each other."""
    times = [start_s + _NEXT_S * index for index in range(frames)]
    looks = tuple(scene.look(time_s) for time_s in times)
    return Sight(looks, tuple(scene.plate_boxes(time_s) for time_s in times), (scene.gate_box, scene.barrier_box))


def happening(script: Script) -> dict[str, list[Interval]]:
    """When each kind of thing that comes and goes is there, in seconds: what is rare is easily found."""
    spans: dict[str, list[Interval]] = {"gate": list(script.gate), "barrier": list(script.barrier)}
    for role in script.roles:
        if not (isinstance(role, VehicleRole) and role.parked):
            spans.setdefault(type(role).__name__, []).append(life(role))
    inside = {
        kind: [(max(start, 0.0), min(end, LATEST_S)) for start, end in found if start < LATEST_S and end > 0]
        for kind, found in spans.items()
    }
    return {kind: found for kind, found in inside.items() if found}


def _within(spans: dict[str, list[Interval]], rng: np.random.Generator) -> float:
    """A time at which something happens: each kind of thing is as likely as the others."""
    found = spans[sorted(spans)[rng.integers(len(spans))]]
    return float(rng.uniform(*found[rng.integers(len(found))]))


def whole(seen: Sight, scale: float, rng: np.random.Generator, teach: Teach = targets) -> Example:
    """The whole picture at a linear scale of its native size, with the targets that `teach` gives it."""
    rows, columns = cells_at(scale)
    shown = ShownPart((0, 0, WIDTH, HEIGHT), (rows, columns), whole=True)
    return _example(seen, shown, lambda pixels, quality: shrunk(_camera(pixels, quality), rows, columns), rng, teach)


def crop(
    seen: Sight, cells: tuple[int, int], rng: np.random.Generator, zooms: tuple[float, float] = (0.7, 1.8)
) -> Example:
    """A part of the picture around something in it; `zooms` are the least and the most px of it per px of the crop."""
    zoom = float(np.exp(rng.uniform(np.log(zooms[0]), np.log(zooms[1]))))
    height, width = (min(round(side * 32 * zoom), most) for side, most in zip(cells, (HEIGHT, WIDTH), strict=True))
    x, y = _centre(seen, rng)
    left = int(np.clip(x - width / 2 + rng.uniform(-0.3, 0.3) * width, 0, WIDTH - width))
    top = int(np.clip(y - height / 2 + rng.uniform(-0.3, 0.3) * height, 0, HEIGHT - height))
    shown = ShownPart((left, top, width, height), cells, whole=False)

    def cut(pixels: Pixels, quality: int) -> Pixels:
        return shrunk(_camera(pixels[top : top + height, left : left + width], quality), *cells)

    return _example(seen, shown, cut, rng)


def _centre(seen: Sight, rng: np.random.Generator) -> tuple[float, float]:
    """The middle of something: what is rare is as likely as what is common."""
    boxes: dict[str, list[Box]] = {"gate": [seen.ways[0]], "barrier": [seen.ways[1]]}
    for thing in seen.looks[0].facts.visible:
        boxes.setdefault(thing.kind, []).append(thing.box)
    for id_, box in seen.plates[0].items():
        if any(thing.id == id_ and thing.legible for thing in seen.looks[0].facts.things):
            boxes["plate"] = [*boxes.get("plate", []), box, box]
    kind = sorted(boxes)[rng.integers(len(boxes))]
    left, top, width, height = boxes[kind][rng.integers(len(boxes[kind]))]
    return left + width / 2, top + height / 2


def _example(
    seen: Sight,
    shown: ShownPart,
    cut: Callable[[Pixels, int], Pixels],
    rng: np.random.Generator,
    teach: Teach = targets,
) -> Example:
    quality = int(rng.integers(40, 96))
    found = [
        teach(look.ids, look.facts, plates, seen.ways, shown)
        for look, plates in zip(seen.looks, seen.plates, strict=True)
    ]
    pixels = np.stack([cut(look.pixels, quality) for look in seen.looks])
    return Example(pixels, found[0] if len(found) == 1 else either(*found))


def _camera(pixels: Pixels, quality: int) -> Pixels:
    """A picture as a codec leaves it; JPEG stands in for it, as moments have no neighbours to be predicted from."""
    _, coded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)

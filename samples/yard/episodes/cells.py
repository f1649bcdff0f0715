"""Contents of every cell of a whole picture, as yes and no: dense targets for models that look at thumbnails."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from samples.yard.shape import COLUMNS, ROWS
from samples.yard.world.facts import COLOURS, HEIGHT, KINDS, WIDTH
from samples.yard.world.scene import Look, Scene
from samples.yard.world.targets import ShownPart, Targets, targets

SLOTS = len(KINDS) + len(COLOURS) + 4 + 2
"""Kinds of things, colours, helmet, vest, bag and being far, open gate, raised barrier."""

_WHOLE = ShownPart((0, 0, WIDTH, HEIGHT), (ROWS, COLUMNS), whole=True)


def cells(scene: Scene, looks: Sequence[Look]) -> NDArray[np.int8]:
    """The cells of looks at a scene: int8 `[frames, 112, SLOTS]`, 1 yes, 0 no, -1 unknown."""
    ways = scene.gate_box, scene.barrier_box
    found = [targets(look.ids, look.facts, scene.plate_boxes(look.facts.time_s), ways, _WHOLE) for look in looks]
    return np.stack([_slots(one) for one in found])


def _slots(found: Targets) -> NDArray[np.int8]:
    colour = found["colour"]
    painted = np.where(colour < 0, -1, colour == np.arange(len(COLOURS))).astype(np.int8)
    return np.concatenate([found["kind"], painted, found["person"], found["gate"], found["barrier"]], axis=1)

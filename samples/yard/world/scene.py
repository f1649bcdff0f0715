"""One episode of the yard: the picture and the facts at any time, a pure function of seed, length and scale."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samples.yard.world.draw import Box, overlap
from samples.yard.world.facts import HEIGHT, WIDTH, FrameFacts
from samples.yard.world.happenings import make_script, quiet_before
from samples.yard.world.layout import FENCE_PX, FENCE_Y, make_layout
from samples.yard.world.measure import facts_of
from samples.yard.world.script import BARRIER_S, GATE_S, opened
from samples.yard.world.stage import DrawnMoment, YardStage

_KEPT_PLATES = 64
"""Frames whose plate boxes are kept."""


@dataclass(frozen=True, slots=True)
class Look:
    """One frame: `pixels` [256 * scale, 448 * scale, 3] RGB; `ids` [256, 448], the id of the Thing visible at each
    native pixel, 0 where none.
    """

    pixels: NDArray[np.uint8]
    ids: NDArray[np.uint8]
    facts: FrameFacts


class Scene:
    """The yard of a seed for `seconds`, and for `quiet_s` before that, at times below 0, in which nothing happens;
    `scale` 1 or 2 times the native size. Facts are always the native picture's."""

    def __init__(self, seed: int, seconds: float = 32.0, *, scale: int = 1, quiet_s: float = 0.0) -> None:
        if seed < 0 or seconds <= 0 or scale not in (1, 2) or quiet_s < 0:
            raise ValueError(
                "a scene needs seed >= 0, seconds > 0 and scale 1 or 2, and quiet_s >= 0; "
                f"got seed {seed}, seconds {seconds}, scale {scale}, quiet_s {quiet_s}"
            )
        self.seed, self.seconds, self.scale = seed, seconds, scale
        self.layout = make_layout(seed)
        self.script = make_script(seed, seconds, self.layout)
        if quiet_s:
            self.script = quiet_before(self.script, seed, quiet_s, self.layout)
        self._native = YardStage(seed, self.layout, self.script, 1)
        self._large = self._native if scale == 1 else YardStage(seed, self.layout, self.script, scale)
        self._plates: dict[float, dict[int, Box]] = {}
        self.gate_box: Box = self._box(
            (self.layout.gate_x, FENCE_Y - FENCE_PX - 4), (self.layout.gate_x + self.layout.gate_width, FENCE_Y + 2)
        )
        x, y = self.layout.barrier_pivot
        self.barrier_box: Box = self._box((x - 16, y - 5), (x + self.layout.barrier_length, y + 5))

    def look(self, time_s: float, *, facts: bool = True) -> Look:
        """The frame at `time_s` seconds. Without facts, `ids` is 0 and `things` empty, which is quicker."""
        native = self._native.show(time_s, measure=facts) if facts or self.scale == 1 else None
        large = native if native is not None and self.scale == 1 else self._large.show(time_s, measure=False)
        assert large is not None
        if native is None or not facts:
            gate = _settled(opened(self.script.gate, time_s, GATE_S))
            barrier = _settled(opened(self.script.barrier, time_s, BARRIER_S))
            stated = FrameFacts(time_s, self.layout.light, self.layout.rain, gate, barrier)
            return Look(large.pixels, np.zeros((HEIGHT, WIDTH), np.uint8), stated)
        stated = facts_of(native, self.layout, self.gate_box)
        self._remember_plates(native, stated)
        return Look(large.pixels, native.ids, stated)

    def plate_boxes(self, time_s: float) -> dict[int, Box]:
        """Native (left, top, width, height) of every plate that can be read by its light and view, by thing id."""
        if time_s not in self._plates:
            self.look(time_s)
        return self._plates[time_s]

    def _remember_plates(self, shown: DrawnMoment, facts: FrameFacts) -> None:
        readable = {thing.id for thing in facts.things if thing.plate_px > 0}
        self._plates[facts.time_s] = {
            cast.id: cast.plate for cast in shown.cast if cast.id in readable and cast.plate is not None
        }
        if len(self._plates) > _KEPT_PLATES:
            del self._plates[next(iter(self._plates))]

    def _box(self, one: tuple[float, float], two: tuple[float, float]) -> Box:
        """The native box around two plan points, inside the picture."""
        (x0, y0), (x1, y1) = self.layout.view.at(*one), self.layout.view.at(*two)
        left, top = int(np.floor(min(x0, x1))), int(np.floor(min(y0, y1)))
        box = (left, top, int(np.ceil(max(x0, x1))) - left, int(np.ceil(max(y0, y1))) - top)
        return overlap(box, (0, 0, WIDTH, HEIGHT)) or (0, 0, 1, 1)


def _settled(share: float) -> bool | None:
    return None if 0.25 < share < 0.75 else share >= 0.75

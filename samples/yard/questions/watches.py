"""The watches of the yard: conditions that stand on a camera, and when they hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np

from samples.yard.questions.truth import (
    BAG,
    BARE,
    BARRIER_UP,
    CARRYING,
    DOG,
    FAR_PERSON,
    GATE_CLOSED,
    GATE_OPEN,
    HELMET,
    PERSON,
    PLATE,
    SMOKE,
    VEHICLE,
    VEST,
    Condition,
    Seen,
    Truth,
    height,
    now,
    runs,
)
from samples.yard.questions.wordings import IS, clauses
from samples.yard.world.facts import COLOURS, GLYPHS, VEHICLES, Colour, FrameFacts, Kind, Vehicle


@dataclass(frozen=True, slots=True)
class YardWatch:
    """A condition asked of the newest second of a stream; `fine` ones hang on details of a few px."""

    slug: str
    family: Literal["coarse", "fine"]
    condition: Condition

    @property
    def text(self) -> str:
        """The question as it stands on a stream."""
        return IS[0][0].format(**clauses(self.condition)[0])


@dataclass(frozen=True, slots=True)
class Interval:
    """Seconds `[start_s, end_s)`; `pixels` is the greatest height in native px of the decisive evidence in it."""

    start_s: float
    end_s: float
    pixels: float


_WATCHES: tuple[YardWatch, ...] = (
    YardWatch("gate-open", "coarse", GATE_OPEN),
    YardWatch("gate-closed", "coarse", GATE_CLOSED),
    YardWatch("barrier-up", "coarse", BARRIER_UP),
    YardWatch("vehicle", "coarse", VEHICLE),
    YardWatch("truck", "coarse", Seen(("truck",))),
    YardWatch("van", "coarse", Seen(("van",))),
    YardWatch("red-car", "coarse", Seen(("car",), colour="red")),
    YardWatch("blue-van", "coarse", Seen(("van",), colour="blue")),
    YardWatch("white-truck", "coarse", Seen(("truck",), colour="white")),
    YardWatch("person", "coarse", PERSON),
    YardWatch("smoke", "coarse", SMOKE),
    YardWatch("dock-occupied", "coarse", Seen(VEHICLES, place="dock")),
    YardWatch("vehicle-on-road", "coarse", Seen(VEHICLES, place="road")),
    YardWatch("no-helmet", "fine", BARE),
    YardWatch("helmet", "fine", HELMET),
    YardWatch("vest", "fine", VEST),
    YardWatch("bag-left", "fine", BAG),
    YardWatch("far-person", "fine", FAR_PERSON),
    YardWatch("carrying-bag", "fine", CARRYING),
    YardWatch("dog", "fine", DOG),
    YardWatch("any-plate", "fine", PLATE),
)


def watch_questions() -> tuple[YardWatch, ...]:
    """Every watch that needs no parameter."""
    return _WATCHES


def plate_watch(plate: str) -> YardWatch:
    """The watch for one plate, whose text is 2 or 3 characters of GLYPHS. Raises ValueError for another."""
    if not 2 <= len(plate) <= 3 or set(plate) - set(GLYPHS):
        raise ValueError(f"the plate is {plate!r}; expected 2 or 3 characters of {GLYPHS}")
    return YardWatch(f"plate-{plate.lower()}", "fine", Seen(VEHICLES, trait="plate", plate=plate))


def painted_watch(colour: Colour, kind: Vehicle) -> YardWatch:
    """The watch for vehicles of one colour and kind."""
    return YardWatch(f"{colour}-{kind}", "coarse", Seen((kind,), colour=colour))


def holds(watch: YardWatch, frames: Sequence[FrameFacts]) -> Truth:
    """True if the watch's condition holds in any frame of the newest second; None where that is undecided."""
    return now(watch.condition, frames)


@overload
def watch_intervals(frames: Sequence[FrameFacts]) -> dict[str, tuple[Interval, ...]]: ...
@overload
def watch_intervals(
    frames: Sequence[FrameFacts], watch: YardWatch, *, undecided: bool = False
) -> tuple[Interval, ...]: ...
def watch_intervals(
    frames: Sequence[FrameFacts], watch: YardWatch | None = None, *, undecided: bool = False
) -> dict[str, tuple[Interval, ...]] | tuple[Interval, ...]:
    """When the watch's condition is visible: maximal intervals, gaps below 0.6 s bridged.

    An interval ends one frame after the last in which the condition certainly holds. With `undecided`, the frames
    that leave it open count as well: an event outside of these intervals is false. Without a watch: of every watch
    that needs no parameter and of every plate that comes, by question.
    """
    if watch is not None:
        return _intervals(frames, watch.condition, undecided)
    plates = {t.plate for frame in frames for t in frame.things if t.plate and PLATE.of(t)}
    return {
        each.text: _intervals(frames, each.condition, undecided)
        for each in (*_WATCHES, *map(plate_watch, sorted(plates)))
    }


def _intervals(frames: Sequence[FrameFacts], condition: Condition, undecided: bool) -> tuple[Interval, ...]:
    times_s = [frame.time_s for frame in frames]
    steps_s = np.diff(times_s)
    step_s = float(np.median(steps_s)) if len(steps_s) else 0.0
    ends_s = [*times_s[1:], times_s[-1] + step_s] if times_s else []
    truths = [condition.truth(frame) for frame in frames]
    found = runs(times_s, [value is True or (undecided and value is None) for value in truths])
    return tuple(
        Interval(times_s[run.first], ends_s[run.last], height(condition, frames[run.first : run.last + 1]))
        for run in found
    )


def watches_for(frames: Sequence[FrameFacts], rng: np.random.Generator, count: int) -> tuple[YardWatch, ...]:
    """`count` distinct watches for an episode: about half of them happen in it, and about half are fine."""
    candidates = {watch.condition: watch for watch in (*_drawn(frames, rng), *_WATCHES)}
    order = [list(candidates.values())[index] for index in rng.permutation(len(candidates))]
    happens = {watch: any(watch.condition.truth(frame) for frame in frames) for watch in order}
    chosen: list[YardWatch] = []
    for index in range(min(count, len(order))):
        wanted = ("fine" if index % 2 else "coarse", index // 2 % 2 == 0)
        chosen.append(min(order, key=lambda w: (w in chosen, (w.family != wanted[0]) + (happens[w] != wanted[1]))))
    return tuple(chosen)


def _drawn(frames: Sequence[FrameFacts], rng: np.random.Generator) -> list[YardWatch]:
    """Watches for a plate and a painted vehicle that come in these frames, and for some that need not."""
    things = [thing for frame in frames for thing in frame.visible if thing.kind in VEHICLES]
    plates = sorted({thing.legible for thing in things if thing.legible})
    painted: list[tuple[Colour, Kind]] = sorted({(thing.colour, thing.kind) for thing in things if thing.colour})
    watches = [plate_watch("".join(rng.choice(list(GLYPHS), size=int(rng.integers(2, 4)))))]
    watches.append(painted_watch(COLOURS[rng.integers(len(COLOURS))], VEHICLES[rng.integers(len(VEHICLES))]))
    if plates:
        watches.append(plate_watch(plates[rng.integers(len(plates))]))
    if painted:
        colour, kind = painted[rng.integers(len(painted))]
        watches.append(YardWatch(f"{colour}-{kind}", "coarse", Seen((kind,), colour=colour)))
    return watches

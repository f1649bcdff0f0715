"""The truth about frames: small conditions with three values, and statements about them over time.

True and False are certain; None is undecided: the evidence lies at the border of what can be seen, or is moving or
covered. Nothing here knows a word of the questions.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from samples.yard.world.facts import (
    FAR_PERSON_PX,
    GLYPH_PX,
    HEAD_PX,
    VEHICLES,
    VISIBLE_PX,
    Colour,
    FrameFacts,
    Kind,
    Light,
    Place,
    Thing,
)

Truth: TypeAlias = bool | None
Trait: TypeAlias = Literal["bare", "helmet", "vest", "carrying", "far", "plate"]

HOP_S = 1.0
"""Length in seconds of what counts as now."""

MERGE_S = 0.6
"""Gaps shorter than this, in seconds, do not end an interval."""

GATE_PX, BARRIER_PX = 35.0, 5.0
"""Typical height in px of the evidence: the gate's leaf, the barrier's boom."""

_FRACTION, _CONTRAST, _SIZE = (0.3, 0.6), (8.0, 18.0), (0.85, 1.15)
_SLACK_S = 1e-6


def any_of(values: Iterable[Truth]) -> Truth:
    """Kleene's or."""
    result: Truth = False
    for value in values:
        if value:
            return True
        if value is None:
            result = None
    return result


def all_of(values: Iterable[Truth]) -> Truth:
    """Kleene's and."""
    result: Truth = True
    for value in values:
        if value is None:
            result = None
        elif not value:
            return False
    return result


def reaches(value: float, limit: float) -> Truth:
    """True if `value` is at least `limit`; None within 15 % of it."""
    return False if value < limit * _SIZE[0] else True if value >= limit * _SIZE[1] else None


def seen(thing: Thing) -> Truth:
    """True if the object can be recognised; None at the border of size, cover or contrast."""
    size = thing.height_px / VISIBLE_PX[thing.kind]
    if thing.fraction < _FRACTION[0] or thing.contrast < _CONTRAST[0] or size < _SIZE[0]:
        return False
    return (thing.fraction >= _FRACTION[1] and thing.contrast >= _CONTRAST[1] and size >= _SIZE[1]) or None


def far(thing: Thing) -> Truth:
    """True if a person is far away."""
    near = reaches(thing.height_px, FAR_PERSON_PX)
    return None if near is None else not near


def legible(thing: Thing) -> Truth:
    """True if the plate of an object that is seen can be read."""
    return False if thing.plate is None else reaches(thing.plate_px, GLYPH_PX)


def _head(thing: Thing, helmet: bool) -> Truth:
    told = reaches(thing.head_px, HEAD_PX)
    if thing.helmet is None:
        return None if told is not False else False
    return told if thing.helmet == helmet else False


def _near(thing: Thing, has: bool | None) -> Truth:
    """Worn and carried things are certain on people who are near; on far ones they stay undecided."""
    return False if has is not None and not has else all_of((has, far(thing) is False or None))


TRAITS: dict[Trait, tuple[Callable[[Thing], Truth], Callable[[Thing], float]]] = {
    "bare": (lambda thing: _head(thing, False), lambda thing: thing.head_px),
    "helmet": (lambda thing: _head(thing, True), lambda thing: thing.head_px),
    "vest": (lambda thing: _near(thing, thing.vest), lambda thing: thing.height_px),
    "carrying": (lambda thing: _near(thing, thing.bag), lambda thing: thing.height_px),
    "far": (far, lambda thing: thing.height_px),
    "plate": (legible, lambda thing: thing.plate_px),
}
"""Of each trait: whether an object that is seen has it, and the height in px of what shows it."""


class Condition(Protocol):
    """Something that a single frame shows or does not show."""

    def truth(self, frame: FrameFacts) -> Truth: ...
    def pixels(self, frame: FrameFacts) -> float:
        """Height in native px of what shows it; 0 where it does not certainly hold."""
        ...


@dataclass(frozen=True, slots=True)
class State:
    """The gate is open (or closed), the barrier is up (or down), it rains (or not)."""

    of: Literal["gate_open", "barrier_up", "rain"]
    value: bool

    def truth(self, frame: FrameFacts) -> Truth:
        is_so: Truth = getattr(frame, self.of)
        return None if is_so is None else bool(is_so == self.value)

    def pixels(self, frame: FrameFacts) -> float:
        return {"gate_open": GATE_PX, "barrier_up": BARRIER_PX, "rain": 0.0}[self.of] if self.truth(frame) else 0.0


@dataclass(frozen=True, slots=True)
class LightIs:
    """It is day, dusk or night."""

    light: Light

    def truth(self, frame: FrameFacts) -> Truth:
        return frame.light == self.light

    def pixels(self, frame: FrameFacts) -> float:
        return 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """An object of one of `kinds` is seen that has all that is named.

    Smaller ones than `clear_px` leave it undecided. `plate` needs the trait "plate"; without it any plate will do.
    """

    kinds: tuple[Kind, ...]
    colour: Colour | None = None
    place: Place | None = None
    trait: Trait | None = None
    plate: str | None = None
    clear_px: float = 0.0

    def truth(self, frame: FrameFacts) -> Truth:
        return any_of(map(self.of, frame.things))

    def pixels(self, frame: FrameFacts) -> float:
        height = TRAITS[self.trait][1] if self.trait else lambda thing: thing.height_px
        return max((height(thing) for thing in frame.things if self.of(thing)), default=0.0)

    def of(self, thing: Thing) -> Truth:
        """True if `thing` is such an object."""
        if (
            thing.kind not in self.kinds
            or self.colour not in (None, thing.colour)
            or self.place not in (None, thing.place)
            or self.plate not in (None, thing.plate)
        ):
            return False
        clear = thing.height_px >= self.clear_px or None
        return all_of((seen(thing), clear, TRAITS[self.trait][0](thing) if self.trait else True))


GATE_OPEN, GATE_CLOSED = State("gate_open", True), State("gate_open", False)
BARRIER_UP, BARRIER_DOWN = State("barrier_up", True), State("barrier_up", False)
VEHICLE, PERSON, DOG, SMOKE, BAG = Seen(VEHICLES), Seen(("person",)), Seen(("dog",)), Seen(("smoke",)), Seen(("bag",))
BARE, HELMET = Seen(("person",), trait="bare"), Seen(("person",), trait="helmet")
FAR_PERSON, CARRYING = Seen(("person",), trait="far"), Seen(("person",), trait="carrying")
VEST, PLATE = Seen(("person",), trait="vest"), Seen(VEHICLES, trait="plate")


def newest(frames: Sequence[FrameFacts]) -> Sequence[FrameFacts]:
    """The frames of the newest second, `(last - 1, last]`."""
    start = frames[-1].time_s - HOP_S + _SLACK_S
    return [frame for frame in frames if frame.time_s > start]


def ever(condition: Condition, frames: Sequence[FrameFacts]) -> Truth:
    """True if the condition holds in any of the frames."""
    return any_of(map(condition.truth, frames))


def now(condition: Condition, frames: Sequence[FrameFacts]) -> Truth:
    """True if the condition holds in any frame of the newest second."""
    return ever(condition, newest(frames))


def height(condition: Condition, frames: Sequence[FrameFacts]) -> float:
    """Greatest height in native px of what shows the condition; 0 where it never certainly holds."""
    return max(map(condition.pixels, frames), default=0.0)


@dataclass(frozen=True, slots=True)
class Run:
    """Frames `first` to `last`, both included, in which something holds."""

    first: int
    last: int


def runs(times_s: Sequence[float], holds: Sequence[bool]) -> list[Run]:
    """Maximal runs of frames in which `holds`; gaps of less than MERGE_S between two such frames are bridged."""
    found: list[Run] = []
    for index, value in enumerate(holds):
        if not value:
            continue
        if found and (found[-1].last == index - 1 or times_s[index] - times_s[found[-1].last] < MERGE_S):
            found[-1] = Run(found[-1].first, index)
        else:
            found.append(Run(index, index))
    return found


@dataclass(frozen=True, slots=True)
class Onset:
    """When something began: certainly by `by_s`, possibly since `since_s`, the first undecided frame before it."""

    since_s: float
    by_s: float


def onset(condition: Condition, frames: Sequence[FrameFacts]) -> Onset | None:
    """When the condition first began to hold; None if it never did, or already may have in the first frame."""
    since_s: float | None = None
    if condition.truth(frames[0]) is not False:
        return None
    for frame in frames:
        value = condition.truth(frame)
        if value is False:
            since_s = None
        elif since_s is None:
            since_s = frame.time_s
        if value and since_s is not None:
            return Onset(since_s, frame.time_s)
    return None


def beginnings(condition: Condition, frames: Sequence[FrameFacts]) -> int | None:
    """The number of times the condition began to hold; None where undecided frames may hide one."""
    count, before, last_known_s = 0, None, frames[0].time_s
    for frame in frames:
        value = condition.truth(frame)
        if value is None:
            continue
        hidden = frame.time_s - last_known_s > 2 * HOP_S
        if hidden or (before is None and frame is not frames[0]):
            return None
        count += value and before is False
        before, last_known_s = value, frame.time_s
    return None if before is None or frames[-1].time_s - last_known_s > HOP_S else count


def only_run(condition: Condition, frames: Sequence[FrameFacts]) -> Run | None:
    """The one run of frames in which the condition holds, at least 0.5 s long; None if there is no such run, if
    there are several, if it is all of the frames, or if undecided frames blur more than 0.6 s at either end."""
    truths = [condition.truth(frame) for frame in frames]
    times_s = [frame.time_s for frame in frames]
    certain, possible = (
        runs(times_s, [value is True for value in truths]),
        runs(times_s, [v is not False for v in truths]),
    )
    if len(certain) != 1 or len(possible) != 1 or certain[0] == Run(0, len(frames) - 1):
        return None
    run, wide = certain[0], possible[0]
    blurred_s = max(times_s[run.first] - times_s[wide.first], times_s[wide.last] - times_s[run.last])
    return run if times_s[run.last] - times_s[run.first] >= 0.5 - _SLACK_S and blurred_s <= MERGE_S else None

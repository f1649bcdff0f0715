"""Kinds of questions about all of the frames: at a time, ever, never, order, how often, from when to when."""

from collections.abc import Iterable

import numpy as np

from samples.yard.questions import proposals
from samples.yard.questions import wordings as say
from samples.yard.questions.proposals import Frames, Proposer, these
from samples.yard.questions.templates import MOST, Draft, Drafts, Template, all_clauses, ask_whether, word
from samples.yard.questions.truth import (
    BAG,
    BARE,
    BARRIER_UP,
    DOG,
    GATE_OPEN,
    PERSON,
    SMOKE,
    VEHICLE,
    Condition,
    Seen,
    beginnings,
    ever,
    height,
    only_run,
    onset,
)
from samples.yard.questions.wordings import EVENTS, Slots, Wordings, clauses
from samples.yard.world.facts import VEHICLES, FrameFacts

_HAPPENINGS: dict[str, Condition] = {
    "gate": GATE_OPEN,
    "barrier": BARRIER_UP,
    "person": PERSON,
    "dog": DOG,
    "smoke": SMOKE,
    **{kind: Seen((kind,)) for kind in VEHICLES},
}
_LASTING: tuple[Condition, ...] = (GATE_OPEN, BARRIER_UP, SMOKE, PERSON, BAG, DOG, BARE, *proposals.KINDS)
_TIMES = tuple(f"{tenths / 10:.1f}" for tenths in range(0, 640, 5)) + tuple(f"{n}.{n}" for n in range(10))


def stamp(frame: FrameFacts) -> str:
    """The frame's time as contexts write it, in seconds with one decimal."""
    return f"{round(frame.time_s, 1) + 0.0:.1f}"


def _at(condition: Condition) -> Drafts:
    """For each decided frame, True if the condition held in it."""

    def drafts(frames: Frames, rng: np.random.Generator) -> Iterable[Draft]:
        if len(frames) < 2:
            return
        for frame in frames:
            if (value := condition.truth(frame)) is not None:
                slots = tuple({**clause, "t": stamp(frame)} for clause in clauses(condition))
                yield Draft(slots, word(value), condition.pixels(frame))

    return drafts


def _at_template(kind: str, condition: Condition) -> Template:
    slots = tuple({**clause, "t": time} for clause in clauses(condition) for time in _TIMES)
    return Template(kind, "video", say.AT, slots, _at(condition))


def _several(drafts: Drafts) -> Drafts:
    """The drafts, where there is more than one frame."""
    return lambda frames, rng: drafts(frames, rng) if len(frames) > 1 else ()


def _ever(kind: str, propose: Proposer, conditions: tuple[Condition, ...]) -> Template:
    wordings = say.EVER_SEEN if isinstance(conditions[0], Seen) else say.EVER
    drafts = _several(ask_whether(propose, ever, lambda frames: frames))
    return Template(kind, "video", wordings, all_clauses(conditions), drafts)


def _never(kind: str, wordings: Wordings, things: dict[str, Condition]) -> Template:
    def drafts(frames: Frames, rng: np.random.Generator) -> Iterable[Draft]:
        for noun, condition in things.items():
            if (value := ever(condition, frames)) is not None:
                yield Draft(({"n": noun},), word(not value), height(condition, frames))

    return Template(kind, "video", wordings, tuple({"n": noun} for noun in things), _several(drafts))


def _order(frames: Frames) -> list[tuple[str, str]]:
    """Pairs of happenings of which the first certainly began at least half a second before the other."""
    begun = {name: onset(condition, frames) for name, condition in _HAPPENINGS.items()}
    return [
        (first, second)
        for first, a in begun.items()
        for second, b in begun.items()
        if a and b and first != second and a.by_s <= b.since_s - 0.5 + 1e-6
    ]


def _pair(first: str, second: str) -> Slots:
    return {
        "did": EVENTS[first][0],
        "past": EVENTS[first][1],
        "past_b": EVENTS[second][1],
        "n": first,
        "m": second,
    }


_PAIRS = tuple(_pair(first, second) for first in EVENTS for second in EVENTS if first != second)


def _before(frames: Frames, rng: np.random.Generator) -> Iterable[Draft]:
    for first, second in _order(frames):
        pixels = height(_HAPPENINGS[first], frames)
        yield Draft((_pair(first, second),), "yes", pixels)
        yield Draft((_pair(second, first),), "no", pixels)


def _first(frames: Frames, rng: np.random.Generator) -> Iterable[Draft]:
    for first, second in _order(frames):
        yield Draft((_pair(first, second), _pair(second, first)), first, height(_HAPPENINGS[first], frames))


def _how_often(name: str) -> Drafts:
    def drafts(frames: Frames, rng: np.random.Generator) -> Iterable[Draft]:
        count = beginnings(_HAPPENINGS[name], frames)
        if count is not None:
            yield Draft((_happening(name),), str(min(count, MOST)), height(_HAPPENINGS[name], frames))

    return _several(drafts)


def _happening(name: str) -> Slots:
    return {"did": EVENTS[name][0], "past": EVENTS[name][1]}


def _when(frames: Frames, rng: np.random.Generator) -> Iterable[Draft]:
    """For each condition that holds in exactly one interval, the times of its first and last frame."""
    for condition in _LASTING:
        if run := only_run(condition, frames):
            part = frames[run.first : run.last + 1]
            yield Draft(clauses(condition), f"{stamp(part[0])} to {stamp(part[-1])}", height(condition, part))


OVER_TIME: tuple[Template, ...] = (
    _at_template("at_gate", GATE_OPEN),
    _at_template("at_barrier", BARRIER_UP),
    _at_template("at_person", PERSON),
    _at_template("at_vehicle", VEHICLE),
    _at_template("at_dog", DOG),
    _ever("ever_gate", these(GATE_OPEN), (GATE_OPEN,)),
    _ever("ever_person", these(PERSON), (PERSON,)),
    _ever("ever_dog", these(DOG), (DOG,)),
    _ever("ever_smoke", these(SMOKE), (SMOKE,)),
    _ever("ever_kind", these(*proposals.KINDS), proposals.KINDS),
    _ever("ever_painted", proposals.painted, proposals.PAINTED),
    _never("never", say.NEVER, {name: _HAPPENINGS[name] for name in ("person", "dog", *VEHICLES)}),
    _never("nobody", say.NOBODY, {"": PERSON}),
    Template("before", "video", say.BEFORE, _PAIRS, _before),
    Template("first", "video", say.FIRST, _PAIRS, _first),
    Template("times_gate", "video", say.TIMES, (_happening("gate"),), _how_often("gate")),
    Template("times_barrier", "video", say.TIMES, (_happening("barrier"),), _how_often("barrier")),
    Template("interval", "grounding", say.WHEN, all_clauses(_LASTING), _when),
)

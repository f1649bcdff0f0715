"""Equal motion, another query: watches that are decided by what hardly moves, while something else does.

What follows motion alone is drawn to the rest of the picture there; what is told the query need not be.
"""

from collections.abc import Sequence
from itertools import pairwise

from allocator_engine.evaluate.tasks import Span
from samples.yard.questions.matching import spans
from samples.yard.questions.truth import HOP_S, PERSON, Seen, State, seen
from samples.yard.questions.watches import YardWatch, painted_watch, plate_watch, watch_questions
from samples.yard.world.facts import FrameFacts, Thing

OWN_SHARE = 0.25
"""What decides a watch makes up at most so much of what moves at the time."""

LEAST_MOTION_PX = 200.0
"""Something moves if it sweeps so many native px per hop: a far person's stride."""

FIRST_S = 3.0
"""Seconds before which an onset is no test: nothing can have distracted yet."""

_DOOR_PX = 600.0  # what a gate's leaf or a barrier's boom sweeps in a hop while it moves
_HAPPENING, _QUIET = 4, 2  # watches of an episode that happen, and that never do


def distracted_watches(facts: Sequence[FrameFacts]) -> tuple[YardWatch, ...]:
    """The watches of an episode that happen while something else moves, and some fine ones that never happen.

    Empty where nothing of the kind happens.
    """
    candidates = {watch.condition: watch for watch in (*watch_questions(), *_present(facts))}.values()
    happening = [watch for watch in candidates if is_distracted(watch, facts)]
    quiet = [watch for watch in candidates if watch.family == "fine" and not spans(watch, facts)]
    fine_first = sorted(happening, key=lambda watch: watch.family == "coarse")[:_HAPPENING]
    return (*fine_first, *quiet[:_QUIET]) if fine_first else ()


def is_distracted(watch: YardWatch, facts: Sequence[FrameFacts]) -> bool:
    """True if the watch has an onset that counts, and at each of those something moves, of which what decides the watch
    is the lesser part."""
    onsets = [span for span in spans(watch, facts) if span.certain_s is not None and span.certain_s >= FIRST_S]
    return bool(onsets) and all(_aside(watch, span, facts) for span in onsets)


def _aside(watch: YardWatch, span: Span, facts: Sequence[FrameFacts]) -> bool:
    assert span.certain_s is not None
    began_s = span.certain_s
    around = [frame for frame in facts if began_s - HOP_S <= frame.time_s < began_s + 2 * HOP_S]
    swept = sweeps(around)
    own = sum(swept.get(name, 0.0) for name in _deciders(watch, around))
    total = sum(swept.values())
    return total - own >= LEAST_MOTION_PX and own <= OWN_SHARE * total


def sweeps(frames: Sequence[FrameFacts]) -> dict[str, float]:
    """Native px that each thing sweeps in these frames, by its id; also the "gate" and the "barrier".

    What moves by d px changes about d times its height, at most all of itself; what comes or goes changes all of it.
    """
    found: dict[str, float] = {}
    for before, after in pairwise(frames):
        earlier = {thing.id: thing for thing in before.things if seen(thing) is not False}
        later = {thing.id: thing for thing in after.things if seen(thing) is not False}
        for number in earlier.keys() | later.keys():
            swept = _swept(earlier.get(number), later.get(number))
            found[str(number)] = found.get(str(number), 0.0) + swept
        for name in ("gate", "barrier"):
            states = [{"gate": one.gate_open, "barrier": one.barrier_up}[name] for one in (before, after)]
            if None in states or states[0] != states[1]:
                found[name] = found.get(name, 0.0) + _DOOR_PX
    return found


def _swept(before: Thing | None, after: Thing | None) -> float:
    if before is None or after is None:
        there = after or before
        assert there is not None
        return float(there.box[2] * there.box[3])
    (x, y, wide, high), (u, v, broad, tall) = before.box, after.box
    distance = abs(x + wide / 2 - u - broad / 2) + abs(y + high / 2 - v - tall / 2)
    return min(distance * max(high, tall), float(max(wide * high, broad * tall)))


def _deciders(watch: YardWatch, frames: Sequence[FrameFacts]) -> set[str]:
    condition = watch.condition
    if isinstance(condition, State):
        return {condition.of.partition("_")[0]}
    if not isinstance(condition, Seen):
        return set()
    return {str(thing.id) for frame in frames for thing in frame.things if condition.of(thing)}


def _present(facts: Sequence[FrameFacts]) -> list[YardWatch]:
    """Watches for the plates and the painted vehicles that come."""
    things = {thing.id: thing for frame in facts for thing in frame.visible if thing.kind not in PERSON.kinds}
    plates = sorted({thing.legible for frame in facts for thing in frame.visible if thing.legible})
    painted = sorted({(one.colour, one.kind) for one in things.values() if one.colour})
    return [*map(plate_watch, plates), *(painted_watch(colour, kind) for colour, kind in painted if colour)]  # type: ignore[arg-type]

"""Truth for the language of watches: what a perfect model would answer about a hop, to a condition, a count or a
choice."""

from collections.abc import Sequence

from pipeline.types import Answer, WatchQuery
from samples.yard.questions.now import NEAR_VEHICLE_PX, nearest
from samples.yard.questions.truth import Condition, ever, seen
from samples.yard.world.facts import VEHICLES, FrameFacts, Kind


def count_of(kinds: Sequence[Kind], frame: FrameFacts) -> int | None:
    """The number of objects of these kinds that are seen; None where one of them is at the border of that."""
    known = [seen(thing) for thing in frame.things if thing.kind in kinds]
    return None if None in known else sum(map(bool, known))


def nearest_colour(frame: FrameFacts) -> str | None:
    """The colour of the nearest vehicle; None where there is none, or none that is clear."""
    vehicle = nearest(frame, VEHICLES)
    return vehicle.colour if vehicle and vehicle.height_px >= NEAR_VEHICLE_PX else None


def perfect(query: WatchQuery, about: Condition | Sequence[Kind] | None, frames: Sequence[FrameFacts]) -> Answer:
    """The answer of a model that is always right, about a hop of these frames: to a count of the kinds `about`, to a
    choice of the nearest vehicle's colour, or to a condition. Unknown where the truth is undecided."""
    if query.rules.choice:
        colour = nearest_colour(frames[-1])
        return _answer(query, None if colour is None else 1.0, colour)
    if query.rules.count:
        assert isinstance(about, Sequence), "a count is about kinds"
        number = count_of(about, frames[-1])
        held = None if number is None else float(query.rules.count.holds(number))
        return _answer(query, held, None if number is None else str(number))
    assert about is not None, "a condition is wanted"
    assert not isinstance(about, Sequence), "kinds are counted"
    truth = ever(about, frames)
    return _answer(query, None if truth is None else float(truth), None)


def _answer(query: WatchQuery, score: float | None, value: str | None) -> Answer:
    return Answer(query.id, 0.5, 0.0) if score is None else Answer(query.id, score, 1.0, value=value)

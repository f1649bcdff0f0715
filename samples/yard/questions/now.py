"""Kinds of questions about the newest second: presence, state, attribute, count, text."""

from collections.abc import Iterable, Sequence

import numpy as np

from samples.yard.questions import proposals
from samples.yard.questions import wordings as say
from samples.yard.questions.proposals import Frames, Proposer, these
from samples.yard.questions.templates import MOST, Draft, Drafts, Family, Template, all_clauses, ask_whether, word
from samples.yard.questions.truth import (
    BAG,
    BARE,
    BARRIER_DOWN,
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
    State,
    legible,
    newest,
    now,
    reaches,
    seen,
)
from samples.yard.questions.watches import watch_questions
from samples.yard.world.facts import HEAD_PX, VEHICLES, FrameFacts, Kind, Thing

CLEAR_PX = 36.0
"""Height in px from which people are a coarse matter: smaller ones are far."""

NEAR_VEHICLE_PX = 28.0
"""Height in px from which the presence, colour and kind of vehicles are coarse matters."""

CLEAR_VEHICLE = Seen(VEHICLES, clear_px=NEAR_VEHICLE_PX)
CLEAR_PERSON = Seen(("person",), clear_px=CLEAR_PX)


def _whether(kind: str, family: Family, propose: Proposer, conditions: Sequence[Condition]) -> Template:
    wordings = say.SEE if isinstance(conditions[0], Seen) else say.IS
    return Template(kind, family, wordings, all_clauses(conditions), ask_whether(propose, now, newest))


def _is(kind: str, family: Family, condition: Condition) -> Template:
    return _whether(kind, family, these(condition), (condition,))


def _unless_clear(small: Condition, clear: Condition) -> Drafts:
    """Asks for `small` only where nothing of `clear` size can be what is seen."""
    ask = ask_whether(these(small), now, newest)

    def drafts(frames: Frames, rng: np.random.Generator) -> Iterable[Draft]:
        return () if now(clear, frames) else ask(frames, rng)

    return drafts


def nearest(frame: FrameFacts, kinds: tuple[Kind, ...]) -> Thing | None:
    """The nearest object of these kinds, by where its lower edge stands; None if that is no clear matter."""
    candidates = [thing for thing in frame.things if thing.kind in kinds and seen(thing) is not False]
    if not candidates:
        return None
    *others, first = sorted(candidates, key=_foot_px)
    return first if seen(first) and all(_foot_px(other) <= _foot_px(first) - 8 for other in others) else None


def _foot_px(thing: Thing) -> float:
    return thing.box[1] + thing.box[3]


def _colour_of_nearest(frames: Frames, rng: np.random.Generator) -> Iterable[Draft]:
    if (vehicle := _near_vehicle(frames)) and vehicle.colour:
        nouns = ["nearest vehicle", f"nearest {vehicle.kind}"]
        if len(proposals.vehicles(frames[-1:])) == 1:
            nouns += ["vehicle", vehicle.kind]
        yield Draft(tuple({"n": noun} for noun in nouns), vehicle.colour, vehicle.height_px)


def _kind_of_nearest(frames: Frames, rng: np.random.Generator) -> Iterable[Draft]:
    if vehicle := _near_vehicle(frames):
        yield Draft(({},), vehicle.kind, vehicle.height_px)


def _near_vehicle(frames: Frames) -> Thing | None:
    vehicle = nearest(frames[-1], VEHICLES)
    return vehicle if vehicle and vehicle.height_px >= NEAR_VEHICLE_PX else None


def _helmet_of_nearest(frames: Frames, rng: np.random.Generator) -> Iterable[Draft]:
    person = nearest(frames[-1], ("person",))
    if person and person.helmet is not None and reaches(person.head_px, HEAD_PX):
        yield Draft(({},), word(person.helmet), person.head_px)


def _plate_text(frames: Frames, rng: np.random.Generator) -> Iterable[Draft]:
    shown = [t for t in proposals.vehicles(newest(frames)) if t.plate and legible(t) is not False]
    if shown and len({t.plate for t in shown}) == 1 and any(seen(t) and legible(t) for t in shown):
        yield Draft(({},), shown[0].plate or "", max(t.plate_px for t in shown))


def _count(kinds: tuple[Kind, ...]) -> Drafts:
    word_for = "people" if kinds == ("person",) else "vehicles"

    def drafts(frames: Frames, rng: np.random.Generator) -> Iterable[Draft]:
        things = [thing for thing in frames[-1].things if thing.kind in kinds]
        if all(seen(thing) is not None for thing in things):
            heights = [thing.height_px for thing in things if seen(thing)]
            yield Draft(({"p": word_for},), str(min(len(heights), MOST)), min(heights, default=0.0))

    return drafts


_NEAREST = tuple({"n": f"{lead}{noun}"} for noun in ("vehicle", *VEHICLES) for lead in ("", "nearest "))
_WATCHED = all_clauses(watch.condition for watch in watch_questions())

NOW: tuple[Template, ...] = (
    _is("gate_open_now", "coarse", GATE_OPEN),
    _is("gate_closed_now", "coarse", GATE_CLOSED),
    _is("vehicle_now", "coarse", CLEAR_VEHICLE),
    _is("person_now", "coarse", CLEAR_PERSON),
    _is("smoke_now", "coarse", SMOKE),
    Template("colour_near_now", "coarse", say.COLOUR, _NEAREST, _colour_of_nearest),
    Template("plate_read_now", "fine", say.READ, ({},), _plate_text),
    _whether("plate_text_now", "fine", proposals.plates, proposals.PLATED),
    _is("plate_any_now", "fine", PLATE),
    _is("person_bare_now", "fine", BARE),
    _is("person_helmet_now", "fine", HELMET),
    Template("helmet_nearest_now", "fine", say.NEAREST_HELMET, ({},), _helmet_of_nearest),
    _is("person_carrying_now", "fine", CARRYING),
    _is("bag_left_now", "fine", BAG),
    _is("person_far_now", "fine", FAR_PERSON),
    Template("person_small_now", "fine", say.SEE, all_clauses((PERSON,)), _unless_clear(PERSON, CLEAR_PERSON)),
    Template("vehicle_small_now", "video", say.SEE, all_clauses((VEHICLE,)), _unless_clear(VEHICLE, CLEAR_VEHICLE)),
    _is("barrier_up_now", "video", BARRIER_UP),
    _is("barrier_down_now", "video", BARRIER_DOWN),
    _whether("vehicle_kind_now", "video", these(*proposals.KINDS), proposals.KINDS),
    _whether("vehicle_colour_now", "video", these(*proposals.COLOURED), proposals.COLOURED),
    _whether("vehicle_painted_now", "video", proposals.painted, proposals.PAINTED),
    _whether("vehicle_placed_now", "video", these(*proposals.PLACED), proposals.PLACED),
    _is("dog_now", "video", DOG),
    _is("person_vest_now", "video", VEST),
    _whether("light_now", "video", these(*proposals.LIGHT), proposals.LIGHT),
    _is("rain_now", "video", State("rain", True)),
    Template("kind_near_now", "video", say.WHICH_VEHICLE, ({},), _kind_of_nearest),
    Template("count_people_now", "video", say.COUNT, ({"p": "people"},), _count(("person",))),
    Template("count_vehicles_now", "video", say.COUNT, ({"p": "vehicles"},), _count(VEHICLES)),
    Template("watch_now", "watch", say.IS, _WATCHED, ask_whether(proposals.watched, now, newest)),
)

"""Wordings of conditions: clauses such as ("a red car", "in view"), and the wordings that hold them."""

from typing import TypeAlias

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
    VEST,
    Condition,
    LightIs,
    Seen,
    State,
)
from samples.yard.world.facts import LIGHTS, VEHICLES, Kind, Place

Slots: TypeAlias = dict[str, str]
Wordings: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]
"""Those of training, and those held out of it."""

_STATES: dict[Condition, tuple[str, tuple[str, ...]]] = {
    GATE_OPEN: ("the gate", ("open",)),
    GATE_CLOSED: ("the gate", ("closed", "shut")),
    BARRIER_UP: ("the barrier", ("up", "raised")),
    BARRIER_DOWN: ("the barrier", ("down", "lowered")),
    State("rain", True): ("it", ("raining", "rainy")),
    **{LightIs(light): ("it", (light,)) for light in LIGHTS},
}

_NAMES: dict[Condition, tuple[str, ...]] = {
    PERSON: ("a person", "someone", "somebody", "anybody"),
    FAR_PERSON: ("a person far away", "someone far away", "a far person", "a distant person"),
    BARE: ("a person without a helmet", "someone without a helmet", "anybody without a helmet", "a bare head"),
    HELMET: (
        "a person with a helmet",
        "someone with a helmet",
        "a person wearing a helmet",
        "someone wearing a helmet",
    ),
    VEST: ("a person with a vest", "someone with a vest", "a person wearing a vest", "someone wearing a vest"),
    CARRYING: ("a person carrying a bag", "someone carrying a bag", "a person with a bag", "someone with a bag"),
    BAG: ("a bag on the ground", "a bag left behind", "a bag left on the ground", "an abandoned bag"),
    DOG: ("a dog", "any dog"),
    SMOKE: ("smoke", "any smoke"),
    PLATE: ("a legible plate", "a plate that can be read", "any plate that can be read", "a readable plate"),
}

PLACES: dict[Place, str] = {"dock": "at the dock", "bays": "in the bays", "road": "on the road", "gate": "at the gate"}
"""Where vehicles are asked for."""


def noun(kinds: tuple[Kind, ...]) -> str:
    """The word for an object of these kinds."""
    return kinds[0] if len(kinds) == 1 else "vehicle"


def names(seen: Seen) -> tuple[str, ...]:
    """Ways to name the object, with its article."""
    if seen.plate is not None:
        return tuple(f"{lead}plate {seen.plate}" for lead in ("", "the ", "a vehicle with ", "a vehicle showing "))
    bare = Seen(seen.kinds, trait=seen.trait)
    if bare in _NAMES:
        return _NAMES[bare]
    what = f"{seen.colour} {noun(seen.kinds)}" if seen.colour else noun(seen.kinds)
    where = f" {PLACES[seen.place]}" if seen.place else ""
    return f"a {what}{where}", f"any {what}{where}"


def clauses(condition: Condition) -> tuple[Slots, ...]:
    """The ways to say that the condition holds: `s`, of which `v` is said."""
    if condition in _STATES:
        subject, values = _STATES[condition]
        return tuple({"s": subject, "v": value} for value in values)
    assert isinstance(condition, Seen), condition
    return tuple({"s": name, "v": value} for name in names(condition) for value in ("in view", "visible"))


IS: Wordings = (
    (
        "is {s} {v}?",
        "is {s} {v} now?",
        "is {s} {v} right now?",
        "{s} is {v}",
        "tell me when {s} is {v}",
        "tell me if {s} is {v}",
        "alert me if {s} is {v}",
        "let me know when {s} is {v}",
        "is it true that {s} is {v}?",
    ),
    ("alert me when {s} is {v}", "tell me if {s} is {v} right now", "let me know if {s} is {v}", "is {s} now {v}?"),
)

SEE: Wordings = (
    (
        *IS[0],
        "is there {s} {v}?",
        "can you see {s}?",
        "do you see {s} right now?",
        "does the camera show {s}?",
        "is there {s} in the picture?",
        "alert me when you see {s}",
    ),
    (*IS[1], "can you see {s} now?", "do you see {s} in the picture?", "does the picture show {s} right now?"),
)

AT: Wordings = (
    (
        "at {t} seconds, was {s} {v}?",
        "was {s} {v} at {t} seconds?",
        "at second {t}, was {s} {v}?",
        "was {s} {v} at second {t}?",
        "look at {t} seconds: was {s} {v}?",
        "is it true that {s} was {v} at {t} seconds?",
    ),
    ("at {t} seconds, is it true that {s} was {v}?", "look at second {t}: was {s} {v}?"),
)

EVER: Wordings = (
    (
        "was {s} ever {v}?",
        "was {s} {v} at any time?",
        "has {s} been {v}?",
        "at any time, was {s} {v}?",
        "is it true that {s} was {v} at any time?",
        "tell me if {s} was ever {v}",
    ),
    ("has {s} ever been {v}?", "tell me if {s} was {v} at any time", "is it true that {s} was ever {v}?"),
)

EVER_SEEN: Wordings = (
    (*EVER[0], "was there ever {s}?", "did you ever see {s}?", "was there {s} at any time?", "did {s} come by?"),
    (*EVER[1], "did you see {s} at any time?", "did {s} ever come by?"),
)

NEVER: Wordings = (
    (
        "did no {n} come?",
        "was there no {n} at any time?",
        "was no {n} ever in view?",
        "did no {n} come by?",
        "was there never a {n}?",
        "is it true that no {n} came?",
    ),
    ("did no {n} ever come by?", "was no {n} in view at any time?", "is it true that there was never a {n}?"),
)

NOBODY: Wordings = (
    (
        "did nobody come?",
        "was nobody there?",
        "did nobody come by?",
        "was nobody ever in view?",
        "is it true that nobody came?",
        "was there nobody at any time?",
    ),
    ("did nobody ever come?", "was nobody in view at any time?", "is it true that nobody was there?"),
)

BEFORE: Wordings = (
    (
        "did {did} before {past_b}?",
        "is it true that {past} before {past_b}?",
        "{past} before {past_b}, is that true?",
        "tell me if {past} before {past_b}",
        "was it so that {past} before {past_b}?",
    ),
    ("is it so that {past} before {past_b}?", "did it happen that {past} before {past_b}?"),
)

FIRST: Wordings = (
    (
        "which came first, the {n} or the {m}?",
        "what came first, the {n} or the {m}?",
        "which was first, the {n} or the {m}?",
        "tell me which came first: the {n} or the {m}",
        "the {n} or the {m}: which came first?",
        "did it happen first with the {n} or the {m}?",
    ),
    ("tell me what came first: the {n} or the {m}", "the {n} or the {m}: which was first?"),
)

TIMES: Wordings = (
    (
        "how many times did {did}?",
        "how often did {did}?",
        "count how many times {past}",
        "tell me how often {past}",
        "how many times is it true that {past}?",
        "number of times that {past}?",
    ),
    ("tell me how many times {past}", "count how often {past}"),
)

WHEN: Wordings = (
    (
        "from when to when was {s} {v}?",
        "when was {s} {v}?",
        "at what time was {s} {v}?",
        "tell me when {s} was {v}",
        "tell me from when to when {s} was {v}",
        "during which time was {s} {v}?",
    ),
    ("tell me at what time {s} was {v}", "during what time was {s} {v}?"),
)

COLOUR: Wordings = (
    (
        "what colour is the {n}?",
        "which colour is the {n}?",
        "what is the colour of the {n}?",
        "tell me the colour of the {n}",
        "the {n} is of which colour?",
        "what colour does the {n} have?",
    ),
    ("which colour does the {n} have?", "tell me what colour the {n} is", "what colour is the {n} now?"),
)

WHICH_VEHICLE: Wordings = (
    (
        "what kind of vehicle is the nearest one?",
        "which kind of vehicle is nearest?",
        "is the nearest vehicle a car, a van or a truck?",
        "tell me the kind of the nearest vehicle",
        "what is the nearest vehicle?",
        "what kind is the nearest vehicle?",
    ),
    ("tell me what kind of vehicle is nearest", "which kind is the nearest vehicle?"),
)

READ: Wordings = (
    (
        "what does the plate read?",
        "what is on the plate?",
        "read the plate",
        "tell me the plate",
        "which plate is in view?",
        "what is the plate of the vehicle?",
        "can you read the plate of the vehicle?",
    ),
    ("can you read the plate?", "read the plate of the vehicle", "tell me what the plate does read"),
)

NEAREST_HELMET: Wordings = (
    (
        "is the nearest person wearing a helmet?",
        "does the nearest person have a helmet?",
        "has the nearest person a helmet on?",
        "is the helmet of the nearest person on?",
        "tell me if the nearest person has a helmet",
        "the nearest person is wearing a helmet",
    ),
    ("does the nearest person have a helmet on?", "tell me if the nearest person is wearing a helmet"),
)

COUNT: Wordings = (
    (
        "how many {p} are in view?",
        "how many {p} are there?",
        "how many {p} are there right now?",
        "count the {p}",
        "tell me how many {p} are in view",
        "number of {p} in view?",
        "how many {p} can you see?",
    ),
    ("how many {p} can you see right now?", "tell me how many {p} are there", "count the {p} in view"),
)

EVENTS: dict[str, tuple[str, str]] = {
    "gate": ("the gate open", "the gate opened"),
    "barrier": ("the barrier go up", "the barrier went up"),
    "person": ("a person come", "a person came"),
    "dog": ("a dog come", "a dog came"),
    "smoke": ("smoke appear", "smoke appeared"),
    **{kind: (f"a {kind} come", f"a {kind} came") for kind in VEHICLES},
}
"""Of what can happen: its verb after "did", and in the past."""

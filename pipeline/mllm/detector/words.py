"""The closed vocabulary of a detector: which questions it understands, and their answers from what it found. Pure.

Is there a person, a vehicle or a bicycle, one of a colour, at least so many of them, in a part of the picture or in a
zone; how many are there. Anything else is not understood, and answered `unknown`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Literal, TypeAlias

from pipeline.core.questions import clean_question
from pipeline.errors import ConfigError

ObjectKind: TypeAlias = Literal["person", "vehicle", "bicycle"]
Polygon: TypeAlias = tuple[tuple[float, float], ...]
"""Corners in order, x from the left and y from the top, in shares of the picture."""

COLOURS = ("white", "gray", "yellow", "red", "green", "blue", "black")
TYPES = ("car", "bus", "truck", "van")
"""Colours and types of vehicles, in the order in which the attribute network gives them."""

YES_AT = 0.5
"""Confidence from which a thing counts in an answer of one word."""

_NOUNS: dict[str, tuple[ObjectKind, str | None]] = {
    **dict.fromkeys(
        ("person", "people", "persons", "human", "humans", "man", "men", "woman", "women"), ("person", None)
    ),
    **dict.fromkeys(("pedestrian", "pedestrians", "anybody", "anyone", "somebody", "someone"), ("person", None)),
    **dict.fromkeys(("vehicle", "vehicles", "car", "cars"), ("vehicle", None)),
    **{noun: ("vehicle", kind) for kind in TYPES[1:] for noun in (kind, f"{kind}s", f"{kind}es")},
    **dict.fromkeys(("bicycle", "bicycles", "bike", "bikes", "cyclist", "cyclists"), ("bicycle", None)),
}
_NUMBERS = dict(
    zip(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], range(1, 11), strict=True)
)
_HALVES = {"left": (0.0, 0.0, 0.5, 1.0), "right": (0.5, 0.0, 1.0, 1.0)}
_HALVES |= dict.fromkeys(("upper", "top"), (0.0, 0.0, 1.0, 0.5)) | dict.fromkeys(
    ("lower", "bottom"), (0.0, 0.5, 1.0, 1.0)
)

_ZONE = re.compile(
    r'only about the zone "[^"]*", which is the part of the picture from (\d+)% to (\d+)% of its width and from (\d+)%'
    r" to (\d+)% of its height: ?"
)
_NUMBER = rf"\d{{1,2}}|{'|'.join(_NUMBERS)}"
_WHAT = (
    rf"(?:(?:a|an|any|some|at least (?P<least>{_NUMBER})|(?P<or_more>{_NUMBER}) or more|more than (?P<above>{_NUMBER}))"
    rf" )?(?:(?P<colour>{'|'.join(COLOURS)}|grey) )?(?P<noun>{'|'.join(_NOUNS)})"
)
_SEEN = r"(?: (?:there|here|now|right now|in view|in sight|visible|to be seen))*"
_PART = (
    rf"(?: (?:in|on|at) the (?P<part>{'|'.join(_HALVES)})(?: (?:half|part|side|edge))?)?"
    r"(?: (?:in|of) (?:the|this) (?:picture|image|view|frame|scene))?"
)
_WHETHER = re.compile(rf"(?:(?:is|are) there|(?:is|are)|can you see|do you see) {_WHAT}{_SEEN}{_PART}{_SEEN}")
_HOW_MANY = re.compile(rf"how many {_WHAT}(?: (?:are|is|can you see|do you see))?{_SEEN}{_PART}{_SEEN}")


@dataclass(frozen=True, slots=True)
class DetectedObject:
    """A thing in a picture: its `box` (left, top, right, bottom) in shares of the picture, and how sure the network is
    of it (0 to 1); of a vehicle the probability of each type and colour."""

    kind: ObjectKind
    confidence: float
    box: tuple[float, float, float, float]
    types: Mapping[str, float] = field(default_factory=dict)
    colours: Mapping[str, float] = field(default_factory=dict)

    @property
    def middle(self) -> tuple[float, float]:
        """The middle of its box: where it is."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


@dataclass(frozen=True, slots=True)
class DetectorQuestion:
    """A question that was understood: things of a kind, perhaps of a vehicle's type or a colour, whose middle lies
    in all of `within`; are there at least so many, or (`counts`) how many are there."""

    kind: ObjectKind
    least: int = 1
    colour: str | None = None
    type: str | None = None
    within: tuple[Polygon, ...] = ()
    counts: bool = False

    def confidences(self, found: Sequence[DetectedObject]) -> list[float]:
        """The confidence of each thing that the question is about, highest first."""
        meant = [
            one for one in found if one.kind == self.kind and all(inside(part, *one.middle) for part in self.within)
        ]
        sure = [
            one.confidence
            * (1.0 if self.colour is None else one.colours.get(self.colour, 0.0))
            * (1.0 if self.type is None else one.types.get(self.type, 0.0))
            for one in meant
        ]
        return sorted(sure, reverse=True)

    def probability(self, found: Sequence[DetectedObject]) -> float:
        """P(yes): the confidence of the thing that makes them enough."""
        sure = self.confidences(found)
        return sure[self.least - 1] if len(sure) >= self.least else 0.0

    def shares(self, found: Sequence[DetectedObject], most: int) -> list[float]:
        """The probability of each number of things from 0 to `most`."""
        steps = [1.0, *self.confidences(found)[:most], 0.0]
        shares = [more - less for more, less in pairwise(steps)]
        return [*shares, *[0.0] * (most + 1 - len(shares))]

    def word(self, found: Sequence[DetectedObject]) -> str:
        """The answer in a word."""
        if self.counts:
            return str(sum(one >= YES_AT for one in self.confidences(found)))
        return "yes" if self.probability(found) >= YES_AT else "no"


@lru_cache(4096)
def understand(text: str, zone: Polygon = ()) -> DetectorQuestion | None:
    """The question in `text`, about a zone if one is given, or None for one that is not understood."""
    try:
        plain = clean_question(text).lower().rstrip("?!. ")
    except ConfigError:
        return None
    within = [zone] if zone else []
    if said := _ZONE.match(plain):
        left, right, top, bottom = (int(share) / 100 for share in said.groups())
        within.append(rectangle(left, top, right, bottom))
        plain = plain[said.end() :]
    counts = plain.startswith("how many ")
    found = (_HOW_MANY if counts else _WHETHER).fullmatch(plain)
    if found is None or (counts and (found["least"] or found["or_more"] or found["above"])):
        return None
    kind, of_type = _NOUNS[found["noun"]]
    colour = "gray" if found["colour"] == "grey" else found["colour"]
    if colour and kind != "vehicle":
        return None
    if found["part"]:
        within.append(rectangle(*_HALVES[found["part"]]))
    least = _number(found["least"] or found["or_more"], 1) if not found["above"] else _number(found["above"], 0) + 1
    return DetectorQuestion(kind, max(1, least), colour, of_type, tuple(within), counts)


def rectangle(left: float, top: float, right: float, bottom: float) -> Polygon:
    """The polygon of a rectangle."""
    return (left, top), (right, top), (right, bottom), (left, bottom)


def inside(polygon: Polygon, x: float, y: float) -> bool:
    """True if a point lies in a polygon (even-odd rule)."""
    crossed = False
    for (x0, y0), (x1, y1) in pairwise((*polygon, polygon[0])):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            crossed = not crossed
    return crossed


def _number(text: str | None, default: int) -> int:
    if text is None:
        return default
    return int(text) if text.isdecimal() else _NUMBERS[text]

"""Conditions worth asking for on given frames: those that hold, and near misses of them."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np

from samples.yard.questions.truth import Condition, LightIs, Seen, seen
from samples.yard.questions.watches import painted_watch, plate_watch, watch_questions
from samples.yard.questions.wordings import PLACES
from samples.yard.world.facts import COLOURS, GLYPHS, LIGHTS, VEHICLES, Colour, FrameFacts, Kind, Thing, Vehicle

Frames: TypeAlias = Sequence[FrameFacts]
Proposer: TypeAlias = Callable[[Frames, np.random.Generator], Iterable[Condition]]


def these(*conditions: Condition) -> Proposer:
    """Always the same conditions."""
    return lambda frames, rng: conditions


KINDS = tuple(Seen((kind,)) for kind in VEHICLES)
COLOURED = tuple(Seen(VEHICLES, colour=colour) for colour in COLOURS)
PAINTED = tuple(Seen((kind,), colour=colour) for colour in COLOURS for kind in VEHICLES)
PLACED = tuple(Seen(kinds, place=place) for place in PLACES for kinds in (VEHICLES, *((kind,) for kind in VEHICLES)))
LIGHT = tuple(LightIs(light) for light in LIGHTS)
PLATED = tuple(plate_watch(f"{glyph}7{glyph}").condition for glyph in GLYPHS)
"""Examples that together have every character; never two letters in a row, which a tokenizer would take for a word."""


def vehicles(frames: Frames) -> list[Thing]:
    """Vehicles that may be seen in the frames."""
    return [t for frame in frames for t in frame.things if t.kind in VEHICLES and seen(t) is not False]


def painted(frames: Frames, rng: np.random.Generator) -> list[Condition]:
    """Vehicles that are there; the same in another colour or of another kind; any other."""
    there: list[tuple[Colour, Kind]] = sorted({(t.colour, t.kind) for t in vehicles(frames) if t.colour})
    proposed = list(there)
    for colour, kind in there[:3]:
        proposed += [(_colour(rng), kind), (colour, _vehicle(rng)), (colour, there[rng.integers(len(there))][1])]
    proposed.append((_colour(rng), _vehicle(rng)))
    return [Seen((kind,), colour=colour) for colour, kind in dict.fromkeys(proposed)]


def plates(frames: Frames, rng: np.random.Generator) -> list[Condition]:
    """Plates that are there, the same with one character changed, and any other."""
    there = sorted({t.plate for t in vehicles(frames) if t.plate})
    changed = [_misread(plate, rng) for plate in there]
    other = "".join(rng.choice(list(GLYPHS), size=int(rng.integers(2, 4))))
    return [plate_watch(plate).condition for plate in dict.fromkeys((*there, *changed, other))]


def watched(frames: Frames, rng: np.random.Generator) -> list[Condition]:
    """The conditions of the watches, in the frames and elsewhere."""
    drawn = painted_watch(_colour(rng), _vehicle(rng)).condition
    return [*(watch.condition for watch in watch_questions()), drawn, *painted(frames, rng), *plates(frames, rng)]


def _colour(rng: np.random.Generator) -> Colour:
    return COLOURS[rng.integers(len(COLOURS))]


def _vehicle(rng: np.random.Generator) -> Vehicle:
    return VEHICLES[rng.integers(len(VEHICLES))]


def _misread(plate: str, rng: np.random.Generator) -> str:
    place = int(rng.integers(len(plate)))
    others = [glyph for glyph in GLYPHS if glyph != plate[place]]
    return plate[:place] + others[rng.integers(len(others))] + plate[place + 1 :]

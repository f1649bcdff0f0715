"""The parts that make up a kind of question."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from samples.yard.questions.proposals import Frames, Proposer
from samples.yard.questions.truth import Condition, Truth, height
from samples.yard.questions.wordings import Slots, Wordings, clauses

Family: TypeAlias = Literal["coarse", "fine", "video", "grounding", "image", "watch", "unknown"]

MOST = 4
"""Counts end here: "4" says four or more."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A question that could be asked: the ways to fill its wordings, the answer, the height in px of its evidence."""

    slots: tuple[Slots, ...]
    answer: str
    pixels: float = 0.0


Drafts: TypeAlias = Callable[[Frames, np.random.Generator], Iterable[Draft]]


@dataclass(frozen=True, slots=True)
class Template:
    """One kind of question. `slots` are all that its drafts can hold (of plates and times, examples)."""

    kind: str
    family: Family
    wordings: Wordings
    slots: tuple[Slots, ...]
    drafts: Drafts


def word(value: bool) -> str:
    """The answer to a question of yes or no."""
    return "yes" if value else "no"


def ask_whether(
    propose: Proposer, truth: Callable[[Condition, Frames], Truth], on: Callable[[Frames], Frames]
) -> Drafts:
    """Drafts for each proposal whose `truth` is decided; proposals and evidence are taken from the frames of `on`."""

    def drafts(frames: Frames, rng: np.random.Generator) -> Iterable[Draft]:
        part = on(frames)
        for condition in propose(part, rng):
            if (value := truth(condition, frames)) is not None:
                yield Draft(clauses(condition), word(value), height(condition, part))

    return drafts


def all_clauses(conditions: Iterable[Condition]) -> tuple[Slots, ...]:
    """Every way to say every one of the conditions."""
    return tuple(slots for condition in conditions for slots in clauses(condition))

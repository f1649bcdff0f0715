"""The meaning of a question: a target for the text part, which should know it before it looks for an answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from samples.yard.questions.grammar import KINDS, Question
from samples.yard.questions.truth import DOG, PERSON, Condition, Seen
from samples.yard.questions.wordings import AT, EVER, EVER_SEEN, IS, NEVER, NOBODY, SEE, WHEN, Wordings, clauses
from samples.yard.shape import HIDDEN
from samples.yard.train.notes import CONDITIONS, PLACES
from samples.yard.world.facts import VEHICLES

Tense: TypeAlias = Literal["now", "at", "ever", "never", "when"]

_TIME = re.compile(r"\d+\.\d")
_PLATE = re.compile(r"(?<=plate )[A-Z0-9]{2,3}\b")
_ANY_PLATE = "00"


@dataclass(frozen=True, slots=True)
class Meaning:
    """A claim that `condition` holds or held, and when; `time` is the second that is asked for, as it is written."""

    tense: Tense
    condition: Condition
    time: str | None = None


@lru_cache(maxsize=1)
def _meanings() -> dict[str, Meaning]:
    """The meaning of each wording of training, without the times and plates in it."""
    found: dict[str, Meaning] = {}
    plated = Seen(VEHICLES, trait="plate", plate=_ANY_PLATE)
    tenses: tuple[tuple[Tense, Wordings, Wordings], ...] = (
        ("now", IS, SEE),
        ("at", AT, AT),
        ("ever", EVER, EVER_SEEN),
        ("when", WHEN, WHEN),
    )
    for tense, of_states, of_things in tenses:
        for condition in (*CONDITIONS, plated):
            for saying in (of_things if isinstance(condition, Seen) else of_states)[0]:
                for slots in clauses(condition):
                    found.setdefault(_plain(saying.format(t="0.0", **slots)), Meaning(tense, condition))
    nouns: dict[str, Condition] = {"person": PERSON, "dog": DOG, **{kind: Seen((kind,)) for kind in VEHICLES}}
    for wordings, things in ((NEVER, nouns), (NOBODY, {"": PERSON})):
        for saying in wordings[0]:
            for noun, condition in things.items():
                found.setdefault(_plain(saying.format(n=noun)), Meaning("never", condition))
    return found


def _plain(text: str) -> str:
    return _TIME.sub("0.0", _PLATE.sub(_ANY_PLATE, text)).casefold().removesuffix("?")


def meaning(text: str) -> Meaning | None:
    """The meaning of a question that asks whether or when one condition holds; None for others."""
    known = _meanings().get(_plain(text))
    if known is None:
        return None
    time, plate = _TIME.search(text), _PLATE.search(text)
    condition = Seen(VEHICLES, trait="plate", plate=plate[0]) if plate else known.condition
    return Meaning(known.tense, condition, time[0] if time and known.tense == "at" else None)


_SORTS: tuple[str, ...] = (*get_args(Tense), *KINDS)
UNKNOWN = -1


def classes(question: Question) -> tuple[int, int]:
    """The one of CONDITIONS that a question asks for, and the sort of question; UNKNOWN where it is of no class."""
    if (meant := meaning(question.text)) is not None:
        return PLACES.get(meant.condition, UNKNOWN), _SORTS.index(meant.tense)
    return UNKNOWN, _SORTS.index(question.kind) if question.kind in KINDS else UNKNOWN


class MeaningHead(nn.Module):
    """Linear readings of the tokens that an answer's words follow."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(HIDDEN)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = nn.Linear(HIDDEN, len(CONDITIONS) + len(_SORTS))

    def loss(self, hidden: Tensor, owner: Tensor, questions: Sequence[Question]) -> tuple[Tensor, float]:
        """Cross entropy, and how often the condition is right; `hidden` float32 `[tokens, HIDDEN]`, `owner` int64
        `[tokens]`, whose question's they are."""
        wanted = torch.tensor([classes(question) for question in questions], device=hidden.device)[owner]
        total, right = hidden.sum() * 0, float("nan")
        parts = self.heads(self.norm(hidden)).split([len(CONDITIONS), len(_SORTS)], dim=1)
        for index, said in enumerate(parts):
            known = wanted[:, index] != UNKNOWN
            if bool(known.any()):
                total = total + functional.cross_entropy(said[known], wanted[known, index])
                if index == 0:
                    right = float((said[known].argmax(1) == wanted[known, 0]).float().mean())
        return total, right

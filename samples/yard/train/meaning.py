"""What a question asks for, as one of a few classes: what the text part should know before it looks for an answer."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from samples.yard.grammar import KINDS, Question
from samples.yard.shape import HIDDEN
from samples.yard.train.notes import CONDITIONS
from samples.yard.truth import Seen
from samples.yard.wordings import IS, SEE, clauses

UNKNOWN = -1
"""The meaning of a question that is not of any class, as those for one plate."""


@lru_cache(maxsize=1)
def _meanings() -> dict[str, int]:
    """The class of every way to ask whether one of CONDITIONS holds now."""
    found: dict[str, int] = {}
    for index, condition in enumerate(CONDITIONS):
        for saying in (SEE if isinstance(condition, Seen) else IS)[0]:
            for slots in clauses(condition):
                found.setdefault(_plain(saying.format(**slots)), index)
    return found


def _plain(text: str) -> str:
    return text.casefold().removesuffix("?")


def meaning(question: Question) -> int:
    """Its class: the condition that it asks for, else its kind where that says all, else UNKNOWN."""
    if (found := _meanings().get(_plain(question.text))) is not None:
        return found
    if question.kind.startswith(("at_", "ever_", "vehicle_", "plate_text", "standing", "watch")):
        return UNKNOWN
    return len(CONDITIONS) + KINDS.index(question.kind)


class MeaningHead(nn.Module):
    """A linear reading of a question's last token."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(HIDDEN)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = nn.Linear(HIDDEN, len(CONDITIONS) + len(KINDS))

    def loss(self, hidden: Tensor, questions: Sequence[Question]) -> tuple[Tensor, float]:
        """Cross entropy and accuracy where a question has a class; `hidden` float32 `[questions, HIDDEN]`."""
        wanted = torch.tensor([meaning(question) for question in questions], device=hidden.device)
        said = self.heads(self.norm(hidden))
        known = wanted != UNKNOWN
        if not bool(known.any()):
            return hidden.sum() * 0, float("nan")
        right = (said[known].argmax(1) == wanted[known]).float().mean()
        return functional.cross_entropy(said, wanted, ignore_index=UNKNOWN), float(right)

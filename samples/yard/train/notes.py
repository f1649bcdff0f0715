"""Facts that the text part should know as each segment ends: dense targets, besides the answers to questions.

An answer is one bit about a whole context; with nothing else to go by, looking back is learned very slowly. So the
token behind each picture is asked what holds now, what has just begun or ended, and what ever held, through heads that
are dropped afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from samples.yard.questions import proposals
from samples.yard.questions.truth import (
    BAG,
    BARE,
    BARRIER_DOWN,
    BARRIER_UP,
    DOG,
    GATE_CLOSED,
    GATE_OPEN,
    HOP_S,
    PERSON,
    SMOKE,
    VEHICLE,
    Condition,
    State,
)
from samples.yard.questions.watches import watch_questions
from samples.yard.shape import HIDDEN
from samples.yard.train.start import time_waves
from samples.yard.train.vision import balanced
from samples.yard.world.facts import FrameFacts

Truths = NDArray[np.int8]
"""1 true, 0 false, -1 undecided."""

LASTING: tuple[Condition, ...] = (
    *(GATE_OPEN, BARRIER_UP, SMOKE, PERSON, BAG, DOG, BARE, VEHICLE),
    *proposals.KINDS,
)
"""Conditions whose beginnings and ends are noted."""

_NOTED: tuple[Condition, ...] = (
    *LASTING,
    *(watch.condition for watch in watch_questions()),
    *(GATE_CLOSED, BARRIER_DOWN, State("rain", True)),
    *proposals.LIGHT,
    *proposals.COLOURED,
    *proposals.PAINTED,
    *proposals.PLACED,
)

CONDITIONS: tuple[Condition, ...] = tuple(dict.fromkeys(_NOTED))
"""Conditions of which is noted whether they hold now; the first ones are LASTING."""

PLACES: dict[Condition, int] = {condition: place for place, condition in enumerate(CONDITIONS)}
"""Where each of CONDITIONS stands among them."""

_EVER = tuple(dict.fromkeys((*LASTING, *proposals.PAINTED)))
_EVER_AT = [PLACES[condition] for condition in _EVER]

LAYERS = (2, 3)
"""After so many layers of the text part the notes of the present, and those of the past, must be there: what comes
later can read them."""

_LATER = ("past", "before")
_TIME_WEIGHT = 5.0  # squares of waves are small beside the other notes' entropies
_SLACK_S = 1e-6
_MOST_WEIGHT = 8.0  # of a note that is rarely true


@dataclass(frozen=True, slots=True)
class Notes:
    """Notes on a context's segments: `now` `[S, CONDITIONS]`; `past` `[S, 2 * LASTING + ever]`: begun, ended, ever so
    far; `time_s` float32 `[S]` as the context states it, and `before_s` of the segment before: what has just ended
    lasted until then."""

    now: Truths
    past: Truths
    time_s: NDArray[np.float32]
    before_s: NDArray[np.float32]


def truths(facts: Sequence[FrameFacts]) -> Truths:
    """The conditions that hold in any frame of one segment: int8 `[CONDITIONS]`."""
    found = [[condition.truth(frame) for condition in CONDITIONS] for frame in facts]
    return any_of(np.array([[-1 if value is None else int(value) for value in row] for row in found], np.int8))


def any_of(values: Truths) -> Truths:
    """Kleene's or along the first axis."""
    undecided = np.where((values == -1).any(axis=0), -1, 0)
    return np.asarray(np.where((values == 1).any(axis=0), 1, undecided), np.int8)


def notes(held: Truths, times_s: Sequence[float]) -> Notes:
    """The notes of a context: `held` int8 `[S, CONDITIONS]` by segment, and the segments' times."""
    times = np.asarray(times_s)
    now = np.stack([any_of(held[: k + 1][times[: k + 1] > times[k] - HOP_S + _SLACK_S]) for k in range(len(times))])
    ever = np.stack([any_of(held[: k + 1, _EVER_AT]) for k in range(len(times))])
    lasting = held[:, : len(LASTING)]
    past = np.concatenate([_turned(lasting, 1), _turned(lasting, 0), ever], axis=1)
    before = np.concatenate([times[:1], times[:-1]])
    return Notes(now, past, times.astype(np.float32), before.astype(np.float32))


def _turned(lasting: Truths, to: int) -> Truths:
    """True if each condition became true (`to` 1) or false (0) between a segment and the one before it."""
    before, after = lasting[:-1], lasting[1:]
    known = (before != -1) & (after != -1)
    turned = np.where(known, (before != to) & (after == to), -1)
    return np.asarray(np.concatenate([np.full_like(lasting[:1], -1), turned]), np.int8)


class NoteHeads(nn.Module):
    """Linear readings of the token behind each picture."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = nn.ModuleDict(
                {
                    "now": nn.Linear(HIDDEN, len(CONDITIONS)),
                    "past": nn.Linear(HIDDEN, 2 * len(LASTING) + len(_EVER)),
                    "time": nn.Linear(HIDDEN, time_waves([0.0]).shape[1]),
                    "before": nn.Linear(HIDDEN, time_waves([0.0]).shape[1]),
                }
            )
        self.norms = nn.ModuleDict({name: nn.LayerNorm(HIDDEN) for name in self.heads})

    def loss(self, hidden: Sequence[Tensor], known: Notes) -> tuple[Tensor, dict[str, float]]:
        """Loss and accuracy of the notes; `hidden` float32 `[S, HIDDEN]` after each of LAYERS."""
        said = {name: head(self.norms[name](hidden[name in _LATER])) for name, head in self.heads.items()}
        total, figures = hidden[0].new_zeros(()), {}
        for name, times_s in (("time", known.time_s), ("before", known.before_s)):
            loss = functional.mse_loss(said[name], torch.from_numpy(time_waves(times_s)).to(said[name]))
            total = total + _TIME_WEIGHT * loss
            figures[f"note {name}"] = float(loss.detach())
        for name, wanted in (("now", known.now), ("past", known.past)):
            loss, right = _yes_no(said[name], torch.from_numpy(wanted).to(said[name].device))
            total = total + loss
            figures[f"note {name}"] = right
        return total, figures


def _yes_no(said: Tensor, wanted: Tensor) -> tuple[Tensor, float]:
    known = wanted >= 0
    true = (wanted == 1).to(said.dtype)
    # What is rarely true weighs more, by how rare it is in this very context, so that noes alone do not win.
    rarity = (known.sum(0) / true.sum(0).clamp(min=1)).clamp(1, _MOST_WEIGHT)
    each = functional.binary_cross_entropy_with_logits(said, true, pos_weight=rarity, reduction="none")
    return each[known].mean(), balanced(said[known] > 0, true[known] > 0)

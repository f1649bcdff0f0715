"""The location of the answer to a question, and a loss that makes some heads of attention look there.

Which of a thousand tokens an answer comes from is one bit at a time to learn from answers alone. The renderer knows it:
the cells of a dog, the second in which the gate opened. So a few heads are told where to look, and to look at nothing
that was shown where nothing answers. Heads and all else stay what any Qwen3-VL has.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextAttention

from samples.yard.questions.grammar import Question
from samples.yard.questions.now import nearest
from samples.yard.questions.over_time import stamp
from samples.yard.questions.truth import PLATE, Seen, Trait, newest
from samples.yard.train.episodes import Looked
from samples.yard.train.meaning import Meaning, meaning
from samples.yard.train.notes import PLACES, Truths
from samples.yard.world.facts import HEIGHT, VEHICLES, WIDTH, FrameFacts, Kind, Thing
from samples.yard.world.targets import WORN

Glance: TypeAlias = Literal["glyph", "among", "now", "then"]

POINTERS: Mapping[Glance, tuple[int, int]] = {"glyph": (1, 0), "among": (2, 0), "now": (3, 1), "then": (3, 0)}
"""(layer, head) that looks: from a plate's character in the question to where it stands; from where an answer begins to
all that may be meant (every head, where a bare one is asked for), then to what shows it now; and to the second in which
it happened."""

_PARTS: Mapping[Trait, tuple[float, float]] = {
    "helmet": WORN["helmet"],
    "bare": WORN["helmet"],
    "vest": WORN["vest"],
    "carrying": WORN["bag"],
}
_NEAREST: Mapping[str, tuple[tuple[Kind, ...], Trait | None]] = {
    "colour_near_now": (VEHICLES, None),
    "kind_near_now": (VEHICLES, None),
    "helmet_nearest_now": (("person",), "helmet"),
}
_SECOND_TIME = 3  # "2.0", " to", " ", "5.5": the fourth word
_COVERED, _HELD = 0.15, 0.3  # part of a cell that a thing covers, or of the thing that lies in the cell

GLANCES: tuple[Glance, ...] = tuple(POINTERS)


@dataclass(frozen=True, slots=True)
class Pointer:
    """A token, the `place`th that a word of the answer follows, or that writes the `place`th character of the plate in
    the question; and where it looks: at cells (segment, cell) or, for `then`, at the ends of segments. At neither:
    nothing that was shown answers."""

    glance: Glance
    place: int
    cells: tuple[tuple[int, int], ...] = ()
    ends: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class AskedContext:
    """A context when a question is asked: its segments, what `held` in each (int8 `[S, CONDITIONS]`), and their frames
    as the context tells them."""

    looked: Sequence[Looked]
    held: Truths
    told: Sequence[FrameFacts]

    @property
    def stamps(self) -> list[str]:
        """Each segment's time as it is written."""
        return [stamp(self.told[end - 1]) for end in np.cumsum([len(one.facts) for one in self.looked])]


def points(question: Question, past: AskedContext) -> list[Pointer]:
    """Pointers: where the tokens of a question and its answer should look, as far as that is certain."""
    meant = meaning(question.text)
    if meant is None:
        return _named(question, past)
    if meant.tense == "now":
        if not isinstance(meant.condition, Seen):
            return []
        found = [*_among(past, meant.condition), *_now(past, meant.condition, question.answer == "yes")]
        return found + [_glyph(past, place, glyph) for place, glyph in enumerate(meant.condition.plate or "")]
    return _then(question, meant, past)


def _named(question: Question, past: AskedContext) -> list[Pointer]:
    """Questions about the nearest thing, and about what a plate reads."""
    if question.kind == "plate_read_now":
        words = len(question.answer)
        return [*_among(past, PLATE, words), *_now(past, PLATE, True, words)]
    if question.kind not in _NEAREST:
        return []
    kinds, trait = _NEAREST[question.kind]
    last = past.looked[-1]
    thing = nearest(last.facts[-1], kinds)
    if thing is None:
        return []
    index = len(past.looked) - 1
    cells = tuple((index, cell) for cell in cells_of(thing, last.rows, last.columns, trait))
    return [Pointer("among", 0, cells), Pointer("now", 0, cells)]


def _among(past: AskedContext, condition: Seen, words: int = 1) -> list[Pointer]:
    """The cells of all that the answer's first `words` may be about, whatever else is asked of them: of vehicles whose
    plate matters, those that show one."""
    kind = PLATE if condition.trait == "plate" else Seen(condition.kinds)
    cells = tuple(_showing(past, lambda thing: kind.of(thing) is not False, condition.trait))
    return [Pointer("among", place, cells) for place in range(words)]


def _now(past: AskedContext, condition: Seen, holds: bool, words: int = 1) -> list[Pointer]:
    """The cells that the answer's first `words` come from."""
    cells = tuple(_showing(past, lambda thing: condition.of(thing) is not False, condition.trait)) if holds else ()
    return [Pointer("now", place, cells) for place in range(words)] if bool(cells) == holds else []


def _glyph(past: AskedContext, place: int, glyph: str) -> Pointer:
    """A character of the plate that is asked for: where a plate has it at the same place."""

    def has(thing: Thing) -> bool:
        return bool(PLATE.of(thing) is not False and thing.plate and thing.plate[place : place + 1] == glyph)

    return Pointer("glyph", place, tuple(_showing(past, has)))


def _showing(
    past: AskedContext, wanted: Callable[[Thing], bool], trait: Trait | None = None
) -> Iterator[tuple[int, int]]:
    """(segment, cell) of what shows the trait of all wanted things in the newest second."""
    shown = len(newest(past.told))
    for index in range(len(past.looked) - 1, -1, -1):
        if shown <= 0:
            return
        one = past.looked[index]
        shown -= len(one.facts)
        cells = {
            cell
            for frame in one.facts
            for thing in frame.things
            if wanted(thing)
            for cell in cells_of(thing, one.rows, one.columns, trait)
        }
        yield from ((index, cell) for cell in sorted(cells))


def _then(question: Question, meant: Meaning, past: AskedContext) -> list[Pointer]:
    if meant.condition not in PLACES:
        return []
    true, stamps = past.held[:, PLACES[meant.condition]] == 1, past.stamps
    if meant.tense == "when":
        began, ended = question.answer.split(" to ")
        last = len(stamps) - 1 - stamps[::-1].index(ended)
        # What lasted until then is known to be over in the segment behind it.
        return [
            Pointer("then", 0, ends=(stamps.index(began),)),
            Pointer("then", _SECOND_TIME, ends=(min(last + 1, len(stamps) - 1),)),
        ]
    happened = (question.answer == "yes") != (meant.tense == "never")
    if meant.tense == "at":
        true = true & np.array([written == meant.time for written in stamps])
    ends = tuple(int(index) for index in true.nonzero()[0]) if happened else ()
    return [Pointer("then", 0, ends=ends)] if bool(ends) == happened else []


def cells_of(thing: Thing, rows: int, columns: int, trait: Trait | None = None) -> tuple[int, ...]:
    """The cells of a picture of so many that show a thing, or only where its trait is seen: nobody's hat is known by
    his feet."""
    left, top, width, height = thing.box
    start, end = _PARTS.get(trait, (0.0, 1.0)) if trait else (0.0, 1.0)
    return _cells_in((left, top + start * height, width, (end - start) * height), rows, columns)


@lru_cache(maxsize=65536)
def _cells_in(box: tuple[float, float, float, float], rows: int, columns: int) -> tuple[int, ...]:
    """Cells of which a box in native px covers enough, or that hold enough of it; at least the one with most of it."""
    left, top, width, height = box
    high, wide = HEIGHT / rows, WIDTH / columns
    over = _overlap(top, height, rows, high)[:, None] * _overlap(left, width, columns, wide)
    area = over.reshape(-1)
    chosen = (area >= _COVERED * high * wide) | (area >= _HELD * width * height)
    chosen[area.argmax()] = True
    return tuple(int(index) for index in chosen.nonzero()[0])


def _overlap(start: float, length: float, count: int, step: float) -> NDArray[np.float64]:
    edges = np.arange(count + 1) * step
    return np.asarray((np.minimum(edges[1:], start + length) - np.maximum(edges[:-1], start)).clip(0))


@dataclass(frozen=True, slots=True)
class AttentionInput:
    """The input of an attention layer: the hidden states `[rows, tokens, width]` and the (cos, sin) of their places."""

    hidden: Tensor
    places: tuple[Tensor, Tensor]


@contextmanager
def asking(layers: Mapping[int, nn.Module]) -> Iterator[dict[int, AttentionInput]]:
    """Collect the attention inputs of these layers, as they pass."""
    found: dict[int, AttentionInput] = {}

    def keep(layer: int) -> Callable[[nn.Module, tuple[object, ...], dict[str, Any]], None]:
        def hook(module: nn.Module, given: tuple[object, ...], named: dict[str, Any]) -> None:
            found[layer] = AttentionInput(named["hidden_states"], named["position_embeddings"])

        return hook

    hooks = [module.register_forward_pre_hook(keep(layer), with_kwargs=True) for layer, module in layers.items()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def attention(
    layer: Qwen3VLTextAttention, head: int, asked: AttentionInput, at: tuple[Tensor, Tensor], keys: Tensor
) -> Tensor:
    """Logits of one head from the tokens `at` (row, column), int64 `[P]`, to all `keys` `[rows, heads, K, width]` of
    their rows: float32 `[P, K]`, as the layer itself computes them."""
    query = layer.q_norm(layer.q_proj(asked.hidden[at]).unflatten(-1, (-1, keys.shape[-1]))[:, head])
    cos, sin = (part[at] for part in asked.places)
    left, right = query.chunk(2, dim=-1)
    query = query * cos + torch.cat([-right, left], dim=-1) * sin
    return torch.einsum("pw,pkw->pk", query, keys[at[0], head]).mul(layer.scaling)


def log_share(logits: Tensor, allowed: Tensor, wanted: Tensor) -> Tensor:
    """Logarithm of the part of the attention that falls on what is wanted: float32 `[P]`. `logits` float32, `allowed`
    and `wanted` bool, all `[P, K]`; what is wanted is allowed."""
    attended = logits.masked_fill(~allowed, -torch.inf).log_softmax(dim=1)
    return attended.masked_fill(~wanted, -torch.inf).logsumexp(dim=1)

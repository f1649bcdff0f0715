"""The paper's allocator: all frames of a clip are seen before the first of them gets its size.

So it is published (arXiv 2603.28610), and so it cannot serve a live stream: it knows what is still to come, and may
spend the tokens of a clip on any part of it.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from allocator_engine.encode import grant_level
from allocator_engine.errors import EngineMismatch
from allocator_engine.evaluate.baselines import UNBOUNDED, Sizes
from allocator_engine.fit import UNIT, Allocation, FitRules, fit
from allocator_engine.model import paper
from allocator_engine.model.paper_features import SmolFeatures
from allocator_engine.resize import Picture

_KEPT = 512
"""Pairs of a clip and its questions whose meaning is kept: 1 MB each, of 256 frames."""


@dataclass(frozen=True, slots=True)
class _Made:
    """Features of a clip's frames, or their meaning to what is asked, and the seconds that it took to make them."""

    frames: Tensor
    seconds: float


class PaperAllocator:
    """A trained head of the paper on the features of its SmolVLM2. Not thread-safe.

    Raises EngineMissing and EngineMismatch as the checkpoint and the SmolVLM2 do, EngineMismatch also for another
    SmolVLM2 than the head was trained on.
    """

    def __init__(self, checkpoint: Path, rules: FitRules) -> None:
        self._head, notes = paper.load(checkpoint)
        if not {"features", "weights"} <= notes.keys():
            raise EngineMismatch(f"{checkpoint} does not say on which SmolVLM2 it was trained; train it again")
        self._features, self._rules = SmolFeatures(notes["features"]), rules
        if (found := self._features.weights) != notes["weights"]:
            raise EngineMismatch(
                f"{self._features.name} has the weights {found}; expected {notes['weights']}, on which"
                f" {checkpoint} was trained"
            )
        self._seen: dict[str, _Made] = {}
        self._understood: dict[tuple[str, tuple[str, ...]], _Made] = {}

    def allocate(
        self, clip: str, hops: Sequence[Sequence[Picture]], questions: Sequence[str], tokens: int, native: int
    ) -> tuple[tuple[Allocation, ...], float]:
        """The allocation of each hop of a clip, of which `tokens` may be spent in all, and the seconds that this takes.
        Clips are told apart by their names."""
        understood = self._understand(clip, [picture for hop in hops for picture in hop], tuple(questions))
        began_s = perf_counter()
        level = torch.full((1, len(understood.frames)), grant_level(tokens, native))
        with torch.inference_mode():
            scales = iter(self._head.decide(understood.frames[None], level)[0][0].tolist())
        wanted = [([(picture.height, picture.width) for picture in hop], [next(scales) for _ in hop]) for hop in hops]
        return share_out(wanted, tokens, self._rules), understood.seconds + perf_counter() - began_s

    def _understand(self, clip: str, pictures: Sequence[Picture], questions: tuple[str, ...]) -> _Made:
        key = clip, questions
        if key not in self._understood:
            if len(self._understood) >= _KEPT:
                self._understood.clear()
            seen = self._look(clip, pictures)
            began_s = perf_counter()
            with torch.inference_mode():
                meaning = self._head.understand(seen.frames, self._features.words(questions))
            self._understood[key] = _Made(meaning, seen.seconds + perf_counter() - began_s)
        return self._understood[key]

    def _look(self, clip: str, pictures: Sequence[Picture]) -> _Made:
        """The features of a clip, kept until another one is looked at: they are large."""
        if clip not in self._seen:
            self._seen.clear()
            began_s = perf_counter()
            features = self._features.frames(pictures)
            self._seen[clip] = _Made(features, perf_counter() - began_s)
        return self._seen[clip]


def share_out(clip: Sequence[tuple[Sizes, Sequence[float]]], tokens: int, rules: FitRules) -> tuple[Allocation, ...]:
    """The allocation of each hop of a clip (native sizes of its frames, and a linear scale proposed for each), of
    which all together cost at most `tokens`: where they would cost more, all scales shrink by one factor."""

    def at(factor: int) -> tuple[Allocation, ...]:
        return tuple(
            fit(sizes, [scale * factor / UNIT for scale in scales], UNBOUNDED, rules) for sizes, scales in clip
        )

    def over(factor: int) -> bool:
        return sum(allocation.tokens for allocation in at(factor)) > tokens

    return at(UNIT) if not over(UNIT) else at(bisect_left(range(UNIT), True, key=over) - 1)

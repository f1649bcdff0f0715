"""A second look: the newest decoded pictures of a stream are kept, and where an answer is in doubt the ones that matter
are shown again, larger. Pure."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from allocator_engine.fit import Allocation, FitRules, fit
from pipeline.types import Frame, Hop

WORTH = 1.5
"""A second look has to show something with so many times the tokens of the first."""


@dataclass(frozen=True, slots=True)
class PictureRing:
    """The newest sampled frames of a stream, at most `most`, oldest first, with their decoder pictures; `shown` are the
    vision tokens of the segment that each was in, 0 for one that the MLLM was not shown. A second look may cost
    `tokens`; where that is 0 nothing is kept."""

    tokens: int = 0
    most: int = 8
    frames: tuple[Frame, ...] = ()
    shown: tuple[int, ...] = ()

    def push(self, hop: Hop, allocation: Allocation) -> "PictureRing":
        """The ring with a hop's frames, as they were allocated."""
        if not self.tokens:
            return self
        tokens = [0] * len(hop.frames)
        for segment in allocation.segments:
            for index in segment.frames:
                tokens[index] = segment.tokens
        return self._last(self.most, (*self.frames, *hop.frames), (*self.shown, *tokens))

    def since(self, from_s: float) -> "PictureRing":
        """Without the frames before `from_s` stream seconds."""
        return self._last(sum(frame.pts_s >= from_s for frame in self.frames), self.frames, self.shown)

    def cleared(self) -> "PictureRing":
        """Without its frames."""
        return replace(self, frames=(), shown=())

    def _last(self, count: int, frames: tuple[Frame, ...], shown: tuple[int, ...]) -> "PictureRing":
        first = max(0, len(frames) - count)
        return replace(self, frames=frames[first:], shown=shown[first:])


def closer(ring: PictureRing, tokens: int, rules: FitRules) -> Allocation:
    """The ring's newest frames, as many as share a segment, at the largest size that `tokens` can pay for; then, while
    they can pay for them at native size, earlier ones.

    The questions are about the newest moment, so it comes first, and stays last in time. Of earlier frames those that
    the Allocator gave the most are the likeliest to matter. An empty allocation if nothing would be seen at hardly more
    than it was.
    """
    step = rules.frames_per_segment
    groups = [range(max(0, end - step), end) for end in range(len(ring.frames), 0, -step)]
    if not groups:
        return Allocation()
    newest, *earlier = groups
    chosen, left = [*newest], tokens - _native(ring, newest, rules)
    for group in sorted(earlier, key=lambda group: _shown(ring, group), reverse=True):
        native = _native(ring, group, rules)
        if native <= left and native >= WORTH * max(_shown(ring, group), 1):
            chosen, left = [*chosen, *group], left - native
    found = _at_most(ring, chosen, tokens, rules)
    larger = (one.tokens >= WORTH * max(_shown(ring, one.frames), 1) for one in found.segments)
    return found if any(larger) else Allocation()


def _shown(ring: PictureRing, group: Sequence[int]) -> int:
    return max(ring.shown[index] for index in group)


def _native(ring: PictureRing, group: Sequence[int], rules: FitRules) -> int:
    return _at_most(ring, group, sys.maxsize, rules).tokens


def _at_most(ring: PictureRing, chosen: Sequence[int], tokens: int, rules: FitRules) -> Allocation:
    """The chosen frames alone, at native size or as large as `tokens` allow."""
    scales = [1.0 if index in chosen else 0.0 for index in range(len(ring.frames))]
    return fit([frame.size for frame in ring.frames], scales, tokens, rules)

"""Bookkeeping of kept prefixes: which streams have one, how many may, and whether one still fits a context. Knows
nothing of the model."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

from pipeline.core.context import Context

P = TypeVar("P")

USED_SHARE = 0.9
"""Part of what may be kept that contexts are let grow into. The rest is for what several streams add before each of
them is asked again for its room, and for text that is only estimated."""


@dataclass(frozen=True, slots=True)
class Kept(Generic[P]):
    """The prefix computed for the first segments of a context; `tokens` are prompt tokens, text included."""

    epoch: int
    anchor_s: float
    content_ids: tuple[str, ...]
    tokens: int
    prefix: P

    def begins(self, context: Context) -> bool:
        """True if `context` only appends to this: same epoch and anchor, same pictures in the same order."""
        if (self.epoch, self.anchor_s) != (context.epoch, context.anchor_s):
            return False
        first = context.segments[: len(self.content_ids)]
        return self.content_ids == tuple(segment.content_id for segment in first)


class KeptPrefixes(Generic[P]):
    """The kept prefix of each stream, least recently used first to go. Safe to use from several threads.

    At most `max_streams` are kept, and at most `max_tokens` prompt tokens together, but always the newest.
    `evicted` counts those that had to go, `stale` those that no longer fitted their stream's context.
    """

    def __init__(self, max_streams: int, max_tokens: int) -> None:
        self._max_streams, self._max_tokens = max_streams, max_tokens
        self._kept: OrderedDict[str, Kept[P]] = OrderedDict()
        self._lock = Lock()
        self.evicted = 0
        self.stale = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def tokens(self) -> int:
        """Prompt tokens kept of all streams together."""
        with self._lock:
            return sum(kept.tokens for kept in self._kept.values())

    def segments(self, context: Context) -> int:
        """Segments of `context` that need not be read again."""
        with self._lock:
            kept = self._kept.get(context.stream_id)
        return len(kept.content_ids) if kept and kept.begins(context) else 0

    def find(self, context: Context) -> Kept[P] | None:
        """The prefix kept for `context`. One that does not fit it is dropped: it cannot answer for others."""
        with self._lock:
            kept = self._kept.pop(context.stream_id, None)
            if kept is None:
                return None
            if not kept.begins(context):
                self.stale += 1
                return None
            self._kept[context.stream_id] = kept
            return kept

    def room(self, context: Context) -> int:
        """Prompt tokens to which this stream's prefix may grow with nobody's prefix having to go: what the others
        leave, and in any case an equal share."""
        most = int(USED_SHARE * self._max_tokens)
        with self._lock:
            others = [kept.tokens for stream_id, kept in self._kept.items() if stream_id != context.stream_id]
        return max(most // min(self._max_streams, len(others) + 1), most - sum(others))

    def put(self, stream_id: str, kept: Kept[P]) -> None:
        """Keep this for the stream instead of what was kept before."""
        with self._lock:
            self._kept[stream_id] = kept
            self._kept.move_to_end(stream_id)
            while len(self._kept) > 1 and self._over():
                self._kept.popitem(last=False)
                self.evicted += 1

    def drop(self, stream_id: str) -> None:
        """Keep nothing for the stream."""
        with self._lock:
            self._kept.pop(stream_id, None)

    def clear(self) -> None:
        """Keep nothing at all."""
        with self._lock:
            self._kept.clear()

    def _over(self) -> bool:
        tokens = sum(kept.tokens for kept in self._kept.values())
        return len(self._kept) > self._max_streams or tokens > self._max_tokens

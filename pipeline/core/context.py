"""The append-only context of a stream, and its re-anchoring.

A context is a value: appending gives a new one that shares every earlier segment, so what the encoder and the LLM made
of the prefix stays valid. When it would span more than `max_s`, hold more than `max_tokens`, or outgrow the room that
the MLLM has for it, it restarts at its last `keep_s` seconds under a new `epoch`: from then on the time text counts
from the new anchor.
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.types import Segment

Reason = Literal["age", "tokens", "pressure", "unpaid", "crop"]
"""Why a context restarted: it spanned too many seconds, held more tokens than its rules or than the MLLM has room for,
had segments that the budget could not pay for, or showed another part of the picture."""


_HORIZON_S = (30.0, 15.0)
_HORIZONS_S = {"qwen3_5": (60.0, 15.0)}


@dataclass(frozen=True, slots=True)
class Room:
    """The part of one stream's context that an MLLM can keep beside those of all other streams: vision tokens, and
    segments. `too_long`: the context as it stands is longer than a prompt may be, and would be refused."""

    tokens: int = sys.maxsize
    segments: int = sys.maxsize
    too_long: bool = False


@dataclass(frozen=True, slots=True)
class ContextRules:
    """Bounds of a context: seconds it may span, seconds kept when it restarts, vision tokens it may hold; and whether
    pixels are packed between hops."""

    max_s: float = _HORIZON_S[0]
    keep_s: float = _HORIZON_S[1]
    max_tokens: int = 16_384
    packed: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.keep_s < self.max_s:
            raise ValueError(f"context_keep_s is {self.keep_s}; expected more than 0 and less than {self.max_s}")


def horizon_s(family: str) -> tuple[float, float]:
    """Seconds that a context spans, and keeps when it restarts, where nothing is configured.

    Three of four layers of Qwen3.5 keep a running state of one size instead of every token, so that a long context
    costs little; but no part of such a state can be dropped, so that each restart reads again all that it keeps.
    """
    return _HORIZONS_S.get(family, _HORIZON_S)


@dataclass(frozen=True, slots=True)
class Context:
    """The segments the MLLM sees of one stream, oldest first.

    `anchor_s` is the stream time of the time text `<0.0 seconds>`, `max_s` when this epoch ends, `reason` why it
    began (None for the first). Of two contexts of a stream with the same `epoch`, what was sent of the earlier begins
    the later.
    """

    stream_id: str
    rules: ContextRules
    segments: tuple[Segment, ...] = ()
    epoch: int = 0
    anchor_s: float = 0.0
    max_s: float = _HORIZON_S[0]
    reason: Reason | None = None

    @classmethod
    def empty(cls, stream_id: str, rules: ContextRules) -> "Context":
        """A context without segments. Its first epoch is shortened by a share of the stream's own, so that streams
        attached together do not all restart together."""
        share = int.from_bytes(hashlib.blake2b(stream_id.encode(), digest_size=4).digest()) / 2**32
        return cls(stream_id, rules, max_s=rules.max_s - share * (rules.max_s - rules.keep_s))

    @property
    def tokens(self) -> int:
        """Vision tokens resident in the context."""
        return sum(segment.tokens for segment in self.segments)

    def restarted_since(self, epoch: int) -> Reason | None:
        """Why it has restarted since it was in `epoch`, if it has."""
        return self.reason if self.epoch != epoch else None

    def append(self, segments: Sequence[Segment], room: Room = Room()) -> "Context":
        """The context with the new segments; re-anchored first when they would not fit its bounds or the MLLM's room.

        The newest segments are kept whatever they cost: the grant has already bounded them. Without new ones nothing
        changes, for want of room either: sending a context again takes budget, of which there was none for new frames.
        But one that is too long to be asked about restarts all the same.
        """
        if not segments and not (room.too_long and self.segments):
            return self
        if not self.segments:
            return replace(self, segments=tuple(segments), anchor_s=segments[0].pts_s[0])
        reason = self._outgrown(segments, room)
        if reason is None:
            return replace(self, segments=(*self.segments, *segments))
        # Half of each bound, so that a context that reaches it does not restart at every hop.
        most = min(self.rules.max_tokens, room.tokens) // 2 - sum(segment.tokens for segment in segments)
        count = min(len(self.segments), max(0, room.segments // 2 - len(segments)))
        keep_from_s = (*self.segments, *segments)[-1].pts_s[-1] - self.rules.keep_s
        kept = _newest(self.segments[len(self.segments) - count :], most, keep_from_s)
        return self._restart((*kept, *segments), reason)

    def _outgrown(self, segments: Sequence[Segment], room: Room) -> Reason | None:
        """The bound that the context would break with these segments, or None."""
        tokens = self.tokens + sum(segment.tokens for segment in segments)
        if (*self.segments, *segments)[-1].pts_s[-1] - self.anchor_s > self.max_s:
            return "age"
        if tokens > self.rules.max_tokens:
            return "tokens"
        if tokens > room.tokens or len(self.segments) + len(segments) > room.segments or room.too_long:
            return "pressure"
        return None

    def afford(self, unsent: int, tokens: int) -> "Context":
        """The context without the oldest of its unsent segments that `tokens` cannot pay for.

        `unsent` are the tokens of the newest segments, which have never been sent. Those sent before stay, since they
        cost nothing more; only when nothing was sent yet does a new epoch begin.
        """
        sent = len(self.segments)
        while unsent > 0:
            sent -= 1
            unsent -= self.segments[sent].tokens
        if sent == 0:
            return self._restart(_newest(self.segments, tokens), "unpaid")
        return replace(self, segments=(*self.segments[:sent], *_newest(self.segments[sent:], tokens)))

    def cleared(self, reason: Reason) -> "Context":
        """The context without its segments, in a new epoch if it had any."""
        return self._restart((), reason) if self.segments else self

    def owed(self, hop_end_s: float, room: Room = Room()) -> tuple[int, bool]:
        """The cost of the next restart: tokens of the present segments that will survive it, and whether
        segments of the hop ending at `hop_end_s` will survive it too. Of a restart for want of tokens or room the
        newest half survives, of one by age the last `keep_s` seconds; whichever is more is owed."""
        if not self.segments:
            return 0, False
        survivors_s = self.anchor_s + self.max_s - self.rules.keep_s
        kept = sum(segment.tokens for segment in self.segments if segment.pts_s[0] >= survivors_s)
        beyond = self.tokens - min(self.rules.max_tokens, room.tokens) // 2
        return max(kept, beyond), hop_end_s > survivors_s or beyond >= 0

    def _restart(self, segments: tuple[Segment, ...], reason: Reason) -> "Context":
        anchor_s = segments[0].pts_s[0] if segments else 0.0
        epoch, max_s = self.epoch + 1, self.rules.max_s
        return replace(self, segments=segments, epoch=epoch, anchor_s=anchor_s, max_s=max_s, reason=reason)


def _newest(segments: Sequence[Segment], room: int, from_s: float = float("-inf")) -> tuple[Segment, ...]:
    """The newest of `segments` that cost at most `room` tokens together and begin at `from_s` or later."""
    first = len(segments)
    while first > 0 and segments[first - 1].pts_s[0] >= from_s and segments[first - 1].tokens <= room:
        first -= 1
        room -= segments[first].tokens
    return tuple(segments[first:])

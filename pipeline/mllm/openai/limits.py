"""The largest prompt that a server takes, learned from what it took and what it refused. Pure.

No words of the server are needed: a refusal means that less is sent next time, whoever wrote the server. What it says
may narrow down which measure was too large (`words.py`), and is not believed where it contradicts what it took before.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass, replace

FIRST_WAIT_S = 60.0
LONGEST_WAIT_S = 3600.0
"""How long a refused size is not tried again; doubles each time that it is refused anew."""

MAX_STREAMS = 4096
"""Streams of which limits are remembered."""


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a prompt: pictures, and the vision tokens of all of them."""

    pictures: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Hint:
    """The bound that the words of a refusal name: `most` pictures, or too many tokens."""

    measure: str | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most of one measure (pictures, or tokens) that is sent at once.

    `least` is always tried; `most` is None while nothing bounds it. `taken` is the largest that was taken, `refused`
    the smallest that was refused, which is believed until `until_s` (monotonic seconds).
    """

    least: int
    most: int | None = None
    taken: int = 0
    refused: int | None = None
    until_s: float = 0.0
    wait_s: float = FIRST_WAIT_S

    def after_taking(self, size: int, now_s: float) -> "Ceiling":
        """A prompt of this size was taken: where it comes near the ceiling, that rises by half, at most half of the way
        to what was refused as long as that is believed, and is dropped once it reaches it after that."""
        now = replace(self, taken=max(self.taken, size))
        if self.refused is not None and size >= self.refused:
            return replace(now, most=None, refused=None, wait_s=FIRST_WAIT_S)
        if self.most is None or self.refused is None or 2 * size < self.most:
            return now
        grown = self.most + max(1, self.most // 2)
        if now_s < self.until_s:
            return replace(now, most=max(self.most, min(grown, _between(now.taken, self.refused))))
        return replace(now, most=None if grown >= self.refused else grown)

    def after_refusing(self, size: int, now_s: float) -> "Ceiling":
        """A prompt of this size was refused: half of it is sent at most, and more only by and by. The least of all is
        not to blame."""
        if size <= self.least:
            return self
        believed = self.refused is not None and now_s < self.until_s
        wait_s = self.wait_s if self.refused is None or believed else min(2 * self.wait_s, LONGEST_WAIT_S)
        return replace(
            self,
            most=self._half(size),
            taken=self.taken if size > self.taken else 0,
            refused=min(size, self.refused) if believed and self.refused is not None else size,
            until_s=now_s + wait_s,
            wait_s=wait_s,
        )

    def after_doubt(self, size: int, now_s: float) -> "Ceiling":
        """A prompt of this size was refused though as much was taken before: half of it once, and then as before."""
        if self.refused is not None:
            return replace(self, most=self._half(size))
        return replace(self, most=self._half(size), refused=size, until_s=now_s)

    def told(self, most: int, refused: int, now_s: float) -> "Ceiling":
        """The server named the most it takes, and that is less than what it refused and no less than what it took."""
        return replace(self.after_refusing(min(refused, most + 1), now_s), most=max(most, self.least))

    def _half(self, size: int) -> int:
        return max(self.least, min(size, self.most or size) // 2)


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one stream's prompts. `in_a_row` counts refusals since something was taken, the last of them all
    was at `last_s` (monotonic seconds)."""

    pictures: Ceiling
    tokens: Ceiling
    in_a_row: int = 0
    last_s: float = -math.inf

    @classmethod
    def unknown(cls, least_tokens: int, taken: Size) -> "Limits":
        """Nothing is bounded yet; the server has taken prompts of `taken`. A hop needs `least_tokens` to be seen."""
        return cls(Ceiling(1, taken=taken.pictures), Ceiling(least_tokens, taken=taken.tokens))

    def after_taking(self, size: Size, now_s: float) -> "Limits":
        """After a prompt of this size was answered."""
        return replace(
            self,
            pictures=self.pictures.after_taking(size.pictures, now_s),
            tokens=self.tokens.after_taking(size.tokens, now_s),
            in_a_row=0,
        )

    def after_refusing(self, size: Size, now_s: float, hint: Hint = Hint()) -> "Limits":
        """After a prompt of this size was refused.

        To blame is the measure that the hint names if it can be, else each that is larger than what was taken before.
        If none is, that is odd, and soon forgotten; not so the second time within FIRST_WAIT_S, or in a row: then both
        are to blame.
        """
        again = replace(self, in_a_row=self.in_a_row + 1, last_s=now_s)
        beyond = self.beyond(size)
        if self.in_a_row or (not beyond and now_s - self.last_s < FIRST_WAIT_S):
            return again._lowered({"pictures", "tokens"}, size, now_s)
        if not beyond:
            return replace(
                again,
                pictures=self.pictures.after_doubt(size.pictures, now_s),
                tokens=self.tokens.after_doubt(size.tokens, now_s),
            )
        if hint.measure == "pictures" and hint.most and max(1, self.pictures.taken) <= hint.most < size.pictures:
            return replace(again, pictures=self.pictures.told(hint.most, size.pictures, now_s))
        named = beyond & {hint.measure}
        return again._lowered(named or beyond, size, now_s)

    def beyond(self, size: Size) -> set[str | None]:
        """The measures by which a prompt of this size is larger than any that was taken."""
        found: set[str | None] = {"pictures"} if size.pictures > self.pictures.taken else set()
        return found | ({"tokens"} if size.tokens > self.tokens.taken else set())

    def anew(self) -> "Limits":
        """After the server may have been exchanged for another: what it took says nothing any more."""
        return replace(self, pictures=replace(self.pictures, taken=0), tokens=replace(self.tokens, taken=0))

    def allows(self, size: Size) -> bool:
        """True if a prompt of this size keeps below both ceilings."""
        most_pictures, most_tokens = self.pictures.most, self.tokens.most
        return (most_pictures is None or size.pictures <= most_pictures) and (
            most_tokens is None or size.tokens <= most_tokens
        )

    def _lowered(self, measures: set[str | None], size: Size, now_s: float) -> "Limits":
        pictures, tokens = self.pictures, self.tokens
        if "pictures" in measures:
            pictures = pictures.after_refusing(size.pictures, now_s)
        if "tokens" in measures:
            tokens = tokens.after_refusing(size.tokens, now_s)
        return replace(self, pictures=pictures, tokens=tokens)


class LimitsOfStreams:
    """The limits of each stream that was refused something since it was last forgotten, at most MAX_STREAMS: those
    refused longest ago go first. Each learns by itself, since what is refused may be what one camera shows."""

    def __init__(self, least_tokens: int) -> None:
        self._least_tokens = least_tokens
        self._taken = Size(0, 0)
        self._limits: OrderedDict[str, Limits] = OrderedDict()

    def of(self, stream_id: str) -> Limits | None:
        """The limits of a stream; None without any."""
        return self._limits.get(stream_id)

    def take(self, stream_id: str, size: Size, now_s: float) -> None:
        """A prompt of this size was answered."""
        self._taken = Size(max(self._taken.pictures, size.pictures), max(self._taken.tokens, size.tokens))
        if limits := self._limits.get(stream_id):
            self._limits[stream_id] = limits.after_taking(size, now_s)

    def refuse(self, stream_id: str, size: Size, now_s: float, hint: Hint, certain: bool) -> Limits | None:
        """A prompt of this size was refused; if that is not `certain`, since the server only failed, it counts where
        the prompt was larger than any before.

        Returns the new limits of the stream, or None if they stay as they were.
        """
        limits = self._limits.get(stream_id) or Limits.unknown(self._least_tokens, self._taken)
        if not certain and not limits.beyond(size):
            return None
        self._limits[stream_id] = limits = limits.after_refusing(size, now_s, hint)
        self._limits.move_to_end(stream_id)
        if len(self._limits) > MAX_STREAMS:
            self._limits.popitem(last=False)
        return limits

    def anew(self) -> None:
        """The server may be another now: what was taken says nothing any more, what was refused still holds a while."""
        self._taken = Size(0, 0)
        for stream_id, limits in self._limits.items():
            self._limits[stream_id] = limits.anew()

    def forget(self, stream_id: str) -> None:
        """Nothing bounds a stream that is gone."""
        self._limits.pop(stream_id, None)


def _between(taken: int, refused: int) -> int:
    """Half of the way from what is taken to what is refused; no further once they are close."""
    gap = refused - taken
    return taken if gap <= max(1, refused // 16) else taken + gap // 2

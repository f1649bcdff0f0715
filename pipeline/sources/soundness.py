"""Detection of decoded pictures that are whole, and show nothing of one that was not. Pure: packets are counted as they
come.

A picture whose data were lost or damaged spoils every later one that is built on it, until a key frame arrives that is
whole itself, or an intra refresh has passed over the whole picture.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

WAITS_FOR_KEY: Final = frozenset({"h264"})
"""Codecs whose decoder shows nothing that is built on what came before the connection."""

UNMARKED_S: Final = 10.0
"""After damage, how long only marked key frames count, in seconds: a camera without such marks shows intra pictures."""

FORGIVEN_S: Final = 60.0
"""How long after the last damage a picture is taken for whole though no key frame came, in seconds: there are cameras
that refresh the picture bit by bit, and mark nothing."""

HITS: Final = 1024
"""How many damaged places are remembered at once; of more the oldest are forgotten, which were judged long ago."""

LONG_S: Final = 30.0
"""The stretch of stream time over which damage is called long, in seconds."""

MOSTLY: Final = 0.5
"""The part of the pictures of such a stretch from which on it counts as damaged."""

HARDLY: Final = 0.1
"""The part up to which it counts as sound again."""

Verdict = Literal["sound", "joining", "damaged"]
"""`joining`: built on what came before the connection, through nobody's fault."""


@dataclass(frozen=True, slots=True)
class Coded:
    """A packet on its way through the decoder: its number in order of decoding, whether it is marked as a key frame,
    and its time stamp in ticks."""

    number: int
    key: bool
    pts: int | None


class Soundness:
    """Judges the pictures of one connection. `interval_s` is their usual distance."""

    def __init__(self, codec: str, interval_s: float) -> None:
        self._unmarked = round(UNMARKED_S / interval_s)
        self._forgiven = round(FORGIVEN_S / interval_s)
        self._hits: deque[int] = deque(() if codec in WAITS_FOR_KEY else (-1,), maxlen=HITS)
        self._next = 0
        self._lost = False
        self._refresh: int | None = None

    def coded(self, *, key: bool, lost: bool, pts: int | None = None) -> Coded:
        """The next packet in order of decoding. `lost`: something is missing before, in or just behind it, for no
        demuxer says exactly where; the one behind it is not trusted either. No decoder sees all damage."""
        coded = Coded(self._next, key, pts)
        self._next += 1
        if lost or self._lost:
            self.hit(coded)
        self._lost = lost
        return coded

    def hit(self, coded: Coded) -> None:
        """A packet that was damaged, whose picture is, that could not be decoded, or before which one is missing."""
        self._hits.append(coded.number)

    def judge(self, coded: Coded, *, key: bool, intra: bool) -> Verdict:
        """The verdict on a decoded picture; call in order of display. `key` is the decoder's word, `intra` whether it
        is built on no other picture."""
        number = coded.number
        before = [hit for hit in self._hits if hit <= number]
        if not before:
            self._refresh = number if coded.key else self._refresh
            return "sound"
        verdict: Verdict = "joining" if max(before) < 0 else "damaged"
        if self._refreshed(coded, before, key=key, intra=intra):
            self._hits = deque((hit for hit in self._hits if hit > number), maxlen=HITS)
            return "sound"
        return verdict

    def _refreshed(self, coded: Coded, before: list[int], *, key: bool, intra: bool) -> bool:
        """True if nothing of earlier pictures shows any more."""
        number, newest = coded.number, max(before)
        if newest == number:
            return False
        if key or (intra and (coded.key or newest < 0 or number - newest >= self._unmarked)):
            return True
        if coded.key:  # an intra refresh begins; the one that began at the mark before has passed over all
            began, self._refresh = self._refresh, number
            return began is not None and began > newest
        return number - newest >= self._forgiven


class InOrder:
    """Holds pictures back until every one they may be built on has come out of the decoder and was judged.

    Pictures come in order of display; one that is shown later but was decoded earlier may turn out to be damaged.
    """

    def __init__(self, most: int = 16) -> None:
        self._most = most
        self._inside: dict[int, int] = {}
        self._held: deque[Coded] = deque()

    def sent(self, coded: Coded) -> None:
        """A packet went into the decoder."""
        if coded.pts is not None:
            self._inside[coded.number] = coded.pts

    def came(self, coded: Coded) -> int:
        """A picture came out; returns how many of those held, oldest first, and it among them, may go now."""
        pts = coded.pts
        self._inside = {n: at for n, at in self._inside.items() if n != coded.number and (pts is None or at > pts)}
        self._held.append(coded)
        free = 0
        while self._held and (len(self._held) > self._most or not self._waits(self._held[0])):
            self._held.popleft()
            free += 1
        return free

    def _waits(self, coded: Coded) -> bool:
        return coded.pts is not None and any(
            number < coded.number and pts > coded.pts for number, pts in self._inside.items()
        )


class LongDamage:
    """Tells when most of a stretch of pictures is damaged, and when hardly any is again."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, bool]] = deque()
        self._damaged = 0
        self._long = False

    def connect(self) -> None:
        """A connection begins: what came before it is not of this stretch."""
        self._seen.clear()
        self._damaged = 0

    @property
    def share(self) -> float:
        """Damaged part of the pictures of the stretch."""
        return self._damaged / max(len(self._seen), 1)

    def push(self, pts_s: float, damaged: bool) -> bool | None:
        """One picture at its stream time; True when the damage has become long, False when it has ceased to be."""
        self._seen.append((pts_s, damaged))
        self._damaged += damaged
        while pts_s - self._seen[0][0] > LONG_S:
            self._damaged -= self._seen.popleft()[1]
        if pts_s - self._seen[0][0] < LONG_S / 3:
            return None
        now = self.share > HARDLY if self._long else self.share >= MOSTLY
        if now is self._long:
            return None
        self._long = now
        return now

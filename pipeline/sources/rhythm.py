"""The time for which a stream may be silent before it counts as lost. Pure: the clock is an argument."""

from typing import Final

BEATS: Final = 3.0
"""A stream is silent when nothing came for so many times the longest of its recent pauses."""

FADE: Final = 0.99
"""How much of the longest pause is remembered from one packet to the next."""


class Rhythm:
    """The pauses between the packets of a stream, over all its connections.

    One that sends a picture every few seconds is given more time than one that sends 25 a second. One whose rhythm is
    not known yet, since no two packets came on one connection, is given the time a first picture may take.
    """

    def __init__(self, stall_s: float, first_picture_s: float) -> None:
        self.patience_s = self._most_s = max(stall_s, first_picture_s)
        self._least_s = stall_s
        self._longest_s: float | None = None
        self._last_s: float | None = None

    def connect(self) -> None:
        """A connection begins: the pause before its first packet is nobody's rhythm."""
        self._last_s = None

    def beat(self, now_s: float) -> None:
        """A packet came."""
        if self._last_s is not None:
            pause_s = now_s - self._last_s
            self._longest_s = max(pause_s, FADE * (self._longest_s or 0.0))
            self.patience_s = min(max(BEATS * self._longest_s, self._least_s), self._most_s)
        self._last_s = now_s

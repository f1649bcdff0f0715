"""When the segments of a playlist were filmed, and which of them a packet came from."""

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from datetime import datetime

KEPT = 64
"""Segments that are remembered behind the newest: more than FFmpeg reads ahead."""


class SegmentDates:
    """Positions in the joined bytes of the segments, as FFmpeg reads and counts them, with the dates they begin at."""

    def __init__(self) -> None:
        self._stated: Mapping[tuple[str, int], datetime] = {}
        self._begun: deque[tuple[int, datetime | None]] = deque(maxlen=KEPT)
        self._bytes = 0

    def note(self, stated: Mapping[tuple[str, int], datetime]) -> None:
        """The dates by the newest playlist: of segments by URL and first byte."""
        self._stated = stated

    def begin(self, url: str, first: int) -> None:
        """The segment of `url`, from byte `first` on, is read from now on."""
        self._begun.append((self._bytes, self._stated.get((url, first))))

    def passed(self, count: int) -> None:
        """So many bytes were read."""
        self._bytes += count

    def restart(self) -> None:
        """FFmpeg went to another place, and counts anew."""
        self._begun.clear()
        self._bytes = 0

    def at(self, position: int | None) -> tuple[int, datetime] | None:
        """The segment that a packet at byte `position` came from, by its first byte, and when it begins."""
        if position is None or position < 0 or not self._begun:
            return None
        index = bisect_right(self._begun, position, key=lambda one: one[0]) - 1
        if index < 0:
            return None
        start, date = self._begun[index]
        return None if date is None else (start, date)

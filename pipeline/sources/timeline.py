"""From a container's time stamps to stream seconds. Pure: the arrival clock is an argument."""

from collections import deque
from typing import Final

WRAP_TICKS: Final = 1 << 33
"""MPEG-TS time stamps have 33 bits (ISO/IEC 13818-1): at 90 kHz they start again after 26.5 hours."""

JUMP_S: Final = 10.0
"""A step further than this, that nothing explains, is a discontinuity and not a pause."""

BACK_S: Final = 0.1
"""A step back by no more than this is rounding or jitter; the frame keeps the time of the one before."""

LAG_S: Final = 1.0
"""How far a time stamp that moves again may lie behind where arrival had put the pictures meanwhile."""

STILL_S: Final = 1.0
"""Time stamps that stand still for longer than this are not believed any more on this connection ..."""

STILL_PICTURES: Final = 3
"""... if so many pictures repeated one."""

JUMPS: Final = 3
"""So many jumps of a live stream within JUMPS_S seconds of arrival, and its time stamps are not believed any more."""

JUMPS_S: Final = 60.0

WINDOW_S: Final = 5.0
"""How long the pace of a live stream's time stamps is compared with that of arrival, in seconds."""

WINDOWS: Final = 3
"""So many windows in a row at less than half or more than twice the pace, and they are not believed any more: a backlog
or a hold-up on the network is over sooner."""


IDLE: Final = 0.2
"""A reader that waits for less than this part of a window is what holds things up; it cannot tell how they come."""


class Timeline:
    """Places the frames of a stream, in presentation order, on one axis of stream seconds that never runs backwards.

    The axis lives as long as its source. In a recording, stream time is file time: PTS minus the file's start, pauses
    included. In a live stream it is `start_s` at the first frame ever, follows PTS within a connection, and goes on
    across connections and discontinuities by the time that passed on the arrival clock. A frame whose time stamp stands
    still or lies is placed by arrival in a live stream and by the frame rate in a recording, counted in `restamped`.
    While a live stream is `by_rate` such frames are placed no closer than its frame rate, however fast they arrive.
    """

    def __init__(self, start_s: float = 0.0) -> None:
        self.discontinuities = 0
        self.restamped = 0
        self.lie: str | None = None
        self.stamped = True
        self.by_rate = False
        self._start_s = start_s
        self._live = True
        self._origin_s: float | None = None
        self._interval_s = 0.04
        self._period_s = WRAP_TICKS / 90_000
        self._end_s: float | None = None
        self._last_s: float | None = None
        self._arrival_s = 0.0
        self._begin()

    def _begin(self) -> None:
        """Reset what holds within one connection only."""
        self.lie = None
        self.by_rate = False
        self._shift_s = 0.0
        self._media_s: float | None = None
        self._placed = False
        self._stamp_arrival_s = 0.0
        self._repeats = 0
        self._jumps: deque[float] = deque(maxlen=JUMPS)
        self._window: tuple[float, float, float | None] | None = None
        self._waited_s: float | None = None
        self._odd_windows = 0

    @property
    def last_s(self) -> float | None:
        """Stream seconds of the newest frame, None before the first."""
        return self._last_s

    def connect(
        self,
        *,
        live: bool,
        tick_s: float,
        interval_s: float,
        origin_s: float | None = None,
        end_s: float | None = None,
        resume_s: float | None = None,
    ) -> None:
        """Start a connection: its clock tick and usual frame interval in seconds. Its time stamps are believed until
        they lie; then `lie` says how.

        For a recording also the media time of its start and its length where they are known, and the stream time of
        the last frame that counts: those placed after it will be read again.
        """
        self._begin()
        self._live = live
        self._period_s = WRAP_TICKS * tick_s
        self._interval_s = interval_s
        self._origin_s = origin_s
        self._end_s = end_s
        if not live:
            self._last_s = resume_s

    def found_recorded(self) -> None:
        """Go on as in a recording, which it is after all: by its time stamps or its frame rate."""
        self._live = self.by_rate = False

    def place(self, media_s: float | None, arrival_s: float, waited_s: float | None = None) -> float:
        """Stream seconds of the next frame; `media_s` is its PTS in seconds (None if it has none), `waited_s` how long
        its reader has waited for packets so far (None if that is not known). `stamped` says afterwards whether its time
        rests on its PTS."""
        self._waited_s = waited_s
        self.stamped = media_s is not None and self.lie is None
        if media_s is None or self.lie is not None:
            self.restamped += media_s is not None
            stream_s = self._next_s(arrival_s)
        elif self._media_s is None:
            stream_s = self._first(media_s, arrival_s)
        elif (unwrapped_s := self._unwrap(media_s, self._media_s)) == self._media_s:
            stream_s = self._still(self._media_s, arrival_s)
        else:
            stream_s = self._following(unwrapped_s, self._media_s, arrival_s)
        self._placed = True
        self._arrival_s = arrival_s
        self._last_s = stream_s if self._last_s is None else max(stream_s, self._last_s)
        return self._last_s

    def _first(self, media_s: float, arrival_s: float) -> float:
        """The first time stamp of a connection fixes how its media time maps to stream time."""
        if self._live:
            self._shift_s = self._next_s(arrival_s) - media_s
        else:
            self._shift_s = -(media_s if self._origin_s is None else self._origin_s)
            if self._placed and media_s + self._shift_s <= (self._last_s or 0.0):  # behind frames that had no stamps
                self._shift_s = self._next_s(arrival_s) - media_s
        self._window = (media_s, arrival_s, self._waited_s)
        return self._moved(media_s, arrival_s)

    def _moved(self, media_s: float, arrival_s: float) -> float:
        self._media_s, self._stamp_arrival_s, self._repeats = media_s, arrival_s, 0
        return media_s + self._shift_s

    def _still(self, media_s: float, arrival_s: float) -> float:
        """A stamp that was there before: the frame is as much later as it came later."""
        self.restamped += 1
        self.stamped = False
        self._repeats += 1
        passed_s = arrival_s - self._stamp_arrival_s if self._live else self._repeats * self._interval_s
        if self._repeats >= STILL_PICTURES and passed_s > STILL_S:
            self.lie = "stand still"
        return media_s + self._shift_s + passed_s

    def _following(self, media_s: float, before_s: float, arrival_s: float) -> float:
        behind_s = (self._last_s or 0.0) - media_s - self._shift_s
        if not self._continuous(media_s, before_s, arrival_s) or (self._repeats and behind_s > LAG_S):
            self.discontinuities += 1
            self._shift_s = self._next_s(arrival_s) - media_s
            self._window = (media_s, arrival_s, self._waited_s)
            self._jumps.append(arrival_s)
            if self._live and len(self._jumps) == JUMPS and arrival_s - self._jumps[0] <= JUMPS_S:
                self.lie = "jump"
        else:
            self._compare(media_s, arrival_s)
        return self._moved(media_s, arrival_s)

    def _compare(self, media_s: float, arrival_s: float) -> None:
        """Compare the pace of the time stamps with that of arrival."""
        began_media_s, began_s, began_waited_s = self._window or (media_s, arrival_s, None)
        passed_s = arrival_s - began_s
        if not self._live or passed_s < WINDOW_S:
            return
        self._window = (media_s, arrival_s, self._waited_s)
        if began_waited_s is not None and (self._waited_s or 0.0) - began_waited_s < IDLE * passed_s:
            self._odd_windows = 0
            return
        odd = not passed_s / 2 <= media_s - began_media_s <= 2 * passed_s
        self._odd_windows = self._odd_windows + 1 if odd else 0
        if self._odd_windows == WINDOWS:
            self.lie = "run too slow" if media_s - began_media_s < passed_s else "run too fast"

    def _continuous(self, media_s: float, before_s: float, arrival_s: float) -> bool:
        step_s = media_s - before_s
        if step_s < -BACK_S:
            return False
        if step_s <= JUMP_S:
            return True
        if self._live:
            return step_s - (arrival_s - self._arrival_s) <= JUMP_S
        return self._end_s is None or media_s + self._shift_s <= self._end_s + JUMP_S

    def _next_s(self, arrival_s: float) -> float:
        """The stream time of the next frame when its time stamp is of no use: by arrival if live, else by frame
        rate."""
        if self._last_s is None:
            return self._start_s if self._live else 0.0
        passed_s = max(arrival_s - self._arrival_s, 0.0) if self._live else 0.0
        if self.by_rate:
            passed_s = max(passed_s, self._interval_s)
        return self._last_s + (passed_s or self._interval_s)

    def _unwrap(self, media_s: float, before_s: float) -> float:
        """`media_s` in the turn of a wrapping counter that continues `before_s`, if one does."""
        turns = round((before_s - media_s) / self._period_s)
        unwrapped_s = media_s + turns * self._period_s
        return unwrapped_s if abs(unwrapped_s - before_s) <= JUMP_S else media_s

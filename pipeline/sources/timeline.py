"""From a container's time stamps to stream seconds. Pure: the arrival clock is an argument."""

WRAP_TICKS = 1 << 33
"""MPEG-TS time stamps have 33 bits (ISO/IEC 13818-1): at 90 kHz they start again after 26.5 hours."""

JUMP_S = 10.0
"""A step further than this, that nothing explains, is a discontinuity and not a pause."""

BACK_S = 0.1
"""A step back by no more than this is rounding or jitter; the frame keeps the time of the one before."""


class Timeline:
    """Places the frames of a stream, in presentation order, on one axis of stream seconds that never runs backwards.

    The axis lives as long as its source. In a recording, stream time is file time: PTS minus the file's start, pauses
    included. In a live stream it is `start_s` at the first frame ever, follows PTS within a connection, and goes on
    across connections and discontinuities by the time that passed on the arrival clock.
    """

    def __init__(self, start_s: float = 0.0) -> None:
        self.discontinuities = 0
        self._start_s = start_s
        self._live = True
        self._origin_s: float | None = None
        self._interval_s = 0.04
        self._period_s = WRAP_TICKS / 90_000
        self._end_s: float | None = None
        self._shift_s = 0.0
        self._media_s: float | None = None
        self._last_s: float | None = None
        self._arrival_s = 0.0

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
        """Start a connection: its clock tick and usual frame interval in seconds.

        For a recording also the media time of its start and its length where they are known, and the stream time of
        the last frame that counts: those placed after it will be read again.
        """
        self._live = live
        self._period_s = WRAP_TICKS * tick_s
        self._interval_s = interval_s
        self._origin_s = origin_s
        self._end_s = end_s
        self._media_s = None
        if not live:
            self._last_s = resume_s

    def place(self, media_s: float | None, arrival_s: float) -> float:
        """Stream seconds of the next frame; `media_s` is its PTS in seconds (None if it has none)."""
        if media_s is None:
            stream_s = self._next_s(arrival_s)
        elif self._media_s is None:
            stream_s = self._first(media_s, arrival_s)
        else:
            stream_s = self._following(self._unwrap(media_s, self._media_s), self._media_s, arrival_s)
        self._arrival_s = arrival_s
        self._last_s = stream_s if self._last_s is None else max(stream_s, self._last_s)
        return self._last_s

    def _first(self, media_s: float, arrival_s: float) -> float:
        """The first time stamp of a connection fixes how its media time maps to stream time."""
        self._media_s = media_s
        if self._live:
            self._shift_s = self._next_s(arrival_s) - media_s
        else:
            self._shift_s = -(media_s if self._origin_s is None else self._origin_s)
        return media_s + self._shift_s

    def _following(self, media_s: float, before_s: float, arrival_s: float) -> float:
        if not self._continuous(media_s, before_s, arrival_s):
            self.discontinuities += 1
            self._shift_s = self._next_s(arrival_s) - media_s
        self._media_s = media_s
        return media_s + self._shift_s

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
        """Where the next frame belongs when its time stamp does not say: by arrival if live, else by frame rate."""
        if self._last_s is None:
            return self._start_s if self._live else 0.0
        passed_s = arrival_s - self._arrival_s if self._live else 0.0
        return self._last_s + (max(passed_s, 0.0) or self._interval_s)

    def _unwrap(self, media_s: float, before_s: float) -> float:
        """`media_s` in the turn of a wrapping counter that continues `before_s`, if one does."""
        turns = round((before_s - media_s) / self._period_s)
        unwrapped_s = media_s + turns * self._period_s
        return unwrapped_s if abs(unwrapped_s - before_s) <= JUMP_S else media_s

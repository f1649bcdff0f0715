"""The pacing of frames: bursts are spread by PTS. Pure: the clock is an argument."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Pacer:
    """Delays frames that come faster than `speed` times real time; those that are late pass at once.

    A source that fell behind may catch up unpaced for up to `late_s` seconds of lag; what it lags beyond is forgiven,
    so that one long stop is not followed by an equally long burst. Speed 1 keeps a fixed distance to the source's
    newest frame, which an HLS playlist needs: its segments come in bursts and the distance is what hides them. Above 1
    a backlog is worked off, as a camera wants that first sends what it had buffered.
    """

    speed: float
    late_s: float
    _due_s: float | None = field(default=None, init=False)
    _pts_s: float = field(default=0.0, init=False)

    def wait_s(self, pts_s: float, now_s: float) -> float:
        """Seconds to wait before the frame at stream time `pts_s` may pass. Call once for each frame, in order."""
        if self._due_s is None:
            due_s = now_s
        else:
            due_s = max(self._due_s + (pts_s - self._pts_s) / self.speed, now_s - self.late_s)
        self._due_s, self._pts_s = due_s, pts_s
        return max(due_s - now_s, 0.0)

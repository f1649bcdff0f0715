"""The contract of a source, and the sampling of frames by their time stamps."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from pipeline.types import Frame, Json


@dataclass(slots=True)
class SourceCounts:
    """Running totals of one source since it was built, across reconnects. Written by the source only.

    `corrupt` pictures were damaged, or built on one that was; `gaps` are places where data were lost on the way;
    `restamped` pictures have a time stamp that was not believed.
    """

    decoded: int = 0
    sampled: int = 0
    lost: int = 0
    corrupt: int = 0
    gaps: int = 0
    decode_errors: int = 0
    discontinuities: int = 0
    restamped: int = 0
    connects: int = 0
    hwaccel_fallbacks: int = 0


@dataclass(slots=True)
class Sampler:
    """Sampling by PTS: keeps the first frame in each of `fps` slots per second of stream time.

    Slot k covers `[k / fps, (k + 1) / fps)`. A variable rate, a pause or a jump never yields two frames of a slot.
    """

    fps: float
    _last: int = field(default=-1, init=False)

    def slot(self, pts_s: float) -> int:
        """The slot a stream time falls into. A microsecond of slack absorbs the rounding of time bases."""
        return int((pts_s + 1e-6) * self.fps)

    def wants(self, pts_s: float) -> bool:
        """True once for each slot, for the first frame that falls into it."""
        slot = self.slot(pts_s)
        if slot <= self._last:
            return False
        self._last = slot
        return True


@dataclass(frozen=True, slots=True)
class Notice:
    """A finding of a source that people should know: the type of the event, the reason in words, what to do about it if
    anything, and more about it."""

    kind: str
    reason: str
    advice: str = ""
    data: Mapping[str, Json] = field(default_factory=dict)


Notify: TypeAlias = Callable[[Notice], Awaitable[None]]
"""Called between two frames, or while none comes; the source waits for it."""


async def ignore(_notice: Notice) -> None:
    """For whom notices are nothing."""


class Source(Protocol):
    """A stream that can be opened, read until it ends or breaks, and opened again.

    Frames come in stream time: `pts_s` starts at 0 with the first frame ever (or where an earlier run ended), never
    decreases over the life of the object, and goes on across reconnects by the time that passed.
    """

    @property
    def live(self) -> bool:
        """True if frames come at their own pace: then a slow reader loses the oldest, and an end is a loss.

        A recording that plays in real time is live but for its end. For a URL on the web it is a guess until opened.
        """
        ...

    @property
    def counts(self) -> SourceCounts: ...

    def frames(self, sampler: Sampler, notify: Notify = ignore) -> AsyncGenerator[Frame, None]:
        """Connect and yield the frames that `sampler` wants, in order of `pts_s`; what it finds out about the stream
        goes to `notify`.

        Ends when a recording ends. Raises SourceUnavailable when it cannot connect or a live connection ends, and
        SourceStalled when a live one goes silent; it may then be called again. Raises ConfigError for a recording that
        is missing or holds no video, which no retry helps. Decodes in a thread of its own with
        a bounded ring between: a live source drops the oldest (counted in `counts.lost`), a recording waits.
        """
        ...

    async def close(self) -> None:
        """Stop decoding and free the connection. An iteration under way ends."""
        ...

"""The nouns: frozen values that travel through the loop. Every number names its unit."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

import numpy as np

from allocator_engine.fit import Allocation
from allocator_engine.resize import Picture, Pixels, resize
from pipeline.rules import MOST_COUNTED, PLAIN, Rules

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

ClockQuality = Literal["ntp", "arrival", "file"]
"""Where `captured_at` comes from: the camera's own clock, the moment of arrival here, or a file's start plus PTS."""

Verdict = Literal["yes", "no", "unknown"]

_NUMBERS = tuple(map(str, range(MOST_COUNTED + 1)))


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture: stream seconds, UTC of capture and how good that is, position in the stream."""

    pts_s: float
    captured_at: datetime
    clock: ClockQuality
    seq: int
    picture: Picture = field(compare=False, repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """Native (height, width) in px."""
        return self.picture.height, self.picture.width


class Unpackable(Protocol):
    """Pixels that are held in another form, of which each `unpack` makes them anew, as they were."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def unpack(self) -> Pixels: ...


@dataclass(frozen=True, slots=True)
class Segment:
    """One temporal patch of the context: one or two frames at their allocated size. Immutable once it is sent.

    `pts_s` are the frames' stream seconds, `held` its pixels, or these in packed form, `tokens` its vision tokens,
    `content_id` a hash of stream, PTS, size and pixels, under which encoder caches may keep it.
    """

    pts_s: tuple[float, ...]
    held: Pixels | Unpackable = field(compare=False, repr=False)
    tokens: int
    content_id: str

    @property
    def pixels(self) -> Pixels:
        """Its frames, uint8 `[frames, height, width, 3]` RGB. Packed ones are decoded at each access, which takes
        milliseconds: not on the event loop."""
        return self.held if isinstance(self.held, np.ndarray) else self.held.unpack()

    @property
    def time_s(self) -> float:
        """Mean of its frames' stream seconds: what the model's own time text states."""
        return sum(self.pts_s) / len(self.pts_s)

    @property
    def size(self) -> tuple[int, int]:
        """Allocated (height, width) in px."""
        return self.held.shape[1], self.held.shape[2]


@dataclass(frozen=True, slots=True)
class Hop:
    """The sampled frames of `[start_s, end_s)` stream seconds. `lost` frames were sampled but overwritten unread."""

    stream_id: str
    start_s: float
    end_s: float
    frames: tuple[Frame, ...]
    lost: int = 0

    def render(self, allocation: Allocation) -> tuple[Segment, ...]:
        """The hop's segments at their allocated sizes."""
        return render(self.stream_id, self.frames, allocation)


def render(stream_id: str, frames: Sequence[Frame], allocation: Allocation) -> tuple[Segment, ...]:
    """Segments of a stream's frames, which are scaled once, straight to their allocated sizes."""
    pixels = resize([frame.picture for frame in frames], allocation)
    return tuple(
        segment_of(stream_id, tuple(frames[i].pts_s for i in size.frames), rendered, size.tokens)
        for size, rendered in zip(allocation.segments, pixels, strict=True)
    )


def segment_of(stream_id: str, pts_s: tuple[float, ...], pixels: Pixels, tokens: int) -> Segment:
    """The segment of pixels that have their allocated size."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{stream_id}\0{pts_s}\0{pixels.shape}\0".encode())
    digest.update(np.ascontiguousarray(pixels).data)  # as they lie in memory: they are megabytes
    return Segment(pts_s, pixels, tokens, digest.hexdigest())


@dataclass(frozen=True, slots=True)
class Zone:
    """A part of a picture that a watch is about: its name, and its corners in order, x from the left and y from the
    top, in shares of the picture."""

    name: str
    polygon: tuple[tuple[float, float], ...]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The least upright box around it: left, top, right, bottom, in shares of the picture."""
        xs, ys = zip(*self.polygon, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def words(self) -> str:
        """The zone in words, to be said before a question."""
        left, top, right, bottom = (100 * edge for edge in self.box)
        return (
            f'Only about the zone "{self.name}", which is the part of the picture from {math.floor(left)}% to'
            f" {math.ceil(right)}% of its width and from {math.floor(top)}% to {math.ceil(bottom)}% of its height:"
        )


_ZONE_WORDS = re.compile(
    r'\AOnly about the zone "[^"]*", which is the part of the picture from \d+% to \d+% of its width and from \d+% to'
    r" \d+% of its height: "
)


def without_zone(asked: str) -> str:
    """A question as an Allocator reads it: without the words that say which zone it is about."""
    return _ZONE_WORDS.sub("", asked)


@dataclass(frozen=True, slots=True)
class Crop:
    """The part of a stream's pictures that its MLLM is shown: an upright box, in shares of the picture."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """Share of the picture that it shows."""
        return (self.right - self.left) * (self.bottom - self.top)

    @property
    def corners(self) -> tuple[tuple[float, float], ...]:
        """As a polygon, clockwise from the upper left."""
        left, top, right, bottom = self.left, self.top, self.right, self.bottom
        return (left, top), (right, top), (right, bottom), (left, bottom)

    def seen(self, zone: Zone) -> Zone:
        """A zone in shares of what is shown; what lies outside is moved to the edge."""
        wide, high = self.right - self.left, self.bottom - self.top
        points = (((x - self.left) / wide, (y - self.top) / high) for x, y in zone.polygon)
        return Zone(zone.name, tuple((min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)) for x, y in points))


@dataclass(frozen=True, slots=True)
class WatchQuery:
    """A standing question on a stream, and when its answer counts.

    `open_at` and `clear_at` are scores (0 to 1): the watch opens when `confirm[0]` of the last `confirm[1]` known
    answers reach `open_at`, clears when as many fall to `clear_at`, and stays shut for `cooldown_s` stream seconds
    after it cleared. It is asked every `every_s` stream seconds, at every hop if that is 0. Larger `priority` is asked
    first, and under load given up last. `rules` are its other rules; `armed` is False while none of its profiles
    is. With a `zone` it is about that part of the picture; `crop` is the part that its stream's MLLM is shown, None for
    all of it.
    """

    id: str
    question: str
    open_at: float = 0.7
    clear_at: float = 0.3
    confirm: tuple[int, int] = (1, 1)
    cooldown_s: float = 0.0
    priority: int = 1
    every_s: float = 0.0
    rules: Rules = PLAIN
    armed: bool = True
    zone: Zone | None = None
    crop: Crop | None = None
    revision: str = field(init=False, repr=False, compare=False)
    """A hash of everything that changes the meaning of its events."""
    key: str = field(init=False, repr=False, compare=False)
    """The name of its state: a changed question starts a new state."""

    def __post_init__(self) -> None:
        # Each hop asks for them many times, and they cost more than the hop's rules.
        object.__setattr__(self, "revision", self._hashed())
        object.__setattr__(self, "key", f"{self.id}@{self.revision}")

    @property
    def seen_zone(self) -> Zone | None:
        """Its zone in shares of what the MLLM is shown."""
        return self.zone if self.zone is None or self.crop is None else self.crop.seen(self.zone)

    @property
    def asked(self) -> str:
        """The question as it is put to an MLLM: with its zone, if it has one."""
        zone = self.seen_zone
        return self.question if zone is None else f"{zone.words} {self.question}"

    @property
    def options(self) -> tuple[str, ...]:
        """The values that an answer may have; none where it is yes or no."""
        return _NUMBERS if self.rules.count else self.rules.choice

    def _hashed(self) -> str:
        text = repr((self.question, self.open_at, self.clear_at, self.confirm, self.cooldown_s))
        if meaning := self.rules.meaning:
            text += repr(meaning)
        text += "" if self.zone is None else repr(self.zone)
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply to one watch on one context.

    `score` is P(yes) / (P(yes) + P(no)) over the spellings of the first answer token, `mass` is P(yes) + P(no). Below
    a mass of 0.5 the verdict is `unknown`, which is never read as "no". `relooked`: given after a second look at more
    pixels. `warming`: some of what it rests on was sized before the watch stood.

    Of a watch with options `value` is the likeliest and `mass` the probability of all; of a choice `score` is the share
    of `value`, of a count that of all numbers for which its comparison holds.
    """

    watch_id: str
    score: float
    mass: float
    relooked: bool = False
    warming: bool = False
    value: str | None = None

    @property
    def verdict(self) -> Verdict:
        if not self.mass >= 0.5:
            return "unknown"
        return "yes" if self.score >= 0.5 else "no"


@dataclass(frozen=True, slots=True)
class Usage:
    """The cost of one ask: vision tokens encoded (or taken from pictures encoded before, for a context that restarts),
    prompt tokens prefilled and found in a cache, and wall seconds: in all, waiting before the model came to it, and
    from then to the first answer. `answer_tokens` are those of the answers, 0 where they are not counted."""

    encoded_tokens: int = 0
    prefilled_tokens: int = 0
    cached_tokens: int = 0
    seconds: float = 0.0
    queued_s: float = 0.0
    first_answer_s: float = 0.0
    answer_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """Both askings together; the waiting is that of the first."""
        return Usage(
            self.encoded_tokens + other.encoded_tokens,
            self.prefilled_tokens + other.prefilled_tokens,
            self.cached_tokens + other.cached_tokens,
            self.seconds + other.seconds,
            self.queued_s,
            self.first_answer_s,
            self.answer_tokens + other.answer_tokens,
        )


@dataclass(frozen=True, slots=True)
class Answers:
    """The replies to one hop's watches, in the order asked, and their cost."""

    answers: tuple[Answer, ...] = ()
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span of a distributed trace, as the headers of W3C Trace Context name it: `traceparent` and `tracestate`."""

    parent: str
    state: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """A state change to send out. `time` is UTC of the decision; `id` a function of the decision (see judge). `trace`
    is the hop that was traced, if the decision's was; it is no part of what was decided."""

    id: str
    type: str
    stream_id: str
    time: datetime
    data: Mapping[str, Json]
    watch_id: str | None = None
    trace: TraceContext | None = field(default=None, compare=False)

"""The outcome of one hop: values that the loop hands to the judge, the metrics and the outbox."""

from dataclasses import astuple, dataclass
from datetime import datetime

from allocator_engine.fit import Allocation
from pipeline.core.context import Context, Reason
from pipeline.types import Answer, Answers, Crop, Event, Hop, Json, Segment, WatchQuery


@dataclass(frozen=True, slots=True)
class HopReply:
    """The result of asking: the answers, or why there are none, and the vision tokens it spent.

    `relooked` watches were asked a second time, with the segments `aside` behind the context.
    """

    answers: Answers
    spent: int
    skipped: str | None = None
    relooked: int = 0
    aside: tuple[Segment, ...] = ()


@dataclass(frozen=True, slots=True)
class SeenByModel:
    """The basis of a hop's questions: the context that was sent, and the watches at that time."""

    context: Context
    queries: tuple[WatchQuery, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One hop, and as it was `shown`, which is cropped where its watches are about zones: its grant in vision tokens,
    how that was allocated (`fell_back`: at one fixed scale, after a failure of the allocator), what was answered, the
    seconds that all of it took, why the context restarted, if it did, the vision tokens of all shown frames at native
    size, what was seen, and the part of the pictures that it was shown, None for all of them."""

    hop: Hop
    shown: Hop
    grant: int
    allocation: Allocation
    fell_back: bool
    reply: HopReply
    seconds: float
    reanchored: Reason | None = None
    native: int = 0
    seen: SeenByModel | None = None
    crop: Crop | None = None

    @property
    def scales(self) -> tuple[tuple[float, float], ...]:
        """The stream second of each frame, and its linear scale; 0: dropped."""
        frames = self.shown.frames
        scales = {i: one.height / frames[i].size[0] for one in self.allocation.segments for i in one.frames}
        return tuple((frame.pts_s, scales.get(i, 0.0)) for i, frame in enumerate(frames))


@dataclass(frozen=True, slots=True)
class HopRecord:
    """The kept record of a hop: its seconds of stream, vision tokens granted, allocated and spent, the step of the
    ladder, why nothing was asked, the linear scale of each frame by its stream second (0: dropped), the answers, when
    (UTC) its newest frame was captured, and the part of the picture that the MLLM was shown, None for all of it."""

    start_s: float
    end_s: float
    granted: int
    allocated: int
    spent: int
    step: int
    skipped: str | None
    frames: tuple[tuple[float, float], ...]
    answers: tuple[Answer, ...]
    at: datetime | None = None
    crop: Crop | None = None

    @classmethod
    def of(cls, outcome: Outcome, step: int) -> "HopRecord":
        """The record of an outcome."""
        hop, allocation, reply = outcome.hop, outcome.allocation, outcome.reply
        answers = reply.answers.answers
        return cls(
            hop.start_s,
            hop.end_s,
            outcome.grant,
            allocation.tokens,
            reply.spent,
            step,
            reply.skipped,
            outcome.scales,
            answers,
            hop.frames[-1].captured_at if hop.frames else None,
            outcome.crop,
        )

    def as_json(self) -> dict[str, Json]:
        """Small enough to keep one for every hop: an answer is its score, mass and marks (1 relooked, 2 warming), and
        its value if it has one; a crop is its left, top, right and bottom edge, in shares of the picture."""
        at: dict[str, Json] = {"at": self.at.isoformat()} if self.at else {}
        crop: dict[str, Json] = {"crop": [round(edge, 4) for edge in astuple(self.crop)]} if self.crop else {}
        return {
            **at,
            **crop,
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            "granted": self.granted,
            "allocated": self.allocated,
            "spent": self.spent,
            "step": self.step,
            "skipped": self.skipped,
            "frames": [[round(pts_s, 3), round(scale, 3)] for pts_s, scale in self.frames],
            "answers": {
                one.watch_id: [
                    round(one.score, 4),
                    round(one.mass, 4),
                    one.relooked + 2 * one.warming,
                    *([one.value] if one.value is not None else []),
                ]
                for one in self.answers
            },
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of one hop: the stream's new state, the events it sends out and what was answered, durable together
    or not at all.

    `state` is the whole StreamState after this decision as JSON text, which the store does not look into; `resume_s`
    the stream time up to which the stream is decided. What is decided beside a hop has no record.
    """

    stream_id: str
    state: str
    events: tuple[Event, ...]
    resume_s: float
    record: HopRecord | None = None

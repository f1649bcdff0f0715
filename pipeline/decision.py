"""What the loop commits: the unit of the outbox."""

from dataclasses import dataclass

from pipeline.types import Event


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of one hop: the stream's new state and the events it sends out, durable together or not at all.

    `state` is the whole StreamState after this decision as JSON text, which the store does not look into; `resume_s`
    the stream time up to which the stream is decided.
    """

    stream_id: str
    state: str
    events: tuple[Event, ...]
    resume_s: float

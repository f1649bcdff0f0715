"""Captures the evidence of a hop while it is at hand, to be written later."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.outcome import Outcome, SeenByModel
from pipeline.evidence.bundle import Score
from pipeline.sources.packets import PacketCut
from pipeline.types import Answer, Event, Frame, Segment, WatchQuery

SCORES_KEPT = 60
"""Answers of each watch before a decision that go into its evidence."""


@dataclass(frozen=True, slots=True)
class Capture:
    """An event with all it rests on. `segments` and `aside` are what the model saw, or, not `whole`, the hop's own.
    `cut` is the clip that is being cut, or why there is none."""

    event: Event
    query: WatchQuery
    score: Score
    seen: SeenByModel
    outcome: Outcome
    frame: Frame
    segments: tuple[Segment, ...]
    aside: tuple[Segment, ...]
    whole: bool
    scores: tuple[Score, ...]
    cut: PacketCut | str
    value: str | None = None


class ScoreBook:
    """The newest answers of each watch of each stream."""

    def __init__(self) -> None:
        self._scores: dict[str, dict[str, deque[Score]]] = {}

    def note(self, outcome: Outcome) -> None:
        """Write down the answers of a hop; watches that no longer stand are forgotten."""
        hop, book = outcome.hop, self._scores.setdefault(outcome.hop.stream_id, {})
        for answer in outcome.reply.answers.answers:
            scores = book.setdefault(answer.watch_id, deque(maxlen=2 * SCORES_KEPT))
            scores.append(score_of(answer, hop.start_s, hop.end_s))
        if outcome.seen is not None:
            stand = {query.id for query in outcome.seen.queries}
            for gone in [one for one in book if one not in stand]:
                del book[gone]

    def of(self, stream: str, watch: str) -> tuple[Score, ...]:
        """Those of a watch on a stream, oldest first."""
        return tuple(self._scores.get(stream, {}).get(watch, ()))

    def forget(self, stream: str) -> None:
        """A stream is gone."""
        self._scores.pop(stream, None)


def score_of(answer: Answer, start_s: float, end_s: float) -> Score:
    """An answer as it is kept with evidence."""
    return Score(round(start_s, 3), round(end_s, 3), round(answer.score, 6), round(answer.mass, 6), answer.relooked)


def capture(event: Event, outcome: Outcome, scores: Sequence[Score], cut: PacketCut | str) -> Capture | None:
    """The evidence of an event; None for one that rests on no answer, such as the event of a watch that was removed."""
    seen, hop = outcome.seen, outcome.hop
    if seen is None or event.watch_id is None or not hop.frames:
        return None
    query = next((one for one in seen.queries if one.id == event.watch_id), None)
    answer = next((one for one in outcome.reply.answers.answers if one.watch_id == event.watch_id), None)
    if query is None or answer is None or "reason" in event.data:
        return None
    whole = event.type == "watch.opened"
    segments = seen.context.segments
    if not whole:
        segments = tuple(one for one in segments if one.pts_s[-1] >= hop.start_s)
    aside = outcome.reply.aside if whole and answer.relooked else ()
    return Capture(
        event, query, score_of(answer, hop.start_s, hop.end_s), seen, outcome, hop.frames[-1], segments, aside, whole,
        tuple(scores)[-SCORES_KEPT:], cut, answer.value,
    )  # fmt: skip

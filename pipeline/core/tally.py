"""Counts of each watch's answers and events on a stream during a run, for the person who reads its end."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.types import Answer, Event


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of one watch: its answers by verdict, the lowest and highest score of those that are known (None without
    one), and how often it opened and cleared."""

    yes: int = 0
    no: int = 0
    unknown: int = 0
    lowest: float | None = None
    highest: float | None = None
    opened: int = 0
    cleared: int = 0

    @property
    def asked(self) -> int:
        """Answers of any verdict."""
        return self.yes + self.no + self.unknown

    def add(self, answer: Answer) -> "Tally":
        """With one more answer."""
        if answer.verdict == "unknown":
            return replace(self, unknown=self.unknown + 1)
        lowest = answer.score if self.lowest is None else min(self.lowest, answer.score)
        highest = answer.score if self.highest is None else max(self.highest, answer.score)
        yes = answer.verdict == "yes"
        return replace(self, yes=self.yes + yes, no=self.no + (not yes), lowest=lowest, highest=highest)


class Tallies:
    """The tallies of all watches, by stream and watch. Bounded by the watches that were ever answered."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, str], Tally] = {}

    def of(self, stream_id: str, watch_id: str) -> Tally:
        """The tally of one watch on one stream."""
        return self._of.get((stream_id, watch_id), Tally())

    def add(self, stream_id: str, answers: Sequence[Answer], events: Sequence[Event]) -> None:
        """Count one hop's answers and events."""
        for answer in answers:
            self._of[stream_id, answer.watch_id] = self.of(stream_id, answer.watch_id).add(answer)
        for event in events:
            if event.watch_id is None:
                continue
            tally = self.of(stream_id, event.watch_id)
            if event.type == "watch.opened":
                tally = replace(tally, opened=tally.opened + 1)
            elif event.type == "watch.cleared":
                tally = replace(tally, cleared=tally.cleared + 1)
            self._of[stream_id, event.watch_id] = tally

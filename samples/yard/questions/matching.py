"""Events against the truth: which were found, which were missed, which were false."""

from collections.abc import Sequence
from dataclasses import dataclass

from allocator_engine.evaluate import tasks
from allocator_engine.evaluate.tasks import Span
from samples.yard.questions.grammar import YardWatch, watch_intervals
from samples.yard.world.facts import FrameFacts

OPEN_AT, CLEAR_AT, CONFIRM = 0.4, 0.2, (2, 2)
"""Scores at which the yard's watches open and clear, and that it takes two hops in a row: its MLLM's scores are
calibrated, so that 0.4 says two times in five, and what they watch for is rare. Chosen on the episodes apart that the
temperature is fitted to."""


@dataclass(frozen=True, slots=True)
class WatchScore:
    """The score of one watch in one episode: events found, missed and false; seconds from the true onset of each found
    one."""

    watch: str
    fine: bool
    found: int
    missed: int
    false: int
    delays_s: tuple[float, ...] = ()


def spans(watch: YardWatch, facts: Sequence[FrameFacts]) -> tuple[Span, ...]:
    """The times at which the watch's condition is visible. Those that only undecided ones part are one."""
    certain = watch_intervals(facts, watch)
    return tuple(
        Span(
            wide.start_s,
            next((one.start_s for one in certain if wide.start_s <= one.start_s < wide.end_s), None),
            wide.end_s,
        )
        for wide in watch_intervals(facts, watch, undecided=True)
    )


def match(watch: YardWatch, facts: Sequence[FrameFacts], onsets_s: Sequence[float]) -> WatchScore:
    """Pair opened events (by their onset, in stream seconds) with the times at which the watch's condition is visible.

    See `allocator_engine.evaluate.tasks.match` for what counts as found.
    """
    events = tasks.match(spans(watch, facts), onsets_s)
    fine = watch.family == "fine"
    return WatchScore(watch.slug, fine, events.found, events.missed, events.false, events.delays_s)

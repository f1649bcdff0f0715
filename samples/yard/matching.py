"""Events against the truth: which were found, which were missed, which were false."""

from collections.abc import Sequence
from dataclasses import dataclass

from samples.yard.facts import FrameFacts
from samples.yard.grammar import Watch, watch_intervals

ONSET_S = 1.0
"""An event is found if its onset lies within so many seconds of the true one."""

_SLACK_S = 1e-6


@dataclass(frozen=True, slots=True)
class WatchScore:
    """Of one watch in one episode: events found, missed and false; seconds from the true onset of each found one."""

    watch: str
    fine: bool
    found: int
    missed: int
    false: int
    delays_s: tuple[float, ...] = ()


def match(watch: Watch, facts: Sequence[FrameFacts], onsets_s: Sequence[float]) -> WatchScore:
    """Pair opened events (by their onset, in stream seconds) with the times at which the watch's condition is visible.

    Visible times that only undecided ones part are one event, which may be noticed from the first undecided moment that
    leads to it until ONSET_S after it is certain. Further onsets while it lasts, or while the truth is undecided, count
    neither way; all others are false.
    """
    certain = watch_intervals(facts, watch)
    left = sorted(onsets_s)
    delays: list[float] = []
    missed = 0
    for span in watch_intervals(facts, watch, undecided=True):
        inside = [s for s in left if span.start_s - ONSET_S - _SLACK_S <= s < span.end_s]
        left = [s for s in left if s not in inside]
        onset_s = next((one.start_s for one in certain if span.start_s <= one.start_s < span.end_s), None)
        if onset_s is None:
            continue
        if inside and inside[0] <= onset_s + ONSET_S + _SLACK_S:
            delays.append(inside[0] - onset_s)
        else:
            missed += 1
    return WatchScore(watch.slug, watch.family == "fine", len(delays), missed, len(left), tuple(delays))

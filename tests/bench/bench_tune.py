"""What tuning gains on time that it never saw: `python -m tests.bench.bench_tune FOLDER [--episodes 300]`.

The yard's MLLM has answered 20 watches over held-out episodes of 32 s (`yard_answers`, kept in FOLDER), which are
chained as time. Each watch begins with bad settings. A person labels what it opens in the first two hours (`--labelled`
episodes), true or false by the yard's truth, and names what it missed; the rest is judged by the truth alone, an event
counting if it opens within 1 s of a time at which its condition is visible. The last line is JSON.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.lab.kept import KeptSeries, rejudge
from pipeline.lab.truths import Mark, Reviewed, merge, reviewed
from pipeline.lab.tune import Gain, Tuning, tune
from pipeline.lab.tune_search import Knobs, ReviewedSeries, Trials, f1_of
from pipeline.types import WatchQuery
from samples.yard.episodes.clips import SECONDS
from samples.yard.questions.matching import CLEAR_AT, CONFIRM, OPEN_AT
from tests.bench.report import tell
from tests.bench.yard_answers import WATCHES, KeptEpisode, kept_episodes

BAD = (
    Knobs(0.95, 0.05, (1, 1), 0.0, 0.0),
    Knobs(0.05, 0.02, (1, 1), 0.0, 0.0),
    Knobs(0.9, 0.8, (4, 4), 0.0, 0.0),
    Knobs(0.1, 0.09, (1, 1), 0.0, 0.0),
    Knobs(0.6, 0.5, (1, 1), 10.0, 0.0),
    Knobs(0.4, 0.2, (2, 2), 0.0, 300.0),
)
OWN = Knobs(OPEN_AT, CLEAR_AT, CONFIRM, 0.0, 0.0)
"""What the yard's card uses."""
SLACK_S = 1.0
BEGAN = 1_800_000_000.0


@dataclass(frozen=True)
class Outcome:
    """One watch: its search, and counts `[4]` on the held-out time: as it was, tuned, and with the yard's settings;
    the gain in F1 there, with an interval over pieces of time."""

    tuning: Tuning
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    own: NDArray[np.int64]
    gain: Gain


def chained(episodes: Sequence[KeptEpisode], number: int) -> ReviewedSeries:
    """One watch's answers over episodes as one stream, and its truth; what is undecided is ignored."""
    score = np.concatenate([one.said[number] for one in episodes]).astype(float)
    start_s = np.arange(len(score), dtype=float)
    series = KeptSeries(start_s, BEGAN + start_s + 1, score, np.ones(len(score)), (None,) * len(score))

    def times(undecided: bool) -> list[tuple[float, float]]:
        spans = [
            (place * SECONDS, (one.possible if undecided else one.certain)[number])
            for place, one in enumerate(episodes)
        ]
        return [(BEGAN + from_s + a, BEGAN + from_s + b) for from_s, each in spans for a, b in each]

    truth = Reviewed(BEGAN, BEGAN + len(score), merge(times(False), SLACK_S), (), merge(times(True), SLACK_S))
    return ReviewedSeries(series, truth)


def labels_of(query: WatchQuery, one: ReviewedSeries) -> list[Mark]:
    """What a person says who knows the truth, of each event that a watch opened and of what it missed."""
    marks, met = list[Mark](), set[tuple[float, float]]()
    events = rejudge(one.series, query)
    for place, event in enumerate(events):
        if event.kind != "watch.opened":
            continue
        at = event.at.timestamp()
        since = at - (event.at_s - event.since_s)
        cleared = next((later for later in events[place:] if later.kind == "watch.cleared"), None)
        end = float(one.series.at[-1]) if cleared is None else cleared.at.timestamp() - (cleared.at_s - cleared.since_s)
        right = [span for span in one.truth.holds if span[0] - SLACK_S <= at and since <= span[1] + SLACK_S]
        doubtful = any(a - SLACK_S <= at and since <= b + SLACK_S for a, b in one.truth.ignored)
        met.update(right)
        if right or not doubtful:
            marks.append(Mark("true" if right else "false", since, max(since, end)))
    return marks + [Mark("missed", *span) for span in one.truth.holds if span not in met]


def outcome(number: int, labelled: Sequence[KeptEpisode], held_out: Sequence[KeptEpisode]) -> Outcome:
    """One watch from bad settings to those that its labels propose, judged on time that nobody labelled."""
    bad = BAD[number % len(BAD)]
    query = bad.on(WatchQuery(WATCHES[number].slug, WATCHES[number].text))
    seen = chained(labelled, number)
    truth = reviewed(labels_of(query, seen))
    tuning = tune(query, [ReviewedSeries(seen.series, truth)] if truth else [])
    trials = Trials(query, [chained(held_out, number)], SLACK_S)
    before, after, own = (trials.counts(knobs) for knobs in (bad, tuning.proposed or bad, OWN))
    return Outcome(tuning, before.sum(0), after.sum(0), own.sum(0), Gain.of(after, before))


def pooled(outcomes: Sequence[Outcome], drawn: NDArray[np.intp]) -> tuple[list[float], list[float]]:
    """F1 of all watches' events together and the mean of the watches' F1, before and after, of drawn watches."""
    before, after = (np.array([getattr(one, name) for one in outcomes])[drawn] for name in ("before", "after"))
    both = [float(f1_of(one.sum(0))) for one in (before, after)]
    return both, [float(f1_of(one).mean()) for one in (before, after)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--labelled", type=int, default=int(7200 // SECONDS))
    parser.add_argument("--scale", type=float, default=0.5)
    given = parser.parse_args()
    episodes = kept_episodes(given.folder, given.episodes, given.scale)
    labelled, held_out = episodes[: given.labelled], episodes[given.labelled :]
    if not labelled or not held_out:
        parser.error(f"--labelled {given.labelled} of {len(episodes)} episodes; expected some, and some others")
    began_s = time.process_time()
    found = [outcome(number, labelled, held_out) for number in range(len(WATCHES))]
    spent_s = time.process_time() - began_s
    rng, count = np.random.default_rng(7), len(found)
    draws = [pooled(found, rng.integers(0, count, count)) for _ in range(2000)]
    all_, mean = pooled(found, np.arange(count))
    summary: dict[str, object] = {
        "watches": count,
        "labelled_s": len(labelled) * SECONDS,
        "held_out_s": len(held_out) * SECONDS,
    }
    for name, values, place in (("f1", all_, 0), ("mean_f1", mean, 1)):
        for which, value in zip(("before", "after"), values, strict=True):
            index = ("before", "after").index(which)
            summary[f"{name}_{which}"] = round(value, 4)
            summary[f"{name}_{which}_interval"] = _interval([draw[place][index] for draw in draws])
        summary[f"{name}_gain_interval"] = _interval([draw[place][1] - draw[place][0] for draw in draws])
    proposed = [one for one in found if one.tuning.proposed]
    own = f1_of(np.array([one.own for one in found]).sum(0))
    summary |= {
        "f1_of_the_yards_settings": round(float(own), 4),
        "expected_of_proposed": _mean([one.tuning.cross.f1 or 0.0 for one in proposed if one.tuning.cross]),
        "held_out_of_proposed": _mean([float(f1_of(one.after)) for one in proposed]),
        "proposed": sum(one.tuning.proposed is not None for one in found),
        "too_few_labels": sum(one.tuning.folds == 0 for one in found),
        "better": sum(bool(f1_of(one.after) > f1_of(one.before)) for one in found),
        "worse": sum(bool(f1_of(one.after) < f1_of(one.before)) for one in found),
        "cpu_s_per_watch": round(spent_s / count, 2),
    }
    tell("Tuning by labels", COLUMNS, [_row(*pair) for pair in zip(WATCHES, found, strict=True)], summary)


COLUMNS = ("watch", "truths", "bad", "proposed", "held out", "expected", "tuned", "gain")


def _row(watch, one: Outcome) -> tuple[object, ...]:
    tuning = one.tuning
    expected = f"{tuning.cross.f1:.2f}" if tuning.cross and tuning.cross.f1 is not None else "-"
    truths = int(one.before[0] + one.before[2])
    proposed = _said(tuning.proposed) if tuning.proposed else "too few labels" if not tuning.folds else "nothing"
    return (
        watch.slug,
        truths,
        _said(tuning.now),
        proposed,
        f"{f1_of(one.before):.2f}",
        expected,
        f"{f1_of(one.after):.2f}",
        "{:+.2f} ({:+.2f} to {:+.2f})".format(one.gain.f1, *one.gain.interval),
    )


def _said(knobs: Knobs) -> str:
    k, n = knobs.confirm
    return f"{knobs.open_at:g} {knobs.clear_at:g} {k}/{n} {knobs.hold_s:g}s {knobs.cooldown_s:g}s"


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


def _interval(values: Sequence[float]) -> list[float]:
    return [round(one, 4) for one in np.percentile(values, [2.5, 97.5]).tolist()]


if __name__ == "__main__":
    main()

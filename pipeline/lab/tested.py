"""Results of tests of a watch's wordings, kept for tuning: which did better, by how much, and on what."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from allocator_engine.digests import SHORT
from pipeline.build import build_watch
from pipeline.config.site import WatchConfig
from pipeline.core.questions import MAX_QUESTION_CHARS
from pipeline.delivery.wording_tests import WordingTestBook
from pipeline.lab.tune import MARGIN, ExpectedFigures, Figure, Gain
from pipeline.lab.tune_search import Knobs
from pipeline.lab.wording_trial import WordingsTuned
from pipeline.lab.wordings import MOST_WORDINGS

MOST_NAMES = 8
"""Most recordings that a result names."""

Part = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Difference = Annotated[float, Field(ge=-1, le=1)]
Text = Annotated[str, Field(min_length=1, max_length=MAX_QUESTION_CHARS)]


@dataclass(frozen=True, slots=True)
class TriedSettings:
    """The settings with which a wording was judged, in the words of a site file."""

    open_at: Part
    clear_at: Part
    confirm: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    hold_s: Annotated[float, Field(ge=0)]
    cooldown_s: Annotated[float, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class WordingFigures:
    """The figures of one wording: its precision, recall and F1 (None where there is nothing to compute them from) with
    95 % intervals, and counts, of time that its settings were not chosen on; its gain in F1 over the watch as it was,
    with an interval, None where there are too few labels to say."""

    question: Text
    settings: TriedSettings
    precision: Part | None
    recall: Part | None
    f1: Part | None
    intervals: Mapping[Figure, tuple[Part, Part]]
    right: Count
    false: Count
    missed: Count
    gain: Difference | None = None
    gain_interval: tuple[Difference, Difference] | None = None

    @property
    def better(self) -> bool:
        """True if it is surely better than the watch was, by as much as a proposal has to be."""
        gain, interval = self.gain, self.gain_interval
        return gain is not None and interval is not None and gain >= MARGIN and interval[0] > 0


@dataclass(frozen=True, slots=True)
class WordingResult:
    """The result of one test: how many recordings, some of their names, and a digest of them all; seconds that were
    looked at, and times at which the watch should have been open; the zone and the count that it was about (empty:
    none); its figures as it was (`now`); and the wordings, its own first, with what was proposed."""

    recordings: Annotated[int, Field(ge=1)]
    names: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=MOST_NAMES)]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    reviewed_s: Annotated[float, Field(ge=0)]
    truths: Count
    zone: Annotated[str, Field(max_length=200)]
    count: Annotated[str, Field(max_length=200)]
    now: WordingFigures
    wordings: Annotated[tuple[WordingFigures, ...], Field(min_length=1, max_length=MOST_WORDINGS + 1)]
    proposed: Text | None = None

    @property
    def subject(self) -> str:
        """A digest of what was compared on what: the same test again has the same."""
        asked = (self.digest, self.zone, self.count, *(one.question for one in self.wordings))
        return hashlib.sha256("\0".join(asked).encode()).hexdigest()[:SHORT]


@dataclass(frozen=True, slots=True)
class KeptWordingResult:
    """A result that is kept: `by` made it `at` a time (UTC); `stale` if the watch asks something else since."""

    by: str
    at: datetime
    stale: bool
    result: WordingResult


@dataclass(frozen=True, slots=True)
class BetterWording:
    """A wording that did surely better than the watch in a test, and that test: the figures of the watch then, the
    recordings and the times at which it should have been open. `changes` are a patch of the watch, which has
    `other_settings` since, or the same."""

    figures: WordingFigures
    now: WordingFigures
    changes: Mapping[str, JsonValue]
    other_settings: bool
    recordings: int
    names: tuple[str, ...]
    digest: str
    truths: int
    by: str
    at: datetime


RESULT = TypeAdapter(WordingResult)
_SETTINGS = TypeAdapter(TriedSettings)


def result_of(watch: WatchConfig, tuned: WordingsTuned, digests: Mapping[str, str]) -> WordingResult:
    """The result of a comparison on recordings, whose digests are given by name."""
    compared, own = tuned.compared, tuned.compared.own.tuning
    zone, count = _about(watch)
    return RESULT.validate_python(
        {
            "recordings": len(digests),
            "names": [name[-200:] for name in sorted(digests)[:MOST_NAMES]],
            "digest": hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()[:SHORT],
            "reviewed_s": round(tuned.reviewed_s, 3),
            "truths": tuned.truths,
            "zone": zone,
            "count": count,
            "now": _figures(watch.question, own.now, own.current, None),
            "wordings": [
                _figures(one.question, one.tuning.proposed or one.tuning.now, one.expected, one.gain)
                for one in compared.wordings
            ],
            "proposed": compared.proposed.question if compared.proposed else None,
        }
    )


def keep_result(book: WordingTestBook, slug: str, result: WordingResult, by: str) -> None:
    """Keep the result of a test of a watch, in the place of one of the same test. Blocks."""
    book.keep(slug, result.subject, RESULT.dump_json(result).decode(), by)


def results_of(book: WordingTestBook, slug: str, watch: WatchConfig) -> tuple[KeptWordingResult, ...]:
    """The results kept of a watch, newest first; those that another release kept in another shape are left out.
    Blocks."""
    found = []
    for one in book.of(slug):
        try:
            result = RESULT.validate_json(one.content)
        except ValidationError:
            continue
        stale = (result.now.question, result.zone, result.count) != (watch.question, *_about(watch))
        found.append(KeptWordingResult(one.by, one.at, stale, result))
    return tuple(found)


def better_wordings(kept: Sequence[KeptWordingResult], watch: WatchConfig) -> tuple[BetterWording, ...]:
    """The wordings that did surely better than what the watch asks now, each once, by its newest test; the largest gain
    first. Tests from before it was asked that, or was about the same zone and count, say nothing."""
    found: dict[str, BetterWording] = {}
    settled: set[str] = {watch.question}
    settings = _settings(Knobs.of(build_watch("watch", watch)))
    for one in sorted(kept, key=lambda one: one.at, reverse=True):
        if one.stale:
            continue
        test = one.result
        for figures in test.wordings:
            if figures.question not in settled and figures.better:
                found[figures.question] = BetterWording(
                    figures,
                    test.now,
                    _changes(figures, settings),
                    test.now.settings != settings,
                    test.recordings,
                    test.names,
                    test.digest,
                    test.truths,
                    one.by,
                    one.at,
                )
            settled.add(figures.question)
    return tuple(sorted(found.values(), key=lambda one: -(one.figures.gain or 0.0)))


def _changes(figures: WordingFigures, now: TriedSettings) -> dict[str, JsonValue]:
    """The wording, and those of its settings that are others than `now`."""
    wanted, present = (_SETTINGS.dump_python(one, mode="json") for one in (figures.settings, now))
    return {"question": figures.question, **{name: one for name, one in wanted.items() if one != present[name]}}


def _about(watch: WatchConfig) -> tuple[str, str]:
    count = watch.count
    return watch.zone or "", f"{count.op} {count.value}" if count else ""


def _settings(knobs: Knobs) -> TriedSettings:
    return TriedSettings(knobs.open_at, knobs.clear_at, knobs.confirm, knobs.hold_s, knobs.cooldown_s)


def _figures(question: str, knobs: Knobs, expected: ExpectedFigures, gain: Gain | None) -> WordingFigures:
    return WordingFigures(
        question, _settings(knobs), expected.precision, expected.recall, expected.f1, expected.intervals,
        expected.right, expected.false, expected.missed, gain.f1 if gain else None, gain.interval if gain else None,
    )  # fmt: skip

"""Wordings of a watch asked over recordings, and compared by the labels of that time."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.build import build_watch
from pipeline.clock import Clock
from pipeline.config.site import SiteConfig, WatchConfig
from pipeline.config.slugs import unique_slug
from pipeline.core.outcome import Outcome
from pipeline.errors import ConfigError
from pipeline.lab.backtest import BackTest, back_test
from pipeline.lab.kept import KeptSeries
from pipeline.lab.truths import MERGE_S, Reviewed, merge
from pipeline.lab.tune_search import ReviewedSeries
from pipeline.lab.tuning import cut, truth_there
from pipeline.lab.wordings import WordingsCompared, compare_wordings, wordings_of
from pipeline.mllm.base import MLLM
from pipeline.types import Answer, Event, Json


@dataclass(frozen=True, slots=True)
class AskedWordings:
    """The answers of recordings to wordings, a watch's own first: by wording and recording, and UTC of the recordings'
    first moments as POSIX seconds."""

    played: BackTest
    series: Mapping[str, Mapping[str, KeptSeries]]
    began: Mapping[str, float]

    def dated(self, began: Mapping[str, float]) -> "AskedWordings":
        """The same, of recordings that began at other times than they say."""
        later_s = {name: at - self.began[name] for name, at in began.items() if name in self.began}
        series = {
            text: {name: replace(one, at=one.at + later_s.get(name, 0.0)) for name, one in known.items()}
            for text, known in self.series.items()
        }
        return AskedWordings(self.played, series, {**self.began, **began})


@dataclass(frozen=True, slots=True)
class WordingsTuned:
    """The result for a watch: what was played, seconds taken for looked at, times at which the watch should be open
    there, and the comparison."""

    watch: str
    played: BackTest
    reviewed_s: float
    truths: int
    compared: WordingsCompared

    def as_json(self) -> dict[str, Json]:
        """For people and programs."""
        played = self.played.as_json()
        return {
            "watch": self.watch,
            "recordings": len(self.played.seconds),
            **{name: played[name] for name in ("seconds", "realtime_factor", "tokens", "ended_early")},
            "reviewed_s": round(self.reviewed_s, 3),
            "truths": self.truths,
            **self.compared.as_json(),
        }


async def ask_wordings(
    site: SiteConfig,
    names: Mapping[str, str],
    watch: WatchConfig,
    others: Sequence[str],
    clock: Clock,
    mllm: MLLM | None = None,
) -> AskedWordings:
    """Ask a watch and its question in other words over the streams of a site, which are recordings (`names` by slug),
    at any time of the day. Raises as `back_test` does."""
    if watch.choice:
        raise ConfigError("choice: the watch is about one of some values; wordings are compared of those that are open")
    slugs: dict[str, str] = {}
    for number, text in enumerate(wordings_of(watch.question, others)):
        slugs[unique_slug(text, f"wording-{number}", slugs)] = text
    bare = replace(watch, streams=(), paused=False, schedule=None, profiles=(), escalate=None)
    watches = {slug: replace(bare, question=text) for slug, text in slugs.items()}
    noted = _AnswersByHop(names)
    played = await back_test(replace(site, watches=watches), names, clock, mllm, noted.observe)
    series: dict[str, dict[str, KeptSeries]] = {text: {} for text in slugs.values()}
    for (slug, name), columns in noted.columns.items():
        series[slugs[slug]][name] = columns.series()
    return AskedWordings(played, series, noted.began)


def tune_wordings(slug: str, watch: WatchConfig, asked: AskedWordings, truths: Mapping[str, Reviewed]) -> WordingsTuned:
    """Compare wordings by the truth of recordings, UTC as POSIX seconds. An answer that is unknown misses what it is
    about. Raises ConfigError where no answers were given in the time that labels are about."""
    first = next(iter(asked.series.values()))
    there: dict[str, Reviewed] = {}
    for name, truth in truths.items():
        whole = replace(truth, holds=merge(truth.holds, MERGE_S))
        answered = all(name in known for known in asked.series.values())
        if answered and (found := truth_there(whole, cut(first[name], whole).at)):
            there[name] = found
    if not there:
        raise ConfigError(f"no part of the recordings was looked at: the labels of {slug} are about other times")
    material = {
        text: [ReviewedSeries(cut(known[name], truth), truth) for name, truth in there.items()]
        for text, known in asked.series.items()
    }
    query = replace(build_watch(slug, watch), armed=True)
    return WordingsTuned(
        slug,
        asked.played,
        sum(one.until - one.since for one in there.values()),
        sum(len(one.holds) for one in there.values()),
        compare_wordings(query, material),
    )


@dataclass(slots=True)
class _AnswerColumns:
    """The answers to one question on one recording."""

    start_s: "array[float]" = field(default_factory=lambda: array("d"))
    at: "array[float]" = field(default_factory=lambda: array("d"))
    score: "array[float]" = field(default_factory=lambda: array("d"))
    mass: "array[float]" = field(default_factory=lambda: array("d"))
    values: list[str | None] = field(default_factory=list)

    def add(self, start_s: float, at: float, answer: Answer) -> None:
        for column, value in zip(
            (self.start_s, self.at, self.score, self.mass), (start_s, at, answer.score, answer.mass), strict=True
        ):
            column.append(value)
        self.values.append(answer.value)

    def series(self) -> KeptSeries:
        start_s, at, score, mass = (np.array(one) for one in (self.start_s, self.at, self.score, self.mass))
        return KeptSeries(start_s, at, score, mass, tuple(self.values))


class _AnswersByHop:
    """Notes the answers of every hop, by watch and recording."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self.columns: dict[tuple[str, str], _AnswerColumns] = {}
        self.began: dict[str, float] = {}

    def observe(self, outcome: Outcome, events: Sequence[Event]) -> None:
        """One hop."""
        hop = outcome.hop
        if not hop.frames:
            return
        name, last = self._names[hop.stream_id], hop.frames[-1]
        at = last.captured_at.timestamp()
        self.began.setdefault(name, at - last.pts_s)
        for answer in outcome.reply.answers.answers:
            self.columns.setdefault((answer.watch_id, name), _AnswerColumns()).add(hop.start_s, at, answer)

"""Wordings of a watch compared by people's labels: each with the settings that suit it, on time that these were not
chosen on, against the wording that the watch has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.core.questions import clean_question
from pipeline.errors import ConfigError
from pipeline.lab.tune import MARGIN, ExpectedFigures, Gain, SettingsFound, Tuning, draws_of, expected, find_settings
from pipeline.lab.tune_search import ReviewedSeries
from pipeline.types import Json, WatchQuery

MOST_WORDINGS = 8
"""Most wordings beside the one that a watch has."""


@dataclass(frozen=True, slots=True)
class ComparedWording:
    """A wording, the search for its settings, and the figures that are expected of it with the settings proposed for
    it, or, where none are, with those that the watch has. `gain` is over the watch as it is; None where there are too
    few labels to say."""

    question: str
    tuning: Tuning
    expected: ExpectedFigures
    gain: Gain | None

    @property
    def settings(self) -> dict[str, Json]:
        """The settings that suit it, where they are others than the watch has."""
        return self.tuning.proposed.changes(self.tuning.now) if self.tuning.proposed else {}

    def as_json(self) -> dict[str, Json]:
        """For programs."""
        proposed = self.tuning.proposed
        return {
            "question": self.question,
            "settings": (proposed or self.tuning.now).as_json(),
            "expected": self.expected.as_json(),
            "gain": self.gain.as_json() if self.gain else None,
            "reason": self.tuning.reason,
        }


@dataclass(frozen=True, slots=True)
class WordingsCompared:
    """Wordings of a watch, its own first. `proposed` is None where none is surely better, and `reason` says why."""

    wordings: tuple[ComparedWording, ...]
    proposed: ComparedWording | None
    reason: str

    @property
    def own(self) -> ComparedWording:
        """The watch's own wording."""
        return self.wordings[0]

    @property
    def changes(self) -> dict[str, Json]:
        """The settings that the proposal changes, as a patch of the watch: the wording and what goes with it, or the
        settings alone that are better for its own."""
        if self.proposed:
            return {"question": self.proposed.question, **self.proposed.settings}
        return self.own.settings

    def as_json(self) -> dict[str, Json]:
        """For programs."""
        own = self.own.tuning
        return {
            "now": {"question": self.own.question, **own.now.as_json(), **own.current.as_json()},
            "wordings": [one.as_json() for one in self.wordings],
            "proposed": self.proposed.question if self.proposed else None,
            "changes": self.changes,
            "reason": self.reason,
        }


def wordings_of(question: str, others: Sequence[str]) -> list[str]:
    """The wordings to compare, each once, a watch's own first. Raises ConfigError for one that is no question, and for
    more than MOST_WORDINGS."""
    found = list(dict.fromkeys((question, *map(clean_question, others))))
    if len(found) > MOST_WORDINGS + 1:
        raise ConfigError(f"{len(found) - 1} wordings are to be compared; expected at most {MOST_WORDINGS}")
    return found


def compare_wordings(query: WatchQuery, material: Mapping[str, Sequence[ReviewedSeries]]) -> WordingsCompared:
    """Compare the answers to wordings, that of the watch first, which were given over the same time.

    One is proposed if its F1 is above that of the watch as it is by MARGIN at least, with an interval above 0. Of
    several that are, and of other settings for the watch's own wording, the best is taken; of those within MARGIN of
    the best, that which changes least. The more wordings are compared, the wider the intervals: of so many, one is
    easily better by chance.
    """
    found = {text: find_settings(replace(query, question=text), known) for text, known in material.items()}
    (first, own), *others = found.items()
    level = 1 - 0.05 / max(1, len(others))

    def compared(text: str, one: SettingsFound, level: float) -> ComparedWording:
        gain = None if own.crossed is None else Gain.of(one.expected, own.current, level)
        return ComparedWording(text, one.tuning, expected(one.expected, draws_of(len(one.expected))), gain)

    mine, *rivals = compared(first, own, 0.95), *(compared(text, one, level) for text, one in others)
    better = [one for one in rivals if not _against(one, level)]
    chosen = _least([mine, *better] if own.tuning.proposed else better, mine)
    return WordingsCompared((mine, *rivals), None if chosen is mine else chosen, _reason(chosen, mine, rivals, level))


def _least(sure: Sequence[ComparedWording], own: ComparedWording) -> ComparedWording | None:
    """The choice that changes least among those about as good as the best."""
    best = max(map(_f1, sure), default=0.0)
    as_good = [one for one in sure if _f1(one) >= best - MARGIN]
    return min(as_good, key=lambda one: (len(one.settings) + (one is not own), -_f1(one)), default=None)


def _reason(
    chosen: ComparedWording | None, own: ComparedWording, rivals: Sequence[ComparedWording], level: float
) -> str:
    """The reason not to propose another wording, empty where one is proposed."""
    if own.gain is None:
        return own.tuning.reason
    if chosen is own:
        return "other settings for the watch's own wording are as good, or better"
    if chosen is not None:
        return ""
    best = max(rivals, key=_rank, default=None)
    return "there is no other wording to compare" if best is None else _against(best, level)


def _f1(one: ComparedWording) -> float:
    return one.expected.f1 or 0.0


def _rank(one: ComparedWording) -> float:
    return one.gain.f1 if one.gain else 0.0


def _against(one: ComparedWording, level: float) -> str:
    """The reason not to propose another wording, empty where there is none."""
    gain = one.gain
    if gain is None:
        return one.tuning.reason
    if gain.f1 < MARGIN:
        return f"the best other wording gains {gain.f1:.3f} of F1; expected at least {MARGIN:g}"
    if gain.interval[0] <= 0:
        low, high = gain.interval
        return (
            f"the best other wording gains {gain.f1:.3f} of F1, with a {100 * level:.4g} % interval of {low:.3f} to"
            f" {high:.3f}; expected one above 0: more labels would tell"
        )
    return ""

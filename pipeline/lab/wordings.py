"""Wordings of a watch compared by people's labels: each with the settings that suit it, on time that these were not
chosen on, against the wording that the watch has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.core.questions import clean_question
from pipeline.errors import ConfigError
from pipeline.lab.tune import MARGIN, ExpectedFigures, Gain, Tuning, draws_of, expected, find_settings
from pipeline.lab.tune_search import ReviewedSeries
from pipeline.types import Json, WatchQuery

MOST_WORDINGS = 8
"""Most wordings beside the one that a watch has."""


@dataclass(frozen=True, slots=True)
class ComparedWording:
    """A wording, the search for its settings, and the figures that are expected of it with the settings proposed for
    it, or, where none are, with those that the watch has. `gain` is over the watch's own wording, which has none."""

    question: str
    tuning: Tuning
    expected: ExpectedFigures
    gain: Gain | None

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
        chosen = self.proposed or self.own
        knobs = chosen.tuning.proposed
        settings = knobs.changes(self.own.tuning.now) if knobs else {}
        return {"question": chosen.question, **settings} if self.proposed else settings

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
    """Compare the answers to wordings, that of the watch first, which were given over the same time. One is proposed if
    its F1 is above that of the watch's own wording with the settings that suit it by MARGIN at least, with an interval
    above 0. The more are compared, the wider the intervals: of so many, one is easily better by chance."""
    found = {text: find_settings(replace(query, question=text), known) for text, known in material.items()}
    (first, own), *others = found.items()
    level = 1 - 0.05 / max(1, len(others))

    def compared(text: str, gain: Gain | None) -> ComparedWording:
        counts = found[text].expected
        return ComparedWording(text, found[text].tuning, expected(counts, draws_of(len(counts))), gain)

    searched = own.crossed is not None
    rivals = [compared(text, Gain.of(one.expected, own.expected, level) if searched else None) for text, one in others]
    best = max(rivals, key=_rank, default=None)
    reason = _against(best, own.tuning, level)
    return WordingsCompared((compared(first, None), *rivals), None if reason else best, reason)


def _rank(one: ComparedWording) -> tuple[bool, float]:
    """The order in which wordings are proposed: those that are surely better first."""
    return (one.gain.interval[0] > 0, one.gain.f1) if one.gain else (False, 0.0)


def _against(best: ComparedWording | None, own: Tuning, level: float) -> str:
    """The reason not to propose the best of the other wordings, empty where there is none."""
    if best is None:
        return "there is no other wording to compare"
    if best.gain is None:
        return own.reason
    if best.gain.f1 < MARGIN:
        return f"the best other wording gains {best.gain.f1:.3f} of F1; expected at least {MARGIN:g}"
    if best.gain.interval[0] <= 0:
        low, high = best.gain.interval
        return (
            f"the best other wording gains {best.gain.f1:.3f} of F1, with a {100 * level:.4g} % interval of {low:.3f}"
            f" to {high:.3f}; expected one above 0: more labels would tell"
        )
    return ""

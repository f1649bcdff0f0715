"""The yard as the Allocator's training sees it: episodes with standing queries, and questions about them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from allocator_engine.train.reward import Form
from allocator_engine.train.rollout import ClipHop, Episode, GradedQuestion, moments
from allocator_engine.train.transitions import transitions
from samples.yard.episodes.cells import cells
from samples.yard.episodes.evidence import of_past
from samples.yard.questions.grammar import CARD_FAMILY, KINDS, Question, ask, holds, watches_for
from samples.yard.questions.watches import YardWatch
from samples.yard.questions.wordings import IS, clauses
from samples.yard.shape import TRAINING_SEEDS
from samples.yard.world.codec import surveillance
from samples.yard.world.facts import FrameFacts
from samples.yard.world.picture import RenderedPicture
from samples.yard.world.scene import Scene
from samples.yard.world.segments import sampled_times_s, told

SECONDS, SAMPLE_FPS, HOP_S = 32.0, 2.0, 1.0

_SEED = 5
_FILMS = 16  # scenes kept in memory, 22 MB each
_QUIET_FILMS = 2  # ... and what was before them, 0.7 MB a second
_MOST_WATCHES = 8  # that stand
_KNOWN_WATCHES = 64  # more than make sense in any scene
_MOMENTS = 8  # per watch at which it is asked
_FORMS: dict[str, Form] = {"yes": "yes_no", "no": "yes_no"}
_PAST = tuple(kind for kind in KINDS if kind not in CARD_FAMILY and not kind.endswith("_now") and kind != "unknown")
_PRESENT = tuple(kind for kind in CARD_FAMILY if kind in KINDS)


@dataclass(frozen=True, slots=True)
class Film:
    """A scene as its camera gives it, hop by hop: the facts of each hop's frames, and what their cells show."""

    hops: tuple[ClipHop, ...]
    facts: tuple[tuple[FrameFacts, ...], ...]
    cells: tuple[NDArray[np.int8], ...] = field(repr=False, compare=False)

    def until(self, hop: int) -> list[FrameFacts]:
        """The facts of all frames up to the end of a hop, as a context that shows them in pairs tells them."""
        return told(self.facts[: hop + 1], self.hops[0].pts_s[0])


@lru_cache(maxsize=_FILMS)
def film(seed: int, seconds: float = SECONDS) -> Film:
    """Render the scene of a seed at the sampled rate, and pass it through the camera's codec."""
    return _filmed(Scene(seed, seconds), seconds, 0.0)


@lru_cache(maxsize=_QUIET_FILMS)
def quiet_film(seed: int, quiet_s: float, seconds: float = SECONDS) -> Film:
    """The `quiet_s` seconds before the scene of a seed, in which nothing happens, as a film of its own from 0 s on."""
    return _filmed(Scene(seed, seconds, quiet_s=quiet_s), quiet_s, -quiet_s)


def behind(quiet: Film, shown: Film) -> Film:
    """A film that follows another, in the time of that one."""
    later_s = quiet.hops[-1].end_s
    hops = [
        replace(
            hop, start_s=hop.start_s + later_s, end_s=hop.end_s + later_s, pts_s=tuple(t + later_s for t in hop.pts_s)
        )
        for hop in shown.hops
    ]
    facts = [tuple(replace(one, time_s=one.time_s + later_s) for one in frames) for frames in shown.facts]
    return Film((*quiet.hops, *hops), (*quiet.facts, *facts), (*quiet.cells, *shown.cells))


def _filmed(scene: Scene, seconds: float, from_s: float) -> Film:
    """`seconds` of a scene from a time of it on, which is 0 s of the film."""
    looked = [scene.look(from_s + time_s) for time_s in sampled_times_s(seconds, SAMPLE_FPS)]
    coded = surveillance([one.pixels for one in looked], SAMPLE_FPS, seed=scene.seed)
    pictures = [RenderedPicture(pixels) for pixels in coded]
    facts = [replace(one.facts, time_s=one.facts.time_s - from_s) if from_s else one.facts for one in looked]
    shown = cells(scene, looked)
    hops, each, parts = [], [], []
    for start_s in np.arange(0.0, seconds, HOP_S).tolist():
        chosen = [i for i, frame in enumerate(facts) if start_s <= frame.time_s < start_s + HOP_S]
        pts_s = tuple(facts[i].time_s for i in chosen)
        hops.append(ClipHop(start_s, start_s + HOP_S, pts_s, tuple(pictures[i] for i in chosen)))
        each.append(tuple(facts[i] for i in chosen))
        parts.append(shown[chosen])
    return Film(tuple(hops), tuple(each), tuple(parts))


@dataclass(frozen=True, slots=True)
class YardClips:
    """Episodes of training seeds: a part of a scene, `hops` long at the least, up to all of it. A scene serves `reuse`
    steps, with another part and other queries each time.

    `past` of the episodes ask about all that was shown; the others have watches, asked at moments when they hold and
    when they do not, and questions about the newest second. What is not asked is known beside, the other watches that
    make sense in the scene and questions about the past: a picture costs more than what is known of it.
    """

    hops: int = 12
    reuse: int = 4
    past: float = 0.3

    def episode(self, step: int, index: int) -> Episode:
        """See Clips."""
        seed = int(np.random.default_rng((_SEED, step // self.reuse, index)).integers(TRAINING_SEEDS))
        rng = np.random.default_rng((_SEED, 1, step, index))
        shown = _cut(film(seed), self.hops, rng)
        watching = _watch_rows(shown, rng)
        past = _past_rows(shown, rng)
        count = round(float(np.exp(rng.uniform(0, np.log(_MOST_WATCHES + 0.5)))))
        hop = int(rng.integers(2, len(shown.hops)))
        present = _question_rows(shown, hop, hop, rng, _PRESENT, int(rng.integers(0, 3)))
        if past and rng.random() < self.past:
            rows, beside = past, watching
        else:
            rows, beside = [*watching[:count], *present], [*watching[count:], *past]
        by_text = {row.text: row for row in (*beside, *rows)}
        texts = tuple(dict.fromkeys(row.text for row in rows))
        others = tuple(text for text in by_text if text not in texts)
        known = [by_text[text] for text in (*texts, *others)]
        return Episode(
            name=f"yard-{seed}",
            hops=shown.hops,
            standing=texts,
            probes=tuple(probe for row in rows for probe in row.probes),
            holds=np.stack([row.holds for row in known]),
            beside=others,
            cells=np.concatenate(shown.cells),
            decided=np.stack([row.decided for row in known]),
        )


def _cut(whole: Film, least: int, rng: np.random.Generator) -> Film:
    """A run of at least `least` hops."""
    length = int(rng.integers(least, len(whole.hops) + 1))
    first = int(rng.integers(0, len(whole.hops) - length + 1))
    part = slice(first, first + length)
    return Film(whole.hops[part], whole.facts[part], whole.cells[part])


@dataclass(frozen=True, slots=True)
class _QueryRow:
    """A query, what is known of it as each hop ends, the hops that decide it, and the times it is asked."""

    text: str
    holds: NDArray[np.int8]
    decided: NDArray[np.int8]
    probes: list[GradedQuestion]


def _watch_rows(shown: Film, rng: np.random.Generator) -> list[_QueryRow]:
    told_by_hop = [shown.until(hop) for hop in range(len(shown.hops))]
    drawn = watches_for(told_by_hop[-1], rng, _KNOWN_WATCHES)
    order = [*rng.permutation(min(_MOST_WATCHES, len(drawn))), *range(_MOST_WATCHES, len(drawn))]
    return [_watch_row(told_by_hop, drawn[i], rng) for i in order]


def _watch_row(told_by_hop: Sequence[Sequence[FrameFacts]], watch: YardWatch, rng: np.random.Generator) -> _QueryRow:
    truths = [holds(watch, frames) for frames in told_by_hop]
    known = np.array([-1 if truth is None else int(truth) for truth in truths], np.int8)
    text = watch.text if rng.random() < 0.5 else _reworded(watch, rng)
    hops = moments(known, _MOMENTS, rng)
    probes = [GradedQuestion(text, "yes" if known[hop] else "no", "yes_no", hop, hop) for hop in hops]
    return _QueryRow(text, known, transitions(known[None])[0], probes)


def _reworded(watch: YardWatch, rng: np.random.Generator) -> str:
    said = clauses(watch.condition)
    text = IS[0][rng.integers(len(IS[0]))].format(**said[rng.integers(len(said))])
    return text[:1].upper() + text[1:] if rng.random() < 0.3 else text


def _past_rows(shown: Film, rng: np.random.Generator) -> list[_QueryRow]:
    last = len(shown.hops) - 1
    return _question_rows(shown, last, 0, rng, _PAST, int(rng.integers(1, _MOST_WATCHES + 1)))


def _question_rows(
    shown: Film, hop: int, since: int, rng: np.random.Generator, kinds: Sequence[str], count: int
) -> list[_QueryRow]:
    if not count:
        return []
    return [_question_row(shown, one, hop, since) for one in ask(shown.until(hop), rng, kinds=kinds, count=count)]


def _question_row(shown: Film, question: Question, hop: int, since: int) -> _QueryRow:
    """The row of a question about the past; the hops that decide it show what it asks about."""
    known = np.full(len(shown.hops), -1, np.int8)
    form = "interval" if question.family == "grounding" else _FORMS.get(question.answer, "word")
    probes = [GradedQuestion(question.text, question.answer, form, hop, since)]
    if since < hop:
        deciding = [one.hop for one in of_past(question, shown.facts)]
        known[deciding] = 1
        return _QueryRow(question.text, known, (known == 1).astype(np.int8), probes)
    if question.answer in ("yes", "no"):
        known[hop] = question.answer == "yes"
    return _QueryRow(question.text, known, np.full_like(known, -1), probes)

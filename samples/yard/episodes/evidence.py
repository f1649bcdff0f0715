"""The evidence that decides a watch or a question: the hops that show it, and the size at which they have to be shown.
For the oracle alone.

Rough on purpose: the oracle is an upper line, and what it is not told of costs it, never the others.
"""

import re
from collections.abc import Iterable, Sequence

from allocator_engine.evaluate.tasks import Evidence, Span
from samples.yard.questions import proposals
from samples.yard.questions.grammar import Question
from samples.yard.questions.truth import (
    BARRIER_UP,
    DOG,
    GATE_OPEN,
    HOP_S,
    PERSON,
    SMOKE,
    TRAITS,
    Condition,
    Seen,
    State,
    Trait,
    runs,
)
from samples.yard.questions.watches import watch_questions
from samples.yard.questions.wordings import EVENTS, clauses
from samples.yard.world.facts import GLYPH_PX, HEAD_PX, VISIBLE_PX, FrameFacts

Hops = Sequence[Sequence[FrameFacts]]
"""The facts of each hop's frames, in stream time."""

_MARGIN = 1.3
"""Evidence is shown so many times larger than the least that can be told."""

_TRAIT_PX: dict[Trait, float] = {"bare": HEAD_PX, "helmet": HEAD_PX, "plate": GLYPH_PX}
_STATE_SCALES = {"gate_open": 0.4, "barrier_up": 0.9, "rain": 0.3}
_GLANCE = 0.5  # where nothing is there, or where it is not known what to look for
_PLAIN_PX = 12.0  # of a thing of unknown kind

_HAPPENINGS: dict[str, Condition] = {
    "gate": GATE_OPEN,
    "barrier": BARRIER_UP,
    "person": PERSON,
    "dog": DOG,
    "smoke": SMOKE,
    **{kind.kinds[0]: kind for kind in proposals.KINDS},
}
_NAMED: tuple[Condition, ...] = (
    *(watch.condition for watch in watch_questions()),
    *proposals.KINDS,
    *proposals.PAINTED,
    *proposals.COLOURED,
)


def needed(condition: Condition, frame: FrameFacts) -> float | None:
    """The least linear scale at which a frame shows that the condition holds; None where it does not."""
    if not condition.truth(frame):
        return None
    if isinstance(condition, State):
        return _STATE_SCALES[condition.of]
    if not isinstance(condition, Seen):
        return _GLANCE
    trait = condition.trait
    height = TRAITS[trait][1] if trait else lambda thing: thing.height_px
    shown = [
        _scale(_TRAIT_PX.get(trait, VISIBLE_PX[thing.kind]) if trait else VISIBLE_PX[thing.kind], height(thing))
        for thing in frame.things
        if condition.of(thing)
    ]
    return min(shown)


def of_watch(spans: Sequence[Span], hops: int) -> tuple[Evidence, ...]:
    """The hops that decide a watch: the hops in which its condition certainly begins and in which it ends, and the next
    ones, in which that is seen whole. Each is worth being shown as large as can be."""
    turns = {_hop(s) for span in spans if span.certain_s is not None for s in (span.certain_s, span.until_s)}
    return tuple(Evidence(hop, 1.0) for hop in sorted(turns | {turn + 1 for turn in turns}) if hop < hops)


def of_present(question: Question, hop: int) -> Evidence:
    """A question about the newest moment is decided by the hop that it is asked behind."""
    if not question.pixels:
        return Evidence(hop, _GLANCE)
    kind = question.kind
    least = GLYPH_PX if "plate" in kind else HEAD_PX if "bare" in kind or "helmet" in kind else _PLAIN_PX
    return Evidence(hop, _scale(least, question.pixels))


def of_past(question: Question, hops: Hops) -> tuple[Evidence, ...]:
    """The hops that decide a question about all frames: a moment, the clearest sight, beginnings or both ends."""
    kind, text = question.kind, question.text.casefold()
    if kind in ("before", "first") or kind.startswith("times_"):
        return _all(found for condition in _happening(text) for found in _beginnings(condition, hops))
    if kind in ("never", "nobody"):
        asked = [PERSON] if kind == "nobody" else _happening(text)
        return _all(_best(condition, hops, range(len(hops))) for condition in asked)
    condition = _named(text)
    if condition is None:
        return ()
    if kind.startswith("at_") and (time := re.search(r"\d+\.\d", text)):
        hop = min(_hop(float(time[0])), len(hops) - 1)
        return (_best(condition, hops, range(hop, hop + 1)) or Evidence(hop, _GLANCE),)
    if kind == "interval":
        return _all(_ends(condition, hops))
    return _all([_best(condition, hops, range(len(hops)))])


def _scale(least_px: float, height_px: float) -> float:
    return float(min(1.0, _MARGIN * least_px / max(height_px, 1.0)))


def _hop(time_s: float) -> int:
    return int(time_s / HOP_S + 1e-6)


def _all(found: Iterable[Evidence | None]) -> tuple[Evidence, ...]:
    return tuple(one for one in found if one is not None)


def _best(condition: Condition, hops: Hops, among: range) -> Evidence | None:
    """The hop in which the condition is told most easily, the first of equals."""
    shown = [
        (scale, hop)
        for hop in among
        if hop < len(hops)
        for frame in hops[hop]
        if (scale := needed(condition, frame)) is not None
    ]
    return Evidence(min(shown)[1], min(shown)[0]) if shown else None


def _spells(condition: Condition, hops: Hops) -> list[tuple[int, int]]:
    """First and last hop of each time in which the condition holds."""
    frames = [(hop, frame) for hop, shown in enumerate(hops) for frame in shown]
    times_s = [frame.time_s for _, frame in frames]
    return [
        (frames[run.first][0], frames[run.last][0])
        for run in runs(times_s, [bool(condition.truth(frame)) for _, frame in frames])
    ]


def _beginnings(condition: Condition, hops: Hops) -> list[Evidence | None]:
    return [_best(condition, hops, range(first, first + 2)) for first, _ in _spells(condition, hops)]


def _ends(condition: Condition, hops: Hops) -> list[Evidence | None]:
    return [
        _best(condition, hops, range(hop, hop + 1))
        for spell in _spells(condition, hops)
        for hop in dict.fromkeys(spell)
    ]


def _happening(text: str) -> list[Condition]:
    """The happenings that a question names."""
    return [
        condition
        for name, condition in _HAPPENINGS.items()
        if any(said in text for said in (*EVENTS[name], f"the {name}", f"no {name}", f"a {name}"))
    ]


def _named(text: str) -> Condition | None:
    """The condition that is named at greatest length."""
    said = [
        (len(clause["s"]), condition)
        for condition in _NAMED
        for clause in clauses(condition)
        if clause["s"] in text and (isinstance(condition, Seen) or re.search(rf"\b{clause['v']}\b", text))
    ]
    return max(said, key=lambda one: one[0])[1] if said else None

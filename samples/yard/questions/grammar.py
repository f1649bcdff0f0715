"""The grammar of questions about the yard: what is asked, what is true, and how an answer is graded.

Everything is a pure function of the facts of frames, in time order, with times in seconds as the context shows them.
A question is asked only where its truth is certain.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from samples.yard.questions.now import NOW
from samples.yard.questions.over_time import OVER_TIME
from samples.yard.questions.shares import SHARES
from samples.yard.questions.templates import Draft, Family, Template, word
from samples.yard.questions.truth import Condition, Seen, height, newest, now
from samples.yard.questions.unknown import unanswerable, unanswerable_words
from samples.yard.questions.watches import (
    Interval,
    YardWatch,
    holds,
    plate_watch,
    watch_intervals,
    watch_questions,
    watches_for,
)
from samples.yard.questions.wordings import EVENTS, IS, SEE, clauses
from samples.yard.world.facts import COLOURS, VEHICLES, FrameFacts

__all__ = [
    "CARD_FAMILY",
    "KINDS",
    "Family",
    "Interval",
    "Question",
    "YardWatch",
    "answers",
    "ask",
    "ask_if",
    "grade",
    "holds",
    "majority",
    "only_answer",
    "plate_watch",
    "sayings",
    "vocabulary",
    "watch_intervals",
    "watch_questions",
    "watches_for",
    "wordings",
]


@dataclass(frozen=True, slots=True)
class Question:
    """A question on frames and its true answer: yes, no, unknown, a word, a number, a plate or "2.0 to 5.5" (seconds).

    `kind` names the template. `family` is "image" where a fine kind is asked of a single frame. `pixels` is the height
    in native px of the decisive evidence, 0 if there is none.
    """

    kind: str
    family: Family
    text: str
    answer: str
    pixels: float = 0.0


_TEMPLATES: dict[str, Template] = {template.kind: template for template in (*NOW, *OVER_TIME)}

_UNKNOWN = "unknown"

KINDS: tuple[str, ...] = (*_TEMPLATES, _UNKNOWN)
"""Every kind of question."""

CARD_FAMILY: dict[str, Family] = {
    kind: template.family for kind, template in _TEMPLATES.items() if template.family in ("coarse", "fine")
}
"""The family in which the model card counts a kind."""


def ask(
    frames: Sequence[FrameFacts],
    rng: np.random.Generator,
    *,
    held_out: bool = False,
    kinds: Collection[str] | None = None,
    count: int = 1,
    tally: Counter[tuple[str, str]] | None = None,
) -> list[Question]:
    """Up to `count` different questions whose truth is certain on these frames; fewer where they allow no more.

    A kind is drawn, then an answer among those that it can have here, then what to ask and the wording: one of
    training, or one `held_out` of it. Kinds whose answer is here the usual one are asked last. `tally` counts what was
    asked so far, by kind and answer: with it, answers that are ahead of the others of their kind give way, which
    balances them over many calls; what is asked is added to it. Raises ValueError for an unknown kind.
    """
    wanted = KINDS if kinds is None else tuple(kinds)
    if strange := [kind for kind in wanted if kind not in KINDS]:
        raise ValueError(f"there is no kind of question {strange[0]!r}; expected some of {', '.join(KINDS)}")
    if not frames:
        raise ValueError("there are no frames to ask about; expected at least one")
    questions: dict[str, Question] = {}
    for question in _stream(frames, rng, wanted, held_out, tally, tries=4 * count + len(wanted)):
        if question.text in questions:
            continue
        questions[question.text] = question
        if tally is not None:
            tally[question.kind, question.answer] += 1
        if len(questions) == count:
            break
    return list(questions.values())


def _stream(
    frames: Sequence[FrameFacts],
    rng: np.random.Generator,
    kinds: Sequence[str],
    held_out: bool,
    tally: Counter[tuple[str, str]] | None,
    tries: int,
) -> Iterator[Question]:
    """Questions of drawn kinds; at the end those that were put back for having the usual answer."""
    drafts: dict[str, list[Draft]] = {}
    kept: dict[str, bool] = {}
    put_back: list[Question] = []
    weights = np.array([SHARES[kind].weight for kind in kinds])
    for index in rng.choice(len(kinds), size=tries, p=weights / weights.sum()):
        kind = kinds[index]
        if kind == _UNKNOWN:
            yield Question(kind, "unknown", _vary(unanswerable(rng), rng), "unknown")
            continue
        template, share = _TEMPLATES[kind], SHARES[kind]
        if kind not in drafts:
            drafts[kind] = list(template.drafts(frames, rng))
            kept[kind] = {draft.answer for draft in drafts[kind]} != {share.common} or rng.random() < share.kept
        if not drafts[kind]:
            continue
        question = _question(template, drafts[kind], len(frames), rng, held_out)
        if rng.random() < _welcome(question, tally) if tally is not None else kept[kind]:
            yield question
        else:
            put_back.append(question)
    yield from put_back


def _welcome(question: Question, tally: Counter[tuple[str, str]]) -> float:
    """The probability to ask a question at once: how far its answer is behind the others of its kind."""
    if question.family == "grounding":
        return 1.0
    if question.answer in ("yes", "no"):
        others = float(tally[question.kind, "no" if question.answer == "yes" else "yes"])
    else:
        counts = [count for (kind, _), count in tally.items() if kind == question.kind]
        others = sum(counts) / len(counts) if counts else 0.0
    return float(min(1.0, ((others + 2) / (tally[question.kind, question.answer] + 2)) ** 3))


def _question(
    template: Template, drafts: Sequence[Draft], frames: int, rng: np.random.Generator, held_out: bool
) -> Question:
    answers = sorted({draft.answer for draft in drafts})
    answer = answers[rng.integers(len(answers))]
    fitting = [draft for draft in drafts if draft.answer == answer]
    draft = fitting[rng.integers(len(fitting))]
    sayings = template.wordings[held_out]
    saying = sayings[rng.integers(len(sayings))]
    text = _vary(saying.format(**draft.slots[rng.integers(len(draft.slots))]), rng)
    family: Family = "image" if frames == 1 and template.family == "fine" else template.family
    return Question(template.kind, family, text, answer, draft.pixels)


def _vary(text: str, rng: np.random.Generator) -> str:
    """The text as people type it: with a capital or without, sometimes without its question mark."""
    draw = rng.random(2)
    text = text[:1].upper() + text[1:] if draw[0] < 0.3 else text
    return text.removesuffix("?") if draw[1] < 0.1 and len(text) > 1 else text


def ask_if(condition: Condition, frames: Sequence[FrameFacts], rng: np.random.Generator) -> Question | None:
    """True if a condition holds in the newest second, in one of the wordings of training; None where it is undecided.

    Never in the words in which watches stand: what those may expect is another matter (see `Watch.text`).
    """
    if (value := now(condition, frames)) is None:
        return None
    sayings = (SEE if isinstance(condition, Seen) else IS)[0][1:]
    slots = clauses(condition)
    text = _vary(sayings[rng.integers(len(sayings))].format(**slots[rng.integers(len(slots))]), rng)
    return Question("condition", "watch", text, word(value), height(condition, newest(frames)))


def only_answer(kind: str, frames: Sequence[FrameFacts]) -> str | None:
    """The one answer of a kind of question on these frames; None if it cannot be asked, or has several answers.

    Raises KeyError for an unknown kind and for "unknown".
    """
    answers = {draft.answer for draft in _TEMPLATES[kind].drafts(frames, np.random.default_rng(0))}
    return answers.pop() if len(answers) == 1 else None


def wordings(kind: str, *, held_out: bool = False) -> tuple[str, ...]:
    """The wordings of a kind, with their slots in braces. Raises KeyError for an unknown kind and for "unknown"."""
    return _TEMPLATES[kind].wordings[held_out]


def sayings() -> list[str]:
    """Every wording with every filling (of plates and times, examples), with a small and with a capital letter."""
    texts = [
        saying.format(**slots)
        for template in _TEMPLATES.values()
        for wordings in template.wordings
        for saying in wordings
        for slots in template.slots
    ]
    texts += [watch.text for watch in watch_questions()]
    return list(dict.fromkeys([*texts, *(text[:1].upper() + text[1:] for text in texts)]))


def answers() -> list[str]:
    """Every word that answers a question, and an example of an interval."""
    return ["yes", "no", _UNKNOWN, *COLOURS, *VEHICLES, *EVENTS, *"01234", "2.0 to 5.5"]


def vocabulary() -> list[str]:
    """Every text the grammar can write: `sayings`, `answers`, and the words of unanswerable questions one by one."""
    return list(dict.fromkeys([*sayings(), *unanswerable_words(), *answers()]))


_INTERVAL = re.compile(r"(\d+(?:\.\d+)?) to (\d+(?:\.\d+)?)")


def grade(question: Question, said: str) -> float:
    """The grade of `said`, 0 to 1: for grounding the overlap of the intervals over their union, else 1 if it is the
    answer, but for case, outer spaces and a final stop."""
    plain = " ".join(said.casefold().split()).removesuffix(".")
    if question.family != "grounding":
        return float(plain == question.answer.casefold())
    true, found = _INTERVAL.fullmatch(question.answer), _INTERVAL.fullmatch(plain)
    assert true is not None, question.answer
    if found is None:
        return 0.0
    (a, b), (c, d) = ((float(match[1]), float(match[2])) for match in (true, found))
    union = max(b, d) - min(a, c)
    return max(0.0, min(b, d) - max(a, c)) / union if c <= d and union > 0 else 0.0


def majority(questions: Sequence[Question]) -> float:
    """The accuracy of always saying the most frequent answer of each kind; of grounding, whole intervals count."""
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        answers[question.kind][question.answer] += 1
    return sum(max(counts.values()) for counts in answers.values()) / len(questions) if questions else 0.0

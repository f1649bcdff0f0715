"""The frozen MLLM is asked about the snapshots of events: which show what somebody searches for."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from allocator_engine.fit import FitRules, fit
from allocator_engine.resize import resize
from pipeline.clock import Clock
from pipeline.core.budget import Ledger
from pipeline.core.context import Context, ContextRules
from pipeline.core.questions import clean_question
from pipeline.delivery.history import StoredEvent
from pipeline.errors import ConfigError, MLLMUnavailable
from pipeline.evidence.bundle import EvidenceDamaged, EvidenceMissing
from pipeline.evidence.pictures import picture_of
from pipeline.evidence.replay import paid
from pipeline.evidence.search import EventSearch, RankedEvent, SearchTerms, TextFound
from pipeline.evidence.shelf import Shelf
from pipeline.mllm.base import MLLM
from pipeline.types import Answer, Segment, WatchQuery, segment_of

AT_MOST, MOST_LOOKS = 50, 500
"""Snapshots that the MLLM is asked about, by default and at most."""
LOOK_TOKENS, LEAST_LOOK_TOKENS, MOST_LOOK_TOKENS = 256, 16, 4096
"""Vision tokens of one snapshot at most: by default, and the bounds of that."""
LOOKING_S = 120.0
"""How long a search asks; snapshots that are left then are left out."""


@dataclass(frozen=True, slots=True)
class LookRules:
    """The bounds of asking: snapshots, and vision tokens of each."""

    at_most: int = AT_MOST
    tokens: int = LOOK_TOKENS

    def __post_init__(self) -> None:
        """Raises ConfigError for numbers out of bounds."""
        if not 1 <= self.at_most <= MOST_LOOKS:
            raise ConfigError(f"at_most: is {self.at_most}; expected 1 to {MOST_LOOKS} snapshots")
        if not LEAST_LOOK_TOKENS <= self.tokens <= MOST_LOOK_TOKENS:
            raise ConfigError(
                f"tokens: is {self.tokens}; expected {LEAST_LOOK_TOKENS} to {MOST_LOOK_TOKENS} vision tokens a snapshot"
            )


@dataclass(frozen=True, slots=True)
class SearchCost:
    """Snapshots that were asked about, what was answered, what it cost: vision tokens sent, prompt tokens prefilled in
    all (as far as the MLLM counts them), and seconds."""

    asked: int = 0
    yes: int = 0
    no: int = 0
    unknown: int = 0
    vision_tokens: int = 0
    prompt_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class EventFound:
    """An event that was found, and the answer about its snapshot, if the MLLM was asked."""

    stored: StoredEvent
    ranked: RankedEvent
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of a search: what was looked through, the events that were found, best first, what was asked of the
    MLLM (empty: nothing was), at what cost, and what was left out."""

    terms: SearchTerms
    among: TextFound
    events: tuple[EventFound, ...]
    question: str = ""
    cost: SearchCost = SearchCost()
    left_out: tuple[str, ...] = ()


@dataclass(slots=True)
class _LookAnswers:
    """The answers so far, by the path of the snapshot, and what they cost."""

    answers: dict[str, Answer] = field(default_factory=dict)
    vision_tokens: int = 0
    prompt_tokens: int = 0
    unreadable: list[str] = field(default_factory=list)
    too_thin: int = 0
    stopped: str = ""


def by_words(search: EventSearch, terms: SearchTerms) -> SearchResult:
    """The events that have words of the text, best rank first."""
    among = search.find(terms)
    matched = among.matched
    left_out = [*among.left_out]
    if len(matched) > terms.limit:
        left_out.append(f"{len(matched) - terms.limit} more events that have words of it (limit {terms.limit})")
    return SearchResult(terms, among, _with_events(search, matched[: terms.limit], {}), left_out=tuple(left_out))


def require_sight(mllm: MLLM) -> None:
    """Raise ConfigError for an MLLM whose answers do not come of looking."""
    if not mllm.info.meaningful:
        raise ConfigError(
            f"ask: {mllm.info.name} answers without looking at pictures; expected an MLLM that sees them"
            " (mllm.use in the site file, or --mllm)"
        )


def question_for(text: str) -> str:
    """The question about a snapshot: the text itself where it is one."""
    plain = clean_question(text)
    return plain if plain.endswith(("?", "\uff1f")) else f"Is this to be seen in the picture: {plain}?"


async def by_looking(
    search: EventSearch, shelf: Shelf, terms: SearchTerms, rules: LookRules, mllm: MLLM, clock: Clock,
    budget: Ledger | None = None,
) -> SearchResult:  # fmt: skip
    """The events whose snapshots show it, by the probability of yes; behind them those that were not asked about.

    Snapshots are asked about in the order of the events' ranks, each once however many events it is of. Raises
    ConfigError for an MLLM that does not look, and MLLMUnavailable where it answers nothing at all.
    """
    require_sight(mllm)
    question = question_for(terms.text)
    began_s = clock.monotonic_s()
    among = await asyncio.to_thread(search.find, terms)
    first_of: dict[str, RankedEvent] = {}
    for one in among.events:
        if one.snapshot is not None:
            first_of.setdefault(one.snapshot, one)
    wanted = list(first_of.values())[: rules.at_most]
    asked = await _ask_all(shelf, wanted, question, rules, mllm, clock, budget)
    events = _by_answer(among.events, asked.answers)
    found = await asyncio.to_thread(_with_events, search, events[: terms.limit], asked.answers)
    left_out = _left_out(among, asked, len(first_of), len(wanted), len(events) - terms.limit)
    cost = _cost(asked, clock.monotonic_s() - began_s)
    return SearchResult(terms, among, found, question, cost, left_out)


async def _ask_all(
    shelf: Shelf, wanted: Sequence[RankedEvent], question: str, rules: LookRules, mllm: MLLM, clock: Clock,
    budget: Ledger | None,
) -> _LookAnswers:  # fmt: skip
    asked, until_s = _LookAnswers(), clock.monotonic_s() + LOOKING_S
    for one in wanted:
        if clock.monotonic_s() >= until_s:
            asked.stopped = f"{LOOKING_S:g} s are over"
            break
        try:
            segment = await asyncio.to_thread(_segment_of, shelf, one, rules, mllm)
            if segment is None:
                asked.too_thin += 1
                continue
            await _ask_one(asked, one, segment, question, mllm, budget)
        except (EvidenceDamaged, EvidenceMissing) as error:
            asked.unreadable.append(str(error))
        except MLLMUnavailable as error:
            if not asked.answers:
                raise
            asked.stopped = str(error)
            break
    return asked


async def _ask_one(
    asked: _LookAnswers, one: RankedEvent, segment: Segment, question: str, mllm: MLLM, budget: Ledger | None
) -> None:
    rules = ContextRules(max_tokens=segment.tokens)
    context = Context(f"search at {one.id}", rules, (segment,), 0, segment.pts_s[0])
    with paid(budget, context.stream_id, segment.tokens):
        try:
            said = await mllm.ask(context, (WatchQuery("search", question),))
        finally:
            mllm.forget(context.stream_id)
    assert one.snapshot is not None
    asked.answers[one.snapshot] = said.answers[0]
    asked.vision_tokens += segment.tokens
    asked.prompt_tokens += said.usage.prefilled_tokens


def _segment_of(shelf: Shelf, one: RankedEvent, rules: LookRules, mllm: MLLM) -> Segment | None:
    """The snapshot as one segment within its tokens; None for one too long and thin for the model."""
    kept = shelf.of(one.id)
    picture, grid = picture_of(shelf.snapshot(kept)), mllm.info.grid
    fitting = FitRules(grid, max_tokens_per_segment=rules.tokens)
    allocation = fit([(picture.height, picture.width)], [1.0], rules.tokens, fitting)
    pts_s = kept.bundle.snapshot.pts_s if kept.bundle.snapshot else kept.bundle.anchor_s
    pixels = resize([picture], allocation)
    if not pixels:
        return None
    return segment_of(kept.bundle.stream, (pts_s,), pixels[0], allocation.tokens)


def _by_answer(events: Sequence[RankedEvent], answers: Mapping[str, Answer]) -> list[RankedEvent]:
    """Those that were asked about by the probability of yes, the unknown last of them; then those that have a word of
    the text, in their order."""

    def place(one: RankedEvent) -> tuple[bool, float]:
        answer = answers[one.snapshot or ""]
        return answer.verdict == "unknown", -answer.score

    asked = sorted((one for one in events if one.snapshot in answers), key=place)
    return asked + [one for one in events if one.rank and one.snapshot not in answers]


def _with_events(
    search: EventSearch, ranked: Sequence[RankedEvent], answers: Mapping[str, Answer]
) -> tuple[EventFound, ...]:
    pairs = ((one, search.event(one)) for one in ranked)
    return tuple(EventFound(stored, one, answers.get(one.snapshot or "")) for one, stored in pairs if stored)


def _cost(asked: _LookAnswers, seconds: float) -> SearchCost:
    verdicts = [answer.verdict for answer in asked.answers.values()]
    yes, no, unknown = (verdicts.count(one) for one in ("yes", "no", "unknown"))
    return SearchCost(len(verdicts), yes, no, unknown, asked.vision_tokens, asked.prompt_tokens, round(seconds, 3))


def _left_out(among: TextFound, asked: _LookAnswers, snapshots: int, wanted: int, beyond: int) -> tuple[str, ...]:
    """The parts that a search by looking left out, in words."""
    bare = sum(one.snapshot is None for one in among.events)
    done = len(asked.answers) + len(asked.unreadable) + asked.too_thin
    return (
        *among.left_out,
        *([f"{bare} events of which no snapshot is kept"] if bare else []),
        *([f"{snapshots - wanted} more snapshots (at most {wanted} are asked about)"] if snapshots > wanted else []),
        *([f"{wanted - done} snapshots that were not asked about: {asked.stopped}"] if asked.stopped else []),
        *([f"{len(asked.unreadable)} snapshots: {asked.unreadable[0]}"] if asked.unreadable else []),
        *([f"{asked.too_thin} snapshots that are too long and thin for the model"] if asked.too_thin else []),
        *([f"{beyond} events behind these"] if beyond > 0 else []),
    )

"""The frozen MLLM is asked again from the evidence, and its answer is compared with what it said then."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.core.budget import Ledger, Rate
from pipeline.core.context import Context, ContextRules
from pipeline.errors import MLLMOverloaded
from pipeline.evidence.bundle import Bundle, EvidenceDamaged, EvidenceMissing, ModelNote, SegmentNote
from pipeline.evidence.pictures import frames_of
from pipeline.evidence.shelf import KeptEvidence, Shelf
from pipeline.mllm.base import MLLM
from pipeline.rules import Rules
from pipeline.types import Answer, Segment, Usage, Verdict, WatchQuery, segment_of

SAME_WITHIN = 0.02
"""Scores closer than this are the same: a prefix that was read in parts and one read at once differ by rounding."""


@dataclass(frozen=True, slots=True)
class Said:
    """An answer and who gave it."""

    score: float
    mass: float
    verdict: Verdict
    model: ModelNote
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """The answers then and now. `same`: the verdict is equal, and the score but for SAME_WITHIN; `identical`: the score
    is equal to the last digit kept; `same_model`: name and hash of the weights are equal. `tokens` are the vision
    tokens it cost."""

    event: str
    question: str
    then: Said
    now: Said
    same: bool
    identical: bool
    same_model: bool
    tokens: int
    notes: tuple[str, ...] = ()


def context_of(shelf: Shelf, kept: KeptEvidence) -> tuple[Context, tuple[Segment, ...], WatchQuery]:
    """The original request: the context, the segments shown beside it, and the question.

    Raises EvidenceMissing where not all that the model saw is kept, and EvidenceDamaged for pixels that are not those
    that it saw.
    """
    bundle = kept.bundle
    if not bundle.whole:
        raise EvidenceMissing(f"of {bundle.type} not all that the model saw is kept; only watch.opened can be replayed")
    segments = tuple(_segment(shelf, kept, note) for note in bundle.segments)
    aside = tuple(_segment(shelf, kept, note) for note in bundle.aside)
    bounds = ContextRules(max_tokens=max(sum(one.tokens for one in segments), 1))
    context = Context(f"replay of {bundle.event_id}", bounds, segments, 0, bundle.anchor_s)
    rules = Rules(count=bundle.count, choice=bundle.choice)
    return context, aside, WatchQuery(bundle.watch, bundle.question, rules=rules, zone=bundle.zone, crop=bundle.crop)


async def replay(
    shelf: Shelf, kept: KeptEvidence, mllm: MLLM, model: Callable[[], ModelNote], budget: Ledger | None = None
) -> Replay:
    """Ask the MLLM again, beside whatever it is doing, for tokens that all streams together have to spare.

    Raises MLLMUnavailable as `ask` does, and where `budget` cannot pay now.
    """
    context, aside, query = await asyncio.to_thread(context_of, shelf, kept)
    with paid(budget, context.stream_id, sum(one.tokens for one in (*context.segments, *aside))):
        try:
            said = await mllm.ask(context, (query,), None, aside)
        finally:
            mllm.forget(context.stream_id)
    return compare(kept.bundle, said.answers[0], said.usage, await asyncio.to_thread(model))


def compare(bundle: Bundle, answer: Answer, usage: Usage, model: ModelNote) -> Replay:
    """Compares the answer then with the answer now."""
    before = Answer(bundle.watch, bundle.score.score, bundle.score.mass)
    then = Said(before.score, before.mass, before.verdict, bundle.model, bundle.value)
    now = Said(round(answer.score, 6), round(answer.mass, 6), answer.verdict, model, answer.value)
    same_model = (model.name, model.sha256) == (bundle.model.name, bundle.model.sha256)
    notes = [] if same_model else [f"another model answers now: {model.name}, and then {bundle.model.name}"]
    if not model.meaningful:
        notes.append(f"{model.name} answers without looking")
    tokens = usage.encoded_tokens or usage.prefilled_tokens
    return Replay(
        bundle.event_id, bundle.question, then, now,
        same=(then.verdict, then.value) == (now.verdict, now.value) and abs(then.score - now.score) <= SAME_WITHIN,
        identical=(then.score, then.mass, then.value) == (now.score, now.mass, now.value),
        same_model=same_model, tokens=tokens, notes=tuple(notes),
    )  # fmt: skip


@contextmanager
def paid(budget: Ledger | None, account: str, tokens: int) -> Iterator[None]:
    """Tokens taken from what all streams share, before they are sent. Raises MLLMOverloaded where there are too few;
    `account` is who spends them."""
    if budget is None or not tokens:
        yield
        return
    budget.open(account, Rate(tokens, tokens), 0.0)
    try:
        taken = budget.take(account, 0.0, tokens)
        if taken < tokens:
            budget.settle(account, 0)
            raise MLLMOverloaded(f"{account}: {tokens} vision tokens; gpu_budget has {taken} to spare now", sent=False)
        yield
        budget.settle(account, tokens)
    finally:
        budget.close(account)


def _segment(shelf: Shelf, kept: KeptEvidence, note: SegmentNote) -> Segment:
    pixels = frames_of(shelf.file(kept, note.file), len(note.pts_s))
    made = segment_of(kept.bundle.stream, note.pts_s, pixels, note.tokens)
    if made.content_id != note.content_id:
        raise EvidenceDamaged(f"the pixels of {note.file} are not those that the model saw")
    return made

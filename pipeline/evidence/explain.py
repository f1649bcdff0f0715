"""Why a watch fired, or did not, in words. Pure functions of what is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pipeline.core.judge import WatchState, judge_answer
from pipeline.delivery.history import StoredAnswers
from pipeline.evidence.bundle import Bundle, Score
from pipeline.types import Answer, Event, Json, WatchQuery


@dataclass(frozen=True, slots=True)
class Explanation:
    """A moment of a watch in words, and the numbers behind them.

    `sentences` read from top to bottom; `scores` are the watch's answers around the moment, seconds of stream; `rule`
    is what decided. `evidence` says whether pictures are kept, of the event `event`.
    """

    title: str
    fired: bool
    stream: str
    watch: str | None
    question: str
    at: str
    sentences: tuple[str, ...]
    rule: Mapping[str, Json]
    scores: tuple[Score, ...] = ()
    event: str | None = None
    type: str | None = None
    evidence: bool = False
    label: str | None = None


def explain_event(event: Event, bundle: Bundle | None, label: str | None = None, missing: str = "") -> Explanation:
    """Why an event was sent. `missing` says why there is no bundle."""
    kind = event.type.rpartition(".")[2]
    at = event.time.isoformat(timespec="seconds")
    question = bundle.question if bundle else str(event.data.get("question", ""))
    if event.watch_id is None:
        reason = event.data.get("reason")
        told = (f"{event.type} says something of the stream itself; no question was asked.",)
        sentences: tuple[str, ...] = (*told, f"Its reason: {reason}.") if reason else told
        title = f"{event.type} on {event.stream_id}"
    else:
        title = f"{event.watch_id} {kind} on {event.stream_id}"
        sentences = _why(event, bundle, missing)
    if label:
        sentences = (*sentences, f"A person has marked this event: {label}.")
    return Explanation(
        title, True, event.stream_id, event.watch_id, question, at, sentences, bundle.rule if bundle else {},
        bundle.scores if bundle else (), event.id, event.type, bundle is not None, label,
    )  # fmt: skip


def _why(event: Event, bundle: Bundle | None, missing: str) -> tuple[str, ...]:
    data = event.data
    if "score" not in data:
        why = data.get("reason", "the watch stands no longer")
        return (f"It was cleared without an answer: {why}.",)
    if bundle is None:
        score, start_s, end_s = data["score"], data.get("hop_start_s"), data.get("hop_end_s")
        return (f"The answer for seconds {start_s} to {end_s} of the stream had a score of {score}.", missing)
    return (*_decided(event.type, bundle), *_saw(bundle), *_marks(data), _who(bundle), *_clip(bundle))


def _decided(kind: str, bundle: Bundle) -> tuple[str, ...]:
    rule, score = bundle.rule, bundle.score
    answer = Answer(bundle.watch, score.score, score.mass)
    first = (
        f"Asked about seconds {score.start_s:g} to {score.end_s:g} of the stream, the model answered {answer.verdict}"
        f"{f', {bundle.value},' if bundle.value else ''} with a score of {score.score:.2f}."
    )
    decided = rule.get("decided")
    if isinstance(decided, Mapping) and decided.get("name") not in (None, "thresholds", "confirm"):
        numbers = ", ".join(f"{name} {value}" for name, value in decided.items() if name != "name")
        return first, f"The rule that decided is {decided['name']}{f' ({numbers})' if numbers else ''}."
    open_at, clear_at, confirm = rule.get("open_at"), rule.get("clear_at"), rule.get("confirm")
    if rule.get("kind") != "yes_no" or not isinstance(confirm, list):
        return first, f"The rule that decided: {', '.join(f'{name} {value}' for name, value in rule.items())}."
    opened = kind != "watch.cleared"
    needed, window = (int(str(one)) for one in confirm)
    known = [one for one in bundle.scores if not one.unknown][-window:]
    agreeing = [one for one in known if (one.score >= float(open_at) if opened else one.score <= float(clear_at))]  # type: ignore[arg-type]
    verb, limit = ("opens", f"{open_at:g} or more") if opened else ("clears", f"{clear_at:g} or less")
    votes = ", ".join(f"{one.score:.2f} at {one.start_s:g} s" for one in agreeing)
    second = f"The watch {verb} when {needed} of its last {window} known answers have a score of {limit}: {votes}."
    since = rule.get("since_s")
    third = f"It {'began' if opened else 'ceased'} to hold at {since:g} s." if isinstance(since, int | float) else ""
    return tuple(filter(None, (first, second, third)))


def _saw(bundle: Bundle) -> tuple[str, ...]:
    notes, tokens = bundle.segments, bundle.tokens
    if not notes:
        return ("The context held no pictures.",)
    frames = sum(len(one.pts_s) for one in notes)
    newest = notes[-1]
    seen = "The model saw" if bundle.whole else "Of what the model saw the newest is kept:"
    first = (
        f"{seen} {_count(frames, 'frame')} in {_count(len(notes), 'segment')}, from {notes[0].pts_s[0]:g} to"
        f" {newest.pts_s[-1]:g} s;"
        f" the newest at {newest.width}x{newest.height} px. In all {tokens.context} vision tokens were in context."
    )
    if bundle.crop is not None:
        crop = bundle.crop
        first += (
            f" Of each picture it was shown the part that the stream's zones lie in, from {crop.left:.0%} to"
            f" {crop.right:.0%} of its width and from {crop.top:.0%} to {crop.bottom:.0%} of its height."
        )
    kept = [f"{pts_s:g} s ({100 * scale:.0f} %)" for pts_s, scale in bundle.frames if scale]
    dropped = sum(not scale for _, scale in bundle.frames)
    sizes = ", ".join(kept) or "none"
    rest = f"; {dropped} not" if dropped else ""
    second = (
        f"Of this hop's frames it was shown {sizes}, in per cent of their native size{rest}."
        f" {tokens.granted} tokens were granted, {tokens.allocated} allocated, {tokens.spent} spent."
    )
    if not bundle.aside:
        return first, second
    aside = sum(one.tokens for one in bundle.aside)
    looked = _count(len(bundle.aside), "segment")
    return first, second, f"It was doubtful at first and got a second look, of {looked}, {aside} tokens."


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _marks(data: Mapping[str, Json]) -> tuple[str, ...]:
    marks = {
        "warming": "Some of what it saw was sized before the watch stood (warming).",
        "allocation_fell_back": "The allocator had failed; the frames had one fixed scale.",
    }
    return tuple(text for name, text in marks.items() if data.get(name))


def _who(bundle: Bundle) -> str:
    model, sizing = bundle.model, bundle.sizing
    weights = f", weights {model.sha256[:12]}" if model.sha256 else ""
    engine = f", engine {sizing.engine_sha256[:12]}" if sizing.engine_sha256 else ""
    empty = "" if model.meaningful else " It answers without looking: its events mean nothing."
    return f"Answered by {model.name} ({model.family}{weights}); frames sized by {sizing.allocator}{engine}.{empty}"


def _clip(bundle: Bundle) -> tuple[str, ...]:
    if bundle.clip:
        more = f" ({bundle.clip.note})" if bundle.clip.note else ""
        return (f"A clip is kept of seconds {bundle.clip.start_s:g} to {bundle.clip.end_s:g}{more}.",)
    return (f"There is no clip: {bundle.clip_note}.",) if bundle.clip_note else ()


@dataclass(frozen=True, slots=True)
class PastMoment:
    """A time that is asked about: UTC of the decision, or stream seconds."""

    at: datetime | None = None
    stream_s: float | None = None

    def text(self) -> str:
        """As people write it."""
        return self.at.isoformat(timespec="seconds") if self.at else f"{self.stream_s:g} s of the stream"


def nearest(records: Sequence[StoredAnswers], moment: PastMoment) -> int | None:
    """The place of the hop that a moment fell into, else of the first behind it; at the end of the last before it."""
    for place, one in enumerate(records):
        end_s = one.record.get("end_s")
        if moment.at is not None and one.time >= moment.at:
            return place
        if moment.stream_s is not None and isinstance(end_s, int | float) and end_s > moment.stream_s:
            return place
    return len(records) - 1 if records else None


def explain_moment(
    query: WatchQuery, stream: str, moment: PastMoment, records: Sequence[StoredAnswers], opened: Event | None = None
) -> Explanation:
    """Why a watch fired or did not at a moment, by the answers kept around it, oldest first; `opened` is its newest
    event before the moment."""
    title = f"{query.id} on {stream} at {moment.text()}"
    rule: dict[str, Json] = {
        "kind": "yes_no", "open_at": query.open_at, "clear_at": query.clear_at, "confirm": list(query.confirm),
        "cooldown_s": query.cooldown_s,
    }  # fmt: skip
    known = Explanation(title, False, stream, query.id, query.question, moment.text(), (), rule)
    place = nearest(records, moment)
    if place is None:
        return replace(known, sentences=("No answers of this stream are kept of that time (keep.answers_days).",))
    scores = [one for record in records if (one := _score_in(record, query.id))]
    known = replace(known, scores=tuple(scores), at=records[place].time.isoformat(timespec="seconds"))
    score, record = _score_in(records[place], query.id), records[place].record
    span = f"seconds {record['start_s']} to {record['end_s']} of the stream"
    if score is None:
        skipped = record.get("skipped")
        step = f" Its load had step {record['step']} of the ladder." if record.get("step") else ""
        why = f"nothing was asked ({skipped})" if skipped else "this watch was not due, or did not stand"
        return replace(known, sentences=(f"At {span} {why}.{step}",))
    return _judged(known, query, span, [one for one in scores if one.start_s <= score.start_s], opened)


def _judged(
    known: Explanation, query: WatchQuery, span: str, scores: Sequence[Score], opened: Event | None
) -> Explanation:
    """The judge's way through the scores up to the moment, from the state that the newest event before says."""
    score, needed, window = scores[-1], *query.confirm
    answer = Answer(query.id, score.score, score.mass)
    first = f"Asked about {span}, the model answered {answer.verdict} with a score of {score.score:.2f}."
    if answer.verdict == "unknown":
        why = (
            f"Yes and no together had a probability of {score.mass:.2f}, less than 0.5: unknown opens and clears"
            " nothing."
        )
        return replace(known, sentences=(first, why))
    was_open, shut_until_s = _stood(query, opened)
    state = WatchState(was_open, shut_until_s=shut_until_s)
    since_s = _second(opened.data.get("hop_start_s")) if opened else None
    transition = None
    for one in scores:
        if since_s is None or one.start_s > since_s:
            state, transition = judge_answer(state, query, Answer(query.id, one.score, one.mass), one.start_s)
    if transition:
        done = "opened" if transition.kind == "watch.opened" else "cleared"
        return replace(known, fired=True, sentences=(first, f"With it the watch {done}; see its event."))
    if state.is_open:
        clearing = sum(vote.clears for vote in state.votes)
        second = (
            f"The watch was open already. It clears when {needed} of its last {window} known answers have a score of"
            f" {query.clear_at:g} or less; {clearing} had."
        )
        return replace(known, sentences=(first, second))
    opening = sum(vote.opens for vote in state.votes)
    if state.shut_until_s is not None and score.start_s < state.shut_until_s:
        second = f"The watch was shut until {state.shut_until_s:g} s by its cooldown of {query.cooldown_s:g} s."
    else:
        second = (
            f"The watch opens when {needed} of its last {window} known answers have a score of {query.open_at:g} or"
            f" more, this one included; {opening} had."
        )
    return replace(known, sentences=(first, second))


def _stood(query: WatchQuery, event: Event | None) -> tuple[bool, float | None]:
    """True if the watch was open after its newest event, and the second at which its cooldown ends, if it has one."""
    if event is None or event.data.get("revision") != query.revision:
        return False, None
    if event.type == "watch.opened":
        return True, None
    start_s = _second(event.data.get("hop_start_s"))
    return False, start_s + query.cooldown_s if query.cooldown_s and start_s is not None else None


def _second(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _score_in(stored: StoredAnswers, watch: str) -> Score | None:
    """A watch's answer in a record of `HopRecord.as_json`."""
    answers, start_s, end_s = (stored.record.get(name) for name in ("answers", "start_s", "end_s"))
    found = answers.get(watch) if isinstance(answers, Mapping) else None
    if not isinstance(found, list) or not isinstance(start_s, int | float) or not isinstance(end_s, int | float):
        return None
    score, mass, marks = found[0], found[1], found[2]
    if not isinstance(score, int | float) or not isinstance(mass, int | float):
        return None
    return Score(float(start_s), float(end_s), float(score), float(mass), bool(int(str(marks)) & 1))

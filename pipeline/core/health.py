"""The health of a stream: alarms that are raised when something is wrong for long, and end when it is right again.

Pure functions of values. An alarm changes only after evidence against its present state has held without a break for
some seconds, of stream time where it is about a stream; what cannot be judged changes nothing. Its state is durable
with the decision that it came from, so that a restart neither repeats an alarm nor forgets one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, get_args

from pipeline.core.looks import Likeness, Masks, PictureLook, compare, recognizable
from pipeline.types import Answer, Json, WatchQuery

What = Literal["frozen", "blind", "moved"]
WHATS: Final[tuple[str, ...]] = get_args(What)

LOOK_S: Final = 2.0
"""A stream that seems to change is looked at once in so many seconds of it, at the end of a hop."""
CALM_S: Final = 4.0
"""And one that is as it was once in so many."""
STEP_S: Final = 10.0
"""Most seconds that one look bears witness to: what was not seen is not known."""
PICTURES: Final = 16
"""Different pictures that are remembered: a stream that shows nothing but these is frozen."""
RENEW_S: Final = 300.0
"""How often the view that a camera has is taken anew, as light and seasons change it."""
LEARN_S: Final = 10.0
"""Seconds that a stream's first view has to last before it is taken for the one that the camera has."""

FLAT: Final = 6.0
"""Standard deviation of luma, of 255, below which a picture shows nothing."""
_DARK, _BRIGHT = 0.98, 0.85
_BLURRED, _SAME_LAYOUT = 0.8, 0.6
_KNOWN, _STRANGE, _STEADY = 0.5, 0.3, 0.5
_FOLLOWED = 0.6


@dataclass(frozen=True, slots=True)
class HealthRules:
    """After how many seconds of evidence an alarm is raised; 0: never. `clear_s` is that of its end, `settle_s` how
    long a camera has to show another view until that is taken for its own."""

    frozen_s: float = 60.0
    blind_s: float = 20.0
    moved_s: float = 60.0
    unknown_s: float = 300.0
    clear_s: float = 10.0
    settle_s: float = 900.0

    @property
    def looks(self) -> bool:
        """True if the rules need pictures to be looked at."""
        return bool(self.frozen_s or self.blind_s or self.moved_s)

    def raise_s(self, what: str) -> float:
        """Seconds of evidence before an alarm about pictures."""
        return {"frozen": self.frozen_s, "blind": self.blind_s, "moved": self.moved_s}[what]


@dataclass(frozen=True, slots=True)
class Checkup:
    """The terms on which a stream's health is judged: the rules, an identity `of` the pictures that are comparable (see
    `judge_health`), and the masks."""

    rules: HealthRules = HealthRules()
    of: str = "camera"
    masks: Masks = ()

    def is_due(self, state: "HealthState", at_s: float) -> bool:
        """True if it is time to look at a picture."""
        if not self.rules.looks or state.seen_s is None:
            return self.rules.looks
        return at_s - state.seen_s >= (CALM_S if state.calm else LOOK_S) - 1e-6


@dataclass(frozen=True, slots=True)
class Alarm:
    """The state of an alarm: on or off; the seconds for which evidence has been against that; and the time at which
    that evidence, or the alarm if it is on, began."""

    on: bool = False
    held_s: float = 0.0
    since_s: float = 0.0

    def step(self, evidence: bool | None, at_s: float, seconds: float, raise_s: float, clear_s: float) -> "Alarm":
        """The alarm after `seconds` more, which end at `at_s`; `evidence` None says nothing."""
        if not raise_s and not self.on:
            return self
        if evidence is None:
            return self
        if evidence == self.on:
            return replace(self, held_s=0.0) if self.held_s else self
        begun = self.since_s if self.on or self.held_s else at_s - seconds
        held_s = self.held_s + seconds
        if held_s + 1e-6 < (clear_s if self.on else raise_s) or not held_s:
            return replace(self, held_s=held_s, since_s=begun)
        return Alarm(True, 0.0, begun) if not self.on else Alarm()


@dataclass(frozen=True, slots=True)
class HealthState:
    """The state of a stream's health.

    `of` tells the picture of one camera from that of another (see `judge_health`); `seen_s` is when it was last looked
    at. `pictures` are hashes of the newest different pictures, `reference` the view that the camera has, taken at
    `taken_s`, `candidate` another one that it shows now. `alarms` are those that are on or coming: by `What`, and of
    watches by `WatchQuery.key`.
    """

    of: str = ""
    seen_s: float | None = None
    pictures: tuple[str, ...] = ()
    reference: str = ""
    taken_s: float = 0.0
    candidate: str = ""
    alarms: dict[str, Alarm] = field(default_factory=dict)

    @property
    def calm(self) -> bool:
        """True if its view, or an alarm, is known, and nothing speaks against that."""
        coming = any(self.alarms[what].held_s for what in WHATS if what in self.alarms)
        return bool(self.reference or self.on) and not self.candidate and not coming

    @property
    def on(self) -> tuple[str, ...]:
        """The alarms that are on."""
        return tuple(sorted(what for what, alarm in self.alarms.items() if alarm.on))


@dataclass(frozen=True, slots=True)
class AlarmChange:
    """An alarm raised or ended: the event's type and data, and the watch it is about if there is one."""

    kind: str
    data: Mapping[str, Json]
    watch_id: str | None = None


_ADVICE: Mapping[What, str] = {
    "frozen": "restart the camera, or the recorder in front of it",
    "blind": "look whether it is covered, unlit, dazzled, out of focus or dirty",
    "moved": "turn it back, or draw its zones and masks anew: they now lie elsewhere",
}


def judge_health(
    state: HealthState,
    look: PictureLook | None,
    queries: Sequence[WatchQuery],
    answers: Sequence[Answer],
    checkup: Checkup,
    span_s: tuple[float, float],
) -> tuple[HealthState, tuple[AlarmChange, ...]]:
    """One hop of a span of stream seconds: what was seen (None: it was not looked at) and answered.

    `checkup.of` stands for everything that makes pictures comparable: with another one, alarms about pictures end and
    its view is learned anew.
    """
    at_s, rules, of = span_s[1], checkup.rules, checkup.of
    found: list[AlarmChange] = []
    if state.of != of:
        state, found = end_alarms(state, at_s, "it shows another picture", [what for what in WHATS if state.of])
        state = HealthState(of=of, alarms=state.alarms)
    if unwanted := [what for what in state.alarms if not (rules.raise_s(what) if what in WHATS else rules.unknown_s)]:
        state, ends = end_alarms(state, at_s, "nobody wants to know any more", unwanted)
        found += ends
    state, unknown = _watches(state, queries, answers, rules, span_s)
    if look is not None:
        seconds = 0.0 if state.seen_s is None else min(max(at_s - state.seen_s, 0.0), STEP_S)
        state, seen = _pictures(replace(state, seen_s=at_s), look, rules, at_s, seconds)
        found += seen
    return state, (*found, *unknown)


def end_alarms(
    state: HealthState, at_s: float, reason: str, which: Collection[str]
) -> tuple[HealthState, list[AlarmChange]]:
    """End some of the alarms, for a reason."""
    found = [_end(what, state.alarms[what], at_s, reason) for what in state.on if what in which]
    return replace(state, alarms={what: one for what, one in state.alarms.items() if what not in which}), found


def _end(what: str, alarm: Alarm, at_s: float, reason: str = "") -> AlarmChange:
    """The end of an alarm that was on."""
    watch_id, of_watch, _ = what.partition("@")
    data: dict[str, Json] = {
        "of": "watch.unknown" if of_watch else f"stream.{what}",
        "lasted_s": round(max(at_s - alarm.since_s, 0.0), 3),
        **({"reason": reason} if reason else {}),
    }
    return AlarmChange("watch.known", data, watch_id) if of_watch else AlarmChange("stream.clear", data)


def _pictures(
    state: HealthState, look: PictureLook, rules: HealthRules, at_s: float, seconds: float
) -> tuple[HealthState, list[AlarmChange]]:
    likeness = compare(state.reference, look.view) if state.reference else None
    blind = _why_blind(look, likeness)
    state, steady = _follow(state, look, likeness, bool(blind))
    evidence: dict[What, bool | None] = {
        "blind": bool(blind),
        "frozen": None if blind else look.picture in state.pictures,
        "moved": None if blind else _has_moved(likeness, steady, "moved" in state.on),
    }
    words: dict[What, str] = {
        "frozen": "it shows the same pictures again and again",
        "blind": blind,
        "moved": "it shows another view than before",
    }
    if look.picture not in state.pictures:
        state = replace(state, pictures=(*state.pictures, look.picture)[-PICTURES:])
    found: list[AlarmChange] = []
    for what, sign in evidence.items():
        before = state.alarms.get(what, Alarm())
        # What is new may have begun just before this look.
        lasted_s = seconds if before.held_s else min(seconds, LOOK_S)
        after = before.step(sign, at_s, lasted_s, rules.raise_s(what), rules.clear_s)
        state = _with(state, what, after)
        if after.on and not before.on:
            data: dict[str, Json] = {"reason": words[what], "advice": _ADVICE[what], "onset_s": round(after.since_s, 3)}
            found.append(AlarmChange(f"stream.{what}", data))
        elif before.on and not after.on:
            found.append(_end(what, before, at_s))
    settled, state = _settled(state, look, rules, at_s) if steady else ([], state)
    return _renewed(state, look, likeness, at_s), found + settled


def _why_blind(look: PictureLook, likeness: Likeness | None) -> str:
    """Why a picture shows nothing, empty if it shows something. A dark picture in which the view is still recognized is
    night."""
    known = likeness is not None and likeness.same is not None and likeness.same >= _KNOWN
    if not known:
        if look.dark >= _DARK:
            return "its picture is black"
        if look.bright >= _BRIGHT:
            return "its picture is white: overexposed or dazzled"
        if look.contrast < FLAT:
            return "its picture is all of one colour: covered"
    if likeness is None or likeness.blurred is None or look.contrast < 2 * FLAT:
        return ""
    blurred = likeness.blurred >= _BLURRED and likeness.layout >= _SAME_LAYOUT
    return "its picture is blurred: out of focus, or the lens is dirty" if blurred else ""


def _follow(state: HealthState, look: PictureLook, likeness: Likeness | None, blind: bool) -> tuple[HealthState, bool]:
    """The state with the other view that the camera shows, if it does, and whether it has shown that before."""
    strange = not blind and likeness is not None and likeness.same is not None and likeness.same < _STRANGE
    if not strange:
        lost = state.candidate and not blind and not state.alarms.get("moved", Alarm()).on
        return (replace(state, candidate="") if lost else state), False
    if state.candidate:
        again = compare(state.candidate, look.view)
        if again.same is not None and again.same >= _STEADY:
            return state, True
    return replace(state, candidate=look.view if recognizable(look.view) else ""), False


def _has_moved(likeness: Likeness | None, steady: bool, on: bool) -> bool | None:
    """True if a camera shows another view steadily, since what only passes by is no view; False if it shows its own
    view; None if undecided."""
    if likeness is None or likeness.same is None:
        return None
    if likeness.same >= _KNOWN:
        return False
    if likeness.same < _STRANGE:
        return True if steady else None if on else False
    return None


def _settled(
    state: HealthState, look: PictureLook, rules: HealthRules, at_s: float
) -> tuple[list[AlarmChange], HealthState]:
    """Ends the alarm of a camera that has shown its new view for long, and takes that view as its reference."""
    moved = state.alarms.get("moved", Alarm())
    if not moved.on or at_s - moved.since_s < rules.settle_s:
        return [], state
    end = _end("moved", moved, at_s, "the new view is taken for its own from now on")
    state = _with(replace(state, reference=look.view, taken_s=at_s, candidate=""), "moved", Alarm())
    return [end], state


def _renewed(state: HealthState, look: PictureLook, likeness: Likeness | None, at_s: float) -> HealthState:
    """The state with a view taken anew, where it is time for that and nothing is wrong."""
    if any(what in state.alarms for what in ("blind", "moved")) or not recognizable(look.view):
        return state
    if likeness is None:
        begun_s = state.taken_s if state.taken_s else at_s
        if at_s - begun_s >= LEARN_S:
            return replace(state, reference=look.view, taken_s=at_s)
        return replace(state, taken_s=begun_s)
    due = at_s - state.taken_s >= RENEW_S or at_s < state.taken_s
    if due and likeness.same is not None and likeness.same >= _FOLLOWED:
        return replace(state, reference=look.view, taken_s=at_s)
    return state


def _watches(
    state: HealthState,
    queries: Sequence[WatchQuery],
    answers: Sequence[Answer],
    rules: HealthRules,
    span_s: tuple[float, float],
) -> tuple[HealthState, list[AlarmChange]]:
    """The alarms of watches that are answered with nothing but `unknown`."""
    verdicts, (start_s, at_s) = {one.watch_id: one.verdict for one in answers}, span_s
    found: list[AlarmChange] = []
    standing = {query.key for query in queries}
    gone = [key for key in state.alarms if "@" in key and key not in standing]
    if gone:
        state, found = end_alarms(state, at_s, "watch removed or changed", gone)
    for query in queries:
        if query.id not in verdicts:
            continue
        unknown = verdicts[query.id] == "unknown"
        before = state.alarms.get(query.key, Alarm())
        # An answer stands for the time since the one before: a watch may be asked seldom.
        seconds = at_s - (before.since_s + before.held_s if before.held_s else start_s)
        after = before.step(unknown, at_s, seconds, rules.unknown_s, 0.0)
        state = _with(state, query.key, after)
        if after.on and not before.on:
            words = f"every answer was unknown for {rules.unknown_s:g} s; word it another way, or look at the picture"
            data: dict[str, Json] = {"question": query.question, "reason": words, "onset_s": round(after.since_s, 3)}
            found.append(AlarmChange("watch.unknown", data, query.id))
        elif before.on and not after.on:
            found.append(_end(query.key, before, at_s))
    return state, found


def _with(state: HealthState, what: str, alarm: Alarm) -> HealthState:
    """The state with an alarm; one that is off and not coming is left out."""
    if alarm == state.alarms.get(what, Alarm()):
        return state
    alarms = {key: one for key, one in state.alarms.items() if key != what}
    return replace(state, alarms=alarms | ({what: alarm} if alarm.on or alarm.held_s else {}))

"""The health of the service itself: its sinks, its load, a regular sign of life. Pure functions of values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from pydantic import TypeAdapter

from pipeline.core.health import Alarm, AlarmChange
from pipeline.core.judge import event_id
from pipeline.core.ladder import STEPS
from pipeline.types import Event, Json

SERVICE: Final = "_service"
"""The stream of events about the service itself. No stream can have this slug."""

CLEAR_S: Final = 10.0
"""Seconds for which all has to be well before an alarm ends."""


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """When something is wrong for long: seconds, 0 for never; `degraded_share` is the share of streams below `normal`
    on the overload ladder."""

    heartbeat_s: float = 300.0
    sink_failing_s: float = 60.0
    degraded_s: float = 30.0
    degraded_share: float = 0.25


@dataclass(frozen=True, slots=True)
class Vitals:
    """A service at one moment: its streams by slug with their steps on the overload ladder, how many of them give
    frames, why each sink's newest try failed (None: it did not), and how many events wait for each."""

    steps: Mapping[str, int] = field(default_factory=dict)
    up: int = 0
    sinks: Mapping[str, str | None] = field(default_factory=dict)
    pending: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VitalsState:
    """The state of a service's health; `transitions` counts its events ever, `beat_s` is the time of its last sign of
    life, in seconds of the service."""

    lineage: str = ""
    transitions: int = 0
    beat_s: float = 0.0
    alarms: dict[str, Alarm] = field(default_factory=dict)

    @property
    def on(self) -> tuple[str, ...]:
        """The alarms that are on: `overload`, and `sink NAME`."""
        return tuple(sorted(what for what, alarm in self.alarms.items() if alarm.on))

    def event(self, finding: AlarmChange, at: datetime) -> tuple["VitalsState", Event]:
        """The event of a finding, and the state after it."""
        n = self.transitions + 1
        identity = event_id(self.lineage, SERVICE, "", "", finding.kind, n)
        return replace(self, transitions=n), Event(identity, finding.kind, SERVICE, at, {"n": n, **finding.data})

    def to_json(self) -> str:
        """As text for the store."""
        return _STATE.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> "VitalsState":
        """Back from the store. Raises ValueError (pydantic) for text that is no state."""
        return _STATE.validate_json(text)


_STATE = TypeAdapter(VitalsState)


def judge_vitals(
    state: VitalsState, vitals: Vitals, rules: ServiceRules, at_s: float, seconds: float
) -> tuple[VitalsState, tuple[AlarmChange, ...]]:
    """The `seconds` up to `at_s`, at the end of which a service is as `vitals` says."""
    found: list[AlarmChange] = []
    for sink, trouble in vitals.sinks.items():
        state, before, after = _step(state, f"sink {sink}", trouble is not None, at_s, seconds, rules.sink_failing_s)
        about: dict[str, Json] = {"sink": sink, "pending": vitals.pending.get(sink, 0)}
        if after.on and not before.on:
            found.append(AlarmChange("sink.failing", about | {"reason": trouble, "onset_s": round(after.since_s, 3)}))
        elif before.on and not after.on:
            found.append(AlarmChange("sink.recovered", _ended("sink.failing", before, at_s) | about))
    for what in [what for what in state.alarms if what.startswith("sink ") and what[5:] not in vitals.sinks]:
        if (before := state.alarms[what]).on:
            about = {"sink": what[5:], "reason": "sink removed"}
            found.append(AlarmChange("sink.recovered", _ended("sink.failing", before, at_s) | about))
        state = _with(state, what, Alarm())
    state, load = _load(state, vitals, rules, at_s, seconds)
    if rules.heartbeat_s and at_s - state.beat_s >= rules.heartbeat_s:
        state = replace(state, beat_s=at_s)
        beat: dict[str, Json] = {
            "uptime_s": round(at_s, 3),
            "streams": len(vitals.steps),
            "up": vitals.up,
            "pending": sum(vitals.pending.values()),
            "alarms": list(state.on),
        }
        return state, (*found, *load, AlarmChange("service.heartbeat", beat))
    return state, (*found, *load)


def _load(
    state: VitalsState, vitals: Vitals, rules: ServiceRules, at_s: float, seconds: float
) -> tuple[VitalsState, list[AlarmChange]]:
    below = [step for step in vitals.steps.values() if step]
    pressed = bool(below) and len(below) >= rules.degraded_share * len(vitals.steps)
    state, before, after = _step(state, "overload", pressed, at_s, seconds, rules.degraded_s)
    about: dict[str, Json] = {
        "degraded": len(below),
        "streams": len(vitals.steps),
        "worst": STEPS[max(below, default=0)],
    }
    if after.on and not before.on:
        reason = f"{len(below)} of {len(vitals.steps)} streams give up something for want of time"
        return state, [AlarmChange("service.degraded", about | {"reason": reason, "onset_s": round(after.since_s, 3)})]
    if before.on and not after.on:
        return state, [AlarmChange("service.restored", _ended("service.degraded", before, at_s) | about)]
    return state, []


def _step(
    state: VitalsState, what: str, evidence: bool, at_s: float, seconds: float, raise_s: float
) -> tuple[VitalsState, Alarm, Alarm]:
    before = state.alarms.get(what, Alarm())
    after = before.step(evidence and raise_s > 0, at_s, seconds, raise_s, CLEAR_S)
    return _with(state, what, after), before, after


def _with(state: VitalsState, what: str, alarm: Alarm) -> VitalsState:
    alarms = {key: one for key, one in state.alarms.items() if key != what}
    return replace(state, alarms=alarms | ({what: alarm} if alarm.on or alarm.held_s else {}))


def _ended(kind: str, alarm: Alarm, at_s: float) -> dict[str, Json]:
    return {"of": kind, "lasted_s": round(max(at_s - alarm.since_s, 0.0), 3)}

"""The status of streams and watches, as people and pages see it. Read from what runs, without asking it anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pipeline.config.site import StreamConfig
from pipeline.core.health import WHATS
from pipeline.core.judge import standing
from pipeline.core.state import StreamRun
from pipeline.service.attachment import Attachment
from pipeline.service.supervisor import StreamSupervisor

State = Literal["starting", "connecting", "up", "lost", "ended", "failed", "paused", "refused"]
"""`starting` waits for the store, `failed` has given up, `refused` cannot be run as it is written."""


@dataclass(frozen=True, slots=True)
class WatchStanding:
    """A watch on one stream: whether it is open, its newest score and verdict (None: not answered yet), and whether all
    its answers have been unknown for long."""

    is_open: bool
    score: float | None = None
    verdict: str | None = None
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """A stream: its state since when (UTC) and why, stream seconds decided, seconds behind the camera, vision tokens
    granted and spent, the step of the overload ladder, what is wrong with its pictures for long (frozen, blind, moved),
    its watches by slug, and in a fleet the node that runs it."""

    state: State
    since: datetime | None = None
    reason: str = ""
    stream_s: float = 0.0
    lag_s: float | None = None
    granted: int = 0
    spent: int = 0
    hops: int = 0
    skipped: int = 0
    frames_lost: int = 0
    step: int = 0
    step_name: str = "normal"
    alarms: tuple[str, ...] = ()
    watches: Mapping[str, WatchStanding] = field(default_factory=dict)
    node: str = ""


def stream_status(
    stream: StreamConfig | None, running: StreamSupervisor | None, fault: str | None, now: datetime
) -> StreamStatus:
    """The status of a stream: as it is wanted (None: it cannot be), and as it runs, if it does."""
    if fault or stream is None:
        return StreamStatus("refused", reason=fault or "it is not applied yet")
    if stream.paused:
        return StreamStatus("paused")
    if running is None or running.attachment is None:
        return StreamStatus("starting", reason=(running.trouble if running else None) or "")
    attachment = running.attachment
    state: State = "failed" if running.failed else attachment.phase
    return _of_run(state, running.trouble or "", attachment, attachment.run, now)


def _of_run(state: State, reason: str, attachment: Attachment, run: StreamRun, now: datetime) -> StreamStatus:
    counts = run.counts
    seen = attachment.seen_at
    return StreamStatus(
        state,
        attachment.since,
        reason,
        run.decided_s,
        max((now - seen).total_seconds(), 0.0) if seen and attachment.source.live else None,
        counts.granted,
        counts.spent,
        counts.hops,
        counts.skipped,
        counts.lost,
        run.ladder.step,
        run.ladder.name,
        tuple(what for what in run.state.health.on if what in WHATS),
        _watches(run),
    )


def _watches(run: StreamRun) -> dict[str, WatchStanding]:
    is_open = standing(run.state.watches)
    unknown = {key.partition("@")[0] for key in run.state.health.on if "@" in key}
    answers = {one.watch_id: one for one in run.answers}
    return {
        watch: WatchStanding(
            is_open.get(watch, False),
            round(answers[watch].score, 4) if watch in answers else None,
            answers[watch].verdict if watch in answers else None,
            watch in unknown,
        )
        for watch in sorted(run.warming.watch_ids)
    }

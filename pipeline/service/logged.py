"""The events of watches in the log: one line each. Those of the stream itself are logged where they are decided."""

from collections.abc import Sequence

import structlog

from pipeline.types import Event

log = structlog.get_logger()


def log_watch_events(events: Sequence[Event]) -> None:
    """Log what opened and cleared, at which stream second, at which score or for which reason, and the question."""
    for event in events:
        if event.watch_id is None:
            continue
        data = event.data
        about = {"stream_s": data.get("onset_s", data.get("cleared_s"))}
        if "score" in data:
            about["score"] = round(float(str(data["score"])), 2)
        about |= {name: data[name] for name in ("reason", "question") if name in data}
        log.info(event.type, stream=event.stream_id, watch=event.watch_id, **about)

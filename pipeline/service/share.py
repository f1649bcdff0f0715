"""The part of a site's work that one process does: all of it, or one process's in a fleet."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.service.status import StreamStatus

Kind = Literal["all", "house", "streams"]


def _every(_stream: str) -> bool:
    return True


def _unreported(_stream: str) -> StreamStatus | None:
    return None


@dataclass(frozen=True, slots=True)
class WorkShare:
    """The work of a process: `all`, or in a fleet `house` (sinks, the service's own events, what removed streams left
    open) or `streams` (those for which `is_mine` says so).

    `holder` is the process's name among those that share a store. `report` gives the status of a stream that runs in
    another process, where it is known.
    """

    kind: Kind = "all"
    holder: str | None = None
    is_mine: Callable[[str], bool] = _every
    report: Callable[[str], StreamStatus | None] = _unreported

    @property
    def keeps_house(self) -> bool:
        """True if it delivers events and looks after the service itself."""
        return self.kind != "streams"

    @property
    def runs_streams(self) -> bool:
        """True if streams are decided on here."""
        return self.kind != "house"


WHOLE = WorkShare()
"""The share of the only process there is."""

"""The part of a site's work that one process does: all of it, or one process's in a fleet."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from pipeline.service.status import StreamStatus

Kind = Literal["all", "house", "streams"]


@dataclass(frozen=True, slots=True)
class PicturePlace:
    """The place where another process offers pictures of the streams that it runs: the node it is, the URL, and the
    token that it wants."""

    node: str
    url: str
    token: str = field(repr=False)


def _every(_stream: str) -> bool:
    return True


def _unreported(_stream: str) -> StreamStatus | None:
    return None


def _nowhere(_stream: str) -> PicturePlace | None:
    return None


@dataclass(frozen=True, slots=True)
class WorkShare:
    """The work of a process: `all`, or in a fleet `house` (sinks, the service's own events, what removed streams left
    open) or `streams` (those for which `is_mine` says so).

    `holder` is the process's name among those that share a store. `report` gives the status of a stream that runs in
    another process, `pictures` where its pictures are to be had, both where that is known; they block.
    """

    kind: Kind = "all"
    holder: str | None = None
    is_mine: Callable[[str], bool] = _every
    report: Callable[[str], StreamStatus | None] = _unreported
    pictures: Callable[[str], PicturePlace | None] = _nowhere

    @property
    def keeps_house(self) -> bool:
        """True if it delivers events and looks after the service itself."""
        return self.kind != "streams"

    @property
    def in_fleet(self) -> bool:
        """True if other processes do other parts of the work."""
        return self.kind != "all"

    @property
    def runs_streams(self) -> bool:
        """True if streams are decided on here."""
        return self.kind != "house"


WHOLE = WorkShare()
"""The share of the only process there is."""

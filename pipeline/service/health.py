"""The health of a service: a small value for supervisors, load balancers and people."""

from dataclasses import dataclass
from typing import Literal

from pipeline.types import Json

Phase = Literal["starting", "serving", "draining", "ended"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """One part of the service that does not do its work now, and why."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class Health:
    """The health of a service.

    `live` is False when only a restart helps. `ready` means that its streams are watched and decisions become durable;
    a lost camera or a sink that is away is among the `troubles` and takes neither.
    """

    live: bool
    ready: bool
    phase: Phase
    troubles: tuple[Trouble, ...] = ()

    def as_json(self) -> dict[str, Json]:
        """For a reply over HTTP."""
        return {
            "live": self.live,
            "ready": self.ready,
            "phase": self.phase,
            "troubles": [{"what": trouble.what, "reason": trouble.reason} for trouble in self.troubles],
        }

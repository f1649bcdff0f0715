"""Counters of a backend's troubles."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Protocol


class Bounded(Protocol):
    """Something that keeps prefixes within bounds, as `pipeline.mllm.kept.KeptPrefixes` does."""

    evicted: int
    stale: int


@dataclass(slots=True)
class Counters:
    """Counts of what the bounds did and what went wrong since the start. A backend counts what can happen to it.

    refused        asks refused because the queue was full or memory was out
    timed_out      asks that came too late
    out_of_memory  times the model's memory was out
    resent         requests sent again with their pixels because a picture was forgotten behind them
    retried        requests sent again because the server was busy
    too_large      prompts that a server refused, after which a stream sends less at once
    evicted        prefixes that had to go for others, or were gone though they should have been kept
    stale          prefixes that no longer fitted their stream's context
    died           engines lost
    moved          streams that went to another server, because theirs was gone or had too much
    """

    refused: int = 0
    timed_out: int = 0
    out_of_memory: int = 0
    resent: int = 0
    retried: int = 0
    too_large: int = 0
    evicted: int = 0
    stale: int = 0
    died: int = 0
    moved: int = 0

    def with_kept(self, kept: Bounded) -> Mapping[str, int]:
        """All counts by name, with those of the prefixes that are kept here."""
        return asdict(replace(self, evicted=self.evicted + kept.evicted, stale=self.stale + kept.stale))

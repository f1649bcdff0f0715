"""The watches of a stream: since when frames are sized for each, and which ones the MLLM does not understand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.core.context import Context
from pipeline.types import Answer, Hop, WatchQuery


@dataclass(frozen=True, slots=True)
class Warming:
    """Since which stream second each watch (by `WatchQuery.key`) has had its say in the sizes of frames."""

    since_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def watch_ids(self) -> frozenset[str]:
        """The watches that stand."""
        return frozenset(key.partition("@")[0] for key in self.since_s)

    def join(self, queries: Sequence[WatchQuery], hop: Hop) -> "Warming":
        """The watches that stand at a hop whose frames are about to be sized."""
        return Warming({query.key: self.since_s.get(query.key, hop.start_s) for query in queries})

    def unsettled(self, queries: Sequence[WatchQuery], context: Context) -> frozenset[str]:
        """Ids of the watches for which the context still holds frames from before they stood."""
        if not context.segments:
            return frozenset()
        oldest_s = context.segments[0].pts_s[0]
        return frozenset(query.id for query in queries if oldest_s < self.since_s.get(query.key, oldest_s))


def mark(answers: Sequence[Answer], warming: frozenset[str]) -> tuple[Answer, ...]:
    """The answers, those of warming watches marked."""
    return tuple(replace(one, warming=True) if one.watch_id in warming else one for one in answers)


NEVER_KNOWN = 10
"""After so many answers, all of them unknown, a watch counts as not understood."""


@dataclass(frozen=True, slots=True)
class Understanding:
    """Counts of the answers `unknown` that each watch of a stream got before anything else, by `WatchQuery.key`; None
    for one that was understood once, or was already said not to be."""

    unknown: Mapping[str, int | None] = field(default_factory=dict)

    def update(
        self, queries: Sequence[WatchQuery], answers: Sequence[Answer]
    ) -> tuple["Understanding", tuple[WatchQuery, ...]]:
        """The state after one hop's answers, and the watches that now count as not understood: each once."""
        by_id = {query.id: query for query in queries}
        unknown, strange = dict(self.unknown), []
        for answer in answers:
            query = by_id[answer.watch_id]
            count = unknown.get(query.key, 0)
            if count is None:
                continue
            unknown[query.key] = count + 1 if answer.verdict == "unknown" else None
            if unknown[query.key] == NEVER_KNOWN:
                unknown[query.key] = None
                strange.append(query)
        return Understanding(unknown), tuple(strange)

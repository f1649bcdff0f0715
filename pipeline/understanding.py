"""Which watches the MLLM does not understand: those of which it has known nothing since they were first asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.types import Answer, WatchQuery

NEVER_KNOWN = 10
"""After so many answers, all of them unknown, a watch counts as not understood."""


@dataclass(frozen=True, slots=True)
class Understanding:
    """How often each watch of a stream was answered `unknown` before anything else, by `WatchQuery.key`; None for one
    that was understood once, or was already said not to be."""

    unknown: Mapping[str, int | None] = field(default_factory=dict)

    def hear(
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

"""The tags of streams, those included that were detached a while ago: their last events are still on their way."""

from collections.abc import Mapping

from pipeline.config.site import StreamConfig

MOST_REMEMBERED = 10_000
"""Streams whose tags are remembered; the longest gone are forgotten first."""


class StreamTags:
    """The tags of every stream that is or was wanted, by slug."""

    def __init__(self, streams: Mapping[str, StreamConfig]) -> None:
        self._tags: dict[str, tuple[str, ...]] = {}
        self.note(streams)

    def note(self, streams: Mapping[str, StreamConfig]) -> None:
        """These are the streams now."""
        for slug, stream in streams.items():
            self._tags.pop(slug, None)
            self._tags[slug] = stream.tags
        for slug in list(self._tags)[: max(len(self._tags) - MOST_REMEMBERED, 0)]:
            del self._tags[slug]

    def of(self, stream: str) -> tuple[str, ...] | None:
        """The tags of a stream; None for one that is not remembered."""
        return self._tags.get(stream)

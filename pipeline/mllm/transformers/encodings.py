"""Vision tokens that were encoded lately. A context that restarts reads its newest pictures again behind other times,
which changes nothing of what the vision encoder makes of them."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import Lock

from pipeline.mllm.transformers.vision import Encoded
from pipeline.types import Segment

MOST_BYTES = 64 * 2**20
"""Memory of the vision tokens that are kept, of all streams together."""


class KeptEncodings:
    """Vision tokens by stream and content id, those unused for longest the first to go. Safe to use from several
    threads."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes, self._kept = most_bytes, OrderedDict[tuple[str, str], Encoded]()
        self._bytes, self._lock = 0, Lock()

    @property
    def bytes(self) -> int:
        """Memory of what is kept."""
        return self._bytes

    def missing(self, stream_id: str, segments: Sequence[Segment]) -> list[Segment]:
        """Those of a stream's segments that are not kept."""
        with self._lock:
            return [one for one in segments if (stream_id, one.content_id) not in self._kept]

    def of(
        self,
        stream_id: str,
        segments: Sequence[Segment],
        given: Mapping[str, Encoded],
        encode: Callable[[Sequence[Segment]], list[Encoded]],
    ) -> dict[str, Encoded]:
        """The vision tokens of each segment, by content id: those that are `given` or kept, the others encoded in one
        call. All of them are kept."""
        with self._lock:
            kept = {one.content_id: self._kept.get((stream_id, one.content_id)) for one in segments}
        found = {name: known for name, one in kept.items() if (known := given.get(name) or one)}
        fresh = [one for one in segments if one.content_id not in found]
        found.update(zip((one.content_id for one in fresh), encode(fresh), strict=True))
        with self._lock:
            for name, encoded in found.items():
                self._keep((stream_id, name), encoded)
        return found

    def drop(self, stream_id: str) -> None:
        """Keep nothing of a stream."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == stream_id]:
                self._bytes -= self._kept.pop(key).bytes

    def clear(self) -> None:
        """Keep nothing at all."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def _keep(self, key: tuple[str, str], encoded: Encoded) -> None:
        if key in self._kept:
            self._kept.move_to_end(key)
            return
        # Copied: what an encoder gives of one picture is a view of what it made of all, which would be kept whole.
        own = Encoded(encoded.tokens.clone(), tuple(level.clone() for level in encoded.levels))
        self._kept[key] = own
        self._bytes += own.bytes
        while self._bytes > self._most_bytes:
            self._bytes -= self._kept.popitem(last=False)[1].bytes

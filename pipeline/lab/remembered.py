"""Clips that were decoded, kept as long as they are used and there is room."""

from collections import OrderedDict
from pathlib import Path
from threading import Lock

from allocator_engine.train.rollout import ClipHop
from pipeline.lab.footage import RecordingReader

MOST_BYTES = 768 * 2**20
"""Pictures that are kept, at 1.5 bytes a px; the clip that was used longest ago goes first."""


class RememberedReader:
    """Reads clips as a RecordingReader does, and keeps them."""

    def __init__(self, reader: RecordingReader, most_bytes: int = MOST_BYTES) -> None:
        self._reader, self._most, self._lock = reader, most_bytes, Lock()
        self._kept: OrderedDict[tuple[Path, float, float], tuple[ClipHop, ...]] = OrderedDict()

    def read(self, file: Path, start_s: float = 0.0, end_s: float = float("inf")) -> tuple[ClipHop, ...]:
        """The hops that begin in `[start_s, end_s)`. Raises as RecordingReader does."""
        key = (file, start_s, end_s)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        read = self._reader.read(file, start_s, end_s)
        with self._lock:
            self._kept[key] = read
            while len(self._kept) > 1 and sum(map(_bytes, self._kept.values())) > self._most:
                self._kept.popitem(last=False)
        return read


def _bytes(clip: tuple[ClipHop, ...]) -> int:
    return sum(3 * picture.height * picture.width // 2 for hop in clip for picture in hop.pictures)

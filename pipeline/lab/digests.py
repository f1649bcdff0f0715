"""Hashes of files and texts, which name what an outcome depends on."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from allocator_engine.digests import SHORT
from pipeline.errors import ConfigError

_WHOLE_BYTES = 64 * 2**20


def of_file(file: Path) -> str:
    """Short hash of what is in a file; of a large one, of its name and size."""
    return hashlib.sha256(_content(file)).hexdigest()[:SHORT]


def of_parts(parts: Iterable[str | Path | None]) -> str:
    """Short hash of texts, and of what is in files. Raises ConfigError for a file that is not there."""
    digest = hashlib.sha256()
    for part in parts:
        if not isinstance(part, Path):
            digest.update(f"{part}\0".encode())
            continue
        if not part.is_file():
            raise ConfigError(f"there is no file {part}; give the path of another")
        digest.update(_content(part))
    return digest.hexdigest()[:SHORT]


def _content(file: Path) -> bytes:
    size = file.stat().st_size
    return file.read_bytes() if size <= _WHOLE_BYTES else f"{file.name} {size}".encode()

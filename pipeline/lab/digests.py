"""Contents of files, for hashes of what an outcome depends on."""

from pathlib import Path

_WHOLE_BYTES = 64 * 2**20


def content(file: Path) -> bytes:
    """The bytes of a file; of a large one, its name and size."""
    size = file.stat().st_size
    return file.read_bytes() if size <= _WHOLE_BYTES else f"{file.name} {size}".encode()

"""The folder of the evidence's files: named by day and content, private, written whole or not at all."""

import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from pipeline.delivery.manifests import StoredFile
from pipeline.errors import ConfigError
from pipeline.evidence.bundle import EvidenceDamaged
from pipeline.evidence.files import FILE, MARK, Kind, checked_path, gone, named, unchanged

_PART = re.compile(r"\.[0-9a-f]{64}\.part")


class Folder:
    """Files below `root`, for their owner only. Methods block and raise OSError for what the disk cannot do."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.place = str(root)

    def open(self, store: str) -> None:
        """Make the folder that of a store. Raises ConfigError where it is another store's."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark = self.root / MARK
        if not mark.exists():
            self._write(mark, store.encode())
        owner = mark.read_text(encoding="utf-8", errors="replace").strip()
        if owner != store:
            raise ConfigError(
                f"evidence.dir {self.root} holds the evidence of another store (see {MARK} in it); give this one a"
                " folder of its own"
            )

    def put(self, data: bytes, kind: Kind, day: datetime) -> tuple[StoredFile, bool]:
        """Keep bytes under their hash. Returns where they lie, and True if they are new: what is there already is not
        written again."""
        file = named(data, kind, day)
        path = self.root / file.path
        if path.exists():
            return file, False
        for folder in (path.parent.parent, path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        self._write(path, data)
        return file, True

    def read(self, file: StoredFile, name: str) -> bytes:
        """The bytes of a file. Raises EvidenceDamaged, by `name`, for one that is gone or was changed."""
        path = self.path(file)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise gone(file, name, "the folder") from None
        except OSError as error:
            raise EvidenceDamaged(
                f"the {name} of this evidence cannot be read: {file.path}: {error.strerror}"
            ) from error
        return unchanged(data, file, name)

    def path(self, file: StoredFile) -> Path:
        """The path of a file. Raises EvidenceDamaged for a path that no file of the evidence has."""
        return self.root / checked_path(file)

    def has(self, file: StoredFile) -> bool:
        """True if a file exists."""
        return (self.root / file.path).exists()

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files, and the folders that are empty without them. Those that are gone already are fine."""
        for name in paths:
            path = self.root / name
            if FILE.fullmatch(name):
                path.unlink(missing_ok=True)
                for folder in (path.parent, path.parent.parent):
                    with suppress(OSError):
                        folder.rmdir()

    def sweep(self, named_paths: frozenset[str], written_before: datetime | None = None) -> int:
        """Remove files of the evidence that nobody names, and halves of some; with a time only those that were written
        before it. Returns how many."""
        stray = 0
        for path in sorted(self.root.glob("????-??-??/??/*")):
            name = path.relative_to(self.root).as_posix()
            if written_before and _written_at_s(path) >= written_before.timestamp():
                continue
            if (FILE.fullmatch(name) and name not in named_paths) or _PART.fullmatch(path.name):
                path.unlink(missing_ok=True)
                stray += 1
        return stray

    def free_bytes(self) -> int:
        """Free space on the disk in bytes."""
        return shutil.disk_usage(self.root).free

    def _write(self, path: Path, data: bytes) -> None:
        part = path.with_name(f".{os.urandom(32).hex()}.part")  # several may be writing the same
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(data)
            part.rename(path)
        except OSError:
            with suppress(OSError):
                part.unlink()
            raise


def _written_at_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # somebody else has removed it
        return float("inf")

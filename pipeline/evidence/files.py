"""The files of the evidence, wherever they lie: their names, and what a place for them can do."""

import hashlib
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Literal, Protocol

from pipeline.delivery.manifests import StoredFile
from pipeline.evidence.bundle import EvidenceDamaged

Kind = Literal["png", "jpg", "mp4"]
MARK = "resadapt-store"
"""The file that says whose evidence a place holds: what no manifest of that store names is removed from it."""

FILE = re.compile(r"\d{4}-\d{2}-\d{2}/[0-9a-f]{2}/[0-9a-f]{64}\.(?:png|jpg|mp4)")
"""The path of a file below its place: its day, and the SHA-256 of its content."""


class EvidenceFiles(Protocol):
    """Files by day and content. Methods block and raise OSError for what the place cannot do now."""

    @property
    def place(self) -> str:
        """The name of the place, for people."""

    def open(self, store: str) -> None:
        """Make the place that of a store. Raises ConfigError where it is another store's."""

    def put(self, data: bytes, kind: Kind, day: datetime) -> tuple[StoredFile, bool]:
        """Keep bytes under their hash. Returns where they lie, and True if they are new: what is there already is not
        written again."""

    def read(self, file: StoredFile, name: str) -> bytes:
        """The bytes of a file. Raises EvidenceDamaged, by `name`, for one that is gone or was changed."""

    def has(self, file: StoredFile) -> bool:
        """True if a file exists."""

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files. Those that are gone already are fine."""

    def sweep(self, named_paths: frozenset[str], written_before: datetime | None = None) -> int:
        """Remove files of the evidence that nobody names; with a time only those that were written before it. Returns
        how many."""

    def free_bytes(self) -> int:
        """Free space in bytes."""


def named(data: bytes, kind: Kind, day: datetime) -> StoredFile:
    """Under which name bytes are kept that were decided on a day (UTC)."""
    digest = hashlib.sha256(data).hexdigest()
    return StoredFile(f"{day:%Y-%m-%d}/{digest[:2]}/{digest}.{kind}", digest, len(data))


def checked_path(file: StoredFile) -> str:
    """The path of a file. Raises EvidenceDamaged for a path that no file of the evidence has."""
    if not FILE.fullmatch(file.path):
        raise EvidenceDamaged(f"the manifest names {file.path[:200]!r}, which is no file of the evidence")
    return file.path


def unchanged(data: bytes, file: StoredFile, name: str) -> bytes:
    """The bytes as they were written. Raises EvidenceDamaged, by `name`, for others."""
    found = hashlib.sha256(data).hexdigest()
    if found != file.sha256:
        raise EvidenceDamaged(
            f"the {name} of this evidence was changed: {file.path} has the SHA-256 {found}, and was written with"
            f" {file.sha256}"
        )
    return data


def gone(file: StoredFile, name: str, place: str) -> EvidenceDamaged:
    """The error for a file that is not where its manifest says."""
    return EvidenceDamaged(f"the {name} of this evidence is gone: {file.path} is not in {place}")

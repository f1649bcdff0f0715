"""Hashes that name files, weights and settings. Figures and engines say by them what they were made of."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

SHORT = 12
"""Hexadecimal digits of a short hash."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_texts(texts: Iterable[str]) -> str:
    """Short hash of texts in their order."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:SHORT]


def of_weights(module: "nn.Module") -> str:
    """Short hash of a module's weights, by name."""
    digest = hashlib.sha256()
    for name, weight in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:SHORT]

"""Short hashes of what a measurement depends on, so that figures name what they were measured on."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

_HERE = Path(__file__).parent
_DIGITS = 12

PARTS = {
    "world": (
        *("facts", "layout", "casting", "script", "happenings", "backdrop", "props", "vehicles", "figures", "glyphs"),
        *("weather", "draw", "stage", "scene", "codec"),
    ),
    "grammar": (
        *("wordings", "templates", "questions_now", "questions_over_time", "proposals", "shares", "unknown", "grammar"),
    ),
    "truth": ("measure", "truth", "watches", "segments"),
    "evaluation": ("replay", "matching", "score"),
    "tasks": ("tasks", "evidence", "distracted"),
    "training": ("bandit", "cells", "answerer"),
}
"""The modules behind each hash."""

APART = ("__init__", "shape", "checkpoint", "hashes", "evaluate", "report", "live", "world")
"""Modules on which no figure depends, or whose outcome (the weights) has a hash of its own."""


def of_source(*parts: str) -> str:
    """Hash of the source of some of PARTS."""
    digest = hashlib.sha256()
    for name in (name for part in parts for name in PARTS[part]):
        digest.update((_HERE / f"{name}.py").read_bytes())
    return digest.hexdigest()[:_DIGITS]


def of_file(file: Path) -> str:
    """Hash of a file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:_DIGITS]


def of_weights(module: "nn.Module") -> str:
    """Hash of a module's weights, by name."""
    digest = hashlib.sha256()
    for name, weight in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:_DIGITS]

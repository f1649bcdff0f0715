"""Engines by the names of their allocators: those that a comparison has besides what is no engine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

GENERAL = "learned:general"
"""The allocator whose engine was trained on all cameras but the one that it is tested on."""


@dataclass(frozen=True, slots=True)
class TrainedEngines:
    """The folders of engines by the names of their allocators; `by_clip` of those that have one for each camera."""

    learned: Path | None = None
    others: Mapping[str, Path] = field(default_factory=dict)
    by_clip: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)


def minutes_name(minutes: float | None, *, general: bool) -> str:
    """The name of the allocator that was trained on so many minutes (None: all), from the shipped engine or nothing."""
    amount = "all" if minutes is None else f"{minutes:g}min"
    if minutes is None and general:
        return "learned"
    return f"learned:{amount}" if general else f"learned:{amount}-from-nothing"

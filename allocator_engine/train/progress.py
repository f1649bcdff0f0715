"""The state of a training that may be stopped at any moment, and its log."""

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import nn

from allocator_engine.errors import EngineMismatch
from allocator_engine.model.checkpoint import check_finite

Record: TypeAlias = Mapping[str, float | int | str]
"""One line of the log."""

_STATE, _LOG = "capo.state", "capo.jsonl"
_SHOWN_CHARS = 60  # characters of what differs


@dataclass(slots=True)
class Progress:
    """The state of a training: the records of its steps so far, and how many updates were skipped.

    `recipe` names everything the outcome depends on; a state of another one is refused.
    """

    folder: Path
    recipe: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    records: list[Record] = field(default_factory=list)
    skipped: int = 0

    def resume(self) -> None:
        """Go on from the state in the folder, if there is one. Raises EngineMismatch for one that does not fit."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / _STATE
        if file.exists():
            self._restore(file)
        # The log may be ahead of the state that a stop left behind: those steps will be taken again.
        lines = "".join(json.dumps(record) + "\n" for record in self.records)
        _write(self.folder / _LOG, lines)

    def add(self, record: Record, *, save: bool) -> None:
        """Append the record of a step to the log; with `save`, write the state as well."""
        self.records.append(record)
        with (self.folder / _LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(record) + "\n")
        if save:
            self.save()

    def save(self) -> None:
        """Write the state."""
        file = self.folder / _STATE
        beside = file.with_suffix(".partial")
        state = {
            "recipe": self.recipe,
            "records": [dict(record) for record in self.records],
            "skipped": self.skipped,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, beside)
        beside.replace(file)

    def _restore(self, file: Path) -> None:
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
            raise EngineMismatch(f"{file} is damaged ({error}); delete it to begin again") from error
        theirs = state.get("recipe") if isinstance(state, dict) else None
        if theirs != self.recipe:
            raise EngineMismatch(
                f"{file} is of a training that differs from this one ({_difference(str(theirs), self.recipe)}); use"
                " another --work, or the version and options that it began with"
            )
        try:
            check_finite(state["module"], str(file))
            self.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.records, self.skipped = state["records"], state["skipped"]
        except (KeyError, RuntimeError, ValueError) as error:
            raise EngineMismatch(f"{file} does not fit this network ({error}); use another --work") from error


def means(entries: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every figure over the entries that have it."""
    names = dict.fromkeys(name for entry in entries for name in entry)
    return {name: round(float(np.mean([entry[name] for entry in entries if name in entry])), 6) for name in names}


def _difference(theirs: str, ours: str) -> str:
    """The first difference of two descriptions, from the beginning of the field in which they part."""
    unlike = (place for place, (one, other) in enumerate(zip(theirs, ours, strict=False)) if one != other)
    same = next(unlike, min(len(theirs), len(ours)))
    begins = max(ours.rfind(mark, 0, same) for mark in ("(", " ")) + 1
    parts = [
        text[begins : begins + _SHOWN_CHARS] + ("..." if len(text) > begins + _SHOWN_CHARS else "")
        for text in (theirs, ours)
    ]
    return f"there {parts[0]!r}, here {parts[1]!r}"


def _write(file: Path, text: str) -> None:
    beside = file.with_suffix(".partial")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)

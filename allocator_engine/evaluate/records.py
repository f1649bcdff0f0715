"""Earlier results as JSON lines, so that a stopped evaluation goes on where it was."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import TypeAdapter

from allocator_engine.errors import EngineMismatch

T = TypeVar("T")


class Records(Generic[T]):
    """Values by name, in a file that only grows, or in memory alone if there is no `file`. For one process at a time.

    A line that was cut off by a stop counts as not written. Raises EngineMismatch for a file that is not one of these.
    """

    def __init__(self, kind: type[T], file: Path | None) -> None:
        self._adapter, self._file = TypeAdapter(kind), file
        self._known: dict[str, T] = {}
        if file is not None and file.exists():
            lines = file.read_bytes().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith(b"\n")]
            if whole != lines:
                os.truncate(file, sum(map(len, whole)))
            for number, line in enumerate(whole, start=1):
                try:
                    entry = json.loads(line)
                    self._known[entry["name"]] = self._adapter.validate_python(entry["value"])
                except (ValueError, TypeError, KeyError) as error:
                    raise EngineMismatch(
                        f"line {number} of {file} is damaged ({error}); delete the line, and it is found out again"
                    ) from error

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def __getitem__(self, name: str) -> T:
        return self._known[name]

    def add(self, found: Mapping[str, T]) -> None:
        """Keep these, durably if there is a file."""
        self._known.update(found)
        if self._file is None or not found:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as stream:
            for name, value in found.items():
                entry = {"name": name, "value": self._adapter.dump_python(value, mode="json")}
                stream.write(json.dumps(entry) + "\n")

"""Entries of the registry, changes to them, and the reasons to refuse a change, as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pipeline.errors import ConfigError
from pipeline.types import Json

Kind = Literal["stream", "watch", "sink", "profile"]
KINDS: tuple[Kind, ...] = ("stream", "watch", "sink")
"""What a site file has sections of. A profile is a name that watches have; its entry says whether it is armed."""
Spec = Mapping[str, Json]
"""What is said of one thing, in the words of the site file: what is not said has its default."""

FILE_OWNER = "file:"
"""How the owner of what a site file says begins; the path of the file follows."""

Expected = int | Literal["any", "absent"]
"""The revision that a change was made for."""


@dataclass(frozen=True, slots=True)
class RegistryEntry:
    """One stream, watch or sink that is wanted. `revision` grows by one with each change; times are UTC."""

    kind: Kind
    slug: str
    revision: int
    owner: str
    spec: Spec
    created_at: datetime
    updated_at: datetime

    @property
    def file(self) -> str | None:
        """The site file that it is written in, if it is."""
        return self.owner.removeprefix(FILE_OWNER) if self.owner.startswith(FILE_OWNER) else None

    @property
    def paused(self) -> bool:
        """True if it is wanted, but not now."""
        return self.spec.get("paused") is True

    @property
    def tags(self) -> frozenset[str]:
        """The tags of a stream."""
        tags = self.spec.get("tags", ())
        return frozenset(map(str, tags)) if isinstance(tags, list | tuple) else frozenset()


@dataclass(frozen=True, slots=True)
class Change:
    """A change of an entry: `spec` None removes it. Refused unless the entry is at the revision `expected`."""

    kind: Kind
    slug: str
    spec: Spec | None
    owner: str
    expected: Expected = "any"


@dataclass(frozen=True, slots=True)
class Edit:
    """A change that was made: its place in the order of all, who made it and when (UTC), and the spec before (None: it
    was added) and after (None: it was removed)."""

    seq: int
    kind: str
    slug: str
    revision: int
    at: datetime
    actor: str
    before: Spec | None
    after: Spec | None


class EntryMissing(ConfigError):
    """There is no such stream, watch or sink."""


class EntryPresent(ConfigError):
    """There is one already."""


class EntryOwned(ConfigError):
    """It is written in a site file, and changed there only."""


class RevisionConflict(ConfigError):
    """Somebody else has changed it meanwhile."""

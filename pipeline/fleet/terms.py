"""Values that a head and its nodes share: what a node is given, what it is, and what it says of its streams."""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from pydantic import TypeAdapter

from pipeline.delivery.nodes import StoredNode
from pipeline.delivery.tables import SCHEMA_VERSION
from pipeline.service.share import PicturePlace
from pipeline.service.status import StreamStatus

UNMEASURED = 0.1
"""Cost of a stream, in cores, until it has been measured."""


@cache  # it is read from the installed files, and asked twice a second
def version() -> str:
    """The version that all machines of a fleet must have in common: the program's, and the schema that it writes."""
    return f"{importlib.metadata.version('resadapt-stream')} (schema {SCHEMA_VERSION})"


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of the cluster that can run a node: its name, its capacity in cores, the most streams it may run (None:
    no bound), its tags, and the address by which the cluster's other machines know it."""

    name: str
    capacity: float
    most_streams: int | None = None
    tags: frozenset[str] = frozenset()
    address: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ShardTerms:
    """The terms on which a node starts: the machine it is, the site as plain mappings with its secrets as references,
    the path of the site file, and the version of who gives it."""

    machine: Machine
    raw: Mapping[str, object]
    path: str
    version: str


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A node's report of its streams, by slug: their state, and what they cost in cores; `base` are those of its own
    process. `pictures` is where it offers theirs, `trouble` why it cannot run at all."""

    streams: Mapping[str, StreamStatus] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    trouble: str = ""
    pictures: PicturePlace | None = None
    base: float = 0.0

    def to_json(self) -> str:
        """As text for the store."""
        return _REPORT.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> "NodeReport":
        """Back from the store; an empty one for text of another version."""
        try:
            return _REPORT.validate_json(text)
        except ValueError:
            return cls()


_REPORT = TypeAdapter(NodeReport)


def is_skewed(node: StoredNode, most_skew_s: float) -> bool:
    """True if a node's clock and the database's differ by more than they may."""
    return abs(node.skew_s) > most_skew_s


def unfit(node: StoredNode, own: str, most_skew_s: float) -> str | None:
    """Why a node gets no streams, whatever people want of it; None if it may have some."""
    if node.offer.version != own:
        return f"it runs version {node.offer.version}, and the head {own}: install the same on both"
    if not node.live:
        return "it gives no sign of life"
    if is_skewed(node, most_skew_s):
        way = "ahead of" if node.skew_s > 0 else "behind"
        return f"its clock is {abs(node.skew_s):.0f} s {way} the database's; set it right (NTP)"
    return None

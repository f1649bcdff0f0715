"""The nodes of a fleet as people see them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pipeline.config.fleet import FleetConfig
from pipeline.delivery.nodes import NodeBook, StoredNode, Wanted
from pipeline.fleet.terms import NodeReport, unfit, version
from pipeline.service.plan import RunningCosts

NodeState = Literal["active", "cordoned", "draining", "drained", "unfit", "dead"]
"""`draining` still has streams to hand over; `unfit` gets none for a reason; `dead` gives no sign of life."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node: its state and why, what people want of it, what it offers (cores, most streams, tags), the streams that
    are placed on it and up there, what they cost in cores, when it joined and when it was last seen alive (UTC)."""

    name: str
    state: NodeState
    wanted: Wanted
    reason: str
    version: str
    capacity: float
    most_streams: int | None
    tags: tuple[str, ...]
    streams: int
    up: int
    cost: float
    clock_off_s: float
    joined_at: datetime
    seen_at: datetime | None

    @property
    def troubled(self) -> bool:
        """True if somebody has to look after it. One that was drained may be gone."""
        return bool(self.reason) and not (self.state == "dead" and self.wanted == "drained")


def overview(book: NodeBook, terms: FleetConfig) -> list[NodeStatus]:
    """All nodes of a fleet, by name; none where there is no fleet. Blocks."""
    placed = Counter(book.places().values())
    reports = {name: NodeReport.from_json(text) for name, text in book.reports().items()}
    return [_status(node, placed, reports.get(node.offer.name, NodeReport()), terms) for node in book.nodes()]


def costs_of(book: NodeBook) -> RunningCosts:
    """The costs of all streams of a fleet, as its nodes measure them, and the cores of the nodes that live and run
    some. Blocks."""
    reports = {name: NodeReport.from_json(text) for name, text in book.reports().items()}
    nodes = [node for node in book.nodes() if node.live and node.wanted != "drained"]
    found = [reports.get(node.offer.name, NodeReport()) for node in nodes]
    return RunningCosts(
        sum(node.offer.capacity for node in nodes),
        sum(report.base for report in found),
        {slug: cost for report in found for slug, cost in report.costs.items()},
    )


def _status(node: StoredNode, placed: Mapping[str, int], report: NodeReport, terms: FleetConfig) -> NodeStatus:
    offer, streams = node.offer, placed.get(node.offer.name, 0)
    reason = report.trouble or unfit(node, version(), terms.most_skew_s)
    return NodeStatus(
        offer.name,
        _state(node, streams, reason),
        node.wanted,
        reason or "",
        offer.version,
        offer.capacity,
        offer.most_streams,
        tuple(sorted(offer.tags)),
        streams,
        sum(one.state == "up" for one in report.streams.values()) if node.live else 0,
        round(sum(report.costs.values()), 3) if node.live else 0.0,
        node.skew_s,
        node.joined_at,
        None if node.until_s is None else datetime.fromtimestamp(node.until_s - terms.lease_s, UTC),
    )


def _state(node: StoredNode, streams: int, reason: str | None) -> NodeState:
    if reason:
        return "dead" if not node.live and node.offer.holder else "unfit"
    if node.wanted == "drained":
        return "draining" if streams else "drained"
    return node.wanted

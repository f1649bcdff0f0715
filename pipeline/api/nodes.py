"""The nodes of a fleet: listed, drained, cordoned. A service without a fleet has none."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from pipeline.api.auth import Caller, allowed
from pipeline.api.desk import Desk
from pipeline.api.entries import AtDesk, Viewer
from pipeline.api.problems import RESPONSES, Problem
from pipeline.delivery.nodes import NodeBook, Wanted
from pipeline.fleet.overview import NodeStatus, overview
from pipeline.registry.entry import EntryMissing

router = APIRouter(prefix="/v1/nodes", tags=["nodes"], responses=RESPONSES)

Operator = Annotated[Caller, Depends(allowed("operator"))]


class Nodes(BaseModel):
    """All nodes, by name."""

    items: list[NodeStatus]


@router.get("", response_model=Nodes, operation_id="list_nodes")
def list_nodes(caller: Viewer, desk: AtDesk) -> Nodes:
    """Every node: its state, what it offers, and what runs on it."""
    _require_whole(caller)
    return Nodes(items=nodes_of(desk))


@router.post("/{name}/drain", response_model=NodeStatus, operation_id="drain_node")
def drain(name: str, caller: Operator, desk: AtDesk) -> NodeStatus:
    """From now on it hands its streams over to others, and gets none."""
    return _want(name, "drained", caller, desk)


@router.post("/{name}/cordon", response_model=NodeStatus, operation_id="cordon_node")
def cordon(name: str, caller: Operator, desk: AtDesk) -> NodeStatus:
    """From now on it keeps what it has, and gets nothing more."""
    return _want(name, "cordoned", caller, desk)


@router.post("/{name}/uncordon", response_model=NodeStatus, operation_id="uncordon_node")
def uncordon(name: str, caller: Operator, desk: AtDesk) -> NodeStatus:
    """From now on it gets streams again."""
    return _want(name, "active", caller, desk)


def _want(name: str, wanted: Wanted, caller: Caller, desk: Desk) -> NodeStatus:
    _require_whole(caller)
    if not _book(desk).want(name, wanted):
        known = [node.name for node in nodes_of(desk)]
        few = f"the nodes are {', '.join(known[:10])}" if known else "this service has none: it runs without --cluster"
        raise EntryMissing(f"there is no node {name[:80]!r}; {few}")
    return next(node for node in nodes_of(desk) if node.name == name)


def nodes_of(desk: Desk) -> list[NodeStatus]:
    """All nodes of the fleet; none where there is no fleet. Blocks."""
    return overview(_book(desk), desk.reconciler.service.site.fleet)


def _book(desk: Desk) -> NodeBook:
    return NodeBook(desk.registry.database, desk.clock)


def _require_whole(caller: Caller) -> None:
    if caller.tags:
        raise Problem(403, "not allowed", "the key is for some streams only, and nodes concern all", "tags")

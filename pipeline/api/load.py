"""The load of the service: what its streams need, what there is, and what would give first."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from pipeline.api.auth import Caller, allowed
from pipeline.api.entries import AtDesk
from pipeline.api.needs import late_streams, needs_now
from pipeline.api.problems import RESPONSES
from pipeline.service.plan import warnings_of

router = APIRouter(prefix="/v1", tags=["status"], responses=RESPONSES)
Operator = Annotated[Caller, Depends(allowed("operator"))]


class NeedView(BaseModel):
    """One part of a machine, or one bound of the site: how much of it is needed and there is, in `unit` (null: not
    known), by measurement, estimate or configuration; `change` is what to do where it is too little."""

    part: str
    needs: float
    has: float | None
    unit: str
    source: str
    change: str


class LoadView(BaseModel):
    """The needs of all streams that are wanted, what gives first at the top; `warnings` name what does not fit."""

    parts: list[NeedView]
    warnings: list[str]


@router.get("/load", response_model=LoadView, operation_id="load")
def load(caller: Operator, desk: AtDesk) -> LoadView:
    """The needs of the streams and what there is: as measured where they run, else as `resadapt plan` estimates it."""
    needs = needs_now(desk)
    shown = ("part", "needs", "has", "unit", "source", "change")
    parts = [NeedView(**{name: getattr(need, name) for name in shown}) for need in needs]
    return LoadView(parts=parts, warnings=[*warnings_of(needs), *late_streams(desk, caller)])

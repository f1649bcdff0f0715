"""Trying a watch on the answers that it has given already."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from pipeline.api.auth import Caller, allowed
from pipeline.api.entries import AtDesk
from pipeline.api.problems import RESPONSES
from pipeline.api.views import plain
from pipeline.lab.what_if import otherwise, what_if

router = APIRouter(prefix="/v1", tags=["watches"], responses=RESPONSES)
Analyst = Annotated[Caller, Depends(allowed("analyst"))]


class WhatIfBody(BaseModel):
    """Settings of the watch to try (null takes one back to its default), on the answers of the last `since_s` s."""

    model_config = ConfigDict(extra="forbid")
    since_s: Annotated[float, Field(gt=0, le=31 * 86_400)] = 86_400
    settings: dict[str, JsonValue] = {}


class WhatIfView(BaseModel):
    """The result of a what-if on each stream."""

    items: list[dict[str, JsonValue]]


@router.post("/watches/{slug}/test", response_model=WhatIfView, operation_id="test_watch")
def test_watch(slug: str, body: WhatIfBody, caller: Analyst, desk: AtDesk) -> WhatIfView:
    """Judge its kept answers again by other thresholds, durations or schedules, without asking the MLLM."""
    entry = desk.look(caller).entry("watch", slug)
    pair = otherwise(slug, entry.spec, body.settings)
    visible = desk.visible_streams(caller)
    streams = None if visible is None else sorted(visible)
    found = what_if(desk.reconciler.history(), [pair], desk.clock.now(), body.since_s, streams)
    items: list[dict[str, Any]] = [plain(one.as_json()) for one in found]
    return WhatIfView(items=items)

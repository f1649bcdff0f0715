"""Settings of a watch searched for by people's labels, on the answers that it has given already."""

from collections.abc import Sequence
from threading import Lock
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from pipeline.api.admission import allow_entry
from pipeline.api.entries import AtDesk
from pipeline.api.problems import RESPONSES, one_at_a_time
from pipeline.api.views import plain
from pipeline.api.what_if import Analyst
from pipeline.api.wordings import tests_of
from pipeline.config.entries import parse_watch
from pipeline.delivery.labels import LabelBook
from pipeline.lab.tested import BetterWording, better_wordings, results_of
from pipeline.lab.tuning import WatchTuning, asked_since, tune_watch
from pipeline.registry.entry import EntryOwned

router = APIRouter(prefix="/v1", tags=["watches"], responses=RESPONSES)

_SEARCHING = Lock()


class TuneBody(BaseModel):
    """Search on the answers of the last `since_s` seconds; with `apply` the watch gets what is proposed."""

    model_config = ConfigDict(extra="forbid")
    since_s: Annotated[float, Field(gt=0, le=31 * 86_400)] = 7 * 86_400
    apply: bool = False


class TuneView(BaseModel):
    """The watch's settings `now` and those `proposed` (null where none are better by a margin, for a `reason`), each
    with its figures: those `expected` of a proposal are of time that it was not chosen on. `without_answers` are times
    at which it should have been open of which no answers are kept. `tested` are other wordings that did surely better
    in tests, the best first."""

    watch: str
    labels: dict[str, int]
    without_answers: int
    streams: list[str]
    reviewed_s: float
    hops: int
    now: dict[str, JsonValue]
    proposed: dict[str, JsonValue] | None
    changes: dict[str, JsonValue]
    expected: dict[str, JsonValue] | None
    gain: dict[str, JsonValue]
    tried: int
    folds: int
    reason: str
    tested: list[BetterWording] = []
    applied: bool = False
    revision: int | None = None


@router.post("/watches/{slug}/tune", response_model=TuneView, operation_id="tune_watch")
def tune(slug: str, body: TuneBody, caller: Analyst, desk: AtDesk) -> TuneView:
    """Search for thresholds, confirmation, duration and cooldown that agree better with its labels, without asking the
    MLLM. One search runs at a time."""
    look = desk.look(caller)
    entry = look.entry("watch", slug)
    watch = parse_watch(slug, entry.spec)
    if body.apply:
        allow_entry(caller, entry, "watch", entry.spec, look.snapshot)
        if entry.file is not None:
            raise EntryOwned(owned(slug, entry.file))
    with one_at_a_time(_SEARCHING, "another watch is being tuned"):
        found = tune_watch(
            desk.reconciler.history(), LabelBook(desk.registry.database, desk.clock), slug, watch, desk.clock.now(),
            body.since_s, asked_since(desk.registry.edits(kind="watch", slug=slug)), desk.visible_streams(caller),
        )  # fmt: skip
    revision = None
    if body.apply and found.tuning.proposed:
        revision = desk.patch(caller, "watch", slug, found.changes, entry.revision).revision
    return tune_view(found, revision, better_wordings(results_of(tests_of(desk), slug, watch), watch))


def tune_view(found: WatchTuning, revision: int | None, tested: Sequence[BetterWording]) -> TuneView:
    """A search as the API shows it; `revision` is the watch's, where the proposal was applied, and `tested` are
    wordings that did better in tests."""
    shown: dict[str, Any] = plain(found.as_json())
    return TuneView(**shown, tested=list(tested), applied=revision is not None, revision=revision)


def owned(slug: str, file: str) -> str:
    """The reason that a watch of a site file cannot be changed here."""
    return f"the watch {slug!r} is written in {file}; change it there, then reload (SIGHUP)"

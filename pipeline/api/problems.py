"""Errors as RFC 9457 problems: the fault, its field, and the expected value."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from pipeline.errors import (
    ConfigError,
    MLLMUnavailable,
    ResadaptError,
    SinkUnavailable,
    SourceUnavailable,
    StoreUnavailable,
)
from pipeline.evidence.bundle import EvidenceDamaged, EvidenceMissing
from pipeline.redact import plain_traceback, scrub
from pipeline.registry.entry import EntryMissing, EntryOwned, EntryPresent, RevisionConflict

log = structlog.get_logger()

PROBLEM_TYPE = "application/problem+json"
_STATUS: Sequence[tuple[type[ResadaptError], int, str]] = (
    (EntryMissing, 404, "not found"),
    (EntryPresent, 409, "there already"),
    (EntryOwned, 409, "owned by a site file"),
    (RevisionConflict, 412, "changed meanwhile"),
    (ConfigError, 422, "not accepted"),
    (StoreUnavailable, 503, "store unavailable"),
    (SourceUnavailable, 502, "stream unavailable"),
    (SinkUnavailable, 502, "sink unavailable"),
    (EvidenceMissing, 404, "not found"),
    (EvidenceDamaged, 500, "evidence damaged"),
    (MLLMUnavailable, 503, "model unavailable"),
)
_FIELD = re.compile(r"^(?:streams|watches|sinks)\.[a-z0-9_-]+(?:\.(?P<inner>[\w.\[\]-]+))?|^(?P<plain>[a-z_]+):")


class FieldFault(BaseModel):
    """One value that was not accepted: the field it is in, and what was expected."""

    field: str
    detail: str


class ProblemBody(BaseModel):
    """RFC 9457: `type` is about:blank, `title` what the status means here, `detail` what to do about this one."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldFault] = []


class Problem(Exception):
    """An answer that is an error. `field` names the value that is at fault, where one is."""

    def __init__(
        self, status: int, title: str, detail: str, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        errors = [] if field is None else [FieldFault(field=field, detail=scrub(detail))]
        self.body = ProblemBody(title=title, status=status, detail=scrub(detail), errors=errors)
        self.headers = dict(headers or {})


RESPONSES: dict[int | str, dict[str, object]] = {
    status: {"description": what, "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}}
    for status, what in (
        ("4XX", "what was asked is not accepted; `errors` name the fields"),
        ("5XX", "what was asked cannot be done now"),
    )
}
"""The errors of every route, for the OpenAPI document."""


@contextmanager
def one_at_a_time(lock: Lock, busy: str) -> Iterator[None]:
    """Holds a lock for what only one request may do. Raises Problem 503, which says what keeps it `busy`, while another
    does."""
    if not lock.acquire(blocking=False):
        raise Problem(503, "not available now", busy, headers={"Retry-After": "5"})
    try:
        yield
    finally:
        lock.release()


def install(app: FastAPI) -> None:
    """Answer every error with a problem."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(ResadaptError, _house_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _defect)


def answer(problem: Problem) -> JSONResponse:
    """A problem as a response."""
    body = problem.body.model_dump()
    return JSONResponse(body, problem.body.status, problem.headers, media_type=PROBLEM_TYPE)


def of_error(error: ResadaptError) -> Problem:
    """The problem that an error of the house is to a client."""
    text = str(error)
    for kind, status, title in _STATUS:
        if isinstance(error, kind):
            match = _FIELD.match(text) if status == 422 else None
            field = (match.group("inner") or match.group("plain") or "slug") if match else None
            headers = {"Retry-After": "1"} if status == 503 else {}
            return Problem(status, title, text, field, headers)
    return Problem(500, "failed", text)


async def _problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return answer(error)


async def _house_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ResadaptError)
    return answer(of_error(error))


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [
        FieldFault(field=".".join(map(str, one["loc"][1:])) or str(one["loc"][0]), detail=scrub(str(one["msg"])))
        for one in error.errors()
    ]
    problem = Problem(422, "not accepted", "; ".join(f"{fault.field}: {fault.detail}" for fault in faults))
    problem.body.errors = faults
    return answer(problem)


async def _http_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return answer(Problem(error.status_code, str(error.detail).lower(), str(error.detail), headers=error.headers))


async def _defect(request: Request, error: Exception) -> JSONResponse:
    log.error("api_failed", method=request.method, path=request.url.path, traceback=plain_traceback(error))
    return answer(Problem(500, "failed", "an unforeseen failure; the log of the service has it"))

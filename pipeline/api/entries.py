"""Streams, watches and sinks by slug: listed, shown, added, changed, paused, removed. Each kind has the same routes."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel

from pipeline.api.auth import Caller, allowed
from pipeline.api.desk import Desk, expected_revision, json_object
from pipeline.api.needs import load_warnings
from pipeline.api.problems import RESPONSES, Problem
from pipeline.api.views import (
    EDITED,
    VIEWS,
    EditedStreamView,
    EditView,
    EntryView,
    Page,
    StreamView,
    edit_view,
    spec_schema,
)
from pipeline.config.site import SiteConfig
from pipeline.config.slugs import slug_of, stream_slug
from pipeline.registry.desired import SECTIONS
from pipeline.registry.entry import Expected, Kind, RegistryEntry
from pipeline.registry.keys import Role
from pipeline.types import Json

MAX_PAGE = 1000
_EDITOR: dict[Kind, Role] = {"stream": "operator", "watch": "analyst", "sink": "operator"}

Body = Annotated[dict[str, Json], Depends(json_object)]
Revision = Annotated[Expected, Depends(expected_revision)]
Viewer = Annotated[Caller, Depends(allowed("viewer"))]


def desk_of(request: Request) -> Desk:
    """A dependency: what the routes work on."""
    found: Desk = request.app.state.desk
    return found


AtDesk = Annotated[Desk, Depends(desk_of)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Cursor = Annotated[str | None, Query(max_length=80, description="`next` of the page before.")]


def entry_router(kind: Kind) -> APIRouter:
    """The routes of a kind."""
    section, view = SECTIONS[kind], VIEWS[kind]
    router = APIRouter(prefix=f"/v1/{section}", tags=[section], responses=RESPONSES)
    _reading(router, kind, view)
    _writing(router, kind, view)
    if kind != "sink":
        _pausing(router, kind, view)
    return router


def _reading(router: APIRouter, kind: Kind, view: type[EntryView]) -> None:
    @router.get("", response_model=Page[view], operation_id=f"list_{SECTIONS[kind]}")  # type: ignore[valid-type]
    def list_entries(
        caller: Viewer,
        desk: AtDesk,
        limit: Limit = 100,
        cursor: Cursor = None,
        tag: Annotated[str | None, Query(max_length=63)] = None,
        site: Annotated[str | None, Query(max_length=200)] = None,
        paused: bool | None = None,
        owner: Annotated[str | None, Query(max_length=400)] = None,
    ) -> Response:
        """In the order of slugs, filtered."""
        look = desk.look(caller)

        def wanted(entry: RegistryEntry) -> bool:
            return (
                (cursor is None or entry.slug > cursor)
                and (tag is None or tag in entry.tags)
                and (site is None or entry.spec.get("site", "") == site)
                and (paused is None or entry.paused == paused)
                and (owner is None or entry.owner == owner)
            )

        found = [entry for entry in look.entries(kind) if wanted(entry)]
        items = [look.view(entry) for entry in found[:limit]]
        return as_json(Page[view](items=items, next=found[limit - 1].slug if len(found) > limit else None))  # type: ignore[valid-type]

    @router.get("/{slug}", response_model=view, operation_id=f"show_{kind}")
    def show(slug: str, caller: Viewer, desk: AtDesk, response: Response) -> EntryView:
        """One of them; its ETag is its revision."""
        look = desk.look(caller)
        return _tagged(look.view(look.entry(kind, slug)), response)

    @router.get("/{slug}/history", response_model=Page[EditView], operation_id=f"history_of_{kind}")
    def history(
        slug: str,
        caller: Viewer,
        desk: AtDesk,
        limit: Limit = 100,
        cursor: Annotated[int | None, Query(ge=1, lt=2**62)] = None,
    ) -> Page[EditView]:
        """Edits of the entry, newest first."""
        look = desk.look(caller)
        look.entry(kind, slug)
        edits = desk.registry.edits(limit + 1, cursor, kind, slug)
        more = str(edits[limit - 1].seq) if len(edits) > limit else None
        return Page(items=[edit_view(edit, look.spec) for edit in edits[:limit]], next=more)


def _writing(router: APIRouter, kind: Kind, view: type[EntryView]) -> None:
    editor = Annotated[Caller, Depends(allowed(_EDITOR[kind]))]
    edited = EDITED[kind]

    @router.post(
        "",
        status_code=201,
        response_model=edited,
        operation_id=f"add_{kind}",
        openapi_extra=_body(spec_schema(kind, slug=True)),
    )
    def add(body: Body, caller: editor, desk: AtDesk, response: Response) -> EntryView:
        """Add one, under `slug` or a slug made of what it is about. 409 where there is one already."""
        spec = dict(body)
        slug = spec.pop("slug", None)
        if slug is None:
            slug = _slug_for(kind, spec)
        if not isinstance(slug, str):
            raise Problem(422, "not accepted", "slug: expected text", "slug")
        before = desk.reconciler.service.site
        desk.put(caller, kind, slug, spec, "absent")
        response.headers["Location"] = f"/v1/{SECTIONS[kind]}/{slug}"
        return _tagged(_edited(kind, slug, caller, desk, before), response)

    @router.put(
        "/{slug}",
        response_model=edited,
        operation_id=f"put_{kind}",
        openapi_extra=_body(spec_schema(kind)),
        responses={201: {"model": edited, "description": "added"}},
    )
    def put(
        slug: str,
        body: Body,
        caller: editor,
        desk: AtDesk,
        expected: Revision,
        response: Response,
    ) -> EntryView:
        """Make it what the body says, whatever it was; the same again changes nothing."""
        before = desk.reconciler.service.site
        _, is_new = desk.put(caller, kind, slug, body, expected)
        response.status_code = 201 if is_new else 200
        return _tagged(_edited(kind, slug, caller, desk, before), response)

    @router.patch(
        "/{slug}",
        response_model=view,
        operation_id=f"edit_{kind}",
        openapi_extra=_body(spec_schema(kind, partial=True)),
    )
    def edit(
        slug: str,
        body: Body,
        caller: editor,
        desk: AtDesk,
        expected: Revision,
        response: Response,
    ) -> EntryView:
        """Change some fields (RFC 7396): null takes one back to its default."""
        desk.patch(caller, kind, slug, body, expected)
        look = desk.look(caller)
        return _tagged(look.view(look.entry(kind, slug)), response)

    @router.delete("/{slug}", status_code=204, operation_id=f"remove_{kind}")
    def remove(slug: str, caller: editor, desk: AtDesk, expected: Revision) -> None:
        """Remove it; a stream is detached within seconds."""
        desk.remove(caller, kind, slug, expected)


def _pausing(router: APIRouter, kind: Kind, view: type[EntryView]) -> None:
    editor = Annotated[Caller, Depends(allowed(_EDITOR[kind]))]

    @router.post("/{slug}/pause", response_model=view, operation_id=f"pause_{kind}")
    def pause(slug: str, caller: editor, desk: AtDesk, response: Response) -> EntryView:
        """Leave it alone until it is resumed."""
        return _set_paused(slug, caller, desk, response, True)

    @router.post("/{slug}/resume", response_model=view, operation_id=f"resume_{kind}")
    def resume(slug: str, caller: editor, desk: AtDesk, response: Response) -> EntryView:
        """Go on with it."""
        return _set_paused(slug, caller, desk, response, False)

    def _set_paused(slug: str, caller: Caller, desk: Desk, response: Response, paused: bool) -> EntryView:
        desk.patch(caller, kind, slug, {"paused": True if paused else None}, "any")
        look = desk.look(caller)
        return _tagged(look.view(look.entry(kind, slug)), response)


def _edited(kind: Kind, slug: str, caller: Caller, desk: Desk, before: SiteConfig) -> EntryView:
    """An entry that was just added or changed in the site as it was `before`; a stream with what does not fit with
    it."""
    look = desk.look(caller)
    found = look.view(look.entry(kind, slug))
    if not isinstance(found, StreamView):
        return found
    known = {name: getattr(found, name) for name in StreamView.model_fields}
    return EditedStreamView(**known, warnings=load_warnings(desk, caller, slug, before))


def as_json(model: BaseModel) -> Response:
    """A view as it is: FastAPI would check once more what was just made."""
    return Response(model.model_dump_json(), media_type="application/json")


def _slug_for(kind: Kind, spec: Mapping[str, Json]) -> str:
    """A slug made of a name, a question, or what a URL shows."""
    if name := spec.get("display_name") or spec.get("question"):
        return slug_of(str(name), kind)
    url = str(spec.get("url", ""))
    return stream_slug(url) if kind == "stream" else slug_of(url.partition(":")[0], kind)


def _tagged(view: EntryView, response: Response) -> EntryView:
    response.headers["ETag"] = f'"{view.revision}"'
    return view


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}

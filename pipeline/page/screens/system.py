"""The service itself: what it runs on, where events go, who may do what, who changed what."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from pipeline.page.calls import ask, call
from pipeline.page.forms import sent
from pipeline.page.render import page
from pipeline.page.screens.entries import done
from pipeline.registry.keys import ROLES

router = APIRouter()


@router.get("/system")
async def show_system(request: Request) -> Response:
    """All of it."""
    return await _shown(request)


@router.post("/system/keys")
async def make_key(request: Request) -> Response:
    """Make a key, which is shown this once."""
    form = await sent(request)
    tags = [tag.strip() for tag in form.get("tags", "").split(",") if tag.strip()]
    body = {"name": form.get("name", "").strip(), "role": form.get("role", "viewer"), "tags": tags}
    ends = form.get("expires_at", "")
    reply = await call(request, "POST", "/v1/keys", body=body | ({"expires_at": f"{ends}T00:00:00Z"} if ends else {}))
    status = 200 if reply.ok else reply.status
    if reply.ok and request.headers.get("sec-fetch-dest") != "empty":
        # The first key closes an API that was open: who has just made it goes on with it.
        return await _with_new_key(request, reply.body)
    return await _shown(request, problem=None if reply.ok else reply.body, status=status)


@router.post("/system/keys/{name}/revoke")
async def revoke_key(request: Request, name: str) -> Response:
    """Make a key worthless."""
    return await _done(request, "DELETE", f"/v1/keys/{name}", "revoked")


@router.post("/system/sinks/{slug}/test")
async def test_sink(request: Request, slug: str) -> Response:
    """Try a sink."""
    reply = await call(request, "POST", f"/v1/sinks/{slug}/test")
    return await _shown(request, tried={"slug": slug, "ok": reply.ok, "detail": reply.body["detail"]})


@router.post("/system/profiles/{slug}/{action}")
async def set_armed(request: Request, slug: str, action: str) -> Response:
    """Arm or disarm a profile."""
    verb = "arm" if action == "arm" else "disarm"
    return await _done(request, "POST", f"/v1/profiles/{slug}/{verb}", f"{verb}ed")


@router.post("/system/nodes/{name}/{verb}")
async def set_node(request: Request, name: str, verb: str) -> Response:
    """Drain, cordon or uncordon a node of a fleet."""
    return await done(request, "POST", f"/v1/nodes/{name}/{verb}", f"/system?said={verb}#nodes")


@router.post("/system/reload")
async def reload(request: Request) -> Response:
    """Read the site file again."""
    return await _done(request, "POST", "/v1/reload", "reloaded")


async def _done(request: Request, method: str, path: str, said: str) -> Response:
    return await done(request, method, path, f"/system?said={said}")


async def _with_new_key(request: Request, made: Mapping[str, Any]) -> Response:
    session = await call(request, "GET", "/v1/session")
    if session.ok:
        return await _shown(request, made=made)
    opened = await call(request, "POST", "/v1/session", body={"key": made["key"]})
    who = {"name": f"key:{made['name']}", "role": made["role"], "tags": made["tags"], "notice": None}
    response = await page(request, "new_key.html", made=made, who=who)
    response.headers["set-cookie"] = opened.headers["set-cookie"]
    return response


async def _shown(
    request: Request,
    problem: Mapping[str, Any] | None = None,
    made: Mapping[str, Any] | None = None,
    tried: Mapping[str, Any] | None = None,
    status: int = 200,
) -> Response:
    overview = await ask(request, "/v1/status")
    keys = await call(request, "GET", "/v1/keys")
    edits = await call(request, "GET", "/v1/audit", {"limit": 30})
    profiles = await ask(request, "/v1/profiles")
    nodes = await call(request, "GET", "/v1/nodes") if overview["in_fleet"] else None
    load = await call(request, "GET", "/v1/load")
    return await page(
        request,
        "system.html",
        status,
        overview=overview,
        keys=keys.body["items"] if keys.ok else None,
        edits=edits.body["items"] if edits.ok else None,
        profiles=profiles["items"],
        nodes=nodes.body["items"] if nodes and nodes.ok else None,
        roles=ROLES,
        problem=problem,
        made=made,
        tried=tried,
        warnings=load.body["warnings"] if load.ok else [],
    )

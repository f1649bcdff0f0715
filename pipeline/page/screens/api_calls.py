"""The calls of the API, for people: its OpenAPI document as a screen that loads nothing from elsewhere."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from pipeline.page.calls import call
from pipeline.page.render import HEADERS, html

router = APIRouter()

_METHODS = ("get", "post", "put", "patch", "delete")


@router.get("/docs")
async def show_calls(request: Request) -> Response:
    """All calls by tag. Like the document itself it needs no key."""
    document = request.app.openapi()
    session = await call(request, "GET", "/v1/session")
    who = session.body if session.ok else None
    values = {"info": document["info"], "calls": calls_of(document), "schemas": document["components"]["schemas"]}
    return HTMLResponse(html(request, "api.html", who, **values), 200, HEADERS)


def calls_of(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The calls of an OpenAPI document by their first tag: method, path, description, parameters, shapes of the body
    and of the reply."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method not in methods:
                continue
            one = methods[method]
            replies = {status: _shape(reply) for status, reply in one.get("responses", {}).items()}
            found.setdefault((one.get("tags") or [""])[0], []).append(
                {
                    "method": method.upper(),
                    "path": path,
                    "id": one.get("operationId", ""),
                    "description": one.get("description") or one.get("summary", ""),
                    "parameters": [
                        {**given, "kind": _kind(given.get("schema", {}))} for given in one.get("parameters", ())
                    ],
                    "body": _shape(one.get("requestBody", {})),
                    "replies": {status: shape for status, shape in replies.items() if not status.startswith("4")},
                }
            )
    return dict(sorted(found.items()))


def _shape(part: dict[str, Any]) -> str:
    """The shape of a body: a schema's name, a type, or the media type of what is no JSON."""
    for media, content in part.get("content", {}).items():
        schema = content.get("schema", {})
        return _kind(schema) if "json" in media and schema else str(media)
    return ""


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for joined in ("anyOf", "oneOf", "allOf"):
        if joined in schema:
            return " | ".join(dict.fromkeys(_kind(one) for one in schema[joined]))
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("title") if schema.get("type") == "object" else schema.get("type") or "any")

"""Templates to responses: texts, links that work below any path, and headers that let nothing else in."""

import gzip
import hashlib
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from pipeline.page.calls import PageRefused, ask
from pipeline.registry.keys import ROLES

STATIC = Path(__file__).with_name("static")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
THEMES = ("light", "dark")
"""Looks that a browser may have been told to keep to, by a cookie; without one it is as the system has it."""
_REST = "\0"
_GZIP = 31
"""Tells zlib to pack as gzip does."""
_SMALL = 4096
"""Bytes up to which a screen is sent as it is."""


@cache
def fingerprint() -> str:
    """A short digest of all static files: it is in their path, so that browsers may keep them for ever."""
    digest = hashlib.sha256()
    for file in sorted(file for file in STATIC.rglob("*") if file.is_file()):
        digest.update(file.relative_to(STATIC).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


@cache
def texts() -> dict[str, Any]:
    """All texts of the page, by dotted name."""
    found: dict[str, Any] = json.loads((STATIC / "texts.json").read_text(encoding="utf-8"))
    return found


def text(name: str, /, **values: object) -> str:
    """A text, with `{values}` filled in. A name that has none stands for itself, as in `stream.fields.new_field`."""
    found: Any = texts()
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    if not isinstance(found, str):
        return name
    said: str = found
    for key, value in values.items():
        said = said.replace(f"{{{key}}}", str(value))
    return said


def has_text(name: str) -> bool:
    """True if there is a text of a name."""
    return text(name) != name


def base_of(path: str) -> str:
    """The relative path from a path of the page to its root: links are relative, and so work below any prefix of a
    proxy."""
    return "../" * (path.count("/") - 1) or "./"


def number(value: float | None, digits: int = 0) -> str:
    """A number with its thousands apart; a dash for none."""
    return "–" if value is None else f"{value:,.{digits}f}".replace(",", "\u202f")


def span(seconds: float | None) -> str:
    """Seconds in the largest unit that they fill."""
    if seconds is None:
        return "–"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def moment(value: str | datetime | None) -> str:
    """A time in UTC, as it stands until a script puts it into the zone of who looks."""
    if not value:
        return "–"
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@cache
def environment() -> jinja2.Environment:
    """The templates, in which everything is escaped that is not said to be HTML."""
    loader = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))
    made = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.globals |= {"t": text, "has_text": has_text}
    made.filters |= {"number": number, "span": span, "moment": moment, "asjson": json.dumps}
    return made


def compile_templates() -> None:
    """Compile all templates, so that no first visitor waits for that, nor the streams beside them."""
    for name in environment().list_templates():
        environment().get_template(name)


async def page(request: Request, template: str, status: int = 200, **values: object) -> Response:
    """A screen for whoever asks. Raises PageRefused for who may not see it."""
    given = values.pop("who", None)
    who = given if isinstance(given, dict) else None
    if who is None and status != 401:  # else the session has ended, and what was typed is shown again
        who = await ask(request, "/v1/session")
    return sent_page(request, html(request, template, who, **values), status)


def packs(headers: Mapping[str, str]) -> bool:
    """True if a browser takes packed answers."""
    return "gzip" in headers.get("accept-encoding", "")


def sent_page(request: Request, said: str, status: int) -> Response:
    """A screen as it is sent: a large one packed, for phones on bad lines."""
    content = said.encode()
    if len(content) > _SMALL and packs(request.headers):
        packed = gzip.compress(content, 1, mtime=0)
        return HTMLResponse(packed, status, {**HEADERS, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"})
    return HTMLResponse(content, status, HEADERS)


async def page_as_it_comes(
    request: Request, frame: str, inner: str, values: Callable[[], Awaitable[Mapping[str, Any]]]
) -> Response:
    """A screen for whoever asks, sent in two parts: its frame at once, so that styles and modules come meanwhile, and
    what takes longer to know when that is known. Raises PageRefused for who may not see it."""
    who = await ask(request, "/v1/session")
    before, after = html(request, frame, who, rest=_REST).split(_REST)
    packing = zlib.compressobj(1, wbits=_GZIP) if packs(request.headers) else None

    async def parts() -> AsyncIterator[bytes]:
        yield _packed(packing, before, zlib.Z_SYNC_FLUSH)
        try:
            text = html(request, inner, who, **await values())
        except PageRefused as refused:
            text = html(request, "trouble.html", who, problem=refused.reply.body)
        yield _packed(packing, text + after, zlib.Z_FINISH)

    packed = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"} if packing else {}
    return StreamingResponse(parts(), 200, {**HEADERS, **packed}, "text/html; charset=utf-8")


def _packed(packing: "zlib._Compress | None", text: str, mode: int) -> bytes:
    """A part of a screen as it is sent."""
    return packing.compress(text.encode()) + packing.flush(mode) if packing else text.encode()


def html(request: Request, template: str, who: Mapping[str, Any] | None, **values: object) -> str:
    """A screen as text."""
    base, theme = base_of(request.url.path), request.cookies.get("theme")
    return environment().get_template(template).render(
        base=base, static=f"{base}static/{fingerprint()}/", who=who, here=request.url.path, query=request.query_params,
        theme=theme if theme in THEMES else "", rank=ROLES.index(who["role"]) if who else -1, **values,
    )  # fmt: skip


def go(request: Request, path: str) -> Response:
    """Send the browser on to another screen."""
    return RedirectResponse(base_of(request.url.path) + path.lstrip("/"), 303, HEADERS)

"""Static files from memory, packed for browsers that take that."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pipeline.page.render import STATIC, packs

_KINDS = {".js": "text/javascript", ".css": "text/css", ".json": "application/json", ".svg": "image/svg+xml"}
_LOOK = ("tokens.css", "page.css")
_KEPT = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file as it is sent: its bytes, plain and packed, and its Content-Type."""

    plain: bytes
    packed: bytes
    kind: str


@cache
def kept_files() -> Mapping[str, KeptFile]:
    """All static files by name; the style sheets as one, for nothing is painted before all of them have come."""
    found = {file.name: file.read_bytes() for file in STATIC.iterdir()}
    found["look.css"] = b"".join(found.pop(name) for name in _LOOK)
    return {
        name: KeptFile(plain, gzip.compress(plain, mtime=0), _KINDS[name[name.rindex(".") :]])
        for name, plain in found.items()
    }


async def keep_files(scope: Scope, receive: Receive, send: Send) -> None:
    """An app of the static files, which browsers keep for ever: their path changes when they do."""
    file = kept_files().get(scope["path"].rpartition("/")[2])
    if file is None or scope["method"] not in ("GET", "HEAD"):
        await Response(status_code=404)(scope, receive, send)
        return
    if packs(Headers(scope=scope)):
        response = Response(file.packed, headers={**_KEPT, "Content-Encoding": "gzip"}, media_type=file.kind)
    else:
        response = Response(file.plain, headers=_KEPT, media_type=file.kind)
    await response(scope, receive, send)

"""The form in which tiles travel: statuses as JSON, and a part for each new picture."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from fastapi import Response

from pipeline.types import Json

_KIND = "multipart/form-data; boundary="


@dataclass(frozen=True, slots=True)
class FarTile:
    """A picture of a stream that another process has made: its number there, the JPEG, when it was captured (UTC)."""

    number: int
    jpeg: bytes
    captured_at: datetime | None


def tile_form(status: Mapping[str, Json], pictures: Mapping[str, bytes]) -> Response:
    """Statuses by stream, and JPEGs by STREAM.NUMBER."""
    boundary = secrets.token_hex(12)
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="status"\r\n\r\n'
    parts = [head.encode(), json.dumps(status).encode(), b"\r\n"]
    for name, jpeg in pictures.items():
        head = f'Content-Disposition: form-data; name="tile"; filename="{name}"\r\nContent-Type: image/jpeg\r\n\r\n'
        parts += [f"--{boundary}\r\n{head}".encode(), jpeg, b"\r\n"]
    parts.append(f"--{boundary}--\r\n".encode())
    return Response(b"".join(parts), media_type=_KIND + boundary, headers={"Cache-Control": "no-store"})


def tiles_of(kind: str, body: bytes) -> dict[str, FarTile]:
    """The pictures of a form by stream; `kind` is its Content-Type. Raises ValueError for what is no such form."""
    if not kind.startswith(_KIND):
        raise ValueError(f"Content-Type is {kind[:80]!r}; expected {_KIND}")
    parts = body.split(f"--{kind.removeprefix(_KIND)}".encode())[1:-1]
    if not parts:
        raise ValueError("no part")
    _, _, text = parts[0].partition(b"\r\n\r\n")
    status = json.loads(text)
    found = {}
    for part in parts[1:]:
        head, _, rest = part.partition(b"\r\n\r\n")
        name = head.partition(b'filename="')[2].partition(b'"')[0].decode("ascii")
        slug, _, number = name.partition(".")
        captured = status[slug]["captured_at"]
        found[slug] = FarTile(int(number), rest[:-2], datetime.fromisoformat(captured) if captured else None)
    return found

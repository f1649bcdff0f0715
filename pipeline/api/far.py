"""Streams that run on other nodes of a fleet, looked at through the head: it asks the node, while somebody looks."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

import httpx
import structlog
from fastapi.responses import Response

from pipeline.api.problems import Problem
from pipeline.api.tile_form import FarTile, tiles_of
from pipeline.clock import Clock
from pipeline.service.share import PicturePlace
from pipeline.types import Json
from pipeline.waiting import stop

log = structlog.get_logger()

MOST_CONNECTIONS = 512
"""Connections to nodes, as many as an API has by default; who wants one more waits."""
_MOST_IDLE = 32
MOST_BYTES = 64 * 2**20
"""Longest reply of a node that is read."""
MOST_AT_ONCE = 128
"""Most streams of one request for tiles; a node takes no more than 256."""
CONNECT_S = 2.0
READ_S = 10.0
"""Longest silence of a node that is asked for pictures."""
PROBE_S = 60.0
"""Longest time that a node may take to probe a stream."""
_GATHER_S = 0.03
_PAUSE_S = {320: 0.25, 960: 0.1}
"""Pause between two requests for tiles of a width to one node, in seconds."""

NodeQuery = Mapping[str, str | int | bool]
Where = Callable[[str], PicturePlace | None]
"""Where pictures of a stream are to be had. Blocks."""


class FarNodes:
    """The nodes of a fleet, asked over HTTP with the token of each."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None

    async def get(self, where: PicturePlace, path: str, query: NodeQuery) -> Response:
        """The answer of a node. Raises Problem: the node's own, or 503 where it does not answer."""
        return await self._ask("GET", where, path, query, READ_S)

    async def probe(self, where: PicturePlace, slug: str) -> Response:
        """The properties of a stream, as its node finds them. Raises Problem."""
        return await self._ask("POST", where, f"/v1/streams/{slug}/probe", {}, PROBE_S)

    async def tiles(self, where: PicturePlace, seen: Mapping[str, int], width: int) -> Mapping[str, FarTile]:
        """The pictures of streams that are newer than those of the numbers that were seen. Raises Problem."""
        streams = ",".join(f"{slug}:{number}" for slug, number in seen.items())
        reply = await self.get(where, "/v1/tiles", {"streams": streams, "width": width})
        try:
            return tiles_of(reply.headers["content-type"], bytes(reply.body))
        except (ValueError, KeyError) as error:
            raise Problem(502, "not understood", f"the node {where.node} sends no tiles: {error}") from error

    async def moving(self, where: PicturePlace, slug: str, query: NodeQuery) -> AsyncIterator[bytes]:
        """The bytes of a stream's moving pictures, until the node has no more or is gone."""
        timeout = httpx.Timeout(READ_S, connect=CONNECT_S)
        try:
            async with self._opened().stream(
                "GET", f"{where.url}/v1/streams/{slug}/live.mjpeg", params=dict(query), headers=_proof(where),
                timeout=timeout,
            ) as reply:  # fmt: skip
                if reply.status_code == 200:
                    async for some in reply.aiter_raw():
                        yield some
        except httpx.HTTPError as error:
            log.debug("node_not_reached", node=where.node, reason=type(error).__name__)

    async def close(self) -> None:
        """Close the connections."""
        if self._client:
            await self._client.aclose()

    async def _ask(self, method: str, where: PicturePlace, path: str, query: NodeQuery, read_s: float) -> Response:
        timeout = httpx.Timeout(read_s, connect=CONNECT_S)
        try:
            async with (
                asyncio.timeout(read_s),
                self._opened().stream(
                    method, f"{where.url}{path}", params=dict(query), headers=_proof(where), timeout=timeout
                ) as reply,
            ):
                body = await _whole(reply)
        except (httpx.HTTPError, TimeoutError) as error:
            raise Problem(
                503,
                "not available now",
                f"the node {where.node}, which runs this, does not answer ({type(error).__name__}); the head has to"
                " reach it on fleet.pictures_port",
                headers={"Retry-After": "2"},
            ) from error
        if reply.status_code != 200:
            _raise_as(where, reply, body)
        kept = {name: reply.headers[name] for name in ("content-type", "x-captured-at") if name in reply.headers}
        return Response(body, headers={**kept, "Cache-Control": "no-store"})

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            limits = httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=_MOST_IDLE)
            # Nodes are asked directly, whatever proxies the environment names.
            self._client = httpx.AsyncClient(limits=limits, trust_env=False)
        return self._client


_Waiting = tuple[int, asyncio.Future[FarTile]]


@dataclass(slots=True)
class _NodeTurn:
    """The tiles of one width that are waited for on one node: the number seen last of each stream, and who waits."""

    waiting: dict[str, _Waiting] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None


class FarTiles:
    """Newest pictures of streams on other nodes: all that are waited for on one node come by one request."""

    def __init__(self, clock: Clock, nodes: FarNodes, where: Where) -> None:
        self._clock = clock
        self._nodes = nodes
        self._where = where
        self._turns: dict[tuple[PicturePlace, int], _NodeTurn] = {}

    async def next(self, stream: str, width: int, seen: int, wait_s: float) -> FarTile | None:
        """The picture of a stream that follows the one with the number `seen`; None if there is none in `wait_s`
        seconds, or no node has it."""
        where = await asyncio.to_thread(self._where, stream)
        if where is None:
            return None
        turn = self._turns.setdefault((where, width), _NodeTurn())
        coming: asyncio.Future[FarTile] = asyncio.get_running_loop().create_future()
        turn.waiting[stream] = seen, coming
        if turn.task is None:
            turn.task = asyncio.create_task(self._keep_asking(where, width, turn), name=f"tiles of {where.node}")
        try:
            async with asyncio.timeout(wait_s):
                return await coming
        except TimeoutError:
            return None
        finally:
            turn.waiting.pop(stream, None)

    async def close(self) -> None:
        """Ask nobody any more."""
        await stop([turn.task for turn in self._turns.values() if turn.task])

    async def _keep_asking(self, where: PicturePlace, width: int, turn: _NodeTurn) -> None:
        """Ask for what is waited for, for as long as anything is."""
        try:
            await self._clock.sleep(_GATHER_S)
            while turn.waiting:
                asked = list(turn.waiting.items())
                for first in range(0, len(asked), MOST_AT_ONCE):
                    await self._ask_for(dict(asked[first : first + MOST_AT_ONCE]), where, width)
                await self._clock.sleep(_PAUSE_S[width])
        finally:
            del self._turns[where, width]

    async def _ask_for(self, asked: Mapping[str, _Waiting], where: PicturePlace, width: int) -> None:
        """Ask for some tiles, and give out those that have come."""
        try:
            found = await self._nodes.tiles(where, {slug: seen for slug, (seen, _) in asked.items()}, width)
        except Problem as problem:
            log.debug("no_tiles", node=where.node, reason=problem.body.detail)
            return
        for slug, tile in found.items():
            if slug in asked and not asked[slug][1].done():
                asked[slug][1].set_result(tile)


async def _whole(reply: httpx.Response) -> bytes:
    """The body of a reply. Raises Problem for one that is longer than MOST_BYTES."""
    parts, size = [], 0
    async for part in reply.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            raise Problem(502, "too large", f"a node's reply is longer than {MOST_BYTES} bytes")
    return b"".join(parts)


def _raise_as(where: PicturePlace, reply: httpx.Response, body: bytes) -> NoReturn:
    """Raise the problem that a node has answered, in its words."""
    try:
        said: Json = httpx.Response(200, content=body).json()
    except ValueError:
        said = None
    detail = said.get("detail") if isinstance(said, dict) else None
    title = said.get("title") if isinstance(said, dict) else None
    if reply.status_code == 401:  # a node that has begun anew: its new token is in the store within a second
        raise Problem(503, "not available now", f"the node {where.node} is starting", headers={"Retry-After": "1"})
    headers = {name: reply.headers[name] for name in ("Retry-After",) if name in reply.headers}
    raise Problem(
        reply.status_code, str(title or "not available now"), f"{detail or 'no reason given'} (on {where.node})",
        headers=headers,
    )  # fmt: skip


def _proof(where: PicturePlace) -> dict[str, str]:
    return {"Authorization": f"Bearer {where.token}"}

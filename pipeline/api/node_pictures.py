"""Pictures of the streams that a node of a fleet runs, for the fleet's head alone: the part of the API that shows
pictures, behind a token that only the fleet's store knows."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response

from pipeline.api import live, problems, tiles
from pipeline.api.admission import Admission
from pipeline.api.auth import Caller
from pipeline.api.desk import Desk
from pipeline.api.far import FarNodes
from pipeline.api.live import JpegCache
from pipeline.api.loop_http import LoopHttp
from pipeline.api.problems import Problem
from pipeline.clock import Clock
from pipeline.service.reconciler import Reconciler
from pipeline.service.share import PicturePlace

MOST_CONNECTIONS = 128
MOST_LISTENERS = 64
GOODBYE_S = 1
"""How long open requests may take when the node ends."""
FIRST_S = 0.3
"""How long an answer waits for first pictures: less than the head does."""

router = APIRouter()
router.add_api_route("/v1/tiles", tiles.tiles, response_class=Response)
router.add_api_route("/v1/streams/{slug}/snapshot.jpg", live.snapshot, response_class=Response)
router.add_api_route("/v1/streams/{slug}/live.mjpeg", live.live, response_class=Response)
router.add_api_route("/v1/streams/{slug}/probe", live.probe_stream, methods=["POST"])


class TokenGate:
    """Lets in who has the token, and nobody else."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def caller(self, request: Request) -> Caller:
        """The head. Raises Problem 401."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secrets.compare_digest(given.strip().encode(), self._token):
            raise Problem(401, "no valid token", "a node shows pictures to the head of its fleet only; ask that one")
        return Caller("head", "operator")


@asynccontextmanager
async def offer_pictures(
    reconciler: Reconciler, clock: Clock, node: str, host: str, port: int
) -> AsyncIterator[PicturePlace]:
    """Offer pictures of a node's streams while it is entered, on an address and port (0: any free one). Raises
    ConfigError where these cannot be had."""
    token = secrets.token_urlsafe(32)
    app = _app(reconciler, clock, token)
    http = LoopHttp(app, f"pictures of the node {node}", MOST_CONNECTIONS, GOODBYE_S)
    there = await http.start(host, port)
    named = f"[{host}]" if ":" in host else host
    try:
        yield PicturePlace(node, f"http://{named}:{there}", token)
    finally:
        await http.close()
        await app.state.gallery.close()
        await app.state.far_nodes.close()


def _app(reconciler: Reconciler, clock: Clock, token: str) -> FastAPI:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    state = app.state
    state.gate = TokenGate(token)
    state.desk = Desk(reconciler, Admission(reconciler.service.site.api, reconciler.raw, clock), clock)
    state.pictures = JpegCache()
    state.far_nodes = FarNodes()
    state.gallery = tiles.gallery_of(reconciler.service, clock, state.far_nodes, FIRST_S)
    state.listeners, state.max_listeners = 0, MOST_LISTENERS
    app.include_router(router)
    problems.install(app)
    return app

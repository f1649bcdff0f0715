"""What a server can do and what it charges for a picture, found out with a few small questions before the first ask."""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from allocator_engine.grid import Grid
from pipeline.clock import Clock
from pipeline.errors import ConfigError
from pipeline.mllm.openai.server import Refused, Server
from pipeline.mllm.openai.wire import SCORED, Reply, Requests, Wording, question_line, spoken
from pipeline.types import Json, Segment

SIDES = (1, 2, 4, 8, 16)
"""Sides, in cells, of the square pictures whose price is asked for. Twice the least of any published processor."""

_QUESTION = "Is there anything to see in this picture of a test?"
_WORD = "resadapt"
_SCHEMA: Mapping[str, Json] = {
    "type": "object",
    "properties": {"seen": {"enum": [_WORD]}},
    "required": ["seen"],
    "additionalProperties": False,
}
_MOST = 32


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a server can do beyond the least: know pictures by their content id, follow a JSON schema, and count the
    prompt tokens that it had in its cache. `side` is that of the smallest square picture, in cells, that it does not
    enlarge."""

    uuids: bool
    schemas: bool
    cached_counts: bool
    side: int

    @property
    def missing(self) -> tuple[str, ...]:
        """What it cannot do, for people."""
        names = {
            "pictures sent once (uuid, then image_url null)": self.uuids,
            "JSON schemas (response_format json_schema)": self.schemas,
            "counts of cached tokens (usage.prompt_tokens_details; vLLM: --enable-prompt-tokens-details)": (
                self.cached_counts
            ),
        }
        return tuple(name for name, has in names.items() if not has)


class Probe:
    """The questions to one server. `timeout_s` bounds each."""

    def __init__(self, server: Server, wording: Wording, grid: Grid, *, timeout_s: float, clock: Clock) -> None:
        self._server, self._grid, self._timeout_s, self._clock = server, grid, timeout_s, clock
        self._wording = replace(wording, uuids=False)

    async def abilities(self) -> Abilities:
        """Raises ConfigError for a server that gives no log-probabilities, takes no pictures or counts them in a way
        that fits no grid, and MLLMUnavailable for one that cannot answer now."""
        first = await self._first()
        replies = [first, *[await self._ask(self._wording, side) for side in SIDES[1:]]]
        side = smallest_side([reply.prompt_tokens for reply in replies])
        if side is None:
            raise ConfigError(_fits_no_grid(self._server.where, self._grid, replies))
        return Abilities(
            uuids=await self._knows_pictures(),
            schemas=await self._follows_schemas(),
            cached_counts=any(reply.cached_tokens is not None for reply in replies),
            side=side,
        )

    async def _first(self) -> Reply:
        lacking = (
            f"{self._server.where} gives no log-probabilities of the answer's first token (logprobs with top_logprobs"
            " 20), without which there is no score; let it give them (vLLM: --max-logprobs 20) or use another"
        )
        try:
            reply = await self._ask(self._wording, SIDES[0])
        except Refused as error:
            if error.status not in (400, 413, 415, 422):
                raise
            if "logprobs" in str(error):
                raise ConfigError(lacking) from error
            raise ConfigError(f"{self._server.where} does not take a question about a picture: {error}") from error
        if reply.log_shares() is None:
            raise ConfigError(lacking)
        return reply

    async def _knows_pictures(self) -> bool:
        wording = replace(self._wording, uuids=True)
        try:
            given = await self._ask(wording, 2)
            named = await self._ask(wording, 2, known=1)
        except Refused:
            return False
        return given.prompt_tokens == named.prompt_tokens

    async def _follows_schemas(self) -> bool:
        try:
            reply = await self._ask(self._wording, SIDES[0], how=spoken(_MOST, _SCHEMA))
            return bool(json.loads(reply.text) == {"seen": _WORD})
        except (Refused, ValueError):
            return False

    async def _ask(self, wording: Wording, side: int, known: int = 0, how: Mapping[str, Json] = SCORED) -> Reply:
        requests = Requests(wording, [_picture(side, self._grid.cell_px)], 0.0, how)
        body = await asyncio.to_thread(requests.body, question_line(_QUESTION), known)
        return await self._server.post(body, self._clock.monotonic_s() + self._timeout_s)


def smallest_side(prompt_tokens: Sequence[int]) -> int | None:
    """The side of the smallest square picture, in cells, from which on each cell costs one token.

    `prompt_tokens` are those of prompts that differ in one picture only, of SIDES cells. None if there is no such
    side, or if a smaller picture costs more than that one.
    """
    last = prompt_tokens[-1] - SIDES[-1] ** 2
    honest = [side for side, tokens in zip(SIDES, prompt_tokens, strict=True) if tokens - last == side**2]
    least = min(honest)
    dearest = max(tokens - last for side, tokens in zip(SIDES, prompt_tokens, strict=True) if side <= least)
    whole = honest == [side for side in SIDES if side >= least]
    return least if whole and least < SIDES[-1] and dearest == least**2 else None


def check_price(side: int, grid: Grid, min_tokens_per_segment: int, where: str) -> Grid:
    """The grid on which `fit` never makes a picture that the server would enlarge, which it does below `side` x `side`
    cells.

    `fit` goes down to `min_tokens_per_segment`, and to the native size of smaller frames, which `min_pixels` raises:
    both together keep it above. Raises ConfigError naming what to change if the first does not.
    """
    least = side * side
    if least > max(min_tokens_per_segment, 1):
        cell, most = grid.cell_px**2, grid.max_pixels
        raise ConfigError(
            f"{where} charges up to {least} tokens for a picture smaller than {least} cells; either let it take small"
            f' ones (vLLM: --mm-processor-kwargs \'{{"size": {{"shortest_edge": {cell}, "longest_edge": {most}}}}}\''
            f"), or set mllm.min_tokens_per_segment: {least}"
        )
    return replace(grid, min_pixels=least * grid.cell_px**2)


def _fits_no_grid(where: str, grid: Grid, replies: Sequence[Reply]) -> str:
    counted = ", ".join(
        f"{reply.prompt_tokens} with {side}x{side} cells" for side, reply in zip(SIDES, replies, strict=True)
    )
    return (
        f"{where} does not charge one token per {grid.cell_px}x{grid.cell_px} px of a picture, as {grid.family} does:"
        f" usage.prompt_tokens was {counted}. Set mllm.family to the model's family, or use another server"
    )


def _picture(side: int, cell_px: int) -> Segment:
    """Noise, the same at every start, so that its content id may be too."""
    size = side * cell_px
    pixels = np.random.default_rng(side).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    digest = hashlib.blake2b(f"{pixels.shape}".encode() + pixels.tobytes(), digest_size=16)
    return Segment((0.0,), pixels, side * side, digest.hexdigest())

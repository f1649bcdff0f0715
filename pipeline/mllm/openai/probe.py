"""The abilities of a server and its cost of a picture, found out with a few small questions before the first ask."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from allocator_engine.grid import Grid
from allocator_engine.resize import Pixels
from pipeline.clock import Clock
from pipeline.errors import ConfigError
from pipeline.mllm.openai.manners import Trial
from pipeline.mllm.openai.refusals import Refused
from pipeline.mllm.openai.replies import Reply, parsed
from pipeline.mllm.openai.server import Server
from pipeline.mllm.openai.wire import Dialect, Requests, Wording, question_line
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
_MIDDLE = 4  # side, in cells, of the pictures that are not asked about for their price


@dataclass(frozen=True, slots=True)
class Abilities:
    """A server's abilities beyond the least: know pictures by their content id, follow a JSON schema, and count the
    prompt tokens that it had in its cache. `side` is that of the smallest square picture, in cells, that it does not
    enlarge; `dialect` is how it is asked, on which there may be `notes` for people."""

    uuids: bool
    schemas: bool
    cached_counts: bool
    side: int
    dialect: Dialect
    notes: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """The abilities that it lacks, for people."""
        names = {
            "pictures sent once (uuid, then image_url null)": self.uuids,
            "JSON schemas (response_format json_schema)": self.schemas,
            "counts of cached tokens (usage.prompt_tokens_details; vLLM: --enable-prompt-tokens-details)": (
                self.cached_counts
            ),
        }
        return tuple(name for name, has in names.items() if not has)


class ServerProbe:
    """The questions to one server. `timeout_s` bounds each; `samples` and `more` are explained in Trial."""

    def __init__(
        self,
        server: Server,
        wording: Wording,
        grid: Grid,
        *,
        more: Mapping[str, Json],
        samples: int,
        timeout_s: float,
        clock: Clock,
    ) -> None:
        self._server, self._grid, self._timeout_s, self._clock = server, grid, timeout_s, clock
        self._more, self._samples = more, samples
        self._wording = replace(wording, uuids=False)

    async def abilities(self) -> Abilities:
        """Raises ConfigError as Trial does and for a server that counts pictures in a way that fits no grid, and
        MLLMUnavailable for one that cannot answer now."""
        manners = await Trial(self._ask_about_red, self._server.where, self._more, self._samples).manners()
        how = manners.dialect.scored()
        replies = [await self._price(side, how) for side in SIDES]
        side = smallest_side([reply.prompt_tokens if reply else None for reply in replies])
        if side is None:
            raise ConfigError(_fits_no_grid(self._server.where, self._grid, replies))
        return Abilities(
            uuids=await self._knows_pictures(how),
            schemas=await self._follows_schemas(manners.dialect),
            cached_counts=any(reply is not None and reply.cached_tokens is not None for reply in replies),
            side=side,
            dialect=manners.dialect,
            notes=manners.notes,
        )

    async def _price(self, side: int, how: Mapping[str, Json]) -> Reply | None:
        """The reply to a question about a picture of `side` x `side` cells; None where that size is refused."""
        try:
            reply = await self._ask(self._wording, _noise(side, self._grid.cell_px), how)
        except Refused as error:
            if not error.of_prompt:
                raise
            return None
        if reply.usage is None:
            raise ConfigError(
                f"{self._server.where} does not count the tokens of a prompt (usage.prompt_tokens), by which it is told"
                " what a picture costs; use a server that does"
            )
        return reply

    async def _knows_pictures(self, how: Mapping[str, Json]) -> bool:
        wording, picture = replace(self._wording, uuids=True), _noise(_MIDDLE, self._grid.cell_px)
        try:
            given = await self._ask(wording, picture, how)
            named = await self._ask(wording, picture, how, known=1)
        except Refused:
            return False
        return given.prompt_tokens == named.prompt_tokens

    async def _follows_schemas(self, dialect: Dialect) -> bool:
        picture = _noise(_MIDDLE, self._grid.cell_px)
        try:
            reply = await self._ask(self._wording, picture, dialect.spoken(_MOST, _SCHEMA))
            return bool(parsed(reply.text.encode()) == {"seen": _WORD})
        except (Refused, ValueError):
            return False

    async def _ask_about_red(self, question: str, how: Mapping[str, Json]) -> Reply:
        return await self._ask(self._wording, _red(_MIDDLE, self._grid.cell_px), how, question=question)

    async def _ask(
        self,
        wording: Wording,
        picture: Segment,
        how: Mapping[str, Json],
        known: int = 0,
        question: str = _QUESTION,
    ) -> Reply:
        requests = Requests(wording, [picture], 0.0)
        body = await asyncio.to_thread(requests.body, question_line(question), how, known)
        return await self._server.post(body, self._clock.monotonic_s() + self._timeout_s)


def smallest_side(prompt_tokens: Sequence[int | None]) -> int | None:
    """The side of the smallest square picture, in cells, from which on each cell costs one token.

    `prompt_tokens` are those of prompts that differ in one picture only, of SIDES cells; None for one that was refused.
    None if there is no such side, or if a smaller picture costs more than that one.
    """
    counted = {side: tokens for side, tokens in zip(SIDES, prompt_tokens, strict=True) if tokens is not None}
    if not counted:
        return None
    largest = max(counted)
    last = counted[largest] - largest**2
    honest = [side for side, tokens in counted.items() if tokens - last == side**2]
    least = min(honest)
    dearest = max(tokens - last for side, tokens in counted.items() if side <= least)
    whole = honest == [side for side in counted if side >= least]
    return least if whole and least < largest and dearest == least**2 else None


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


def _fits_no_grid(where: str, grid: Grid, replies: Sequence[Reply | None]) -> str:
    counted = ", ".join(
        f"{reply.prompt_tokens if reply else 'refused'} with {side}x{side} cells"
        for side, reply in zip(SIDES, replies, strict=True)
    )
    return (
        f"{where} does not charge one token per {grid.cell_px}x{grid.cell_px} px of a picture, as {grid.family} does:"
        f" usage.prompt_tokens was {counted}. Set mllm.family to the model's family, or use another server"
    )


def _noise(side: int, cell_px: int) -> Segment:
    """Noise, the same at every start, so that its content id may be too."""
    size = side * cell_px
    return _picture(np.random.default_rng(side).integers(0, 256, (1, size, size, 3), dtype=np.uint8), side)


def _red(side: int, cell_px: int) -> Segment:
    """Nothing but red."""
    return _picture(np.full((1, side * cell_px, side * cell_px, 3), (200, 30, 30), np.uint8), side)


def _picture(pixels: Pixels, side: int) -> Segment:
    digest = hashlib.blake2b(f"{pixels.shape}".encode() + pixels.tobytes(), digest_size=16)
    return Segment((0.0,), pixels, side * side, digest.hexdigest())

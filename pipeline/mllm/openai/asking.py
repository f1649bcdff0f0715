"""One ask of a server: its first question alone, then the others together; what it cost."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from pipeline.core.context import Context
from pipeline.mllm.kept import Kept
from pipeline.mllm.openai.server import CacheMiss, Server
from pipeline.mllm.openai.wire import Reply, Requests
from pipeline.waiting import stop

CHARACTERS_PER_TOKEN = 3
"""Of a question, about: for estimates where a server counts nothing."""

BLOCK_TOKENS = 128
"""Prompt tokens by which a cache may fall short of a prefix with nothing lost: it holds whole blocks only, and what
comes before the question is only estimated."""


@dataclass(slots=True)
class Asking:
    """Questions (as `question_line` words them) behind the `pictures` of `requests`. `resent` counts requests that
    went again with all pixels because the server had forgotten some."""

    server: Server
    requests: Requests
    lines: Sequence[str]
    pictures: int
    deadline_s: float
    resent: int = 0

    async def first(self, known: int) -> Reply:
        """Ask the first question alone, so that the server reads the pictures once. The first `known` go without their
        pixels, if the server knows pictures by their content id; raises CacheMiss if it has forgotten one."""
        return await self._post(self.lines[0], known)

    async def rest(self) -> list[Reply]:
        """Ask the others together. The first that fails ends them all."""
        tasks = [asyncio.ensure_future(self._another(line)) for line in self.lines[1:]]
        try:
            return await asyncio.gather(*tasks)
        finally:
            await stop(tasks)

    async def _another(self, line: str) -> Reply:
        try:
            return await self._post(line, self.pictures)
        except CacheMiss:
            self.resent += 1
            return await self._post(line, 0)

    async def _post(self, line: str, known: int) -> Reply:
        # Encoding pictures takes milliseconds, which the event loop cannot spare.
        body = await asyncio.to_thread(self.requests.body, line, known)
        return await self.server.post(body, self.deadline_s)


def prefix_tokens(first: Reply, line: str) -> int:
    """About how many prompt tokens come before the question."""
    return max(0, first.prompt_tokens - len(line) // CHARACTERS_PER_TOKEN)


def segments_held(context: Context, kept: Kept[None], cached: int) -> int:
    """Of the segments of `context` that were kept, how many a server still holds that found `cached` prompt tokens.
    Where each ends in the prompt is estimated, its text in proportion to its vision tokens."""
    known = context.segments[: len(kept.content_ids)]
    if cached + BLOCK_TOKENS >= kept.tokens:
        return len(known)
    ends = list(accumulate(segment.tokens for segment in known))
    return sum(end * kept.tokens <= cached * ends[-1] for end in ends)


def prefilled_tokens(first: Reply, rest: Sequence[Reply], line: str, cached: int) -> int:
    """Prompt tokens read for all questions: by the server's counts, or where it gives none, taking it that the first
    read all but `cached` and the others their own question only."""
    prefix = prefix_tokens(first, line)
    found = [prefix if reply.cached_tokens is None else reply.cached_tokens for reply in rest]
    others = sum(max(0, reply.prompt_tokens - there) for reply, there in zip(rest, found, strict=True))
    return max(0, first.prompt_tokens - cached) + others

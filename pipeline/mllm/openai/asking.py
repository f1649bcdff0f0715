"""One ask of a server: its first question alone, then the others together; what it cost."""

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from pipeline.core.context import Context
from pipeline.mllm.kept import Kept
from pipeline.mllm.openai.refusals import CacheMiss, Refused
from pipeline.mllm.openai.replies import Reply, verdict_in
from pipeline.mllm.openai.server import Server
from pipeline.mllm.openai.values import option_in, option_shares
from pipeline.mllm.openai.wire import Dialect, Requests
from pipeline.mllm.options import read_option
from pipeline.mllm.prompt import read_answer
from pipeline.types import Answer, Json, WatchQuery
from pipeline.waiting import stop

CHARACTERS_PER_TOKEN = 3
"""Of a question, about: for estimates where a server counts nothing."""

BLOCK_TOKENS = 128
"""Prompt tokens by which a cache may fall short of a prefix with nothing lost: it holds whole blocks only, and what
comes before the question is only estimated."""

OPENERS = 2
"""Questions that are tried alone before a refusal is taken for one of the pictures, and not of a question's words."""


@dataclass(slots=True)
class Asking:
    """Questions (as `question_line` words them) behind the `pictures` of `requests`, each asked in every of its `ways`.

    `headers` go with each request. `resent` counts requests that went again with all pixels because the server may have
    forgotten some.
    """

    server: Server
    requests: Requests
    lines: Sequence[str]
    ways: Sequence[Sequence[Mapping[str, Json]]]
    pictures: int
    deadline_s: float
    headers: Mapping[str, str] = field(default_factory=dict)
    resent: int = 0
    opener: int = 0
    _results: dict[tuple[int, int], Reply | Refused] = field(default_factory=dict)

    async def first(self, known: int) -> Reply:
        """Ask one question alone, so that the server reads the pictures once. The first `known` go without their
        pixels, if the server knows pictures by their content id; raises CacheMiss if it may have forgotten one, and
        Refused if it takes neither the first question nor the second."""
        for line in range(min(OPENERS, len(self.lines))):
            try:
                self._results[line, 0] = reply = await self._post(line, 0, known)
                self.opener = line
                return reply
            except CacheMiss:
                raise
            except Refused as error:
                if not error.of_prompt or error.hint.measure:
                    raise
                self._results[line, 0] = error
        raise self._refusal

    async def rest(self) -> list[Reply]:
        """Ask the others together; returns their replies, with none for what is refused. The first that fails ends
        them all."""
        places = [place for place in self._places() if place not in self._results]
        tasks = [asyncio.ensure_future(self._another(*place)) for place in places]
        try:
            results = await asyncio.gather(*tasks)
        finally:
            await stop(tasks)
        self._results.update(zip(places, results, strict=True))
        return [result for result in results if isinstance(result, Reply)]

    def results(self) -> list[list[Reply | Refused]]:
        """The results of each question, in each way of asking."""
        return [[self._results[line, way] for way in range(len(self.ways[line]))] for line in range(len(self.lines))]

    @property
    def _refusal(self) -> Refused:
        error = self._results.pop((0, 0))
        assert isinstance(error, Refused)
        self._results.clear()
        return error

    def _places(self) -> Iterator[tuple[int, int]]:
        return ((line, way) for line in range(len(self.lines)) for way in range(len(self.ways[line])))

    async def _another(self, line: int, way: int) -> Reply | Refused:
        try:
            try:
                return await self._post(line, way, self.pictures)
            except CacheMiss:
                self.resent += 1
                return await self._post(line, way, 0)
        except Refused as error:
            if not error.of_prompt:
                raise
            return error

    async def _post(self, line: int, way: int, known: int) -> Reply:
        # Encoding pictures takes milliseconds, which the event loop cannot spare.
        body = await asyncio.to_thread(self.requests.body, self.lines[line], self.ways[line][way], known)
        try:
            return await self.server.post(body, self.deadline_s, self.headers)
        except Refused as error:
            if known and self.requests.by_name and error.of_prompt and not error.hint.measure:
                raise CacheMiss(str(error), error.status, error.hint) from error
            raise


def answer_of(query: WatchQuery, results: Sequence[Reply | Refused], dialect: Dialect) -> Answer | None:
    """The answer by the probabilities of one reply, or by the share of yes among samples; None without probabilities.

    What was refused counts as neither yes nor no, and as none of a watch's values.
    """
    replies, watch_id = [result for result in results if isinstance(result, Reply)], query.id
    if query.options:
        if not replies:
            return read_option(query, [0.0] * len(query.options))
        values = option_shares(replies[0], query.options, dialect.lead) if dialect.top else _sampled(replies, query)
        return None if values is None else read_option(query, [value / _drawn(results, dialect) for value in values])
    if not dialect.top:
        said = [verdict_in(reply.text) for reply in replies]
        return read_answer(watch_id, *(_log(said.count(verdict) / len(results)) for verdict in ("yes", "no")))
    if not replies:
        return Answer(watch_id, score=0.5, mass=0.0)
    shares = replies[0].log_shares(dialect.lead)
    return None if shares is None else read_answer(watch_id, *shares)


def _sampled(replies: Sequence[Reply], query: WatchQuery) -> list[float]:
    said = [option_in(reply.text, query.options) for reply in replies]
    return [float(said.count(index)) for index in range(len(query.options))]


def _drawn(results: Sequence[Reply | Refused], dialect: Dialect) -> int:
    return 1 if dialect.top else len(results)


def prefix_tokens(first: Reply, line: str) -> int:
    """About how many prompt tokens come before the question."""
    return max(0, first.prompt_tokens - len(line) // CHARACTERS_PER_TOKEN)


def segments_held(context: Context, kept: Kept[None], cached: int) -> int:
    """The number of kept segments of `context` that a server holds which found `cached` prompt tokens in its cache. The
    end of each in the prompt is estimated, its text in proportion to its vision tokens."""
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


def _log(share: float) -> float:
    return math.log(share) if share > 0 else -math.inf

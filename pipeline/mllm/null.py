"""A multimodal LLM that looks at nothing: for benchmarks of everything around it, and for tests of plumbing."""

from collections.abc import Callable, Mapping, Sequence

from allocator_engine.grid import GRIDS, Grid
from pipeline.core.context import Context, Room
from pipeline.mllm.base import MLLMInfo, check_limit
from pipeline.mllm.options import read_option
from pipeline.types import Answer, Answers, Json, Segment, Usage, WatchQuery

Opinion = Callable[[Context, WatchQuery], float]
"""P(yes) for a query on a context."""


def blinking(context: Context, query: WatchQuery) -> float:
    """Yes for ten seconds of stream time, then no for ten."""
    return 1.0 if int(context.segments[-1].pts_s[-1] // 10) % 2 == 0 else 0.0


def _answer(query: WatchQuery, opinion: float) -> Answer:
    """An opinion as the answer: of a watch with values, the first at 0, the last at 1, those between in their order."""
    if not query.options:
        return Answer(query.id, opinion, 1.0)
    place = round(opinion * (len(query.options) - 1))
    return read_option(query, [float(number == place) for number in range(len(query.options))])


class NullMLLM:
    """Answers by a function of the context, at once. It counts what a real one would encode, and keeps no pixels."""

    def __init__(self, opinion: Opinion = blinking, grid: Grid = GRIDS["qwen3_vl"]) -> None:
        self.info = MLLMInfo("null", grid.family, grid, meaningful=False)
        self._opinion = opinion
        self._seen: dict[str, tuple[int, int]] = {}

    async def start(self) -> None:
        return

    def pending(self, context: Context) -> int:
        epoch, count = self._seen.get(context.stream_id, (-1, 0))
        fresh = context.segments[count:] if epoch == context.epoch else context.segments
        return sum(segment.tokens for segment in fresh)

    def room(self, context: Context) -> Room:
        return Room()

    async def ask(
        self,
        context: Context,
        queries: Sequence[WatchQuery],
        limit: int | None = None,
        aside: Sequence[Segment] = (),
    ) -> Answers:
        pending = self.pending(context) + sum(segment.tokens for segment in aside)
        check_limit(pending, limit, context.stream_id)
        self._seen[context.stream_id] = (context.epoch, len(context.segments))
        cached = context.tokens + sum(segment.tokens for segment in aside) - pending
        usage = Usage(encoded_tokens=pending, prefilled_tokens=pending, cached_tokens=cached)
        return Answers(tuple(_answer(query, self._opinion(context, query)) for query in queries), usage)

    async def say(
        self, context: Context, questions: Sequence[str], most: int = 64, schema: Mapping[str, Json] | None = None
    ) -> list[str]:
        self._seen[context.stream_id] = (context.epoch, len(context.segments))
        return ["null"] * len(questions)

    def forget(self, stream_id: str) -> None:
        self._seen.pop(stream_id, None)

    async def close(self) -> None:
        self._seen.clear()

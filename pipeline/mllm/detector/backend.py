"""A detector as an MLLM: it answers from the newest segments as they were allocated, so fewer pixels show it less."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock

from allocator_engine.grid import GRIDS
from pipeline.clock import Clock, SystemClock
from pipeline.config.mllm import DetectorConfig
from pipeline.core.context import Context, Room
from pipeline.errors import ConfigError
from pipeline.mllm.base import MLLMInfo, check_limit
from pipeline.mllm.counters import Counters
from pipeline.mllm.detector.networks import DetectionNetworks, open_networks
from pipeline.mllm.detector.words import DetectedObject, understand
from pipeline.mllm.kept import Kept, KeptPrefixes
from pipeline.mllm.options import read_option
from pipeline.types import Answer, Answers, Json, Segment, Usage, WatchQuery

RECENT_S = 1.0
"""Of the segments of so many newest seconds the largest is looked at, of equal ones the newest."""

MOST_STREAMS = 1024
"""Streams of which is known what they were charged for; the least recently asked is forgotten."""

MOST_FINDINGS = 8192
"""Pictures whose findings are remembered; the oldest go first."""

_NO_BOUND = 2**62  # prompt tokens: nothing is kept but names


class DetectorMLLM:
    """Answers closed questions (`words`) by two small networks in a folder; any other question is `unknown`.

    A picture is a segment of its own and costs what it would cost Qwen3-VL. Scores are the networks' confidences. It
    is a detector and no multimodal LLM: figures that come of it are a detector's.
    """

    def __init__(
        self,
        settings: DetectorConfig,
        clock: Clock = SystemClock(),
        opened: Callable[[Path, int], DetectionNetworks] | None = None,
    ) -> None:
        self.info = MLLMInfo(settings.use, "detector", GRIDS["qwen3_vl"], max_frames_per_segment=1)
        self.settings, self._clock, self._open = settings, clock, opened
        self._networks: DetectionNetworks | None = None
        self._kept: KeptPrefixes[None] = KeptPrefixes(MOST_STREAMS, _NO_BOUND)
        self._found: OrderedDict[str, tuple[DetectedObject, ...]] = OrderedDict()
        self._looking: dict[str, asyncio.Future[tuple[DetectedObject, ...]]] = {}
        self._lock = Lock()

    async def start(self) -> None:
        """Load the networks. Raises ConfigError for a folder that lacks them, and where openvino is not installed."""
        if self._networks is None:
            folder = Path(self.settings.use.partition(":")[2])
            self._networks = await asyncio.to_thread(self._open or open_networks, folder, self.settings.threads)

    def pending(self, context: Context) -> int:
        return sum(segment.tokens for segment in context.segments[self._kept.segments(context) :])

    def room(self, context: Context) -> Room:
        return Room()

    def counts(self) -> Mapping[str, int]:
        return Counters().with_kept(self._kept)

    async def ask(
        self,
        context: Context,
        queries: Sequence[WatchQuery],
        limit: int | None = None,
        aside: Sequence[Segment] = (),
    ) -> Answers:
        pending = self.pending(context) + sum(segment.tokens for segment in aside)
        check_limit(pending, limit, context.stream_id)
        if not queries:
            return Answers()
        began_s = self._clock.monotonic_s()
        found = await self._look((*context.segments, *aside))
        self._charge(context)
        seconds = self._clock.monotonic_s() - began_s
        cached = context.tokens + sum(segment.tokens for segment in aside) - pending
        usage = Usage(pending, pending, cached, seconds, first_answer_s=seconds)
        return Answers(tuple(_answer(query, found) for query in queries), usage)

    async def say(
        self, context: Context, questions: Sequence[str], most: int = 64, schema: Mapping[str, Json] | None = None
    ) -> list[str]:
        if schema is not None:
            raise ConfigError(f"{self.info.name} answers in single words and follows no JSON schema; ask without one")
        if not questions:
            return []
        found = await self._look(context.segments)
        self._charge(context)
        understood = [understand(text) for text in questions]
        return ["unknown" if one is None or found is None else one.word(found) for one in understood]

    def forget(self, stream_id: str) -> None:
        self._kept.drop(stream_id)

    async def close(self) -> None:
        self._kept.clear()
        with self._lock:
            self._found.clear()

    def _charge(self, context: Context) -> None:
        names = tuple(segment.content_id for segment in context.segments)
        self._kept.put(context.stream_id, Kept(context.epoch, context.anchor_s, names, context.tokens, None))

    async def _look(self, segments: Sequence[Segment]) -> tuple[DetectedObject, ...] | None:
        """The findings in the newest of what was shown; None if nothing was."""
        assert self._networks is not None, "ask before start"
        segment = looked_at(segments)
        if segment is None:
            return None
        with self._lock:
            found = self._found.get(segment.content_id)
        return await self._found_in(segment) if found is None else found

    async def _found_in(self, segment: Segment) -> tuple[DetectedObject, ...]:
        """The findings in a picture, looked for once by all who ask about it at the same time."""
        looking = self._looking.get(segment.content_id)
        if looking is None or looking.get_loop() is not asyncio.get_running_loop():
            looking = self._looking[segment.content_id] = asyncio.ensure_future(self._find(segment))
        return await asyncio.shield(looking)

    async def _find(self, segment: Segment) -> tuple[DetectedObject, ...]:
        assert self._networks is not None
        try:
            found = await asyncio.to_thread(self._networks.find, segment.pixels[-1])
        finally:
            self._looking.pop(segment.content_id, None)
        with self._lock:
            self._found[segment.content_id] = found
            while len(self._found) > MOST_FINDINGS:
                self._found.popitem(last=False)
        return found


def looked_at(segments: Sequence[Segment]) -> Segment | None:
    """The segment that answers: the largest of the newest second, of equal ones the newest; None if there is none."""
    if not segments:
        return None
    newest_s = max(segment.pts_s[-1] for segment in segments)
    recent = [segment for segment in segments if segment.pts_s[-1] > newest_s - RECENT_S]
    return max(recent, key=lambda segment: (segment.size[0] * segment.size[1], segment.pts_s[-1]))


def _answer(query: WatchQuery, found: Sequence[DetectedObject] | None) -> Answer:
    """The answer to a query; not known where nothing was shown, or the question is not understood."""
    zone = query.seen_zone
    question = understand(query.question, zone.polygon if zone else ())
    if question is None or found is None or bool(query.rules.choice) or question.counts != bool(query.rules.count):
        return Answer(query.id, score=0.5, mass=0.0)
    if question.counts:
        return read_option(query, question.shares(found, len(query.options) - 1))
    return Answer(query.id, question.probability(found), 1.0)

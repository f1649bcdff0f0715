"""An examiner runs the passes of an evaluation: allocators by name, one MLLM, and clips that are decoded seldom."""

import asyncio
import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from allocator_engine.errors import EngineFailed
from allocator_engine.evaluate.baselines import Baseline, Codec, Fewer, Random, Recent, Scheduled, Video, native
from allocator_engine.evaluate.equal import ClipBudget, purse, whole_purse
from allocator_engine.evaluate.oracle import HopCost, plan
from allocator_engine.evaluate.run import ALLOCATORS, LEARNED, OFFLINE, WITHOUT_TEXT, Pass, Show, Spending
from allocator_engine.evaluate.tasks import CodedTasks, Task, TaskOutcome, TaskSource
from allocator_engine.fit import Allocation
from allocator_engine.resize import Picture
from allocator_engine.spec import THUMBNAIL
from allocator_engine.train.rollout import ClipHop
from pipeline.allocators.base import Allocator
from pipeline.allocators.batcher import Batching
from pipeline.allocators.fixed import FixedAllocator
from pipeline.allocators.learned import LearnedAllocator, open_engine
from pipeline.allocators.motion import MotionAllocator
from pipeline.build import build_fit_rules, build_mllm
from pipeline.clock import SystemClock
from pipeline.config.mllm import MLLMConfig
from pipeline.core.budget import BURST_HOPS, BURST_S
from pipeline.core.hops import HopRules
from pipeline.errors import ConfigError, MLLMUnavailable
from pipeline.lab.exam import TrialRuntime, as_hops
from pipeline.lab.trial import show, spend
from pipeline.metrics import Metrics
from pipeline.types import Hop, WatchQuery, without_zone

if TYPE_CHECKING:
    from allocator_engine.evaluate.whole_clip import PaperAllocator

KEPT_PICTURES = 32_768
"""Pictures of which the small renderings are remembered, about 20 kB each: 500 clips of half a minute."""

_SMALL_PX = 112 * 112  # renderings up to this area are what allocators look at
_KEPT_PASSES = 4096
_OF_QUERIES = (
    "learned-reworded",
    "oracle",
)  # allocators that read the queries, as engines do


@dataclass(frozen=True, slots=True)
class Setup:
    """The inputs of an examiner, for several processes that each have one: tasks, the MLLM, and the engine of each
    allocator that is one, by its name; of one that has another for each clip, by its name and the clip's; the
    checkpoint of the paper's allocator."""

    open_source: Callable[[], TaskSource]
    mllm: MLLMConfig
    engines: Mapping[str, Path] = field(default_factory=dict)
    by_clip: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    paper: Path | None = None


class Examiner:
    """Runs passes one by one. Raises ConfigError, EngineMissing and EngineMismatch as the MLLM and the engines do."""

    def __init__(self, setup: Setup) -> None:
        self._clock, self._runner = SystemClock(), asyncio.Runner()
        self._source = setup.open_source()
        self._mllm = build_mllm(setup.mllm, self._clock)
        self._runner.run(self._mllm.start())
        rules = build_fit_rules(setup.mllm, self._mllm.info)
        self._table = TrialRuntime(self._clock, rules, Metrics())
        self.engines = {name: self._opened(file) for name, file in setup.engines.items()}
        self._by_clip = {
            name: {clip: self._opened(file) for clip, file in files.items()} for name, files in setup.by_clip.items()
        }
        self._paper = self._offline(setup.paper) if setup.paper else None
        self._tasks: dict[int, Mapping[str, Task]] = {}
        self._clips: OrderedDict[str, tuple[Hop, ...]] = OrderedDict()
        self._pictures = 0
        self._passes: OrderedDict[tuple[object, ...], tuple[Spending, tuple[Allocation, ...]]] = OrderedDict()

    def _opened(self, file: Path) -> LearnedAllocator:
        engine, embed = open_engine(file)
        batching = Batching(wait_s=0.0, most=1)
        return LearnedAllocator(engine, self._table.rules, embed, self._clock, batching, ample=math.inf)

    def _offline(self, checkpoint: Path) -> "PaperAllocator":
        from allocator_engine.evaluate.whole_clip import PaperAllocator  # torch

        return PaperAllocator(checkpoint, self._table.rules)

    def close(self) -> None:
        """Free the MLLM."""
        self._runner.run(self._mllm.close())
        self._runner.close()

    def tasks(self, index: int) -> tuple[Task, ...]:
        """The tasks of an episode; its clips are looked at while they are at hand."""
        tasks = self._known(index)
        for clip in dict.fromkeys(task.clip for task in tasks.values()):
            for frame in (frame for hop in self._clip(clip) for frame in hop.frames):
                frame.picture.render(*THUMBNAIL)
        return tuple(tasks.values())

    def spend(self, dry: Pass) -> Spending:
        """The spending of a dry pass."""
        return self._passed(dry)[0]

    def look(self, dry: Pass) -> tuple[tuple[Hop, ...], tuple[Allocation, ...], int]:
        """The hops of a dry pass, what its allocator made of each, and the vision tokens of all at native size."""
        spending, allocations = self._passed(dry)
        return self._clip(self._known(dry.index)[dry.task].clip), allocations, spending.native

    def show(self, one: Show) -> tuple[TaskOutcome, ...]:
        """The outcomes of the tasks of a pass with the MLLM. Raises ConnectionError where it does not answer, and
        EngineFailed where the allocations are not those whose spending was kept."""
        spending, allocations = self._passed(one.dry)
        if spending.digest != one.digest:
            raise EngineFailed(
                f"what {one.dry.allocator} makes of {one.dry.task} is not what was kept of it, on another machine"
                " perhaps; use another --resume"
            )
        tasks = [self._known(one.dry.index)[name] for name in one.tasks]
        hops = self._clip(tasks[0].clip)
        pocket = self._purse(hops, one.dry)
        try:
            cut = HopRules(*self._source.sampling(tasks[0].clip))
            return self._runner.run(show(hops, allocations, tasks, pocket, self._mllm, self._table, cut))
        except MLLMUnavailable as error:
            raise ConnectionError(str(error)) from error

    def _known(self, index: int) -> Mapping[str, Task]:
        """The tasks of an episode by name."""
        if index not in self._tasks:
            self._tasks[index] = {task.name: task for task in self._source.tasks(index)}
        return self._tasks[index]

    def _passed(self, dry: Pass) -> tuple[Spending, tuple[Allocation, ...]]:
        """The spending and the allocations of a dry pass. Tasks of a clip share it unless the allocator gets what
        they ask; an engine's share it too where they ask the same."""
        task = self._known(dry.index)[dry.task]
        given: object = task.name if dry.allocator in _OF_QUERIES else ""
        if dry.allocator in self.engines or dry.allocator in self._by_clip or dry.allocator == OFFLINE:
            given = task.standing, tuple(sorted({(one.text, one.known_hop) for one in task.questions}))
        key = (task.clip, given, dry.allocator, dry.budget, dry.step)
        if key not in self._passes:
            self._passes[key] = self._run(task, dry)
        self._passes.move_to_end(key)
        while len(self._passes) > _KEPT_PASSES:
            self._passes.popitem(last=False)
        return self._passes[key]

    def _run(self, task: Task, dry: Pass) -> tuple[Spending, tuple[Allocation, ...]]:
        hops = self._clip(task.clip)
        allocations, taken_s = self._as_a_whole(task, dry) if dry.allocator == OFFLINE else self._hop_by_hop(task, dry)
        spending = Spending(
            tokens=sum(allocation.tokens for allocation in allocations),
            native=self._native(hops),
            frames=sum(len(hop.frames) for hop in hops),
            shown=sum(len(segment.frames) for allocation in allocations for segment in allocation.segments),
            allocator_s=taken_s,
            clip_s=hops[-1].end_s - hops[0].start_s,
            digest=hashlib.blake2b(repr(allocations).encode(), digest_size=12).hexdigest(),
        )
        return spending, allocations

    def _hop_by_hop(self, task: Task, dry: Pass) -> tuple[tuple[Allocation, ...], float]:
        """As in service: each hop is granted what has been saved by then."""
        hops = self._clip(task.clip)
        pocket = self._purse(hops, dry)
        allocator = self._allocator(dry.allocator, task, hops, pocket)
        queries = {text: WatchQuery(str(place), without_zone(text)) for place, text in enumerate(task.standing)}
        standing = [[queries[text] for text in task.standing_in(number)] for number in range(len(hops))]
        return self._runner.run(spend(hops, standing, allocator, pocket, self._table))

    def _as_a_whole(self, task: Task, dry: Pass) -> tuple[tuple[Allocation, ...], float]:
        """As the paper does: all tokens of the clip are there from its beginning."""
        if self._paper is None:
            raise ConfigError(f"the allocator {OFFLINE} needs a checkpoint; name it as {OFFLINE}:CHECKPOINT")
        hops = self._clip(task.clip)
        pictures = [[frame.picture for frame in hop.frames] for hop in hops]
        tokens = self._purse(hops, dry).burst_tokens
        return self._paper.allocate(task.clip, pictures, task.standing, tokens, self._native(hops))

    def _purse(self, hops: Sequence[Hop], dry: Pass) -> ClipBudget:
        """As many native hops can be saved up for as in service; the paper's allocator has all tokens of the clip."""
        if dry.allocator == OFFLINE:
            return whole_purse(self._native(hops), hops[-1].end_s - hops[0].start_s, dry.budget, dry.step)
        least = round(BURST_HOPS * max(native(_sizes(hop), self._table.rules).tokens for hop in hops))
        return purse(self._native(hops), least, hops[-1].end_s - hops[0].start_s, dry.budget, dry.step, BURST_S)

    def _native(self, hops: Sequence[Hop]) -> int:
        return sum(native(_sizes(hop), self._table.rules).tokens for hop in hops)

    def _allocator(self, name: str, task: Task, hops: Sequence[Hop], pocket: ClipBudget) -> Allocator:
        rules = self._table.rules
        as_they_are = {text: text for text in map(without_zone, task.standing)}
        said = dict(zip((watch.text for watch in task.watches), task.reworded, strict=True)) if task.reworded else {}
        others = {"learned-no-text": {}, "learned-reworded": as_they_are | said}
        engine = self._engine("learned" if name in others else name, task.clip)
        if engine is not None:
            return _Reworded(engine, name, others[name]) if name in others else engine
        if name in (*LEARNED, WITHOUT_TEXT):
            option = "--gaze" if name == WITHOUT_TEXT else "--engine"
            raise ConfigError(f"the allocator {name} needs an engine; name one with {option}")
        makers: dict[str, Callable[[], Allocator]] = {
            "fixed": lambda: FixedAllocator(rules),
            "motion": lambda: MotionAllocator(rules),
            "fewer": lambda: _Baselined(name, Fewer(rules), hops),
            "recent": lambda: _Baselined(name, Recent(rules), hops),
            "codec": lambda: _Baselined(name, self._codec(task.clip), hops),
            "random": lambda: _Baselined(name, Random(rules, _seed(task.clip)), hops),
            "video": lambda: _Baselined(name, Video(rules), hops),
            "oracle": lambda: _Baselined(name, Scheduled(rules, self._schedule(task, hops, pocket)), hops),
        }
        if name not in makers:
            raise ConfigError(f"there is no allocator {name!r}; expected some of {', '.join(ALLOCATORS)}")
        return makers[name]()

    def _engine(self, name: str, clip: str) -> LearnedAllocator | None:
        if name in self._by_clip:
            return self._by_clip[name][clip]
        return self.engines.get(name)

    def _codec(self, clip: str) -> Codec:
        if not isinstance(self._source, CodedTasks):
            raise ConfigError(f"the allocator codec needs packets, and {clip} has none; leave it out of --allocators")
        return Codec(self._table.rules, self._source.activity(clip))

    def _schedule(self, task: Task, hops: Sequence[Hop], pocket: ClipBudget) -> tuple[float, ...]:
        costs = [HopCost(hop.end_s, tuple(_sizes(hop))) for hop in hops]
        return plan(task.family, costs, task.evidence, pocket, hops[0].start_s, self._table.rules)

    def _clip(self, name: str) -> tuple[Hop, ...]:
        """A clip whose pictures remember how they look when they are small."""
        if name not in self._clips:
            decoded = self._source.hops(name)
            if not decoded:
                raise ConfigError(f"the clip {name} holds no picture; leave it out")
            self._clips[name] = tuple(as_hops([self._remembering(name, *one) for one in enumerate(decoded)]))
            self._pictures += _pictures(self._clips[name])
        self._clips.move_to_end(name)
        while len(self._clips) > 1 and self._pictures > KEPT_PICTURES:
            self._pictures -= _pictures(self._clips.popitem(last=False)[1])
        return self._clips[name]

    def _remembering(self, clip: str, place: int, hop: ClipHop) -> ClipHop:
        def decoded(number: int) -> Picture:
            return self._source.hops(clip)[place].pictures[number]

        pictures = tuple(_Remembering(size, number, decoded) for number, size in enumerate(hop.sizes))
        return replace(hop, pictures=pictures)


class _Remembering:
    """A picture that keeps its small renderings; for larger ones its clip is decoded again if it has to be."""

    def __init__(self, size: tuple[int, int], number: int, decoded: Callable[[int], Picture]) -> None:
        self.height, self.width = size
        self._number, self._decoded = number, decoded
        self._small: dict[tuple[int, int], NDArray[np.uint8]] = {}

    def render(self, height: int, width: int) -> NDArray[np.uint8]:
        """See Picture."""
        if height * width > _SMALL_PX:
            return self._decoded(self._number).render(height, width)
        if (height, width) not in self._small:
            self._small[height, width] = self._decoded(self._number).render(height, width)
        return self._small[height, width].copy()


class _Baselined:
    """A baseline as an allocator of the loop's."""

    def __init__(self, name: str, baseline: Baseline, hops: Sequence[Hop]) -> None:
        self.name, self._baseline = name, baseline
        self._places = {hop.start_s: place for place, hop in enumerate(hops)}

    async def allocate(self, hop: Hop, queries: Sequence[WatchQuery], grant: int) -> Allocation:
        """See Allocator."""
        return self._baseline.allocate(self._places[hop.start_s], _sizes(hop), grant)

    def forget(self, stream_id: str) -> None:
        """See Allocator."""

    async def close(self) -> None:
        """See Allocator."""


class _Reworded:
    """An allocator that gets the standing queries in other words, and none for which there are no others."""

    def __init__(self, allocator: Allocator, name: str, said: Mapping[str, str]) -> None:
        self.name, self._allocator, self._said = name, allocator, said
        self.forget, self.close = allocator.forget, allocator.close

    async def allocate(self, hop: Hop, queries: Sequence[WatchQuery], grant: int) -> Allocation:
        """See Allocator."""
        reworded = [
            replace(query, question=self._said[query.question]) for query in queries if query.question in self._said
        ]
        return await self._allocator.allocate(hop, reworded, grant)


def _sizes(hop: Hop) -> list[tuple[int, int]]:
    return [frame.size for frame in hop.frames]


def _pictures(clip: Sequence[Hop]) -> int:
    return sum(len(hop.frames) for hop in clip)


def _seed(clip: str) -> int:
    return int.from_bytes(hashlib.blake2b(clip.encode(), digest_size=6).digest())

"""Strips of pictures for people: the frames of clips that an allocator showed, and those that it left out."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from allocator_engine.evaluate.run import Pass
from allocator_engine.evaluate.tasks import Task
from pipeline.evidence.pictures import jpeg
from pipeline.lab.crew import ExaminerPool
from pipeline.lab.held_out import HeldOutClip

MOST_STRIPS = 4
"""Clips that are shown: those in which most happens."""

_LEFT_OUT_PX = 96  # width of a frame that was left out
_QUALITY = 70


@dataclass(frozen=True, slots=True)
class StripFrame:
    """A frame: its second in the recording, the vision tokens that its segment cost (0: left out), and a JPEG of it as
    it was shown, in base64."""

    at_s: float
    tokens: int
    picture: str


@dataclass(frozen=True, slots=True)
class Strip:
    """A clip's frames in order, and the share of its native tokens that they cost."""

    name: str
    share: float
    frames: tuple[StripFrame, ...]


def strips_of(
    crew: ExaminerPool, episodes: Sequence[Sequence[Task]], held: Sequence[HeldOutClip], budget: float
) -> tuple[Strip, ...]:
    """The clips in which most changes, as `learned` showed them at a share of their native tokens."""
    watching = [
        (sum(len(watch.spans) for watch in task.watches), index, task.name)
        for index, tasks in enumerate(episodes)
        for task in tasks
        if task.watches
    ]
    chosen = sorted(sorted(watching, reverse=True)[:MOST_STRIPS], key=lambda one: one[1])
    return tuple(_strip(crew, Pass(index, task, "learned", budget, 0), held[index]) for _, index, task in chosen)


def _strip(crew: ExaminerPool, dry: Pass, held: HeldOutClip) -> Strip:
    hops, allocations, native = crew.look(dry)
    frames = []
    for hop, allocation in zip(hops, allocations, strict=True):
        sizes = {place: segment for segment in allocation.segments for place in segment.frames}
        for place, frame in enumerate(hop.frames):
            size = sizes.get(place)
            height, width = frame.size
            shown = (size.height, size.width) if size else (max(1, height * _LEFT_OUT_PX // width), _LEFT_OUT_PX)
            picture = base64.b64encode(jpeg(frame.picture, *shown, _QUALITY)).decode()
            frames.append(StripFrame(frame.pts_s + held.clip.start_s, size.tokens if size else 0, picture))
    spent = sum(allocation.tokens for allocation in allocations)
    return Strip(held.name, spent / max(1, native), tuple(frames))

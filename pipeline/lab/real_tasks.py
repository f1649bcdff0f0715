"""Real footage as tasks: the last part of each camera's time, whose truth people made, asked as a site would ask."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from allocator_engine.evaluate.baselines import CodecActivity
from allocator_engine.evaluate.tasks import FAMILIES, BlockWatch, Evidence, Family, Task, TaskQuestion
from allocator_engine.train.rollout import ClipHop
from pipeline.clock import SystemClock
from pipeline.errors import ConfigError
from pipeline.lab.background import Background
from pipeline.lab.codec_activity import activity_of
from pipeline.lab.exam import HOPS
from pipeline.lab.footage import MOST_HOPS, Clip, RecordingReader, decoded
from pipeline.lab.real_truth import UNKNOWN, LabelledRecording, StatedTruth, changes_s, read_labelled, settle, spans_of
from pipeline.mllm.detector.words import understand
from pipeline.sources.codec_signs import read_signs
from pipeline.sources.probe import probe

TRAINED_PART = 0.6
"""The first part of each camera's time, which is for training; the rest tests."""

TOGETHER = 8
"""Watches that stand together, at most."""

BLOCK_HOPS = 8
"""Hops of a block of time: blocks are drawn again for intervals, since what is near in time is not independent."""

EVERY_HOPS = 2
"""A question is asked at every so many hops."""

OPEN_AT, CLEAR_AT = 0.5, 0.3
"""Scores at which a watch opens and clears."""

VERSION = "blocks of 8 hops, zones unread"
"""A name for how tasks are made of labels: changed when the same labels would make others."""

_RATE_SLACK = 0.1  # of the frame rate that labels and recording may differ by, since containers round


@dataclass(frozen=True, slots=True)
class TimedCamera:
    """A camera's recording, its frames per second as it is decoded, and the seconds at which testing begins and ends,
    which are whole hops."""

    labelled: LabelledRecording
    fps: float
    from_s: float
    until_s: float

    def truths(self) -> Iterator[tuple[StatedTruth, StatedTruth]]:
        """Each truth of the tested part that is decided somewhere, settled, and the same of all of the recording."""
        first, last = round(self.from_s * self.fps), round(self.until_s * self.fps)
        for truth in self.labelled.truths:
            whole = replace(truth, known=settle(truth.known, self.fps))
            part = replace(truth, known=whole.known[first:last])
            if (part.known != UNKNOWN).any():
                yield part, whole


class RealTasks:
    """A TaskSource of labelled recordings: an episode per camera; the events of its watches, and questions at moments.

    `closed`: only questions that a detector understands. Raises ConfigError as `read_labelled` does, and for labels of
    other frames than the recording has.
    """

    def __init__(self, folder: Path, families: Collection[Family] = FAMILIES, closed: bool = False) -> None:
        self._families, self._closed = families, closed
        self._cameras = [_tested(labelled) for labelled in read_labelled(folder, _size_of)]
        self._files = {one.labelled.name: one.labelled.file for one in self._cameras}

    def __len__(self) -> int:
        return len(self._cameras)

    @property
    def skipped(self) -> tuple[str, ...]:
        """The questions that are left out, by camera."""
        return tuple(
            f"{camera.labelled.name}: {truth.text}"
            for camera in self._cameras
            for truth in camera.labelled.truths
            if not self._asks(truth)
        )

    @property
    def cameras(self) -> tuple[str, ...]:
        """The names of the cameras of which anything is asked; they are those of their clips."""
        return tuple(camera.labelled.name for camera in self._cameras if self._questions(camera))

    def training(self, minutes: float = math.inf, without: str = "") -> tuple[Clip, ...]:
        """The first part of each camera's time, cut into clips that ask its questions: the first `minutes` of all of it
        together, to which each camera gives the same share of its own, or all but the camera `without`.

        Raises ConfigError for more minutes than there are, and where no camera is left.
        """
        asked = [camera for camera in self._cameras if self._questions(camera)]
        cameras = [camera for camera in asked if camera.labelled.name != without]
        if not cameras:
            raise ConfigError(
                f"there is nothing to train on without {without}; leaving a camera out needs labels of another one"
                if without
                else f"there is nothing to train on: nothing is asked of {len(self)} labelled recordings that the MLLM"
                " understands"
            )
        whole_s = sum(camera.from_s for camera in cameras)
        if not math.isinf(minutes) and 60 * minutes >= whole_s:
            raise ConfigError(
                f"{minutes:g} minutes of recordings are wanted, and {whole_s / 60:.1f} are there to train on; the table"
                " has a row for all of them"
            )
        clips = []
        for camera in cameras:
            questions = self._questions(camera)
            hops = max(1, round(min(1.0, 60 * minutes / whole_s) * camera.from_s / HOPS.hop_s))
            for first in range(0, hops, MOST_HOPS):
                end_s = min(first + MOST_HOPS, hops) * HOPS.hop_s
                clips.append(Clip(camera.labelled.file, first * HOPS.hop_s, end_s, questions))
        return tuple(clips)

    def tasks(self, index: int) -> tuple[Task, ...]:
        """See TaskSource."""
        camera = self._cameras[index]
        shown = self.hops(camera.labelled.name)
        asked = [part for part, _ in camera.truths() if self._asks(part)]
        tasks: list[Task] = []
        for number, first in enumerate(range(0, len(asked), TOGETHER)):
            group = asked[first : first + TOGETHER]
            tasks += _watching(camera, number, group, shown)
            tasks += _asking(camera, number, group, shown)
        return tuple(task for task in tasks if task.family in self._families)

    def sampling(self, clip: str) -> tuple[float, float]:
        """See TaskSource."""
        return HOPS.sample_fps, HOPS.hop_s

    def hops(self, clip: str) -> Sequence[ClipHop]:
        """See TaskSource. Its seconds count from where testing begins."""
        camera = self._named(clip)
        return decoded(camera.labelled.file, camera.from_s, camera.until_s, HOPS)

    def activity(self, clip: str) -> Sequence[Sequence[CodecActivity]]:
        """See CodedTasks."""
        camera = self._named(clip)
        return activity_of(_signs(camera.labelled.file), self.hops(clip), camera.from_s)

    def _named(self, clip: str) -> TimedCamera:
        return next(camera for camera in self._cameras if camera.labelled.name == clip)

    def _questions(self, camera: TimedCamera) -> tuple[str, ...]:
        return tuple(truth.text for truth in camera.labelled.truths if self._asks(truth))

    def _asks(self, truth: StatedTruth) -> bool:
        return not self._closed or understand(truth.text) is not None


def _tested(labelled: LabelledRecording) -> TimedCamera:
    """The tested part of a recording. Raises ConfigError where it has other frames than its labels count."""
    with Background() as background:
        seconds = RecordingReader(HOPS, background, SystemClock()).length_s(labelled.file)
    found = probe(str(labelled.file), clock=SystemClock(), read_s=1.0, live=False)
    fps = labelled.frames / seconds
    if found.fps is not None and abs(found.fps - fps) > _RATE_SLACK * fps:
        raise ConfigError(
            f"the labels of {labelled.file.name} count {labelled.frames} frames, but it has about"
            f" {round(found.fps * seconds)}: they lie outside of the recording, or are of another"
        )
    hops = math.floor(seconds / HOPS.hop_s)
    first = math.floor(TRAINED_PART * hops)
    if first < 1 or hops - first < 1:
        raise ConfigError(f"{labelled.file} lasts {seconds:.1f} s; expected at least {3 * HOPS.hop_s:g} s")
    return TimedCamera(labelled, fps, first * HOPS.hop_s, hops * HOPS.hop_s)


def _watching(
    camera: TimedCamera, number: int, group: Sequence[StatedTruth], shown: Sequence[ClipHop]
) -> Iterator[Task]:
    """The watches of a group, a task for each block of time, in which its own events count."""
    name = camera.labelled.name
    spans = [spans_of(truth.known, camera.fps) for truth in group]
    evidence = _evidence([s for truth in group for s in changes_s(truth.known, camera.fps)], shown)
    for block, (begins_s, ends_s) in enumerate(_blocks(shown)):
        watches = tuple(
            BlockWatch(
                f"{name}-{number}-{place}",
                truth.text,
                found,
                truth.split,
                OPEN_AT,
                CLEAR_AT,
                block_s=(begins_s, ends_s),
            )
            for place, (truth, found) in enumerate(zip(group, spans, strict=True))
        )
        yield Task(
            f"{name} watches {number} block {block}",
            "watch_f1",
            f"{name} {block}",
            name,
            watches=watches,
            evidence=evidence,
        )


def _asking(camera: TimedCamera, number: int, group: Sequence[StatedTruth], shown: Sequence[ClipHop]) -> Iterator[Task]:
    """Questions at moments, a task for each block of time."""
    name = camera.labelled.name
    for block, (begins_s, ends_s) in enumerate(_blocks(shown)):
        places = [place for place, hop in enumerate(shown) if begins_s <= hop.start_s < ends_s]
        moments = places[EVERY_HOPS - 1 :: EVERY_HOPS]
        questions = tuple(
            TaskQuestion(truth.text, "yes" if truth.known[at] else "no", "yes_no", place, truth.split)
            for place in moments
            for truth in group
            if (at := round(shown[place].pts_s[-1] * camera.fps)) < len(truth.known) and truth.known[at] != UNKNOWN
        )
        evidence = tuple(Evidence(place, 1.0) for place in sorted({question.hop for question in questions}))
        if questions:
            yield Task(
                f"{name} questions {number} block {block}",
                "qa",
                f"{name} {block}",
                name,
                questions=questions,
                evidence=evidence,
            )


def _blocks(shown: Sequence[ClipHop]) -> list[tuple[float, float]]:
    """Beginning and end of each block of a clip in seconds; the last one takes what is left over. Before the first
    nothing happens, and after the last nothing either."""
    starts = [shown[place].start_s for place in range(0, len(shown), BLOCK_HOPS)]
    if len(starts) > 1 and len(shown) % BLOCK_HOPS and len(shown) % BLOCK_HOPS < BLOCK_HOPS // 2:
        starts.pop()
    return list(zip(starts, [*starts[1:], np.inf], strict=True))


def _evidence(times_s: Sequence[float], shown: Sequence[ClipHop]) -> tuple[Evidence, ...]:
    """The hops in which something begins or ceases to hold, at the first sampled frame that shows it."""
    found = set()
    for time_s in times_s:
        place = next((place for place, hop in enumerate(shown) if hop.pts_s and hop.pts_s[-1] >= time_s), None)
        if place is not None:
            found.add(place)
    return tuple(Evidence(place, 1.0) for place in sorted(found))


def _size_of(file: Path) -> tuple[int, int]:
    found = probe(str(file), clock=SystemClock(), read_s=1.0, live=False)
    return found.height, found.width


_signs = lru_cache(maxsize=8)(read_signs)

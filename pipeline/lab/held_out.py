"""Recordings that were kept out of training as tasks: what holds in a second is what the MLLM answers to native
pictures, or what people labelled."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from allocator_engine.evaluate.tasks import Evidence, Task, TaskQuestion, TaskWatch
from allocator_engine.train.rollout import ClipHop
from pipeline.core.hops import HopRules
from pipeline.lab.footage import Clip, decoded
from pipeline.lab.real_truth import UNKNOWN, changes_s, spans_of
from pipeline.lab.recorded import WatchTruths
from pipeline.lab.site_footage import AskedWatch
from pipeline.lab.truths import by_people

TOGETHER = 8
"""Watches that stand together, at most."""

EVERY_HOPS = 4
"""A question is asked at every so many hops."""

Known = NDArray[np.int8]
"""int8 `[watches, hops]`: 1 where a watch's condition holds as a hop ends, 0 where not, UNKNOWN where nobody knows."""


@dataclass(frozen=True, slots=True)
class HeldOutClip:
    """A clip, the watches of its camera, and what is known of them."""

    clip: Clip
    watches: tuple[AskedWatch, ...]
    known: Known

    @property
    def name(self) -> str:
        """The clip's name."""
        return f"{self.clip.file.name} {self.clip.start_s:g} s"


class HeldOutTasks:
    """A TaskSource of clips that were held out: an episode each. Its seconds count from where the clip begins."""

    def __init__(self, clips: Sequence[HeldOutClip], rules: HopRules) -> None:
        self._clips, self._rules = tuple(clips), rules
        self._named = {one.name: one for one in clips}

    def __len__(self) -> int:
        return len(self._clips)

    def tasks(self, index: int) -> tuple[Task, ...]:
        """See TaskSource."""
        one = self._clips[index]
        hops = len(self.hops(one.name))
        tasks = []
        for first in range(0, len(one.watches), TOGETHER):
            group, known = one.watches[first : first + TOGETHER], one.known[first : first + TOGETHER, :hops]
            tasks += [_watching(one.name, first, group, known, self._rules.hop_s)]
            tasks += [_asking(one.name, first, group, known)]
        return tuple(task for task in tasks if task.watches or task.questions)

    def sampling(self, clip: str) -> tuple[float, float]:
        """See TaskSource."""
        return self._rules.sample_fps, self._rules.hop_s

    def hops(self, clip: str) -> Sequence[ClipHop]:
        """See TaskSource."""
        cut = self._named[clip].clip
        return cut.cropped(decoded(cut.file, cut.start_s, cut.end_s, self._rules))


def known_by_labels(
    clip: Clip, native: Known, hop_s: float, watches: Sequence[AskedWatch], truths: WatchTruths
) -> Known:
    """The truth of each watch as each hop of a clip ends: by people where they looked, else the MLLM's `native` one."""
    ends_s = np.array([clip.start_s + hop_s * number for number in range(1, native.shape[1] + 1)]) - 1e-6
    rows = [by_people(truths[one.slug].get(clip.file), ends_s, row) for one, row in zip(watches, native, strict=True)]
    return np.array(rows, np.int8).reshape(native.shape)


def _watching(name: str, first: int, group: Sequence[AskedWatch], known: Known, hop_s: float) -> Task:
    standing = tuple(
        TaskWatch(
            watch.slug,
            watch.text,
            spans_of(row, 1 / hop_s),
            "",
            watch.config.open_at,
            watch.config.clear_at,
            watch.config.confirm,
        )
        for watch, row in zip(group, known, strict=True)
    )
    changing = sorted({round(at_s / hop_s) for row in known for at_s in changes_s(row, 1 / hop_s)})
    evidence = tuple(Evidence(hop, 1.0) for hop in changing if hop < known.shape[1])
    return Task(f"{name} watches {first}", "watch_f1", name, name, watches=standing, evidence=evidence)


def _asking(name: str, first: int, group: Sequence[AskedWatch], known: Known) -> Task:
    asked = tuple(
        TaskQuestion(watch.text, "yes" if row[hop] else "no", "yes_no", hop)
        for hop in range(EVERY_HOPS - 1, known.shape[1], EVERY_HOPS)
        for watch, row in zip(group, known, strict=True)
        if row[hop] != UNKNOWN
    )
    evidence = tuple(Evidence(hop, 1.0) for hop in sorted({question.hop for question in asked}))
    return Task(f"{name} questions {first}", "qa", name, name, questions=asked, evidence=evidence)

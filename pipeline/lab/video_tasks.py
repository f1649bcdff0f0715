"""Video-QA files as tasks: their videos decoded through the source of production, each asked about when it is over."""

from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path

from allocator_engine.evaluate.baselines import CodecActivity
from allocator_engine.evaluate.tasks import FAMILIES, Evidence, Family, Task, TaskQuestion
from allocator_engine.train.data import QaRow, read_rows
from allocator_engine.train.reward import Form
from allocator_engine.train.rollout import ClipHop
from pipeline.clock import SystemClock
from pipeline.core.hops import HopRules
from pipeline.lab.background import Background
from pipeline.lab.codec_activity import activity_of
from pipeline.lab.exam import HOPS
from pipeline.lab.footage import RecordingReader
from pipeline.sources.codec_signs import read_signs

MOST_FRAMES = 256
"""Frames of a video, at most: a longer one is sampled more thinly."""

_HINTS: dict[Form, str] = {
    "choice": "Answer with the letter of the right option.",
    "number": "Answer with a number.",
    "word": "Answer in a few words.",
}


class VideoTasks:
    """A TaskSource of a video-QA file (see `allocator_engine.train.data`): an episode per video, a task per row.

    Raises EngineMissing and ConfigError as `read_rows` does, ConfigError also for a file that is no video.
    """

    def __init__(self, file: Path, families: Collection[Family] = FAMILIES) -> None:
        self._families = families
        self._rows: dict[Path, list[QaRow]] = {}
        for row in read_rows(file):
            self._rows.setdefault(row.video, []).append(row)
        self._videos = list(self._rows)

    def __len__(self) -> int:
        return len(self._videos)

    def tasks(self, index: int) -> tuple[Task, ...]:
        """See TaskSource."""
        video = self._videos[index]
        shown = _decoded(video)
        single = sum(len(hop.pictures) for hop in shown) == 1
        tasks = [_task(f"{video} row {row.number}", row, shown, single) for row in self._rows[video]]
        return tuple(task for task in tasks if task.family in self._families)

    def sampling(self, clip: str) -> tuple[float, float]:
        """See TaskSource."""
        rules = _rules(Path(clip))
        return rules.sample_fps, rules.hop_s

    def hops(self, clip: str) -> Sequence[ClipHop]:
        """See TaskSource."""
        return _decoded(Path(clip))

    def activity(self, clip: str) -> Sequence[Sequence[CodecActivity]]:
        """See CodedTasks."""
        return activity_of(_signs(Path(clip)), self.hops(clip))


_signs = lru_cache(maxsize=8)(read_signs)


@lru_cache(maxsize=4096)
def _rules(video: Path) -> HopRules:
    with Background() as background:
        seconds = RecordingReader(HOPS, background, SystemClock()).length_s(video)
    fps = MOST_FRAMES / max(seconds, 1e-9)
    return HOPS if fps >= HOPS.sample_fps else HopRules(fps, HOPS.slots / fps)


@lru_cache(maxsize=2)
def _decoded(video: Path) -> tuple[ClipHop, ...]:
    with Background() as background:
        return RecordingReader(_rules(video), background, SystemClock()).read(video)


def _task(name: str, row: QaRow, shown: Sequence[ClipHop], single: bool) -> Task:
    family: Family = "grounding" if row.form == "interval" else "image" if single else "qa"
    question = TaskQuestion(row.question, row.truth, row.form, len(shown) - 1, row.form, hint=_HINTS.get(row.form, ""))
    return Task(name, family, str(row.video), str(row.video), (question,), evidence=_evidence(row, shown))


def _evidence(row: QaRow, shown: Sequence[ClipHop]) -> tuple[Evidence, ...]:
    """The hops in which the answer can be seen, where the file says when that is."""
    if row.evidence_s is None:
        return ()
    first_s, last_s = row.evidence_s
    places = [place for place, hop in enumerate(shown) if hop.start_s <= last_s and hop.end_s > first_s]
    return tuple(Evidence(place, 1.0, 1 / len(places)) for place in places)

"""Engines of real footage: trained on the first part of each camera's time by what the MLLM itself answers there."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from allocator_engine.digests import of_texts
from allocator_engine.evaluate.run import WITHOUT_TEXT, OnProgress
from allocator_engine.manifest import FILE_NAME
from pipeline.config.mllm import DetectorConfig, MLLMConfig
from pipeline.config.site import parse_site
from pipeline.lab.footage import Clip
from pipeline.lab.real_tasks import RealTasks
from pipeline.lab.site_engine import ShortTraining, make_engine
from pipeline.lab.trained_engines import GENERAL, TrainedEngines, minutes_name
from pipeline.lab.training import OpenMLLM, answering, identity_of


@dataclass(frozen=True, slots=True)
class WantedEngines:
    """The engines that a comparison on real footage wants trained: `learned` on all of the training's time, `gaze` on
    the same without queries, one for each of so many `minutes` of it from the shipped engine and one from nothing, and
    with `leave_out` one for each camera from the others."""

    learned: bool = True
    gaze: bool = False
    minutes: tuple[float, ...] = ()
    leave_out: bool = False
    training: ShortTraining = ShortTraining()


def train_engines(
    footage: Path, mllm: MLLMConfig, work: Path, wanted: WantedEngines, on_progress: OnProgress
) -> TrainedEngines:
    """The engines of a folder of labelled recordings; those that were made before of the same clips, MLLM and training
    are taken as they are.

    Raises ConfigError, before any is trained, where one of them would have nothing to learn from; ConnectionError where
    the MLLM does not answer: the same call goes on where it was.
    """
    tasks = RealTasks(footage, closed=isinstance(mllm, DetectorConfig))
    named, without = _by_name(tasks, wanted), _without_each(tasks, wanted)
    trainer = _Trainer(mllm, work, on_progress)
    with trainer.at_work():
        made = {name: trainer.made(name, one) for name, one in named.items()}
        general = {camera: trainer.made(f"{GENERAL}, without {camera}", one) for camera, one in without.items()}
    learned = made.pop("learned", None)
    return TrainedEngines(learned, made, {GENERAL: general} if general else {})


@dataclass(frozen=True, slots=True)
class _CameraLesson:
    """The clips of one training, and how it trains."""

    clips: Sequence[Clip]
    training: ShortTraining


def _by_name(tasks: RealTasks, wanted: WantedEngines) -> dict[str, _CameraLesson]:
    """The trainings by the names of their allocators, in their order."""
    usual = wanted.training
    found: dict[str, _CameraLesson] = {}
    if wanted.learned:
        found["learned"] = _CameraLesson(tasks.training(), usual)
    if wanted.gaze:
        found[WITHOUT_TEXT] = _CameraLesson(tasks.training(), replace(usual, listens=False))
    for minutes, general in _amounts(wanted.minutes):
        clips = tasks.training() if minutes is None else tasks.training(minutes)
        found[minutes_name(minutes, general=general)] = _CameraLesson(clips, replace(usual, general=general))
    return found


def _without_each(tasks: RealTasks, wanted: WantedEngines) -> dict[str, _CameraLesson]:
    """The trainings on all cameras but one, by that one, where they are wanted."""
    cameras = tasks.cameras if wanted.leave_out else ()
    return {camera: _CameraLesson(tasks.training(without=camera), wanted.training) for camera in cameras}


def _amounts(minutes: Sequence[float]) -> list[tuple[float | None, bool]]:
    """The minutes and the start of each training; all minutes from the shipped engine are `learned`."""
    if not minutes:
        return []
    return [(amount, general) for amount in minutes for general in (True, False)] + [(None, False)]


class _Trainer:
    """Makes engines one by one, with one MLLM, which is started for the first that is not there yet."""

    def __init__(self, mllm: MLLMConfig, work: Path, on_progress: OnProgress) -> None:
        self._mllm, self._work, self._on_progress = mllm, work, on_progress
        self._stack = ExitStack()
        self._asked: OpenMLLM | None = None

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Frees the MLLM in the end."""
        with self._stack:
            yield

    def made(self, name: str, lesson: _CameraLesson) -> Path:
        """The folder of an engine of these clips."""
        clips, training = lesson.clips, lesson.training
        named = of_texts([repr((clip.file.name, clip.start_s, clip.end_s, clip.questions)) for clip in clips])
        mark = of_texts([named, identity_of(self._mllm), repr(training)])
        out = self._work / f"engine-{mark}"
        if (out / FILE_NAME).exists():
            return out
        if self._asked is None:
            site = replace(parse_site({}), mllm=self._mllm)
            self._asked = self._stack.enter_context(answering(site, self._work, "dense"))
        steps = self._work / f"steps-{mark}"
        progress = self._on_progress
        make_engine(
            clips,
            self._asked,
            training,
            steps,
            out,
            lambda records, count: progress(f"training {name}", len(records), count),
        )
        return out

"""The options of `evaluate` that are about real footage: its folder, and the engines that are trained on it first."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from allocator_engine.errors import EngineFailed
from allocator_engine.evaluate.run import WITHOUT_TEXT
from pipeline.errors import ConfigError
from pipeline.lab.trained_engines import TrainedEngines

if TYPE_CHECKING:
    from pipeline.config.mllm import MLLMConfig


@dataclass(frozen=True, slots=True)
class RealOptions:
    """The options of the command line for real footage: `minutes` as written, True to leave out each camera in turn,
    and steps of a training that differ from the usual."""

    minutes: str | None
    leave_out: bool
    grounding: int | None
    steps: int | None

    @property
    def given(self) -> str:
        """The first option that was given, if any."""
        named = {
            "--minutes": self.minutes,
            "--leave-out": self.leave_out,
            "--grounding": self.grounding,
            "--steps": self.steps,
        }
        return next((name for name, value in named.items() if value), "")


def real_folder(tasks: str, footage: Path | None, options: RealOptions) -> Path | None:
    """The folder of real footage, if that is what is asked about. Raises ConfigError for one without the other, and
    for options that are of real footage alone."""
    if (tasks == "real") != (footage is not None):
        raise ConfigError(
            "--tasks real and --footage FOLDER go together: labelled recordings are needed, and nothing else"
        )
    if footage is None and options.given:
        raise ConfigError(f"{options.given} is about what is trained on real footage; it needs --tasks real")
    if footage is not None and not (footage / "real" / "labels").is_dir():
        raise ConfigError(
            f"--footage {footage} has no real/labels; expected a folder with clips/, real/clips/, real/labels/"
        )
    return footage


def trained(
    footage: Path,
    mllm: "MLLMConfig",
    resume: Path | None,
    allocators: tuple[str, ...],
    options: RealOptions,
    named: TrainedEngines,
    on_progress: Callable[[str, int, int], None],
) -> TrainedEngines:
    """The engines that were named, and those that these allocators and options need besides, trained on the first part
    of each camera's time; kept in `resume`. Raises EngineFailed where the MLLM does not answer."""
    minutes = minutes_of(options.minutes)
    if minutes and (named.learned or "learned" not in allocators):
        raise ConfigError(
            "--minutes compares with `learned`, trained on all of the time; let it be among --allocators, without"
            " --engine"
        )
    learns = "learned" in allocators and named.learned is None
    gazes = WITHOUT_TEXT in allocators and WITHOUT_TEXT not in named.others
    if not (learns or gazes or options.leave_out):
        return named
    from pipeline.lab.real_engine import WantedEngines, train_engines
    from pipeline.lab.site_engine import ShortTraining

    usual = ShortTraining()
    training = replace(usual, grounding=options.grounding or usual.grounding, steps=options.steps or usual.steps)
    wanted = WantedEngines(learns, gazes, minutes, options.leave_out, training)
    work = resume / "learned" if resume else Path(tempfile.mkdtemp(prefix="resadapt-real-"))
    try:
        made = train_engines(footage, mllm, work, wanted, on_progress)
    except ConnectionError as error:
        raise EngineFailed(f"{error}; the same command with --resume goes on from {work}") from error
    return TrainedEngines(named.learned or made.learned, {**named.others, **made.others}, made.by_clip)


def minutes_of(text: str | None) -> tuple[float, ...]:
    """The minutes in `1,2,3`, from the least to the most. Raises ConfigError."""
    try:
        found = tuple(sorted({float(part) for part in text.split(",")})) if text is not None else ()
    except ValueError:
        found = (0.0,)
    if not all(0 < one < 1e6 for one in found):
        raise ConfigError(f"--minutes is {text!r}; expected minutes of recordings above 0, such as 1,2,3")
    return found

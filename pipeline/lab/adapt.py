"""From hours of a site's recordings to an engine that is verified: survey, native answers, training, comparison."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from allocator_engine.encode import native_tokens
from allocator_engine.evaluate.frontier import Frontier, frontier
from allocator_engine.evaluate.records import Records
from allocator_engine.evaluate.run import Evaluation, OnProgress, Spending
from allocator_engine.evaluate.tasks import TaskOutcome
from allocator_engine.manifest import FILE_NAME, read
from allocator_engine.spec import THUMBNAIL
from pipeline.clock import Clock, SystemClock
from pipeline.config.mllm import patient
from pipeline.config.site import SiteConfig
from pipeline.core.hops import HopRules
from pipeline.errors import ConfigError
from pipeline.lab.adapt_verdict import EngineVerdict, FootageFacts, decide
from pipeline.lab.crew import ExaminerPool
from pipeline.lab.examiner import Setup
from pipeline.lab.footage import Clip, RecordingReader, survey
from pipeline.lab.held_out import HeldOutClip, HeldOutTasks, Known, known_by_labels
from pipeline.lab.patience import PATIENCE_S
from pipeline.lab.recorded import WatchTruths, read_truths
from pipeline.lab.site_engine import MadeEngine, ShortTraining, make_engine
from pipeline.lab.site_footage import SiteFootage, arrange, read_site, seconds_of
from pipeline.lab.strips import Strip, strips_of
from pipeline.lab.training import OpenMLLM, answering
from pipeline.waiting import back_off_s

if TYPE_CHECKING:
    from allocator_engine.train.progress import Record

T = TypeVar("T")

BUDGETS = (0.03, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Shares of the native tokens at which allocators are compared."""

ALLOCATORS = ("learned", "motion", "fixed")

TRIES = 8
"""The number of times in a row that an MLLM which does not answer is tried before the command gives up."""


@dataclass(frozen=True, slots=True)
class AdaptPlan:
    """The inputs of an adaptation: a folder of recordings, a site file or its watches, the MLLM (None: the site's own),
    the engine's folder, the folder that keeps what was found out, the share of the native tokens that the verdict is
    about, labels by people, and the size of the training."""

    recordings: Path
    watches: Path
    mllm: str | None
    out: Path
    work: Path
    budget: float
    labels: Path | None = None
    training: ShortTraining = ShortTraining()
    device: str | None = None


@dataclass(frozen=True, slots=True)
class NativeSurvey:
    """The MLLM's answers to all clips at native size: what is known of each by clip, vision tokens they are worth, and
    the mean luma of the darkest and the brightest clip."""

    known: Mapping[Clip, Known]
    tokens: int
    luma: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Adaptation:
    """The outcome: the engine with its check, how it compares, the verdict, and what a report shows of it."""

    made: MadeEngine
    found: Frontier
    verdict: EngineVerdict
    facts: FootageFacts
    native_tokens: int
    remarks: tuple[str, ...]
    strips: tuple[Strip, ...] = field(repr=False)


def adapt(plan: AdaptPlan, on_progress: OnProgress, on_remark: Callable[[str], None]) -> Adaptation:
    """Make an engine of a site's recordings, and compare it on what was held out.

    What the MLLM answered and the state of the training are kept in `work`: the same call goes on where it was stopped.
    Raises ConfigError for what is wrong with the recordings, watches, labels or the MLLM's name, and ConnectionError
    where the MLLM does not answer for long.
    """
    site = read_site(plan.watches, plan.mllm, plan.device)
    _require_own(plan.out, site.mllm.use)
    clock = SystemClock()
    with answering(site, plan.work, "dense") as asked:
        footage = survey(plan.recordings, asked.reader, asked.rules, site.defaults.context_max_tokens)
        arranged = arrange(footage, plan.recordings, site, site.defaults.hop_s)
        truths = _truths(plan, arranged, asked.reader)
        for remark in (*asked.remarks, *arranged.remarks):
            on_remark(remark)
        answers = ask_natively(arranged, asked, clock, on_progress, on_remark)
        facts = _facts(arranged, answers)
        made = persistently(
            lambda: make_engine(
                arranged.training,
                asked,
                plan.training,
                plan.work / "training",
                plan.out,
                lambda records, steps: on_progress(_training(records), len(records), steps),
            ),
            asked,
            clock,
            on_remark,
        )
    known = {clip: _known(clip, arranged, answers, truths, site.defaults.hop_s) for clip in arranged.held_out}
    held = [HeldOutClip(clip, arranged.watches_of(clip), known[clip]) for clip in arranged.held_out]
    found, strips = compare(held, site, plan, on_progress)
    verdict = decide(found, plan.budget, facts, made.sound)
    remarks = (*made.remarks, *asked.remarks, *arranged.remarks)
    return Adaptation(made, found, verdict, facts, answers.tokens, tuple(dict.fromkeys(remarks)), strips)


def ask_natively(
    arranged: SiteFootage, asked: OpenMLLM, clock: Clock, on_progress: OnProgress, on_remark: Callable[[str], None]
) -> NativeSurvey:
    """Ask about every clip at native size, once; an MLLM that dies in between is waited for.

    Raises ConfigError where no answer about the clips that train ever changes.
    """
    known: dict[Clip, Known] = {}
    tokens, luma = 0, []
    clips = (*arranged.training, *arranged.held_out)
    for number, clip in enumerate(clips, start=1):
        shown = clip.cropped(asked.reader.read(clip.file, clip.start_s, clip.end_s))
        scores = persistently(lambda: asked.answerer.native(shown, clip.questions), asked, clock, on_remark)  # noqa: B023
        known[clip] = np.where(np.isnan(scores), -1, scores >= 0.5).astype(np.int8)
        tokens += sum(native_tokens(hop.sizes, asked.rules) for hop in shown)
        pictures = [hop.pictures[0] for hop in shown if hop.pictures]
        luma += [float(np.mean([picture.render(*THUMBNAIL) for picture in pictures]))] if pictures else []
        on_progress(f"asking at native size: {tokens:,} vision tokens", number, len(clips))
    if not any(_changes(known[clip]).any() for clip in arranged.training):
        raise ConfigError(
            f"the MLLM's answers never change in {seconds_of(arranged.training) / 60:.1f} minutes of recordings:"
            f" {_always(arranged, known)}. There is nothing to learn from: take recordings in which something happens,"
            " or other watches"
        )
    return NativeSurvey(known, tokens, (min(luma, default=0.0), max(luma, default=0.0)))


def persistently(work: Callable[[], T], asked: OpenMLLM, clock: Clock, on_remark: Callable[[str], None]) -> T:
    """The result of `work`, which is tried again while the MLLM does not answer. Raises ConnectionError in the end."""
    for failures in range(1, TRIES):
        try:
            return work()
        except ConnectionError as error:
            wait_s = back_off_s(failures, 1.0, 60.0)
            on_remark(f"the MLLM does not answer ({error}); tried again in {wait_s:.0f} s")
            asked.reader.background.run(clock.sleep(wait_s))
    return work()


def compare(
    held: Sequence[HeldOutClip], site: SiteConfig, plan: AdaptPlan, on_progress: OnProgress
) -> tuple[Frontier, tuple[Strip, ...]]:
    """The frontier of the engine and what it has to beat on clips that were held out, and what it looked at there."""
    rules: HopRules = site.defaults.hop_rules()
    source = HeldOutTasks(held, rules)
    setup = Setup(lambda: source, patient(site.mllm, PATIENCE_S), {"learned": plan.out})
    with ExaminerPool(setup, 1) as crew:
        episodes = list(crew.tasks(range(len(source))))
        evaluation = Evaluation(episodes, crew, Records(Spending, None), Records(TaskOutcome, None), on_progress)
        cells = evaluation.cells(ALLOCATORS, tuple(dict.fromkeys((*BUDGETS, plan.budget))))
        return frontier(cells), strips_of(crew, episodes, held, plan.budget)


def _require_own(out: Path, mllm: str) -> None:
    """Raise ConfigError where `out` holds an engine for another MLLM, or something else than an engine."""
    if (out / FILE_NAME).exists():
        trained_on = read(out).trained_on.get("mllm_name", "")
        if trained_on != mllm:
            raise ConfigError(
                f"{out} holds an engine for {trained_on or 'another MLLM'}, not for {mllm}; name another --out"
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} holds something else than an engine; name another")


def _truths(plan: AdaptPlan, arranged: SiteFootage, reader: RecordingReader) -> WatchTruths | None:
    """The truth by watch and recording, as people say it; None without labels. Raises ConfigError."""
    if plan.labels is None:
        return None
    slugs = sorted({watch.slug for watches in arranged.watches.values() for watch in watches})
    return read_truths(plan.labels, plan.recordings, list(arranged.cameras), slugs, reader)


def _known(clip: Clip, arranged: SiteFootage, answers: NativeSurvey, truths: WatchTruths | None, hop_s: float) -> Known:
    """The truth of each watch of a clip: by labels, where there are any, else by the MLLM's own native answers."""
    watches = arranged.watches_of(clip)
    native = answers.known[clip][[clip.questions.index(watch.text) for watch in watches]]
    return native if truths is None else known_by_labels(clip, native, hop_s, watches, truths)


def _facts(arranged: SiteFootage, answers: NativeSurvey) -> FootageFacts:
    changed: dict[str, bool] = {}
    for clip, known in answers.known.items():
        for text, one in zip(clip.questions, _changes(known), strict=True):
            changed[text] = changed.get(text, False) or bool(one)
    watches = {watch.slug: watch.text for of in arranged.watches.values() for watch in of}
    unchanging = tuple(slug for slug, text in watches.items() if not changed.get(text, False))
    return FootageFacts(arranged.seconds, seconds_of(arranged.held_out), answers.luma, unchanging)


def _changes(known: Known) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """For each question, True if it is answered with yes and with no."""
    return np.asarray((known == 1).any(axis=1) & (known == 0).any(axis=1))


def _always(arranged: SiteFootage, known: Mapping[Clip, Known]) -> str:
    """The answer of each question that is always the same."""
    said: dict[str, set[str]] = {}
    for clip in arranged.training:
        for text, row in zip(clip.questions, known[clip], strict=True):
            said.setdefault(text, set()).update({1: "yes", 0: "no", -1: "unknown"}[value] for value in row.tolist())
    return "; ".join(f"{text!r} is always {' or '.join(sorted(values))}" for text, values in list(said.items())[:8])


def _training(records: "Sequence[Record]") -> str:
    return f"training: {records[-1]['phase']}" if records else "training"

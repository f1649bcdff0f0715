"""A training of the Allocator, composed: clips, answers and buckets by recipe, and what the outcome hangs on."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from allocator_engine.digests import of_texts
from allocator_engine.fit import FitRules
from allocator_engine.train.capo import Outside
from allocator_engine.train.data import QaClips, QaRow, read_rows
from allocator_engine.train.rollout import Clips, RewardKind
from pipeline.build import build_fit_rules, build_mllm, weight_files
from pipeline.clock import SystemClock
from pipeline.config.mllm import MLLMConfig, patient
from pipeline.config.one_stream import given
from pipeline.config.site import SiteConfig, parse_site, read_yaml
from pipeline.core.budget import Bucket, Rate
from pipeline.errors import ConfigError, SourceUnavailable
from pipeline.lab.answerer import MLLMAnswerer
from pipeline.lab.background import Background
from pipeline.lab.digests import of_file
from pipeline.lab.footage import LONG_FRAMES, Clip, RecordingReader, SiteClips, survey
from pipeline.lab.natives import NativeAnswers
from pipeline.lab.patience import PATIENCE_S
from pipeline.lab.recorded import of_questions, read_truths
from pipeline.lab.truths import Reviewed
from pipeline.redact import redact_mllm
from pipeline.sources.settings import SourceConfig

PROMPTS_AT_ONCE = 2
"""Prompts that are played at the same time where others answer: one is decoded and fitted while the other is asked."""


@dataclass(frozen=True, slots=True)
class Material:
    """The material of a training; `notes` name what was learned from, `remarks` are for people. `slots` things are
    known of every cell of its episodes."""

    outside: Outside
    notes: Mapping[str, str]
    remarks: tuple[str, ...] = ()
    slots: int = 0


def bucket(rate: float, burst: int) -> Bucket:
    """The product's bucket, empty at 0 s."""
    return Bucket(Rate(rate, burst), 0.0, full=False)


@contextmanager
def site(
    recordings: Path, config: SiteConfig, work: Path, prompts_per_step: int, labels: Path | None = None
) -> Iterator[Material]:
    """A site's recordings and watches, and the MLLM that its configuration names, whose answers to native pictures are
    kept in `work`. They are the truth where no `labels` of people say what is.

    Raises ConfigError for what is wrong with any of them, MLLMUnavailable where the MLLM does not answer.
    """
    asked_by = {slug: watch.question for slug, watch in config.watches.items()}
    questions = tuple(dict.fromkeys(asked_by.values()))
    if not questions:
        raise ConfigError("there is nothing to watch for; expected watches: {SLUG: {question: ...}} in --watches")
    with answering(config, work, "dense") as asked:
        footage = survey(recordings, asked.reader, asked.rules, config.defaults.context_max_tokens)
        people = {}
        if labels is not None:
            files = list(dict.fromkeys(clip.file for clip in footage.clips))
            people = of_questions(read_truths(labels, recordings, files, list(asked_by), asked.reader), asked_by)
        clips = SiteClips(footage.clips, questions, asked.reader, asked.answerer, prompts_per_step, people)
        remarks = [f"skipped {reason}" for reason in footage.skipped]
        if remarks:
            remarks.append(f"{len(remarks)} recordings skipped; {len(footage.clips)} clips of the others")
        cut = [f"{clip.file.relative_to(recordings)} {clip.start_s:g} {clip.end_s:g}" for clip in footage.clips]
        of = {"watches": of_texts(questions), "clips": of_texts(cut)}
        if labels is not None:
            of["labels"] = of_file(labels)
            remarks.append(_labelled(people, footage.clips))
        yield asked.material(clips, of, remarks)


def _labelled(people: Mapping[str, Mapping[Path, Reviewed]], clips: Sequence[Clip]) -> str:
    """The share of the truth that comes from people, in words."""
    ends_s = dict[Path, float]()
    for clip in clips:
        ends_s[clip.file] = max(clip.end_s, ends_s.get(clip.file, 0.0))
    truths = [(file, truth) for known in people.values() for file, truth in known.items()]
    looked_s = sum(min(truth.until, ends_s[file]) - truth.since for file, truth in truths)
    holds = sum(len(truth.holds) for _, truth in truths)
    return f"labels: {looked_s / 60:.1f} minutes looked at, watch by watch; {holds} times at which one should be open"


@contextmanager
def qa(data: Path, config: SiteConfig, work: Path, prompts_per_step: int) -> Iterator[Material]:
    """A video-QA file, and the MLLM that `config` names. Raises as `site` does, ConfigError also for the first row that
    cannot be used."""
    rows = read_rows(data)
    with _reading(config) as reader:
        _check_videos(data, rows, reader)
    with answering(config, work, _kind(rows), LONG_FRAMES) as asked:
        clips = QaClips(rows, asked.reader.read_whole, prompts_per_step)
        yield asked.material(clips, {"data": of_file(data)})


def site_of(watches: Path | None, mllm: str | None, device: str | None) -> SiteConfig:
    """The part of a site that a training takes: `watches` is a site file, of which defaults and MLLM hold too, or only
    what stands under `watches:` there. `mllm` stands in its place, `device` overrides its own. Raises ConfigError."""
    raw = read_yaml(watches) if watches else {}
    if watches and "watches" not in raw:
        raw = {"watches": raw}
    own = raw.get("mllm", {})
    own = {"use": mllm or own} if mllm or isinstance(own, str) else own
    raw |= {"streams": {}, "mllm": own | given(device=device) if isinstance(own, dict) else own}
    if isinstance(known := raw.get("watches"), dict):
        # Whichever of the site's streams they stand on: a recording does not say which it is of.
        raw["watches"] = {
            slug: {key: value for key, value in watch.items() if key != "streams"} if isinstance(watch, dict) else watch
            for slug, watch in known.items()
        }
    try:
        return parse_site(raw)
    except ConfigError as error:
        raise ConfigError(f"{watches}: {error}" if watches else str(error)) from error


@dataclass(frozen=True, slots=True)
class OpenMLLM:
    """An MLLM that was started, what is decoded for it, and how allocations for it are fitted."""

    answerer: MLLMAnswerer
    reader: RecordingReader
    rules: FitRules
    notes: Mapping[str, str]
    remarks: tuple[str, ...]

    def material(self, clips: Clips, of: Mapping[str, str], remarks: Sequence[str] = ()) -> Material:
        """The material of these clips, which the notes `of` name."""
        notes = {**self.notes, **of}
        outside = Outside(clips, self.answerer, bucket, self.rules, PROMPTS_AT_ONCE, f"{self.reader.rules} {notes}")
        return Material(outside, notes, (*self.remarks, *remarks))


@contextmanager
def answering(site: SiteConfig, work: Path, kind: RewardKind, longest: int | None = None) -> Iterator[OpenMLLM]:
    """The MLLM of a site, and the kind of its rewards; `longest` frames fit into a context, at less than native size if
    need be."""
    clock, config = SystemClock(), site.mllm
    mllm = build_mllm(patient(config, PATIENCE_S), clock)
    with _reading(site) as reader, ExitStack() as stack:
        background = reader.background
        stack.callback(lambda: background.run(mllm.close()))
        background.run(mllm.start())
        info = mllm.info
        rules = build_fit_rules(config, info)
        if longest is not None:
            rules = _whole(rules, longest, site.defaults.context_max_tokens)
        identity = identity_of(config)
        yield OpenMLLM(
            MLLMAnswerer(mllm, identity, rules, NativeAnswers(work / "native.jsonl"), background, clock, kind),
            reader,
            rules,
            {"mllm": identity, "mllm_name": info.name},
            () if info.meaningful else (f"{info.name} answers at random: what is learned from it means nothing",),
        )


@contextmanager
def _reading(site: SiteConfig) -> Iterator[RecordingReader]:
    with Background() as background:
        settings = SourceConfig(hwaccel=site.defaults.hwaccel)
        yield RecordingReader(site.defaults.hop_rules(), background, SystemClock(), settings)


def identity_of(config: MLLMConfig) -> str:
    """A hash that names an MLLM's weights as far as they can be seen: of the file that holds them; of several files, or
    of a server's model, of their names."""
    files = weight_files(config)
    if len(files) == 1:
        return of_file(files[0])
    return of_texts([redact_mllm(config.use), *map(of_file, files)])


def _whole(rules: FitRules, frames: int, context_tokens: int) -> FitRules:
    """The rules under which so many frames fit into a context at what is native size then."""
    cap = max(rules.min_tokens_per_segment, context_tokens * rules.frames_per_segment // frames)
    return replace(rules, max_tokens_per_segment=min(cap, rules.max_tokens_per_segment))


def _kind(rows: Sequence[QaRow]) -> RewardKind:
    scored = {row.form == "yes_no" for row in rows}
    return "mixed" if len(scored) > 1 else "dense" if True in scored else "sparse"


def _check_videos(data: Path, rows: list[QaRow], reader: RecordingReader) -> None:
    """Raise ConfigError, naming the line, for the first video that cannot be decoded."""
    for video, row in {row.video: row for row in reversed(rows)}.items():
        try:
            reader.length_s(video)
        except (ConfigError, SourceUnavailable) as error:
            raise ConfigError(f"line {row.number} of {data}: its video cannot be decoded ({error})") from error

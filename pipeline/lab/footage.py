"""A site's own recordings as what training learns from: cut into clips, and labelled by the MLLM's own answers.

Everything is decoded by the sources of production. The label of a question at a moment is what the frozen MLLM answers
when it sees all of the clip up to then at native size: nobody has to say what is true. Where people have said it, that
is the label.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from allocator_engine.encode import native_tokens
from allocator_engine.fit import FitRules
from allocator_engine.train.data import permuted
from allocator_engine.train.rollout import ClipHop, Episode, GradedQuestion, moments
from pipeline.clock import Clock, SystemClock
from pipeline.core.hops import HopRules, hops
from pipeline.errors import ConfigError, SourceUnavailable
from pipeline.lab.background import Background
from pipeline.lab.truths import Reviewed, by_people, looked_at
from pipeline.sources.address import RECORDING_SUFFIXES
from pipeline.sources.av import AvSource
from pipeline.sources.cropping import part_of
from pipeline.sources.probe import probe
from pipeline.sources.settings import SourceConfig
from pipeline.types import Crop, without_zone

log = structlog.get_logger()

MOST_HOPS = 16
"""Hops of a clip, at most: fewer where the native pictures of so many would not fit into a context."""

MOST_QUESTIONS = 8
"""Watches that stand at once in an episode; of more, each episode draws some."""

MOMENTS = 8
"""Most times that a watch is asked in an episode."""

LONG_FRAMES = 64
"""Frames of a whole video, at most: a longer one is sampled more thinly."""

_DELIMITED = r"(?![A-Za-z0-9])"
_LOOK_S = 1.0  # of a recording, to see whether it can be decoded
_SEED = 13
_JUST_S = 1e-6  # before a hop's end: what begins there is not yet so


def camera_of(file: Path, recordings: Path, streams: Sequence[str]) -> str | None:
    """The stream that a recording is of; without streams, its folder or name. None for one that is of none of them."""
    below = file.relative_to(recordings)
    name = below.parts[0] if len(below.parts) > 1 else below.stem
    if not streams:
        return name
    fitting = [slug for slug in streams if re.match(re.escape(slug) + _DELIMITED, name)]
    return max(fitting, key=len, default=None)


class Reference(Protocol):
    """The frozen MLLM's answers to native pictures."""

    def native(self, hops: Sequence[ClipHop], questions: Sequence[str]) -> NDArray[np.float64]:
        """P(yes) against P(no) of each question as each hop ends, NaN where it does not know: `[questions, hops]`.

        Raises ConnectionError when it cannot answer.
        """
        ...


class ClipReader(Protocol):
    """Decodes parts of recordings."""

    def read(self, file: Path, start_s: float = 0.0, end_s: float = float("inf")) -> tuple[ClipHop, ...]:
        """The hops that begin in `[start_s, end_s)`. Raises ConfigError and SourceUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Clip:
    """A part of a recording: `[start_s, end_s)` stream seconds of a file. With `questions` it is asked these alone, and
    with a `crop` about this part of its pictures."""

    file: Path
    start_s: float
    end_s: float
    questions: tuple[str, ...] = ()
    crop: Crop | None = None

    def cropped(self, hops: Sequence[ClipHop]) -> tuple[ClipHop, ...]:
        """Its hops, their pictures cropped if they are to be."""
        if self.crop is None:
            return tuple(hops)
        crop = self.crop
        return tuple(replace(hop, pictures=tuple(part_of(one, crop) for one in hop.pictures)) for hop in hops)


class RecordingReader:
    """Decodes recordings into hops, sampled as `rules` say."""

    def __init__(
        self, rules: HopRules, background: Background, clock: Clock, settings: SourceConfig = SourceConfig()
    ) -> None:
        self.rules, self.background, self._clock, self._settings = rules, background, clock, settings

    def read(self, file: Path, start_s: float = 0.0, end_s: float = float("inf")) -> tuple[ClipHop, ...]:
        """The hops that begin in `[start_s, end_s)`. Raises ConfigError for a file that is no video, and
        SourceUnavailable for one that breaks off before its first picture."""
        return self.background.run(self._read(file, start_s, end_s, self.rules))

    def read_whole(self, file: Path) -> tuple[ClipHop, ...]:
        """All of a video, in at most LONG_FRAMES frames. Raises as `read` does."""
        seconds = self.length_s(file)
        fps = min(self.rules.sample_fps, LONG_FRAMES / max(seconds, 1e-9))
        rules = self.rules if fps == self.rules.sample_fps else HopRules(fps, self.rules.slots / fps)
        return self.background.run(self._read(file, 0.0, float("inf"), rules))

    def length_s(self, file: Path) -> float:
        """Seconds of a recording; of one that does not say, counted. Raises as `read` does."""
        found = probe(str(file), clock=self._clock, read_s=_LOOK_S, live=False)
        if found.pixel_format is None:
            raise ConfigError(f"{file} holds no picture that can be decoded")
        if found.duration_s is not None:
            return found.duration_s
        return self.background.run(self._count_s(file))

    def began(self, file: Path) -> datetime:
        """UTC of a recording's first moment, by what it says of itself, else by the file's date and its length. Raises
        ConfigError for one without a picture, and as `read` does."""
        return self.background.run(self._began(file))

    async def _began(self, file: Path) -> datetime:
        source = AvSource(str(file), self._settings, name=file.stem, clock=self._clock, live=False)
        try:
            async with aclosing(hops(source, file.stem, self.rules)) as stream:
                async for hop in stream:
                    for frame in hop.frames:
                        return frame.captured_at - timedelta(seconds=frame.pts_s)
        finally:
            await source.close()
        raise ConfigError(f"{file} holds no picture that can be decoded")

    async def _read(self, file: Path, start_s: float, end_s: float, rules: HopRules) -> tuple[ClipHop, ...]:
        found: list[ClipHop] = []
        source = AvSource(str(file), self._settings, name=file.stem, clock=self._clock, live=False, start_s=start_s)
        try:
            async with aclosing(hops(source, file.stem, rules, from_s=start_s)) as stream:
                async for hop in stream:
                    if hop.start_s >= end_s:
                        break
                    pictures = tuple(frame.picture for frame in hop.frames)
                    found.append(ClipHop(hop.start_s, hop.end_s, tuple(f.pts_s for f in hop.frames), pictures))
        except SourceUnavailable:
            if not found:
                raise
        finally:
            await source.close()
        return tuple(found)

    async def _count_s(self, file: Path) -> float:
        source, last_s = AvSource(str(file), self._settings, name=file.stem, clock=self._clock, live=False), 0.0
        try:
            async with aclosing(hops(source, file.stem, self.rules)) as stream:
                async for hop in stream:
                    last_s = hop.end_s
        finally:
            await source.close()
        return last_s


@lru_cache(maxsize=2)
def decoded(file: Path, start_s: float, end_s: float, rules: HopRules) -> tuple[ClipHop, ...]:
    """The hops of a part of a recording, in seconds from the beginning of the part."""
    with Background() as background:
        read = RecordingReader(rules, background, SystemClock()).read(file, start_s, end_s)
    return tuple(
        replace(
            hop,
            start_s=hop.start_s - start_s,
            end_s=hop.end_s - start_s,
            pts_s=tuple(pts_s - start_s for pts_s in hop.pts_s),
        )
        for hop in read
    )


@dataclass(frozen=True, slots=True)
class Footage:
    """The clips of a folder of recordings, and those of its files that are no use, each with the reason."""

    clips: tuple[Clip, ...]
    skipped: tuple[str, ...]


def survey(folder: Path, reader: RecordingReader, rules: FitRules, most_tokens: int) -> Footage:
    """Cut the recordings below `folder` into clips whose native pictures are at most `most_tokens`, but at least a hop.

    A recording that cannot be decoded is skipped. Raises ConfigError if there is none, or none that is of use.
    """
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in RECORDING_SUFFIXES)
    if not files:
        raise ConfigError(f"--recordings {folder} holds no recording; expected {', '.join(sorted(RECORDING_SUFFIXES))}")
    clips: list[Clip] = []
    skipped: list[str] = []
    for file in files:
        try:
            clips += _cut(file, reader, rules, most_tokens)
        except (ConfigError, SourceUnavailable) as error:
            skipped.append(f"{file}: {error}")
    if not clips:
        raise ConfigError(f"none of {len(files)} recordings in {folder} can be decoded; the first: {skipped[0]}")
    return Footage(tuple(clips), tuple(skipped))


def _cut(file: Path, reader: RecordingReader, rules: FitRules, most_tokens: int) -> list[Clip]:
    hop_s = reader.rules.hop_s
    first = reader.read(file, 0.0, hop_s)
    if not first:
        raise ConfigError("it holds no picture")
    each = max(1, native_tokens(first[0].sizes, rules))
    count = min(MOST_HOPS, max(1, most_tokens // each))
    hops_in_all = max(1, ceil(reader.length_s(file) / hop_s - 1e-6))
    starts = range(0, hops_in_all, count)
    return [Clip(file, start * hop_s, min(start + count, hops_in_all) * hop_s) for start in starts]


@dataclass(frozen=True, slots=True)
class SiteClips:
    """Clips of recordings as episodes: each once per epoch, in an order of its own, with some of the watches.

    A watch is asked at moments when the MLLM, shown everything, says yes, and at as many when it says no; never when it
    does not know. Where `people` looked, by question and recording in its seconds, what they say takes the place of
    what the MLLM says.
    """

    clips: Sequence[Clip]
    questions: Sequence[str]
    reader: ClipReader
    reference: Reference
    prompts_per_step: int
    people: Mapping[str, Mapping[Path, Reviewed]] = field(default_factory=dict)

    def episode(self, step: int, index: int) -> Episode:
        """See Clips. A clip that cannot be decoded is logged, and the next one takes its place."""
        first = permuted(len(self.clips), step * self.prompts_per_step + index)
        for offset in range(len(self.clips)):
            clip = self.clips[(first + offset) % len(self.clips)]
            try:
                shown = clip.cropped(self.reader.read(clip.file, clip.start_s, clip.end_s))
            except (ConfigError, SourceUnavailable) as error:
                log.warning("clip_skipped", file=str(clip.file), start_s=clip.start_s, reason=str(error))
                continue
            if shown:
                return self._asked(clip, shown, np.random.default_rng((_SEED, step, index)))
            log.warning("clip_skipped", file=str(clip.file), start_s=clip.start_s, reason="it holds no picture")
        raise ConfigError("none of the clips can be decoded any more; are the recordings still there?")

    def _asked(self, clip: Clip, shown: tuple[ClipHop, ...], rng: np.random.Generator) -> Episode:
        questions = clip.questions or self.questions
        count = int(rng.integers(1, min(MOST_QUESTIONS, len(questions)) + 1))
        chosen = tuple(questions[i] for i in sorted(rng.permutation(len(questions))[:count]))
        known = self._known(clip, shown, chosen)
        probes = tuple(
            GradedQuestion(text, "yes" if known[row, hop] else "no", "yes_no", hop, hop)
            for row, text in enumerate(chosen)
            for hop in moments(known[row], MOMENTS, rng)
        )
        read = tuple(map(without_zone, chosen))
        return Episode(f"{clip.file.name} {clip.start_s:g} s", shown, read, probes, known)

    def _known(self, clip: Clip, shown: Sequence[ClipHop], questions: Sequence[str]) -> NDArray[np.int8]:
        """The truth of each question as each hop ends, as far as it is known. The MLLM is asked about those of which
        people do not say all."""
        ends_s = np.array([hop.end_s for hop in shown]) - _JUST_S
        truths = [self.people.get(text, {}).get(clip.file) for text in questions]
        known = np.full((len(questions), len(shown)), -1, np.int8)
        asked = [row for row, truth in enumerate(truths) if truth is None or not looked_at(truth, ends_s).all()]
        if asked:
            scores = self.reference.native(shown, [questions[row] for row in asked])
            known[asked] = np.where(np.isnan(scores), -1, scores >= 0.5)
        return np.stack([by_people(truth, ends_s, row) for truth, row in zip(truths, known, strict=True)])

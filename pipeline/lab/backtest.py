"""Back-test on recordings: watches tried by a service of their own, as fast as this machine can."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.clock import Clock
from pipeline.config.mllm import EmbeddedConfig, MLLMConfig
from pipeline.config.site import SiteConfig, StreamConfig
from pipeline.config.slugs import unique_slug
from pipeline.core.outcome import Outcome
from pipeline.errors import ConfigError, ResadaptError, SourceUnavailable
from pipeline.evidence.pictures import jpeg
from pipeline.lab.labels import Agreement, OpenSpan
from pipeline.loop import Observe, unobserved
from pipeline.mllm.base import MLLM
from pipeline.service.here import usable_cores
from pipeline.service.service import Service
from pipeline.sources.address import RECORDING_SUFFIXES
from pipeline.types import Event, Json

AT_ONCE = 4
"""Recordings that are played at a time."""

MOST_THREADS = 8
"""Most CPU threads of the MLLM where none are named: a small one gains nothing by more."""

MOST_RECORDINGS = 2000
MOST_PICTURES = 200
"""Events that are shown with a picture; later ones have none."""

_PICTURE_PX = 320  # its width
_QUALITY = 75


@dataclass(frozen=True, slots=True)
class TriedEvent:
    """An event of a back-test: the recording, its seconds there, and a small JPEG of what was in view, as base64."""

    recording: str
    type: str
    at_s: float
    since_s: float
    rule: str
    picture: str = ""
    value: str = ""
    text: str = ""


@dataclass(slots=True)
class Tried:
    """The result of one watch: its events, the spans in which it was open by recording, and its scores (second, score
    or None)."""

    slug: str
    question: str
    events: list[TriedEvent] = field(default_factory=list)
    spans: dict[str, list[OpenSpan]] = field(default_factory=dict)
    scores: dict[str, list[tuple[float, float | None]]] = field(default_factory=dict)
    agreement: Agreement | None = None

    @property
    def opened(self) -> int:
        """Number of times the watch opened."""
        return sum(len(spans) for spans in self.spans.values())


@dataclass(frozen=True, slots=True)
class BackTest:
    """The result of a back-test: by recording, the seconds that were decided and the reason for an early end, if any;
    wall seconds, vision tokens spent."""

    seconds: Mapping[str, float]
    faults: Mapping[str, str]
    wall_s: float
    tokens: int
    tried: Sequence[Tried]

    def as_json(self) -> dict[str, Json]:
        """The last line of the command."""
        first, total_s = self.tried[0], sum(self.seconds.values())
        agreed = first.agreement.as_json() if first.agreement else {}
        return {
            "events": sum(len(one.events) for one in self.tried),
            "realtime_factor": round(total_s / self.wall_s, 2) if self.wall_s > 0 else None,
            "tokens": self.tokens,
            "tokens_per_day": round(self.tokens / total_s * 86_400) if total_s else None,
            "seconds": round(total_s, 3),
            "ended_early": dict(self.faults),
            **agreed,
            "wordings": [
                {
                    "question": one.question,
                    "events": len(one.events),
                    "opened": one.opened,
                    **(one.agreement.as_json() if one.agreement else {}),
                }
                for one in self.tried
            ],
        }


def recordings_of(path: Path) -> dict[str, Path]:
    """The recordings at a path, a file or a folder, by their names below it. Raises ConfigError where there is none."""
    if path.is_file():
        return {path.name: path}
    if not path.is_dir():
        raise ConfigError(f"--on {path} is neither a file nor a folder; expected recordings")
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in RECORDING_SUFFIXES)
    if not files:
        raise ConfigError(f"--on {path} holds no recording; expected {', '.join(sorted(RECORDING_SUFFIXES))}")
    if len(files) > MOST_RECORDINGS:
        raise ConfigError(f"--on {path} holds {len(files)} recordings; expected at most {MOST_RECORDINGS}")
    return {str(file.relative_to(path)): file for file in files}


def stream_slugs(names: Sequence[str]) -> dict[str, str]:
    """A slug of a stream for each recording, by its name."""
    slugs: dict[str, str] = {}
    taken: dict[str, object] = {}
    for number, name in enumerate(names, 1):
        slugs[name] = unique_slug(name, f"recording-{number}", taken)
        taken[slugs[name]] = name
    return slugs


async def back_test(
    site: SiteConfig, names: Mapping[str, str], clock: Clock, mllm: MLLM | None = None, beside: Observe = unobserved
) -> BackTest:
    """Play the streams of a site, which are recordings (`names` by slug), and try its watches on them, by the site's
    MLLM or one that is running already; `beside` is called after every hop. A recording that breaks off is tried as far
    as it goes. Raises SourceUnavailable or ConfigError if none could be played at all."""
    tried = {slug: Tried(slug, watch.question) for slug, watch in site.watches.items()}
    collector = Collector(tried, names)
    seconds, faults, tokens = dict[str, float](), dict[str, str](), 0
    groups = _groups(site.streams)

    def observe(outcome: Outcome, events: Sequence[Event]) -> None:
        collector.observe(outcome, events)
        beside(outcome, events)

    site = replace(site, mllm=with_all_cores(site.mllm))
    service = Service(replace(site, streams=groups[0]), clock, insist=False, observe=observe, mllm=mllm)
    async with service:
        began_s = clock.monotonic_s()
        for number, group in enumerate(groups):
            if number:
                await service.reconcile(replace(site, streams=group))
            try:
                await service.finished()
            except ResadaptError as error:
                if not any(slug in service.attachments for slug in group):
                    raise
                collector.error = error
            for slug in group:
                keeper = service.supervisors.get(slug)
                run = service.attachments[slug].run if slug in service.attachments else None
                seconds[names[slug]] = run.decided_s if run else 0.0
                tokens += run.counts.spent if run else 0
                if keeper and keeper.failed:
                    faults[names[slug]] = keeper.trouble or "it could not be played"
        wall_s = clock.monotonic_s() - began_s
    if not any(seconds.values()):
        raise collector.error or SourceUnavailable("no recording could be played")
    collector.close(seconds)
    return BackTest(seconds, faults, wall_s, tokens, list(tried.values()))


def with_all_cores(config: MLLMConfig) -> MLLMConfig:
    """The settings of an MLLM of torch in this process with `threads` for each usable core, at most MOST_THREADS; of
    others, and of one that names `threads`, as they are."""
    if not isinstance(config, EmbeddedConfig) or config.threads is not None:
        return config
    return replace(config, threads=min(usable_cores(), MOST_THREADS))


def _groups(streams: Mapping[str, StreamConfig]) -> list[dict[str, StreamConfig]]:
    items = list(streams.items())
    return [dict(items[start : start + AT_ONCE]) for start in range(0, len(items), AT_ONCE)]


class Collector:
    """Takes down what the loop decides; called after every hop."""

    def __init__(self, tried: Mapping[str, Tried], names: Mapping[str, str]) -> None:
        self._tried, self._names = tried, names
        self._open: dict[tuple[str, str], TriedEvent] = {}
        self._known_s: dict[tuple[str, str], float] = {}
        self._pictures = 0
        self.error: ResadaptError | None = None

    def observe(self, outcome: Outcome, events: Sequence[Event]) -> None:
        """One hop."""
        name = self._names[outcome.hop.stream_id]
        for answer in outcome.reply.answers.answers:
            known = None if answer.verdict == "unknown" else answer.score
            self._tried[answer.watch_id].scores.setdefault(name, []).append((outcome.hop.end_s, known))
        for event in events:
            if event.watch_id is not None and event.watch_id in self._tried:
                self._note(self._tried[event.watch_id], name, event, outcome)

    def close(self, seconds: Mapping[str, float]) -> None:
        """Ends the spans of watches that are still open at the end of their recording."""
        for (slug, name), shown in self._open.items():
            self._span(self._tried[slug], name, shown, seconds.get(name, shown.at_s))

    def _note(self, tried: Tried, name: str, event: Event, outcome: Outcome) -> None:
        data, key, end_s = event.data, (tried.slug, name), outcome.hop.end_s
        rule, since = data.get("rule"), data.get("onset_s", data.get("cleared_s", end_s))
        shown = TriedEvent(
            name,
            event.type,
            end_s,
            float(since) if isinstance(since, int | float) else end_s,
            str(rule.get("name", "")) if isinstance(rule, Mapping) else "",
            self._picture(outcome) if event.type != "watch.cleared" else "",
            str(data.get("value", "")),
            str(data.get("text", "")),
        )
        tried.events.append(shown)
        before = self._open.pop(key, None)
        if event.type == "watch.cleared":
            if before:
                self._span(tried, name, before, shown.since_s)
        elif event.type == "watch.opened" or before is None:
            self._open[key] = shown
        else:
            self._open[key] = before

    def _span(self, tried: Tried, name: str, opened: TriedEvent, end_s: float) -> None:
        tried.spans.setdefault(name, []).append(OpenSpan(opened.since_s, max(end_s, opened.at_s), opened.at_s))

    def _picture(self, outcome: Outcome) -> str:
        if self._pictures >= MOST_PICTURES:
            return ""
        self._pictures += 1
        frame = outcome.hop.frames[-1]
        height, width = frame.size
        rows = max(1, round(height * _PICTURE_PX / width))
        return base64.b64encode(jpeg(frame.picture, rows, _PICTURE_PX, _QUALITY)).decode()

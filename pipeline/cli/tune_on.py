"""Wordings of a watch compared on recordings, by the labels that are kept of that time or a file of them."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from pipeline.cli.ending import run_to_end
from pipeline.clock import SystemClock
from pipeline.config.entries import parse_stream
from pipeline.config.site import SiteConfig, StreamConfig, WatchConfig, load_site, parse_site, read_yaml
from pipeline.errors import ConfigError
from pipeline.lab.background import Background
from pipeline.lab.backtest import recordings_of, stream_slugs
from pipeline.lab.digests import of_file
from pipeline.lab.footage import RecordingReader, camera_of
from pipeline.lab.labels import rows_in, rows_of
from pipeline.lab.recorded import LabelRows, by_file, truths_of
from pipeline.lab.tested import WordingResult, result_of
from pipeline.lab.truths import Reviewed, shifted
from pipeline.lab.wording_trial import WordingsTuned, ask_wordings, tune_wordings
from pipeline.lab.wordings import wordings_of
from pipeline.service.board import as_served
from pipeline.service.unnamed import require_mllm_or_yard
from pipeline.sources.settings import SourceConfig
from pipeline.types import Json

KEPT = "the labels that are kept"
ANYWHERE: Mapping[str, object] = {"allow_addresses": (), "deny_addresses": (), "node": None}


@dataclass(frozen=True, slots=True)
class TuneOn:
    """The recordings to ask, the wordings to compare, a file of labels (None: those that are kept), the MLLM (None: the
    site file's), and a site file with defaults."""

    recordings: Path
    wordings: Sequence[str]
    labels: Path | None
    mllm: str | None
    config: Path | None


@dataclass(frozen=True, slots=True)
class TunedOn:
    """A comparison as people and programs are shown it, and what is kept of it."""

    shown: Mapping[str, Json]
    result: WordingResult


def tune_on(plan: TuneOn, slug: str, watch: WatchConfig, streams: Mapping[str, StreamConfig], kept: str) -> TunedOn:
    """Compare. `streams` are those of the site as they are served, whose zones and masks hold for their recordings;
    `kept` are the labels that are kept, as CSV. Raises ConfigError before anything is asked where something is
    wrong."""
    wordings_of(watch.question, plan.wordings)
    recordings = recordings_of(plan.recordings)
    folder = plan.recordings if plan.recordings.is_dir() else plan.recordings.parent
    labelled = rows_of(plan.labels) if plan.labels else rows_in(kept, KEPT)
    rows = [(number, row) for number, row in labelled if row.get("watch") in (None, "", slug)]
    if not rows:
        raise ConfigError(
            f"there is no label of the watch {slug}; expected some: `resadapt event mark` and `resadapt watch missed`"
            " keep them, --labels FILE names a CSV of file,start_s,end_s"
        )
    raw: dict[str, object] = {**(read_yaml(plan.config) if plan.config else {}), "sinks": {}, "metrics": {"port": 0}}
    raw |= {"streams": {}, "watches": {}} | ({"mllm": plan.mllm} if plan.mllm else {})
    site = parse_site(raw)
    truths = _truths(rows, plan, recordings, folder, slug, site)
    recordings = {name: file for name, file in recordings.items() if file in truths}
    slugs = stream_slugs(list(recordings))
    played = {
        slugs[name]: _stream(file, streams.get(camera_of(file, folder, list(streams)) or ""), watch, raw)
        for name, file in recordings.items()
    }
    site = replace(site, streams=played, evidence=replace(site.evidence, enabled=False), gpu_budget=None)
    require_mllm_or_yard(raw, site)
    names = {slugs[name]: name for name in recordings}
    found: list[WordingsTuned] = []

    async def main() -> None:
        with tempfile.TemporaryDirectory(prefix="resadapt-") as scratch:
            stored = replace(site, store=f"sqlite:///{scratch}/tune.db")
            asked = await ask_wordings(stored, names, watch, plan.wordings, SystemClock())
        there = {
            name: shifted(truths[file], asked.began[name]) for name, file in recordings.items() if name in asked.began
        }
        # A file's seconds are of any time of the day.
        judged = replace(watch, schedule=None) if by_file(rows) else watch
        found.append(tune_wordings(slug, judged, asked, there))

    run_to_end(main())
    tuned = found[0]
    return TunedOn(tuned.as_json(), result_of(watch, tuned, {name: of_file(file) for name, file in recordings.items()}))


def wanted_of(config: Path, slug: str) -> tuple[WatchConfig, Mapping[str, StreamConfig]] | None:
    """A watch and the streams of a site file, as they are served, for which no store has to be there; None where the
    file has no such watch."""
    site = load_site(config)
    return (site.watches[slug], as_served(site.streams, site.watches)) if slug in site.watches else None


def _stream(file: Path, like: StreamConfig | None, watch: WatchConfig, raw: Mapping[str, object]) -> StreamConfig:
    """A recording as a stream: like that of its camera, if that is known."""
    if like is None:
        like = parse_stream("recording", {"url": str(file)}, raw)
    if watch.zone is not None and watch.zone not in like.zones:
        raise ConfigError(
            f"the watch is about the zone {watch.zone!r}, and {file} is of no stream that has it; put the recordings of"
            " a camera into a folder of its name"
        )
    known = {item.name: getattr(like, item.name) for item in fields(StreamConfig)}
    # The file is the caller's own, whatever a camera that came over the network may lead to.
    return StreamConfig(**known | {"url": str(file), "live_url": "", "paused": False, "realtime": False, **ANYWHERE})


def _truths(
    rows: LabelRows, plan: TuneOn, recordings: Mapping[str, Path], folder: Path, slug: str, site: SiteConfig
) -> Mapping[Path, Reviewed]:
    """The truth of each recording that labels are about, in its seconds."""
    where = str(plan.labels) if plan.labels else KEPT
    with Background() as background:
        reader = RecordingReader(site.defaults.hop_rules(), background, SystemClock(), SourceConfig())
        return truths_of(rows, where, recordings, folder, [slug], reader)[slug]

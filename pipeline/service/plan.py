"""The fit of a site and a machine: the load of settings, machines by name or as `resadapt bench` measured them."""

import json
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from allocator_engine.grid import GRIDS
from pipeline.config.mllm import (
    CachedConfig,
    DetectorConfig,
    ModelConfig,
    NullConfig,
    OpenAIConfig,
    TinyConfig,
    VllmConfig,
    YardConfig,
)
from pipeline.config.site import SiteConfig, StreamConfig
from pipeline.core.cropping import crop_of
from pipeline.core.sizing import TIGHT, CostSample, MachineCosts, Need, SiteLoad, Source, StreamLoad, fitted, needs_of
from pipeline.errors import ConfigError
from pipeline.mllm.openai.address import family_of
from pipeline.service.board import WatchBoard
from pipeline.service.here import usable_cores, usable_memory
from pipeline.types import WatchQuery

TERA = 1e12


@dataclass(frozen=True, slots=True)
class CameraShape:
    """The pictures of a camera where nothing else is known: size in px, and pictures a second."""

    width: int = 1920
    height: int = 1080
    fps: float = 25.0


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A kind of GPU by its data sheet: dense 16-bit operations a second, of which the share `reached` is had on
    prompts, bytes a second of its memory, and pixels of H.264 a second of its video engines (0: none that this program
    uses)."""

    operations_per_s: float
    memory_bytes_per_s: float
    decoder_pixels_per_s: float
    reached: float = 0.4


ACCELERATORS: Mapping[str, Accelerator] = {
    "h100": Accelerator(989 * TERA, 3.35e12, 10e9),
    "l40s": Accelerator(362 * TERA, 0.864e12, 4.3e9),
    "orin": Accelerator(42 * TERA, 0.205e12, 0.0),
    "thor": Accelerator(258 * TERA, 0.273e12, 2.5e9),
    "cpu": Accelerator(0.15 * TERA, 0.04e12, 0.0, reached=0.5),
}
"""Kinds by name: data sheets, not measurements. A Jetson Orin decodes by its cores: PyAV reaches no engine there."""

_PARAMETERS = re.compile(r"(\d+(?:\.\d+)?)B(?![a-z])")
_USUAL_PARAMETERS = 8.0
_VISION_SHARE = 0.15  # of the operations of reading a token, for encoding one
_BYTES_PER_PARAMETER = 2
_TOGETHER = 8  # questions of different streams that a server answers by one reading of the weights


@dataclass(frozen=True, slots=True)
class RunningCosts:
    """The costs of a service that runs, as far as they were measured: the cores that it may use (None: those of this
    machine), those that it takes without streams, the cores and the vision tokens a second of streams by slug, and
    seconds that an MLLM in its process works a second (None: not known)."""

    capacity: float | None = None
    base_cores: float = 0.0
    cores: Mapping[str, float] = field(default_factory=dict)
    tokens_per_s: Mapping[str, float] = field(default_factory=dict)
    mllm_busy: float | None = None


UNMEASURED = RunningCosts()
"""Of a site that does not run."""
COSTLY = ("url", "sample_fps", "hop_s", "budget", "context_packed", "decode")
"""Settings of a stream with which it does not cost any more what was measured."""

USUAL_KEYS_PER_S = 0.5
"""Key frames a second of a camera of which nothing else is known."""


def load_of(site: SiteConfig, shape: CameraShape = CameraShape(), costs: RunningCosts = UNMEASURED) -> SiteLoad:
    """The load of a site, where nothing was measured of a stream with a camera of this shape. What is paused is no
    load."""
    family = _family(site)
    grid = GRIDS[family]
    remote = isinstance(site.mllm, OpenAIConfig)
    single = isinstance(site.mllm, OpenAIConfig | DetectorConfig)
    frames = site.mllm.frames_per_segment or (1 if single else 2)
    height, width = grid.native(shape.height, shape.width)
    native = grid.tokens(height, width)
    board = _standing(site)
    streams = []
    for slug, stream in site.streams.items():
        if stream.paused:
            continue
        standing = board.on(slug)
        crop = crop_of(standing)
        load = _stream_load(stream, standing, shape, native / frames * (crop.area if crop else 1), frames, family)
        packed = None if isinstance(site.mllm, VllmConfig) else load.packed
        cores, tokens = costs.cores.get(slug), costs.tokens_per_s.get(slug)
        streams.append(replace(load, packed=packed, measured_cores=cores, measured_tokens_per_s=tokens))
    cached = isinstance(site.mllm, CachedConfig)
    return SiteLoad(
        tuple(streams),
        shared_tokens_per_s=site.gpu_budget.rate_tokens_per_s if site.gpu_budget else None,
        kept_streams=site.mllm.max_streams if isinstance(site.mllm, ModelConfig) else None,
        kept_tokens=site.mllm.max_cache_tokens if cached and isinstance(site.mllm, CachedConfig) else None,
        pixels_per_token=grid.cell_px**2 * frames,
        remote=remote,
        servers=1 + len(site.mllm.servers) if isinstance(site.mllm, OpenAIConfig) else 1,
        answers_days=site.keep.answers_days,
        answers_bytes=site.keep.answers_mib * 2**20,
        asks=not isinstance(site.mllm, NullConfig),
        base_cores=costs.base_cores,
    )


def _stream_load(
    stream: StreamConfig, standing: Sequence[WatchQuery], shape: CameraShape, native: float, frames: int, family: str
) -> StreamLoad:
    rules = stream.context_rules(family)
    keys_fps = USUAL_KEYS_PER_S if stream.decode == "keys" else None
    sample_fps = stream.sample_fps if keys_fps is None else min(stream.sample_fps, keys_fps)
    return StreamLoad(
        shape.width,
        shape.height,
        shape.fps,
        sample_fps,
        stream.hop_s,
        stream.budget.rate_tokens_per_s if standing else 0.0,
        native * sample_fps if standing else 0.0,
        sample_fps / frames if standing else 0.0,
        sum(1 / max(query.every_s, stream.hop_s) for query in standing),
        len(standing),
        rules.max_s,
        rules.max_tokens,
        rules.packed,
        keys_fps=keys_fps,
    )


def machine_of(
    name: str, site: SiteConfig, cores: float | None = None, memory_bytes: int | None = None
) -> MachineCosts:
    """A machine with a kind of GPU, as its data sheet has it; without `cores` this one, whose memory is known then.
    Raises ConfigError for an unknown kind."""
    if name not in ACCELERATORS:
        raise ConfigError(f"--gpu is {name!r}; expected one of {', '.join(ACCELERATORS)}")
    kind = ACCELERATORS[name]
    if memory_bytes is None and cores is None:
        memory_bytes = usable_memory()
    cores = cores or usable_cores()
    machine = MachineCosts(name, cores, decoder_pixels_per_s=_decoder(site, kind), memory_bytes=memory_bytes)
    if isinstance(site.mllm, YardConfig | TinyConfig | NullConfig):
        return machine  # their sizes are not those of models that people use: only a measurement tells
    parameters = _parameters(site.mllm.use) * 1e9
    token_s = 2 * parameters / (kind.operations_per_s * kind.reached)
    ask_s = parameters * _BYTES_PER_PARAMETER / kind.memory_bytes_per_s / _TOGETHER
    return replace(machine, encode_s=_VISION_SHARE * token_s, prefill_s=token_s, ask_s=ask_s)


def measured(machine: MachineCosts, files: Sequence[Path]) -> MachineCosts:
    """The machine with what `resadapt bench ... --json` printed on it. Raises ConfigError for a file without that."""
    for file in files:
        machine = _with(machine, _report(file), file)
    return machine


def _with(machine: MachineCosts, report: Mapping[str, object], file: Path) -> MachineCosts:
    figures: dict[str, float] = {}
    try:
        if "costs" in report:
            encode_s, prefill_s, ask_s = fitted(_samples(report))
            figures = {"encode_s": encode_s, "prefill_s": prefill_s, "ask_s": ask_s}
        elif "machine" in report:
            found = report["machine"]
            if not isinstance(found, dict):
                raise TypeError("machine is no object")
            figures = {one: float(found[one]) for one in ("core_pixels_per_s", "allocate_s", "commit_s")}
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{file} lacks what `resadapt bench` prints with --json: {error}") from error
    if not figures:
        raise ConfigError(f"{file} is no report of `resadapt bench mllm --json` or `resadapt bench machine --json`")
    sources: dict[str, Source] = {one: "measured" for one in figures}
    return replace(machine, **figures, sources={**machine.sources, **sources})  # type: ignore[arg-type]


def _samples(report: Mapping[str, object]) -> list[CostSample]:
    costs, plan = report["costs"], report["plan"]
    if not isinstance(costs, list) or not isinstance(plan, dict):
        raise TypeError("costs is no list, or plan no object")
    streams = int(plan["streams"])
    return [
        CostSample(
            streams * float(cost["encoded"]),
            streams * float(cost["prefilled"]),
            streams * float(cost["watches"]),
            float(cost["p50_s"]),
        )
        for cost in costs
        if cost["way"] != "video"  # told per second, of an asking every ten
    ]


def _report(file: Path) -> Mapping[str, object]:
    try:
        lines = file.read_text(encoding="utf-8").strip().splitlines()
        found = json.loads(lines[-1]) if lines else None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"--measured names {file}, which cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"--measured names {file}, whose last line is no JSON object")
    return found


def verdict(needs: Sequence[Need]) -> str:
    """One sentence: whether it fits, what gives first, and what to change."""
    hard = [need for need in needs if need.hard]
    first = hard[0]
    if first.share > 1:
        return f"it does not fit: {first.part} gives first, at {first.share:.0%}; {first.change}"
    unknown = [need.part for need in hard if need.has is None]
    but = f"; of {', '.join(unknown)} nothing is known" if unknown else ""
    room = f"{1 / first.share:.1f} times as much" if first.share else "more"
    if first.share > TIGHT:
        return f"it is tight: {first.part} is at {first.share:.0%} and has no room for bursts; {first.change}{but}"
    return f"it fits: {first.part} gives first, at {room}{but}"


def fits(needs: Sequence[Need]) -> bool:
    """True if there is enough of everything, as far as is known."""
    return all(need.share <= 1 for need in needs if need.hard)


def plan(site: SiteConfig, machine: MachineCosts, shape: CameraShape = CameraShape()) -> tuple[Need, ...]:
    """The needs of a site on a machine, what gives first at the top. Raises ConfigError for a site without streams."""
    load = load_of(site, shape)
    if not load.streams:
        raise ConfigError("the site has no streams that are not paused; expected some under `streams`")
    return needs_of(load, machine)


def running_needs(
    site: SiteConfig, costs: RunningCosts = UNMEASURED, measured_on: SiteConfig | None = None
) -> tuple[Need, ...]:
    """The needs of a site where it runs, or would: by what was measured of its streams, else by what cores usually do.
    The speed of the MLLM is only known where it was measured. With `measured_on`, the site that was measured, a stream
    that is new, or differs in what is COSTLY, counts as unmeasured."""
    before = measured_on or site
    load = load_of(site, costs=_without(_changed(site, before), costs))
    machine = replace(machine_of("cpu", site, costs.capacity), encode_s=None, prefill_s=None, ask_s=None)
    if costs.mllm_busy is not None:
        worked = load_of(before, costs=costs)
        running = replace(worked, streams=tuple(one for one in worked.streams if one.measured_tokens_per_s is not None))
        if tokens := running.tokens_per_s + running.text_tokens_per_s:
            sources: dict[str, Source] = {"encode_s": "measured", "prefill_s": "measured", "ask_s": "measured"}
            machine = replace(machine, encode_s=0.0, prefill_s=costs.mllm_busy / tokens, ask_s=0.0, sources=sources)
    return needs_of(load, machine)


def _changed(site: SiteConfig, before: SiteConfig) -> Set[str]:
    """The streams that were not there before, or otherwise in what is COSTLY, or show another part of their pictures,
    by slug."""
    now, then = _standing(site), _standing(before)
    return {
        slug
        for slug, stream in site.streams.items()
        if (was := before.streams.get(slug)) is None
        or crop_of(now.on(slug)) != crop_of(then.on(slug))
        or any(getattr(stream, name) != getattr(was, name) for name in COSTLY)
    }


def _standing(site: SiteConfig) -> WatchBoard:
    board = WatchBoard()
    board.replace(site.streams, site.watches)
    return board


def _without(slugs: Set[str], costs: RunningCosts) -> RunningCosts:
    """The costs with what was measured of these streams left out."""
    cores = {slug: cost for slug, cost in costs.cores.items() if slug not in slugs}
    tokens = {slug: rate for slug, rate in costs.tokens_per_s.items() if slug not in slugs}
    return replace(costs, cores=cores, tokens_per_s=tokens)


def warnings_of(needs: Sequence[Need]) -> tuple[str, ...]:
    """The parts of which more is needed than there is, what gives first at the top: how much, and what to change. What
    a site runs all the same without is left out."""
    return tuple(
        f"{need.part}: needs {need.needs:.3g} of {need.has:.3g}{'' if need.unit == need.part else ' ' + need.unit}"
        f" ({need.share:.0%}, {_HOW[need.source]}); {need.change}"
        for need in needs
        if need.hard and need.has is not None and need.share > 1
    )


def warnings_of_steps(steps: Sequence[int], share: float) -> tuple[str, ...]:
    """Says so if at least a share of the streams that run, whose steps of the overload ladder are given, are late."""
    late = sum(step > 0 for step in steps)
    if not late or late < share * len(steps):
        return ()
    return (
        f"{late} of {len(steps)} streams are late already, and ask less than they should (`resadapt status` has their"
        " steps of the ladder); lower their budgets, raise every_s of watches, or add a machine",
    )


_HOW: Mapping[Source, str] = {
    "measured": "measured",
    "configured": "as configured",
    "estimated": "what is not measured is taken for cameras of 1920x1080 at 25 fps",
}


def _family(site: SiteConfig) -> str:
    try:
        return family_of(site.mllm.use, site.mllm.family if isinstance(site.mllm, OpenAIConfig) else None)
    except ConfigError:
        return "qwen3_vl"  # of the yard, and of whatever only the checkpoint itself tells


def _parameters(use: str) -> float:
    found = _PARAMETERS.search(use)
    return float(found[1]) if found else _USUAL_PARAMETERS


def _decoder(site: SiteConfig, kind: Accelerator) -> float:
    by_gpu = any(stream.hwaccel not in ("none",) for stream in site.streams.values())
    return kind.decoder_pixels_per_s if by_gpu else 0.0

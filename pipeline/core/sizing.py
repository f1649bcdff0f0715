"""The needs of a site's streams and watches against what a machine has, and what gives first.

A model of costs, not a simulation: averages of everything that goes on all the time. Seconds are of wall time, `busy`
figures are seconds of work per second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np

Source = Literal["measured", "estimated", "configured"]

TIGHT = 0.7
"""Share of a part from which on it is tight: averages leave no room for bursts."""

ENCODED_BYTES_PER_PIXEL = 3 * 0.6 * 4 / 3
"""Of a picture on its way to a server: PNG of what a camera sees is about 0.6 of the pixels, and goes as base64."""
STREAM_BITS_PER_PIXEL = 0.1
"""Of a camera's H.264, about."""
TIME_TEXT_TOKENS = 12
QUESTION_TOKENS = 22
"""Prompt tokens of a segment's time text, and of a question of usual length with its markup."""
HOP_BYTES, ANSWER_BYTES = 420, 70
"""Of what the store keeps of a hop, and of each answer in it, about."""
LOOP_S = 0.004
"""Of a core, for a hop of one stream: everything that is not decoding, allocating, rendering or the MLLM."""
PIXEL_S = 2.5e-9
"""Of a core, to render a pixel that the MLLM is shown."""
STREAM_BYTES = 24 * 2**20
"""Memory of a stream beside its context: decoder, frames on their way, packets for clips."""
SERVICE_BYTES = 350 * 2**20
CONTEXT_PIXEL_BYTES = 3
PACKED_SHARE = 0.3
"""Part of that which a packed context takes: 0.14 to 0.36 on footage of cameras."""
PACK_S = 1.6e-8
"""Of a core, to pack a pixel that the MLLM is shown."""


@dataclass(frozen=True, slots=True)
class StreamLoad:
    """One stream: its native size in px and pictures a second, how it is sampled, the vision tokens a second that its
    budget allows and those of its sampled frames at native size, its askings a second of all its watches, and its
    context's bounds (`packed` None: it cannot be); where it runs, the cores and vision tokens a second that it was
    measured to cost (None: not measured). `keys_fps` key frames a second are all that is decoded of it, by cores; None:
    every picture is, by an engine where there is one."""

    width: int
    height: int
    fps: float
    sample_fps: float
    hop_s: float
    budget_tokens_per_s: float
    native_tokens_per_s: float
    segments_per_s: float
    askings_per_s: float
    watches: int
    context_s: float
    context_tokens: int
    packed: bool | None = False
    measured_cores: float | None = None
    measured_tokens_per_s: float | None = None
    keys_fps: float | None = None

    @property
    def pixels_per_s(self) -> float:
        """Pixels a second that are decoded."""
        return self.width * self.height * (self.fps if self.keys_fps is None else self.keys_fps)

    @property
    def tokens_per_s(self) -> float:
        """Vision tokens a second that are sent, or may be at most."""
        if self.measured_tokens_per_s is not None:
            return self.measured_tokens_per_s
        return min(self.budget_tokens_per_s, self.native_tokens_per_s)

    @property
    def resident_tokens(self) -> float:
        """Vision tokens in its context, at most."""
        return min(self.context_tokens, self.tokens_per_s * self.context_s)


@dataclass(frozen=True, slots=True)
class SiteLoad:
    """All streams of a site, and its own bounds: vision tokens a second of all together, streams and prompt tokens that
    an MLLM server keeps (None: not bounded so), pixels a token (of all frames that share it), whether pictures go over
    a network to the MLLM, on how many servers, the days and bytes of answers that the store is to keep, and cores that
    it takes without streams."""

    streams: tuple[StreamLoad, ...]
    shared_tokens_per_s: float | None = None
    kept_streams: int | None = None
    kept_tokens: int | None = None
    pixels_per_token: int = 1024
    remote: bool = False
    servers: int = 1
    answers_days: float = 2.0
    answers_bytes: int = 512 * 2**20
    asks: bool = True
    base_cores: float = 0.0

    @property
    def text_tokens_per_s(self) -> float:
        """Prompt tokens of text a second: times of segments, and questions."""
        text = sum(one.segments_per_s for one in self.streams) * TIME_TEXT_TOKENS
        return text + sum(one.askings_per_s for one in self.streams) * QUESTION_TOKENS

    @property
    def tokens_per_s(self) -> float:
        """Vision tokens a second of all streams, at most."""
        wanted = sum(one.tokens_per_s for one in self.streams)
        return min(wanted, self.shared_tokens_per_s or wanted)


@dataclass(frozen=True, slots=True)
class MachineCosts:
    """Costs on a machine. None: not known. `decoder_pixels_per_s` is of its video engines, 0 where a core decodes.
    `sources` says of each figure where it comes from, "estimated" where it says nothing."""

    name: str
    cores: float
    core_pixels_per_s: float = 180e6
    decoder_pixels_per_s: float = 0.0
    allocate_s: float = 0.0011
    commit_s: float = 0.0004
    encode_s: float | None = None
    prefill_s: float | None = None
    ask_s: float | None = None
    memory_bytes: int | None = None
    network_bits_per_s: float = 1e9
    sources: Mapping[str, Source] = field(default_factory=dict)

    def source(self, *figures: str) -> Source:
        """The source of what is computed from these figures: measured if all of them are."""
        return "measured" if all(self.sources.get(one) == "measured" for one in figures) else "estimated"


@dataclass(frozen=True, slots=True)
class Need:
    """One part of a machine, or one bound of a site: how much of it is needed and there is, in `unit`; None where that
    is not known. `change` is what to do where it is too little; with less than is needed of one that is not `hard` the
    site runs all the same."""

    part: str
    needs: float
    has: float | None
    unit: str
    source: Source
    change: str
    hard: bool = True

    @property
    def share(self) -> float:
        """Part of what it has that is needed; 0 where that is not known."""
        return self.needs / self.has if self.has else 0.0


def needs_of(site: SiteLoad, machine: MachineCosts) -> tuple[Need, ...]:
    """The needs of a site on a machine, what gives first at the top."""
    found = [
        _cores(site, machine),
        _store(site, machine),
        _answers(site),
        _memory(site, machine),
        _network(site, machine),
    ]
    if machine.decoder_pixels_per_s:
        found.append(_decoder(site, machine))
    if site.asks:
        found += [_mllm(site, machine), *_kept(site)]
    return tuple(sorted(found, key=lambda need: -need.share))


def _cores(site: SiteLoad, machine: MachineCosts) -> Need:
    by_engine = machine.decoder_pixels_per_s > 0
    estimated = [
        (0.0 if by_engine and one.keys_fps is None else one.pixels_per_s / machine.core_pixels_per_s)
        + one.sample_fps * machine.allocate_s
        + (LOOP_S + machine.commit_s) / one.hop_s
        + one.tokens_per_s * site.pixels_per_token * (PIXEL_S + PACK_S * bool(one.packed))
        for one in site.streams
        if one.measured_cores is None
    ]
    busy = site.base_cores + sum(estimated) + sum(one.measured_cores or 0.0 for one in site.streams)
    decodes = "" if by_engine else "sub-streams of fewer pixels or pictures (most of it is decoding), decode: keys, "
    return Need(
        *("cores", busy, float(machine.cores), "cores"),
        machine.source("core_pixels_per_s", "allocate_s", "commit_s") if estimated else "measured",
        f"{decodes}a GPU that decodes, or more machines",
    )


def _decoder(site: SiteLoad, machine: MachineCosts) -> Need:
    pixels = sum(one.pixels_per_s for one in site.streams if one.keys_fps is None)
    return Need(
        *("decoding", pixels / 1e6, machine.decoder_pixels_per_s / 1e6, "Mpx/s"),
        machine.source("decoder_pixels_per_s"),
        "sub-streams of fewer pixels or pictures",
    )


def _mllm(site: SiteLoad, machine: MachineCosts) -> Need:
    vision, asked = site.tokens_per_s, sum(one.askings_per_s for one in site.streams)
    text = site.text_tokens_per_s
    change = (
        "lower budget.rate_tokens_per_s or gpu_budget, or raise every_s of watches"
        if vision > text
        else "raise every_s of watches or ask fewer"
    )
    if site.remote:
        change += ", or add a server to mllm.servers"
    if machine.encode_s is None or machine.prefill_s is None or machine.ask_s is None:
        return Need("MLLM", vision + text, None, "tokens/s", "estimated", change)
    busy = vision * machine.encode_s + (vision + text) * machine.prefill_s + asked * machine.ask_s
    return Need(
        *("MLLM", busy, float(site.servers), "busy servers"),
        machine.source("encode_s", "prefill_s", "ask_s"),
        change,
    )


def _kept(site: SiteLoad) -> list[Need]:
    """The prefixes that the configuration lets the MLLM keep: further ones drive each other out, and are read again."""
    found = []
    if site.kept_streams is not None:
        has = float(site.kept_streams * site.servers)
        change = "raise mllm.max_streams"
        found.append(Need("kept prefixes", float(len(site.streams)), has, "streams", "configured", change))
    if site.kept_tokens is not None:
        resident = sum(
            one.resident_tokens + one.segments_per_s * one.context_s * TIME_TEXT_TOKENS for one in site.streams
        )
        has = float(site.kept_tokens * site.servers)
        change = "raise mllm.max_cache_tokens as far as the server's cache goes; else contexts restart sooner"
        found.append(Need("prefix cache", resident, has, "tokens", "configured", change, hard=False))
    return found


def _store(site: SiteLoad, machine: MachineCosts) -> Need:
    busy = sum(machine.commit_s / one.hop_s for one in site.streams)
    return Need("store", busy, 1.0, "busy writers", machine.source("commit_s"), "a longer hop_s, or PostgreSQL")


def _answers(site: SiteLoad) -> Need:
    per_s = sum(HOP_BYTES / one.hop_s + one.askings_per_s * ANSWER_BYTES for one in site.streams)
    days = site.answers_days * 86_400 * per_s / 2**20
    return Need(
        *("kept answers", days, site.answers_bytes / 2**20, "MiB", "configured"),
        "raise keep.answers_mib or lower keep.answers_days: what does not fit is kept for a shorter time",
        hard=False,
    )


def _memory(site: SiteLoad, machine: MachineCosts) -> Need:
    pixel = CONTEXT_PIXEL_BYTES * site.pixels_per_token
    contexts = (one.resident_tokens * pixel * (PACKED_SHARE if one.packed else 1) for one in site.streams)
    bytes_ = SERVICE_BYTES + sum(STREAM_BYTES + context for context in contexts)
    has = machine.memory_bytes and machine.memory_bytes / 2**20
    change = "lower context_max_s or context_max_tokens"
    if any(one.packed is False for one in site.streams):
        change = f"context_packed: true, or {change}"
    return Need("memory", bytes_ / 2**20, has, "MiB", "estimated", change)


def _network(site: SiteLoad, machine: MachineCosts) -> Need:
    bits = sum(one.width * one.height * one.fps for one in site.streams) * STREAM_BITS_PER_PIXEL
    if site.remote:
        bits += 8 * site.tokens_per_s * site.pixels_per_token * ENCODED_BYTES_PER_PIXEL
    return Need(
        *("network", bits / 1e6, machine.network_bits_per_s / 1e6, "Mbit/s", "estimated"),
        "sub-streams; a smaller budget, or the MLLM's server nearer",
    )


@dataclass(frozen=True, slots=True)
class CostSample:
    """A measured hop: vision tokens encoded, prompt tokens prefilled and questions asked, and its seconds."""

    encoded: float
    prefilled: float
    asked: float
    seconds: float


def fitted(samples: Sequence[CostSample]) -> tuple[float, float, float]:
    """Seconds of an encoded token, a prefilled token and a question that explain the samples best, none of them below
    0: least squares of the relative error. Raises ValueError without a sample that took time."""
    rows = [(one.encoded, one.prefilled, one.asked) for one in samples if one.seconds > 0]
    if not rows:
        raise ValueError("no sample took time; expected measured hops")
    seconds = np.array([one.seconds for one in samples if one.seconds > 0])
    weighed = np.array(rows, float) / seconds[:, None]
    best, least = (0.0, 0.0, 0.0), float("inf")
    for count in (1, 2, 3):
        for chosen in combinations(range(3), count):
            found = np.linalg.lstsq(weighed[:, chosen], np.ones(len(rows)), rcond=None)[0]
            if not np.isfinite(found).all():  # of samples with next to nothing in them
                continue
            error = float(np.sum((weighed[:, chosen] @ found - 1) ** 2))
            if (found >= 0).all() and error < least - 1e-12:
                values = dict(zip(chosen, map(float, found), strict=True))
                best, least = (values.get(0, 0.0), values.get(1, 0.0), values.get(2, 0.0)), error
    return best

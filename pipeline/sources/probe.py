"""A short look at a stream: what it is, and what to change about it."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from av import Packet, VideoFrame
from av.codec.hwaccel import HWDeviceType
from av.error import FFmpegError
from av.video.stream import VideoStream

from pipeline.clock import Clock
from pipeline.errors import ConfigError, SourceUnavailable
from pipeline.sources.address import Address, parse_address
from pipeline.sources.av_open import Opener
from pipeline.sources.av_picture import shape_of
from pipeline.sources.connection import Connection
from pipeline.sources.hardware import has_device
from pipeline.sources.settings import SourceConfig
from pipeline.sources.shape import MAX_RATIO, UPRIGHT, Display, ratio
from pipeline.types import ClockQuality

LONG_GOP_S = 4.0
"""Key frames further apart than this, in seconds, delay the first picture and any recovery noticeably."""

LARGE_PIXELS_PER_S = 1920 * 1080 * 30
"""From this rate on, in px per second, software decoding takes a good part of a core."""

UNEVEN_SHARE = 0.1
"""A rate is variable when this share of the frame intervals is off the median by more than a quarter."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Properties of a stream, from a few seconds of it.

    `width` and `height` are those of the picture as it is shown; it is stored as `stored`, turned by `turned_deg`
    clockwise and then mirrored left to right if `mirrored`, of pixels that are `pixel_aspect` wide to high.
    `interlaced`: its lines are of two moments. `tracks` are the videos to choose from with `video_track`.
    `fps` is measured from PTS; `keyframe_s` and `gop_frames` are the longest distance of two key frames seen, in
    seconds and frames (None if fewer than two came); `bit_rate` is measured, in bit/s; `duration_s` None if live or
    unknown. `clock` is what `captured_at` will rest on, `hwaccel` the devices by which the codec can be decoded here:
    this FFmpeg knows how, and the machine has such a device. `advice` is in plain words, most important first.
    """

    url: str
    live: bool
    codec: str
    profile: str | None
    width: int
    height: int
    stored: str
    turned_deg: int
    mirrored: bool
    pixel_aspect: str
    interlaced: bool
    tracks: int
    pixel_format: str | None
    fps: float | None
    variable_rate: bool
    b_frames: bool
    keyframe_s: float | None
    gop_frames: int | None
    bit_rate: int | None
    clock: ClockQuality
    duration_s: float | None
    hwaccel: tuple[str, ...]
    advice: tuple[str, ...]


@dataclass(slots=True)
class _Observed:
    """The packets of the look, in coding order: PTS in seconds, whether key frames, bytes; and what else was met.
    `shape` and `interlaced` are of its pictures."""

    pts_s: list[float]
    keys: list[int]
    size: int = 0
    ntp: bool = False
    picture: bool = False
    shape: Display = UPRIGHT
    interlaced: bool = False


def probe(
    url: str,
    *,
    clock: Clock,
    read_s: float,
    settings: SourceConfig = SourceConfig(),
    live: bool | None = None,
    shown: str | None = None,
) -> Probe:
    """Look at `url` for about `read_s` seconds. Blocks at most for two opening time-outs, `read_s` and a little more.

    Raises SourceUnavailable or ConfigError as a source would, SourceUnavailable also when that time runs out.
    """
    address = parse_address(url, live, shown)
    settings = replace(settings, hwaccel="none", stall_s=read_s, first_picture_s=read_s)
    opener = Opener(address, settings, clock, None)
    answers: queue.Queue[Probe | ConfigError | SourceUnavailable] = queue.Queue(maxsize=1)

    def look() -> None:
        try:
            with opener.connect() as connection:
                answers.put(_describe(connection, address, _watch(connection, clock, opener, read_s)))
        except (ConfigError, SourceUnavailable) as error:
            answers.put(error)

    deadline_s = 2 * settings.open_timeout_s + 2 * read_s + 1.0
    threading.Thread(target=look, name=f"probe {address.shown}", daemon=True).start()
    try:
        answer = answers.get(timeout=deadline_s)
    except queue.Empty:
        opener.interrupt()
        raise SourceUnavailable(f"{address.shown} did not answer within {deadline_s:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _watch(connection: Connection, clock: Clock, opener: Opener, read_s: float) -> _Observed:
    seen = _Observed([], [])
    started_s = clock.monotonic_s()
    try:
        for packet in connection.container.demux(connection.video):
            seen.size += packet.size
            seen.ntp = seen.ntp or packet.has_sidedata("prft")
            _look_at(connection, packet, seen)
            if packet.pts is not None:
                if packet.is_keyframe:
                    seen.keys.append(len(seen.pts_s))
                seen.pts_s.append(packet.pts * connection.tick_s)
            passed_s = max(seen.pts_s) - seen.pts_s[0] if seen.pts_s else 0.0
            if max(passed_s, clock.monotonic_s() - started_s) >= read_s:
                break
    except (FFmpegError, OSError) as error:
        if not seen.size:
            raise opener.broken(error, started_s) from None
    return seen


def _look_at(connection: Connection, packet: "Packet[VideoStream]", seen: _Observed) -> None:
    """Decode a packet, until there was a picture to learn from."""
    if seen.picture:
        return
    try:
        frames = packet.decode()
    except FFmpegError:
        return
    for frame in frames:
        if isinstance(frame, VideoFrame):
            seen.picture = True
            seen.shape = shape_of(frame, connection.pixel_aspect)
            seen.interlaced = frame.interlaced_frame


def _describe(connection: Connection, address: Address, seen: _Observed) -> Probe:
    context = connection.video.codec_context
    times = sorted(seen.pts_s)
    steps = [step for step in (later - earlier for earlier, later in pairwise(times)) if step > 0]
    span_s = times[-1] - times[0] if times else 0.0
    uneven = _uneven(steps)
    gops = list(pairwise(seen.keys))
    height, width = seen.shape.shown(context.height, context.width)
    recorded: ClockQuality = "arrival" if connection.live else "file"
    found = Probe(
        url=address.shown,
        live=connection.live,
        codec=context.name,
        profile=context.profile,
        width=width,
        height=height,
        stored=f"{context.width}x{context.height}",
        turned_deg=seen.shape.turned_deg,
        mirrored=seen.shape.mirrored,
        pixel_aspect=f"{seen.shape.aspect.numerator}:{seen.shape.aspect.denominator}",
        interlaced=seen.interlaced,
        tracks=connection.tracks,
        pixel_format=context.pix_fmt if seen.picture else None,
        fps=round(len(steps) / span_s if uneven else 1 / median(steps), 3) if steps else None,
        variable_rate=uneven,
        b_frames=seen.pts_s != times,
        keyframe_s=max((seen.pts_s[b] - seen.pts_s[a] for a, b in gops), default=None),
        gop_frames=max((b - a for a, b in gops), default=None),
        bit_rate=round(8 * seen.size / span_s) if span_s else None,
        clock="ntp" if seen.ntp else recorded,
        duration_s=None if connection.live else connection.duration_s,
        hwaccel=tuple(
            name
            for c in context.codec.hardware_configs or ()
            if c.is_supported and has_device(name := HWDeviceType(c.device_type).name)
        ),
        advice=(),
    )
    return replace(found, advice=tuple(advise(found, address.scheme, span_s)))


def _uneven(steps: list[float]) -> bool:
    usual = median(steps) if steps else 0.0
    return sum(abs(step - usual) > usual / 4 for step in steps) > UNEVEN_SHARE * len(steps)


def advise(found: Probe, scheme: str, seen_s: float) -> Iterator[str]:
    """Advice about a stream that was looked at for `seen_s` seconds. Pure."""
    if found.pixel_format is None:
        yield f"no picture could be decoded in {seen_s:.1f} s: look for a key frame interval longer than that"
    yield from _advise_on_shape(found)
    if found.live and (found.keyframe_s or seen_s) >= LONG_GOP_S:
        apart = f"{found.keyframe_s:.1f} s" if found.keyframe_s else f"more than {seen_s:.1f} s"
        yield (
            f"key frames lie {apart} apart, which is how long a lost connection or picture takes to recover: set the"
            " camera's key frame (I frame) interval to 1 or 2 s"
        )
    if found.live and found.b_frames:
        yield "B frames hold pictures back by some frame intervals: choose a profile of the camera without them"
    if found.variable_rate:
        yield "the frame rate varies; frames are sampled by their time stamps, so this does no harm"
    if found.codec in ("hevc", "av1", "vvc", "vp9"):
        hardware = " or hardware" if found.hwaccel else ""
        yield f"{found.codec} costs more to decode in software than H.264: use H.264{hardware} for many streams"
    if found.width * found.height * (found.fps or 0.0) > LARGE_PIXELS_PER_S:
        yield (
            f"{found.width}x{found.height} at {found.fps:g} fps takes a good part of a core to decode: use the camera's"
            f" sub-stream, a lower rate{', hardware decoding' if found.hwaccel else ''} or decode: keys"
        )
    if scheme in ("rtsp", "rtsps") and found.clock != "ntp":
        yield "the camera sent no sender report with its clock yet: events carry the time of arrival here until it does"


def _advise_on_shape(found: Probe) -> Iterator[str]:
    if found.turned_deg or found.mirrored or found.pixel_aspect != "1:1":
        turned = f", turned by {found.turned_deg} degrees" if found.turned_deg else ""
        mirrored = ", mirrored" if found.mirrored else ""
        pixels = f", of pixels {found.pixel_aspect} wide" if found.pixel_aspect != "1:1" else ""
        yield (
            f"pictures are stored as {found.stored}{turned}{mirrored}{pixels}: they are shown as"
            f" {found.width}x{found.height}, as players do"
        )
    if found.interlaced:
        yield (
            "the video is interlaced: of each picture one field is shown, half of its lines; set the camera or encoder"
            " to progressive if it can be"
        )
    if found.tracks > 1:
        yield f"there are {found.tracks} video tracks, of which one is read; video_track chooses, counted from 0"
    if ratio(found.height, found.width) > MAX_RATIO:
        yield f"{found.width}x{found.height} is a ratio of more than {MAX_RATIO}, which many models refuse"

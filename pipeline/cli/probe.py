"""`resadapt probe`: what a stream is, before it is attached."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from pipeline.cli.options import require_one
from pipeline.cli.output import Output, plain, print_line, set_up, shown
from pipeline.clock import SystemClock
from pipeline.config.values import resolve_url
from pipeline.errors import ConfigError
from pipeline.redact import redact_url
from pipeline.sources.probe import probe as probe_source

EXAMPLE = "Example: resadapt probe rtsp://10.0.0.7/stream1 --seconds 10"

_CLOCKS = {
    "ntp": "the camera's own",
    "arrival": "the time of arrival here",
    "file": "the file's start plus its time stamps",
}
_TOLD = {
    *("url", "live", "codec", "profile", "width", "height", "pixel_format", "fps", "variable_rate", "b_frames"),
    *("keyframe_s", "gop_frames", "bit_rate", "clock", "duration_s", "hwaccel", "advice"),
    *("stored", "turned_deg", "mirrored", "pixel_aspect", "tracks"),
}
"""Fields that have words of their own below; any other is told by its name where it says anything."""


def probe(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="Any stream that `run` takes.")],
    seconds: Annotated[float, typer.Option(help="How long to look at it.")] = 4.0,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object on stdout.")] = False,
) -> None:
    """Open a stream and say what it is, what its clock is worth and what to do about it."""
    set_up("error")
    require_one(context)
    if url.startswith("synthetic:"):
        raise ConfigError(f"{url} is generated here, as its parameters say; there is nothing to probe")
    if not seconds > 0:
        raise ConfigError(f"--seconds is {seconds:g}; expected more than 0")
    stated = redact_url(url) if "${" in url else None
    found = asdict(probe_source(resolve_url(url), clock=SystemClock(), read_s=seconds, shown=stated))
    if as_json:
        print_line(json.dumps(found, default=str))
        return
    console = Output()
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name, words in describe(found, seconds):
        table.add_row(name, shown(words))
    console.print(f"[bold]{shown(found['url'])}[/]", highlight=False, soft_wrap=True)
    console.print(table, highlight=False)
    for line in found["advice"] or ("nothing to change",):
        console.print(f"- {plain(line)}", markup=False, highlight=False)


def describe(found: Mapping[str, object], seconds: float) -> Iterator[tuple[str, str]]:
    """The findings of a look of `seconds`, as pairs of a name and words for people. Pure."""
    get = found.get
    length = "a recording" if get("duration_s") is None else f"a recording of {get('duration_s'):g} s"
    yield "kind", "live" if get("live") else length
    codec = (get("codec"), get("profile"), get("pixel_format"))
    yield "codec", " ".join(str(part) for part in codec if part is not None)
    yield "size", f"{get('width')} x {get('height')} px" + "".join(f", {part}" for part in _stored(found))
    rate = "one picture" if get("fps") is None else f"{get('fps'):g} frames/s"
    yield "rate", rate + (", varying" if get("variable_rate") else "")
    if get("keyframe_s") is None:
        yield "key frames", f"fewer than two in {seconds:g} s"
    else:
        yield "key frames", f"at most {get('keyframe_s'):g} s ({get('gop_frames')} frames) apart"
    if get("b_frames"):
        yield "B frames", "yes"
    if (bits := get("bit_rate")) is not None:
        yield "bit rate", _bits(float(str(bits)))
    yield "time", _CLOCKS.get(str(get("clock")), str(get("clock")))
    if devices := get("hwaccel"):
        yield "hardware", f"can be decoded by {_words(devices)}"
    if get("tracks", 1) != 1:
        yield "videos", f"{get('tracks')}, of which video_track chooses"
    for key, value in found.items():
        if key not in _TOLD and value not in (None, False, 0, ""):
            yield key.replace("_", " "), _words(value)


def _stored(found: Mapping[str, object]) -> Iterator[str]:
    """The difference between the shown picture and the stored one, in words."""
    if found.get("stored") not in (None, f"{found.get('width')}x{found.get('height')}"):
        yield f"stored as {str(found.get('stored')).replace('x', ' x ')}"
    if found.get("turned_deg"):
        yield f"turned by {found.get('turned_deg')} degrees"
    if found.get("mirrored"):
        yield "mirrored"
    if found.get("pixel_aspect") not in (None, "1:1"):
        yield f"of pixels {found.get('pixel_aspect')}"


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def _bits(per_s: float) -> str:
    return f"{per_s / 1e6:.1f} Mbit/s" if per_s >= 1e6 else f"{per_s / 1e3:.0f} kbit/s"

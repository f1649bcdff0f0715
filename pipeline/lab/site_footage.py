"""A site's recordings by camera and time: which watches each camera is asked, what trains and what is held out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.config.site import SiteConfig, WatchConfig, parse_site, read_yaml
from pipeline.errors import ConfigError
from pipeline.lab.footage import Clip, Footage, camera_of
from pipeline.lab.training import site_of
from pipeline.service.board import WatchBoard
from pipeline.types import Crop

HELD_OUT = 0.25
"""The last part of each camera's time, which is kept out of training and compares the allocators."""

LEAST_S = 30.0
"""Least seconds of recordings from which anything is made."""


@dataclass(frozen=True, slots=True)
class AskedWatch:
    """A watch of a camera: its slug, the question as it is asked (with its zone), what it takes to open it, and the
    part of the camera's pictures that is shown for it and the camera's others, None for all."""

    slug: str
    text: str
    config: WatchConfig
    crop: Crop | None = None


@dataclass(frozen=True, slots=True)
class SiteFootage:
    """The clips of a site that train, and those that are held out, which are later; the watches of each camera, and the
    camera of each file; remarks on what was left out."""

    training: tuple[Clip, ...]
    held_out: tuple[Clip, ...]
    watches: Mapping[str, tuple[AskedWatch, ...]]
    cameras: Mapping[Path, str]
    remarks: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Seconds of all clips."""
        return seconds_of((*self.training, *self.held_out))

    def watches_of(self, clip: Clip) -> tuple[AskedWatch, ...]:
        """The watches that a clip's camera is asked."""
        return self.watches[self.cameras[clip.file]]


def seconds_of(clips: Sequence[Clip]) -> float:
    """Seconds of clips together."""
    return sum(clip.end_s - clip.start_s for clip in clips)


def read_site(watches: Path, mllm: str | None, device: str | None = None) -> SiteConfig:
    """The site in a file, with its streams if it has any, or the watches alone; `mllm` stands in the place of its own.
    Raises ConfigError."""
    raw = read_yaml(watches)
    if not raw.get("streams"):
        return site_of(watches, mllm, device)
    try:
        return parse_site(raw | ({"mllm": mllm} if mllm else {}))
    except ConfigError as error:
        raise ConfigError(f"{watches}: {error}") from error


def arrange(footage: Footage, recordings: Path, site: SiteConfig, hop_s: float) -> SiteFootage:
    """Arrange the clips of a folder by camera, and hold out the last part of each camera's time.

    A recording is of the stream after which its folder, or the beginning of its name, is called; where the site names
    no streams, every recording is asked every watch. Raises ConfigError for recordings of other cameras than the
    watches name, for watches that cannot be asked with yes or no, and for less than LEAST_S seconds.
    """
    remarks = [f"skipped {reason}" for reason in footage.skipped]
    askable = {slug: watch for slug, watch in site.watches.items() if not watch.paused and _yes_or_no(watch)}
    left_out = sorted(set(site.watches) - set(askable))
    remarks += [f"watch {slug} is left out: it is paused, or counts or chooses" for slug in left_out]
    if not askable:
        raise ConfigError("there is nothing to watch for; expected watches that yes or no can answer")
    named = {
        file: camera_of(file, recordings, list(site.streams)) for file in dict.fromkeys(c.file for c in footage.clips)
    }
    asked = {camera: _asked(camera, askable, site) for camera in dict.fromkeys(named.values()) if camera}
    known = {file: camera for file, camera in named.items() if camera and asked[camera]}
    strange = [file for file in named if file not in known]
    if not known:
        folders = ", ".join(sorted({str(file.relative_to(recordings)) for file in strange})[:5])
        raise ConfigError(
            f"the recordings in {recordings} ({folders}) are of none of the cameras that the watches are about"
            f" ({', '.join(sorted(site.streams))}); put those of a camera into a folder of its name"
        )
    remarks += [f"skipped {file}: no watch is about its camera" for file in strange]
    clips = [_asked_about(clip, asked[known[clip.file]]) for clip in footage.clips if clip.file in known]
    if seconds_of(clips) < LEAST_S:
        raise ConfigError(
            f"{recordings} holds {seconds_of(clips):.0f} s of recordings; expected at least {LEAST_S:g} s"
        )
    training: list[Clip] = []
    held: list[Clip] = []
    for camera in dict.fromkeys(known.values()):
        mine = sorted((clip for clip in clips if known[clip.file] == camera), key=lambda one: (one.file, one.start_s))
        earlier, later = split(mine, hop_s)
        training += earlier
        held += later
    return SiteFootage(tuple(training), tuple(held), asked, known, tuple(remarks))


def split(clips: Sequence[Clip], hop_s: float) -> tuple[list[Clip], list[Clip]]:
    """The clips of a camera in order of time, up to its last quarter and from there; one that lies on the border is cut
    at a hop."""
    border_s = seconds_of(clips) * (1 - HELD_OUT)
    earlier: list[Clip] = []
    later: list[Clip] = []
    before_s = 0.0
    for clip in clips:
        cut_s = clip.start_s + round((border_s - before_s) / hop_s) * hop_s
        before_s += clip.end_s - clip.start_s
        if cut_s > clip.start_s:
            earlier.append(replace(clip, end_s=min(clip.end_s, cut_s)))
        if cut_s < clip.end_s:
            later.append(replace(clip, start_s=max(clip.start_s, cut_s)))
    return earlier, later


def _yes_or_no(watch: WatchConfig) -> bool:
    rules = watch.rules()
    return rules.count is None and not rules.choice


def _asked(camera: str, watches: Mapping[str, WatchConfig], site: SiteConfig) -> tuple[AskedWatch, ...]:
    """The watches of a camera: all, where the site names no streams."""
    stream = site.streams.get(camera)
    if stream is None:
        return tuple(AskedWatch(slug, watch.question, watch) for slug, watch in watches.items())
    board = WatchBoard()
    board.replace({camera: stream}, site.watches)  # those that are not asked here have a part in the crop too
    standing = [one for one in board.on(camera) if one.id in watches]
    return tuple(AskedWatch(one.id, one.asked, watches[one.id], one.crop) for one in standing)


def _asked_about(clip: Clip, watches: Sequence[AskedWatch]) -> Clip:
    """A clip that is asked the watches of its camera."""
    return replace(clip, questions=tuple(dict.fromkeys(watch.text for watch in watches)), crop=watches[0].crop)

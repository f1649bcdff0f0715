"""Pictures of files as players show them: upright, with square pixels, of one moment, of the track that was chosen."""

import os
import resource
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.clock import SystemClock
from pipeline.errors import ConfigError
from pipeline.sources.av import AvSource
from pipeline.sources.base import Notice, Sampler
from pipeline.sources.probe import Probe, probe
from pipeline.types import Frame
from tests import clips
from tests.clips import av_source

CLOCK = SystemClock()
CORNERS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (230, 230, 230)}


def corners(height: int, width: int) -> np.ndarray:
    """Red and green above, blue and white below."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[: height // 2, : width // 2], rgb[: height // 2, width // 2 :] = CORNERS["red"], CORNERS["green"]
    rgb[height // 2 :, : width // 2], rgb[height // 2 :, width // 2 :] = CORNERS["blue"], CORNERS["white"]
    return rgb


def seen(picture: np.ndarray) -> list[str]:
    """The colours of the corners of a picture, row by row."""
    height, width = picture.shape[:2]
    points = [picture[y, x].astype(int) for y in (height // 4, -height // 4) for x in (width // 4, -width // 4)]
    return [min(CORNERS, key=lambda name: np.abs(np.array(CORNERS[name]) - point).sum()) for point in points]


def write(
    path: Path,
    *,
    size: tuple[int, int] = (96, 160),
    aspect: Fraction | None = None,
    turned: int | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    others: tuple[tuple[int, int], ...] = (),
) -> Path:
    """Ten pictures of CORNERS, and as many grey ones of each size in `others` as tracks of their own."""
    with av.open(str(path), "w") as out:
        out.metadata.update(metadata or {})
        tracks = [(out.add_stream(codec, rate=10, options=options or {}), size)]
        tracks += [(out.add_stream(codec, rate=10), other) for other in others]
        for stream, (height, width) in tracks:
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        if aspect is not None:
            tracks[0][0].codec_context.sample_aspect_ratio = aspect
        if turned is not None:
            tracks[0][0].set_display_rotation(turned)
        for _ in range(10):
            for stream, (height, width) in tracks:
                rgb = corners(height, width) if stream is tracks[0][0] else np.full((height, width, 3), 128, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))
        for stream, _ in tracks:
            out.mux(stream.encode(None))
    return path


def source(path: Path, **options: object) -> AvSource:
    return av_source(path, clock=CLOCK, **options)


async def first(path: Path, **options: object) -> Frame:
    frames = [frame async for frame in source(path, **options).frames(Sampler(10))]
    return frames[0]


def probed(path: Path) -> Probe:
    return probe(str(path), clock=CLOCK, read_s=5.0)


TURNS = {
    0: ["red", "green", "blue", "white"],
    90: ["green", "white", "red", "blue"],
    180: ["white", "blue", "green", "red"],
    270: ["blue", "red", "white", "green"],
}


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("counterclockwise", TURNS)
async def test_a_picture_that_is_stored_turned_is_shown_upright(
    tmp_path: Path, counterclockwise: int, suffix: str
) -> None:
    path = write(tmp_path / f"clip.{suffix}", turned=counterclockwise)
    frame = await first(path)
    assert frame.size == ((160, 96) if counterclockwise % 180 else (96, 160))
    assert seen(frame.picture.render(*frame.size)) == TURNS[counterclockwise]
    assert seen(frame.picture.render(28, 28)) == TURNS[counterclockwise]
    found = probed(path)
    assert (found.height, found.width, found.stored) == (*frame.size, "160x96")
    assert found.turned_deg == -counterclockwise % 360
    assert any("turned by" in advice for advice in found.advice) is (counterclockwise > 0)


@pytest.mark.parametrize("name", ["clip.ts", "clip.mp4", "clip.mkv", "clip.h264"])
@pytest.mark.parametrize(("aspect", "size"), [(Fraction(2), (96, 320)), (Fraction(1, 2), (192, 160))])
async def test_pixels_that_are_not_square_are_shown_so_wherever_that_stands(
    tmp_path: Path, name: str, aspect: Fraction, size: tuple[int, int]
) -> None:
    path = write(tmp_path / name, aspect=aspect)
    frame = await first(path)
    assert frame.size == size
    assert seen(frame.picture.render(*size)) == TURNS[0]
    found = probed(path)
    assert (found.height, found.width, found.pixel_aspect) == (*size, f"{aspect.numerator}:{aspect.denominator}")
    assert any("of pixels" in advice for advice in found.advice)


async def test_a_turned_picture_of_wide_pixels_is_high(tmp_path: Path) -> None:
    frame = await first(write(tmp_path / "clip.mp4", aspect=Fraction(2), turned=90))
    assert frame.size == (320, 96)
    assert seen(frame.picture.render(64, 28)) == TURNS[90]


async def test_what_moves_in_an_interlaced_picture_has_no_combs_and_what_is_not_flagged_is_left_alone(
    tmp_path: Path,
) -> None:
    rgb = np.full((128, 128, 3), 60, np.uint8)
    rgb[::2, 20:60] = rgb[1::2, 60:100] = 230  # a box that moved by its width from one field to the other
    steps = {}
    for name, options in {"woven": {}, "flagged": {"flags": "+ilme+ildct", "x264-params": "tff=1"}}.items():
        path = tmp_path / f"{name}.mkv"
        with av.open(str(path), "w") as out:
            stream = out.add_stream("libx264", rate=25, options={"qp": "1", **options})
            stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv444p"
            for _ in range(5):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))
            out.mux(stream.encode(None))
        frame = await first(path)
        assert frame.size == (128, 128)
        pixels = frame.picture.render(128, 128).astype(int)
        steps[name] = np.abs(np.diff(pixels.mean(2), axis=0)).max()
        assert probed(path).interlaced is (name == "flagged")
    assert steps["woven"] > 150
    assert steps["flagged"] < 10


@pytest.mark.parametrize("name", ["clip.mkv", "clip.ts", "clip.mp4"])
async def test_a_picture_above_the_bound_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    assert (await first(path, max_pixels=96 * 160)).size == (96, 160)
    with pytest.raises(ConfigError, match=r"160x96, more than max_pixels 15359"):
        await first(path, max_pixels=96 * 160 - 1)


async def test_a_picture_that_grows_above_the_bound_in_mid_stream_is_refused_before_it_is_allocated(
    tmp_path: Path,
) -> None:
    path = clips.resized(tmp_path / "clip.h264", [(96, 160), (8192, 8192)], frames_each=5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reading = source(path)
    sizes = []
    with pytest.raises(ConfigError, match="8192x8192, more than max_pixels"):
        async for frame in reading.frames(Sampler(60)):
            sizes.append(frame.size)
    assert set(sizes) <= {(96, 160)}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000, "KiB"


async def test_of_two_video_tracks_the_one_that_was_chosen_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mkv", others=((192, 320),))
    assert [(await first(path, video_track=track)).size for track in (0, 1)] == [(96, 160), (192, 320)]
    with pytest.raises(ConfigError, match=r"no video track 2; it has 0 \(h264 160x96\), 1 \(h264 320x192\)"):
        await first(path, video_track=2)
    assert any("2 video tracks" in advice for advice in probed(path).advice)


@pytest.mark.parametrize("stated", ["2999-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "yesterday"])
async def test_a_date_that_cannot_be_is_not_believed(tmp_path: Path, stated: str) -> None:
    path = write(tmp_path / "clip.mkv", metadata={"creation_time": stated})
    os.utime(path, (1.7e9, 1.7e9))
    written = datetime.fromtimestamp(1.7e9, UTC)
    assert written - timedelta(seconds=2) < (await first(path)).captured_at <= written
    os.utime(path, (9e9, 9e9))
    assert (await first(path)).captured_at <= CLOCK.now()


async def test_a_picture_hundreds_of_times_as_wide_as_high_is_told_of_once(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mkv", size=(2, 500), codec="ffv1", pix_fmt="yuv444p")
    told: list[Notice] = []

    async def tell(notice: Notice) -> None:
        told.append(notice)

    frames = [frame async for frame in source(path).frames(Sampler(10), tell)]
    assert len(frames) == 10
    assert [notice.kind for notice in told] == ["stream.misshapen"]
    assert "500x2" in told[0].reason
    assert any("ratio" in advice for advice in probed(path).advice)

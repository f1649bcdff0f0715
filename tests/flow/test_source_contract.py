"""What every source promises, and what the file source does with what people and networks throw at it."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from pipeline.clock import SystemClock
from pipeline.errors import ConfigError, SourceUnavailable
from pipeline.sources.base import Sampler, Source
from pipeline.sources.probe import probe
from pipeline.sources.settings import SourceConfig
from pipeline.sources.synthetic import SyntheticSource
from pipeline.types import Frame
from tests import clips
from tests.clips import av_source
from tests.gstreamer import BY_GSTREAMER, require_gstreamer
from tests.services import require

CLOCK = SystemClock()
SECONDS = 0.8
FPS = 25.0
FRAMES = 20

Build = Callable[[], Source]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips.write(tmp_path_factory.mktemp("clips") / "clip.mp4", clips.steady(SECONDS, FPS), gop=10, b_frames=2)


@pytest.fixture(params=["file", "file in real time", "file by GStreamer", "synthetic", "synthetic in real time"])
def build(request: pytest.FixtureRequest, clip: Path) -> Build:
    realtime = "real time" in request.param
    if "GStreamer" in request.param:
        require_gstreamer()
        return lambda: av_source(clip, hwaccel=BY_GSTREAMER)
    if "file" in request.param:
        return lambda: av_source(clip, realtime=realtime)
    url = f"synthetic:?width=320&height=180&fps={FPS}&seconds={SECONDS}"
    return lambda: SyntheticSource(url, SourceConfig(realtime=realtime), clock=CLOCK)


async def read(source: Source, fps: float = FPS, count: int | None = None) -> list[Frame]:
    frames: list[Frame] = []
    async with aclosing(source.frames(Sampler(fps))) as reading:
        async for frame in reading:
            frames.append(frame)
            if len(frames) == count:
                break
    return frames


def times(frames: list[Frame]) -> list[float]:
    return [frame.pts_s for frame in frames]


async def test_frames_come_in_order_from_zero_with_rising_positions_and_dates(build: Build) -> None:
    frames = await read(build())
    assert times(frames) == pytest.approx(clips.steady(SECONDS, FPS), abs=1e-3)
    assert [frame.seq for frame in frames] == list(range(len(frames)))
    dates = [frame.captured_at for frame in frames]
    assert dates == sorted(dates)
    assert all(date.utcoffset() == timedelta(0) for date in dates)


async def test_only_the_frames_that_the_sampler_wants_come_and_all_are_counted(build: Build) -> None:
    source = build()
    frames = await read(source, fps=2)
    assert times(frames) == pytest.approx([0.0, 0.52], abs=1e-3)
    counts = source.counts
    assert (counts.decoded, counts.sampled, counts.lost, counts.connects) == (FRAMES, 2, 0, 1)
    assert (counts.corrupt, counts.decode_errors, counts.discontinuities) == (0, 0, 0)


async def test_pictures_render_to_any_size(build: Build) -> None:
    (frame,) = await read(build(), count=1)
    assert frame.size == (180, 320)
    for size in ((64, 112), (1, 1), (180, 320), (359, 641)):
        pixels = frame.picture.render(*size)
        assert pixels.shape == (*size, 3)
        assert pixels.dtype == np.uint8


async def test_closing_ends_an_iteration_under_way(build: Build) -> None:
    source = build()
    seen = 0
    async for _ in source.frames(Sampler(FPS)):
        seen += 1
        if seen == 3:
            await asyncio.wait_for(source.close(), 2.0)
    assert seen == 3
    await source.close()


async def test_reading_again_goes_on_behind_what_was_read(build: Build) -> None:
    source = build()
    before = await read(source, count=5)
    after = await read(source)
    assert times(before + after) == pytest.approx(clips.steady(SECONDS, FPS), abs=1e-3)
    assert await read(source) == []


async def test_two_readers_at_once_are_refused(build: Build) -> None:
    source = build()
    async with aclosing(source.frames(Sampler(FPS))) as first:
        await anext(first)
        with pytest.raises(RuntimeError, match="already being read"):
            await anext(source.frames(Sampler(FPS)))


async def test_a_slow_reader_loses_the_oldest_of_a_live_source_and_nothing_of_a_recording(build: Build) -> None:
    source = build()
    frames: list[Frame] = []
    async for frame in source.frames(Sampler(FPS)):
        if not frames:
            await asyncio.sleep(0.6)
        frames.append(frame)
    assert len(frames) + source.counts.lost == FRAMES
    assert (source.counts.lost > 0) is source.live
    assert times(frames) == sorted(times(frames))
    assert frames[-1].pts_s == pytest.approx(SECONDS - 1 / FPS, abs=1e-3)


async def test_real_time_keeps_the_pace_of_the_time_stamps(clip: Path) -> None:
    started = time.monotonic()
    frames = await read(av_source(clip, realtime=True), fps=5)
    assert 0.9 * frames[-1].pts_s < time.monotonic() - started < 10.0
    assert {frame.clock for frame in frames} == {"arrival"}


async def test_a_resumed_file_keeps_absolute_file_time_and_date(clip: Path) -> None:
    whole, resumed = await read(av_source(clip)), await read(av_source(clip, start_s=0.5))
    assert times(resumed) == [pts for pts in times(whole) if pts >= 0.5]
    assert resumed[-1].captured_at == whole[-1].captured_at
    assert {frame.clock for frame in whole} == {"file"}


async def test_a_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    expected = clips.variable(4.0)
    frames = await read(av_source(clips.write(tmp_path / "clip.mkv", expected)), fps=60)
    assert times(frames) == pytest.approx(expected, abs=2e-3)


async def test_a_pause_of_twenty_seconds_is_kept(tmp_path: Path) -> None:
    expected = [*clips.steady(1), *clips.steady(1, start_s=21)]
    source = av_source(clips.write(tmp_path / "clip.mp4", expected))
    assert times(await read(source)) == pytest.approx(expected, abs=1e-3)
    assert source.counts.discontinuities == 0


async def test_time_goes_on_where_the_mpeg_clock_wraps(tmp_path: Path) -> None:
    path = clips.write(
        tmp_path / "clip.ts", clips.steady(2), start_ticks=(1 << 33) - 90_000, options={"mpegts_copyts": "1"}
    )
    source = av_source(path)
    assert times(await read(source)) == pytest.approx(clips.steady(2), abs=1e-3)
    assert source.counts.discontinuities == 0


async def test_a_size_that_changes_in_mid_stream_just_flows(tmp_path: Path) -> None:
    path = clips.resized(tmp_path / "clip.h264", [(180, 320), (360, 640), (90, 160)])
    frames = await read(av_source(path))
    assert [frame.size for frame in frames[::25]] == [(180, 320), (360, 640), (90, 160)]
    assert times(frames) == pytest.approx(clips.steady(3), abs=1e-3)
    assert {frame.picture.render(28, 28).shape for frame in frames} == {(28, 28, 3)}


@pytest.mark.parametrize(
    ("name", "size", "codec", "pix_fmt", "count"),
    [
        ("one.avi", (1, 1), "png", "rgb24", 3),
        ("odd.mkv", (359, 641), "libx264", "yuv444p", 3),
        ("huge.mkv", (4320, 7680), "mjpeg", "yuvj420p", 1),
    ],
)
async def test_any_picture_size_is_read(
    tmp_path: Path, name: str, size: tuple[int, int], codec: str, pix_fmt: str, count: int
) -> None:
    path = clips.write(tmp_path / name, clips.steady(count / 25), size=size, codec=codec, pix_fmt=pix_fmt)
    frames = await read(av_source(path))
    assert [frame.size for frame in frames] == [size] * count
    assert frames[0].picture.render(28, 56).shape == (28, 56, 3)


@pytest.mark.parametrize("realtime", [False, True])
async def test_key_frames_alone_are_the_same_pictures_at_the_same_times(clip: Path, realtime: bool) -> None:
    """Those that a decoder would hold back for others are there at once."""
    whole = {frame.pts_s: frame.picture.render(90, 160) for frame in await read(av_source(clip))}
    source = av_source(clip, decode="keys", realtime=realtime)
    frames = await read(source)
    assert times(frames) == pytest.approx([0.0, 0.4], abs=1e-3)
    assert all(np.array_equal(frame.picture.render(90, 160), whole[frame.pts_s]) for frame in frames)
    assert (source.counts.decoded, source.counts.corrupt) == (2, 0)


async def test_key_frames_alone_of_a_recording_without_time_stamps_are_not_told_apart(tmp_path: Path) -> None:
    """Its pictures are placed by their number: each of them is needed."""
    bare = clips.write(tmp_path / "bare.h264", clips.steady(SECONDS, FPS), gop=10)
    assert times(await read(av_source(bare, decode="keys"))) == times(await read(av_source(bare)))


async def test_damaged_pictures_are_counted_and_dropped_or_kept_as_asked(tmp_path: Path) -> None:
    path = clips.flip_bits(clips.write(tmp_path / "clip.ts", clips.steady(4), size=(360, 640)), 60)
    dropping, keeping = av_source(path), av_source(path, on_corrupt="keep")
    kept_fewer, kept_more = await read(dropping), await read(keeping)
    assert dropping.counts.corrupt > 0
    assert len(kept_more) - len(kept_fewer) == pytest.approx(dropping.counts.corrupt, abs=2)
    assert len(kept_fewer) > 0
    for frames in (kept_fewer, kept_more):
        assert times(frames) == sorted(times(frames))


async def test_a_cut_off_file_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = clips.truncate(clips.write(tmp_path / "clip.mkv", clips.steady(2)), 0.5)
    frames = await read(av_source(path))
    assert 10 < len(frames) < 50


def missing(path: Path) -> Path:
    return path


def empty(path: Path) -> Path:
    path.touch()
    return path


def text(path: Path) -> Path:
    path.write_text("not a video\n" * 1000)
    return path


def index_lost(path: Path) -> Path:
    return clips.truncate(clips.write(path.with_suffix(".mp4"), clips.steady(1)), 0.5)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (missing, "is not a file"),
        (empty, "is empty"),
        (text, "cannot be read as video"),
        (index_lost, "cannot be read as video"),
        (clips.sound_only, "has no video stream; it has audio"),
    ],
)
async def test_a_file_that_no_retry_makes_a_video_is_a_config_error(
    tmp_path: Path, spoil: Callable[[Path], Path], words: str
) -> None:
    path = spoil(tmp_path / "file.m4a")
    with pytest.raises(ConfigError, match=words) as refused:
        await read(av_source(path))
    assert path.name in str(refused.value)
    with pytest.raises(ConfigError, match=words):
        await asyncio.to_thread(probe, str(path), clock=CLOCK, read_s=1.0)


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "http"])
async def test_a_closed_port_is_unavailable_without_the_credentials(scheme: str) -> None:
    source = av_source(f"{scheme}://viewer:secret@127.0.0.1:9/live?token=secret", open_timeout_s=2.0)
    with pytest.raises(SourceUnavailable, match="cannot be opened") as refused:
        await read(source)
    assert "secret" not in str(refused.value)


async def test_an_unknown_host_is_unavailable() -> None:
    with pytest.raises(SourceUnavailable, match="host is unknown"):
        await read(av_source("rtsp://camera.invalid/1", open_timeout_s=2.0))


async def test_a_capture_device_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(SourceUnavailable, match="no such device"):
        await read(av_source("v4l2:/dev/video-of-nobody"))


async def test_hardware_that_is_not_there_falls_back_to_software_once(
    clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has the hardware")
    source = av_source(clip, hwaccel="cuda")
    with caplog.at_level(logging.WARNING, logger="pipeline.sources"):  # a command run before may have raised the level
        assert len(await read(source, count=3) + await read(source)) == FRAMES
    assert source.counts.hwaccel_fallbacks == 1
    assert [record.levelname for record in caplog.records].count("WARNING") == 1


async def test_srt_without_the_program_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceUnavailable, match="install ffmpeg"):
        await read(av_source("srt://127.0.0.1:9?passphrase=secret"))


def test_a_probe_describes_a_recording(clip: Path) -> None:
    found = probe(str(clip), clock=CLOCK, read_s=5.0)
    assert (found.codec, found.width, found.height, found.live, found.clock) == ("h264", 320, 180, False, "file")
    assert found.fps == pytest.approx(25.0)
    assert (found.keyframe_s, found.gop_frames) == (pytest.approx(0.4), 10)
    assert found.b_frames
    assert not found.variable_rate
    assert found.duration_s == pytest.approx(SECONDS, abs=0.1)


async def test_real_clips_are_read_whole() -> None:
    folder = os.environ.get("TEST_CLIPS", "")
    require(bool(folder), "TEST_CLIPS names no folder of clips")
    source = av_source(Path(folder) / "car-detection.mp4")
    frames = await read(source, fps=2)
    assert source.counts.decoded == 377
    assert len(frames) == 61
    assert frames[0].captured_at.year == 2018

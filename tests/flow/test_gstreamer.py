"""Decoding by GStreamer: the same pictures as FFmpeg's, and FFmpeg where GStreamer cannot."""

import logging
from contextlib import aclosing

import numpy as np
import psutil
import pytest

from pipeline.errors import ConfigError, SourceUnavailable
from pipeline.sources.base import Sampler
from pipeline.sources.hardware import device_of, element_of
from tests import clips
from tests.clips import av_source
from tests.flow.test_pictures_shown import write as write_shown
from tests.flow.test_source_contract import read, times
from tests.gstreamer import BY_GSTREAMER, HEVC, require_gstreamer


def children():
    return [one for one in psutil.Process().children() if any("gst_child" in word for word in one.cmdline())]


def differences(some, others):
    """The largest difference of two colours of the same place, over all pictures."""
    both = zip(some, others, strict=True)
    rendered = ((one.picture.render(*one.size), other.picture.render(*other.size)) for one, other in both)
    return max(int(np.abs(one.astype(int) - other.astype(int)).max()) for one, other in rendered)


@pytest.mark.parametrize(
    ("codec", "element", "how"),
    [
        ("libx264", "openh264dec", {"b_frames": 2, "gop": 10}),
        ("libx264", "openh264dec", {"size": (182, 326), "pix_fmt": "yuvj420p"}),
        ("libx265", HEVC, {}),
    ],
    ids=["reordered", "odd lines, full range", "hevc"],
)
async def test_the_pictures_are_those_of_ffmpeg_at_their_times(tmp_path, codec, element, how):
    require_gstreamer(element, "h264parse" if codec == "libx264" else "h265parse")
    clip = clips.write(tmp_path / "clip.mkv", clips.variable(2.0), codec=codec, **how)
    source, plain = av_source(clip, hwaccel=f"gstreamer:{element}"), av_source(clip, hwaccel="none")
    frames, wanted = await read(source, 60), await read(plain, 60)
    assert times(frames) == times(wanted)
    assert differences(frames, wanted) <= 4  # chroma is stored in another order and scaled so
    assert source.counts == plain.counts
    assert children() == []


async def test_what_a_mask_covers_is_black_in_pictures_of_gstreamer_too(tmp_path):
    require_gstreamer()
    clip = clips.write(tmp_path / "clip.mp4", clips.steady(0.4))
    masks = {"desk": ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))}
    (frame,) = await read(av_source(clip, hwaccel=BY_GSTREAMER, masks=masks), count=1)
    pixels = frame.picture.render(*frame.size)
    assert pixels[:, :150].max() <= 2
    assert pixels[:, 170:].min() > 30


async def test_a_size_that_changes_in_mid_stream_flows_by_gstreamer_too(tmp_path):
    require_gstreamer()
    clip = clips.resized(tmp_path / "camera.h264", [(96, 160), (180, 320)], frames_each=10)
    frames = await read(av_source(clip, hwaccel=BY_GSTREAMER))
    assert [frame.size for frame in frames] == [(96, 160)] * 10 + [(180, 320)] * 10


@pytest.mark.parametrize(
    ("hwaccel", "named"),
    [
        ("gstreamer", "no element nvv4l2decoder; install nvidia-l4t-gstreamer"),
        ("gstreamer:avdec_nothing", "no element avdec_nothing; install gstreamer1.0-libav"),
    ],
)
async def test_an_absent_decoder_is_named_and_ffmpeg_decodes_all_of_it(tmp_path, caplog, hwaccel, named):
    require_gstreamer()
    clip = clips.write(tmp_path / "clip.mp4", clips.steady(0.8))
    source = av_source(clip, hwaccel=hwaccel)
    with caplog.at_level(logging.WARNING, logger="pipeline.sources"):
        frames = await read(source, count=3) + await read(source)
    assert times(frames) == pytest.approx(clips.steady(0.8), abs=1e-3)
    assert source.counts.hwaccel_fallbacks == 1
    assert [named in record.getMessage() for record in caplog.records] == [True]


async def test_an_absent_gstreamer_says_what_to_install(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("pipeline.sources.gst_pipe.PYTHON", str(tmp_path / "python3"))
    clip = clips.write(tmp_path / "clip.mp4", clips.steady(0.8))
    with caplog.at_level(logging.WARNING, logger="pipeline.sources"):
        assert len(await read(av_source(clip, hwaccel="gstreamer"))) == 20
    assert "apt-get install python3-gi" in caplog.text


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"turned": 90}, "stored turned"),
        ({"options": {"flags": "+ilme+ildct", "x264-params": "tff=1"}}, "interlaced"),
        ({"pix_fmt": "yuv444p"}, "lose colours"),
        ({"codec": "mpeg4"}, "GStreamer decodes h264 and hevc here, and no mpeg4"),
    ],
    ids=["turned", "interlaced", "4:4:4", "mpeg4"],
)
async def test_what_gstreamer_does_not_say_of_pictures_is_left_to_ffmpeg_with_the_reason(tmp_path, caplog, how, reason):
    clip = write_shown(tmp_path / "clip.mp4", **how)
    source = av_source(clip, hwaccel=BY_GSTREAMER)
    with caplog.at_level(logging.WARNING, logger="pipeline.sources"):
        frames = await read(source, 10)
    assert differences(frames, await read(av_source(clip, hwaccel="none"), 10)) == 0
    assert (len(frames), source.counts.hwaccel_fallbacks) == (10, 1)
    assert [reason in record.getMessage() for record in caplog.records] == [True]


async def test_a_crash_of_the_decoder_ends_the_connection_and_the_next_one_goes_on_behind_it(tmp_path):
    require_gstreamer()
    clip = clips.write(tmp_path / "clip.mp4", clips.steady(4.0), gop=10)
    source = av_source(clip, hwaccel=BY_GSTREAMER)
    before = []
    with pytest.raises(SourceUnavailable, match="cannot be decoded any more"):
        async with aclosing(source.frames(Sampler(25.0))) as frames:
            async for frame in frames:
                before.append(frame)
                if len(before) == 5:
                    (child,) = children()
                    child.kill()
    assert len(before) < 100
    after = await read(source)
    assert times(before + after) == pytest.approx(clips.steady(4.0), abs=1e-3)
    assert source.counts.hwaccel_fallbacks == 0
    assert children() == []


async def test_closing_in_the_middle_leaves_no_process_behind(tmp_path):
    require_gstreamer()
    source = av_source(clips.write(tmp_path / "clip.mp4", clips.steady(4.0)), hwaccel=BY_GSTREAMER, realtime=True)
    await read(source, count=3)
    await source.close()
    assert children() == []


def test_the_decoder_of_a_jetson_needs_no_name_and_others_have_one():
    assert device_of("gstreamer") == "gstreamer:nvv4l2decoder"
    assert element_of(device_of("gstreamer:avdec_h264")) == "avdec_h264"
    assert element_of("cuda") is element_of(None) is None
    for wrong in ("gstreamer:", "gstreamer:a ! b", "gstreamer:Avdec", "gst"):
        with pytest.raises(ConfigError, match="gstreamer:ELEMENT"):
            device_of(wrong)

"""What sources decide before and beside reading: addresses, options, scenes, pictures, advice."""

import threading
from dataclasses import replace

import av
import numpy as np
import pytest
from av.codec.hwaccel import hwdevices_available
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clock import SystemClock
from pipeline.errors import ConfigError
from pipeline.sources.address import parse_address
from pipeline.sources.av import AvSource
from pipeline.sources.av_picture import AvPicture
from pipeline.sources.probe import Probe, advise
from pipeline.sources.settings import SourceConfig
from pipeline.sources.synthetic import ArrayPicture, SyntheticScene, parse_scene
from tests.clips import picture


@pytest.mark.parametrize(
    ("url", "live", "likely"),
    [
        ("rtsp://cam/1", True, True),
        ("RTSPS://cam/1", True, True),
        ("srt://cam:9000?passphrase=x", True, True),
        ("udp://239.0.0.1:5000", True, True),
        ("v4l2:/dev/video0", True, True),
        ("clip.mp4", False, False),
        ("file:///data/a%20clip.mp4", False, False),
        ("https://site/cam.m3u8?token=x", None, True),
        ("http://site/clip.mp4", None, False),
    ],
)
def test_the_scheme_tells_whether_a_stream_is_live(url: str, live: bool | None, likely: bool) -> None:
    address = parse_address(url)
    assert address.live is live
    assert address.likely_live is likely
    assert parse_address(url, live=True).likely_live


def test_a_file_url_is_the_path_it_names() -> None:
    assert str(parse_address("file:///data/a%20clip.mp4").path) == "/data/a clip.mp4"
    assert str(parse_address("odd:name?.mp4").path) == "odd:name?.mp4"


def test_an_address_shows_no_credentials() -> None:
    address = parse_address("rtsp://user:secret@cam/1?token=secret")
    assert "secret" not in address.shown
    assert address.target.count("secret") == 2


@pytest.mark.parametrize(
    "url",
    [
        "gopher://u:secret@x/1",
        "rtsp://u:secret@two/secret@cam/1",
        "rtsp://u:secret@x:port/1",
        "rtsp:u:secret@x/1",
        "u:secret@x/1",
        "u:sec/secret@x/1",
        "u:" + "secret" * 60 + "@x/1",
        "",
    ],
)
def test_an_unknown_address_is_refused_with_what_is_known(url: str) -> None:
    with pytest.raises(ConfigError, match=r"expected|not a URL") as refused:
        parse_address(url)
    assert "secret" not in str(refused.value)


def test_hardware_that_this_ffmpeg_does_not_have_is_refused_with_what_it_has() -> None:
    with pytest.raises(ConfigError, match=hwdevices_available()[0]):
        AvSource("clip.mp4", SourceConfig(hwaccel="warp"), name="clip", clock=SystemClock())


def test_a_source_begins_at_no_time_before_its_first_picture() -> None:
    with pytest.raises(ConfigError, match="at least 0"):
        AvSource("clip.mp4", name="clip", clock=SystemClock(), start_s=-1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rtsp_transport": "pigeon"},
        {"on_corrupt": "pray"},
        {"stall_s": 0.0},
        {"open_timeout_s": float("nan")},
        {"ring_frames": 0},
        {"max_pixels": 0},
        {"first_picture_s": -1.0},
        {"video_track": -1},
    ],
)
def test_a_wrong_setting_of_a_source_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SourceConfig(**wrong)  # type: ignore[arg-type]


def frame(rgb: tuple[int, int, int], height: int, width: int, **colour: int) -> av.VideoFrame:
    flat = np.full((height, width, 3), rgb, dtype=np.uint8)
    return av.VideoFrame.from_ndarray(flat, "rgb24").reformat(**{"format": "yuv420p", **colour})


@pytest.mark.parametrize(("height", "colour"), [(480, {"dst_colorspace": 5}), (1080, {"dst_colorspace": 1})])
@pytest.mark.parametrize("full_range", [1, 2])
def test_colours_survive_the_usual_spaces_and_ranges(height: int, colour: dict[str, int], full_range: int) -> None:
    made = frame((200, 50, 30), height, 640, dst_color_range=full_range, **colour)
    assert np.abs(AvPicture(made).render(64, 64).astype(int) - (200, 50, 30)).max() <= 4


@pytest.mark.parametrize(("height", "space"), [(480, 5), (1080, 1)])
def test_untagged_video_is_read_by_its_height(height: int, space: int) -> None:
    made = frame((200, 50, 30), height, 640, dst_colorspace=space)
    made.colorspace = 2
    assert np.abs(AvPicture(made).render(64, 64).astype(int) - (200, 50, 30)).max() <= 4


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 70), st.integers(1, 70))
def test_any_size_renders_to_any_size(height: int, width: int, to_height: int, to_width: int) -> None:
    rgb = picture(0, height, width)
    for made in (AvPicture(av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="yuv444p")), ArrayPicture(rgb)):
        assert (made.height, made.width) == (height, width)
        pixels = made.render(to_height, to_width)
        assert pixels.shape == (to_height, to_width, 3)
        assert pixels.dtype == np.uint8
        assert pixels.flags["C_CONTIGUOUS"]


def test_shrinking_averages_areas() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    made = AvPicture(av.VideoFrame.from_ndarray(stripes, "rgb24").reformat(format="yuv444p"))
    assert np.abs(made.render(8, 8).astype(int) - 127).max() <= 6


def test_a_picture_renders_the_same_from_many_threads() -> None:
    made = AvPicture(av.VideoFrame.from_ndarray(picture(3, 180, 320), "rgb24").reformat(format="yuv420p"))
    sizes = [(28 * rows, 28 * columns) for rows in range(1, 5) for columns in range(1, 5)]
    expected = [made.render(*size) for size in sizes]
    different: list[tuple[int, int]] = []

    def render() -> None:
        for size, pixels in zip(sizes, expected, strict=True):
            if not np.array_equal(made.render(*size), pixels):
                different.append(size)

    threads = [threading.Thread(target=render) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert different == []


def test_a_scene_is_a_function_of_its_url() -> None:
    url = "synthetic:?width=96&height=64&fps=10&seconds=inf&seed=3"
    assert parse_scene(url) == SyntheticScene(96, 64, 10.0, float("inf"), 3)
    assert np.array_equal(parse_scene(url).draw(7.5), parse_scene(url).draw(7.5))
    assert not np.array_equal(parse_scene(url).draw(7.5), parse_scene(url.replace("seed=3", "seed=4")).draw(7.5))


@given(st.integers(0, 50))
def test_boxes_enter_and_leave(seed: int) -> None:
    scene = SyntheticScene(seed=seed)
    seen = [frozenset(box.colour for box in scene.boxes(time_s / 2)) for time_s in range(60)]
    ever = frozenset().union(*seen)
    assert len(ever) >= 10
    assert all(any(colour not in now for now in seen) for colour in ever)


def test_what_a_scene_says_of_its_boxes_is_what_it_draws() -> None:
    scene = SyntheticScene(seed=1)
    box = scene.boxes(3.0)[-1]
    inside = max(box.left, 0) + 1
    assert tuple(scene.draw(3.0)[box.top + 1, inside]) == box.colour


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("synthetic:?with=3", "width"),
        ("synthetic:?width=wide", "int"),
        ("synthetic:?width=0", "1 to 8192"),
        ("synthetic:?fps=nan", "more than 0"),
        ("rtsp://cam/1", "synthetic:"),
    ],
)
def test_a_wrong_scene_is_refused_with_what_is_known(url: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_scene(url)


GOOD = Probe(
    "rtsp://cam/1", True, "h264", "Main", 1280, 720, "1280x720", 0, False, "1:1", False, 1, "yuv420p", 25.0, False,
    False, 1.0, 25, 2_000_000, "ntp", None, ("cuda",), (),
)  # fmt: skip


def test_a_good_camera_needs_no_advice() -> None:
    assert list(advise(GOOD, "rtsp", 5.0)) == []


@pytest.mark.parametrize(
    ("trait", "words"),
    [
        ({"keyframe_s": 10.0}, "key frames lie 10.0 s apart"),
        ({"keyframe_s": None, "gop_frames": None}, "lie more than 5.0 s apart"),
        ({"b_frames": True}, "B frames"),
        ({"variable_rate": True}, "frame rate varies"),
        ({"codec": "hevc"}, "hevc costs more"),
        ({"width": 3840, "height": 2160}, "sub-stream"),
        ({"clock": "arrival"}, "time of arrival"),
        ({"pixel_format": None}, "no picture"),
        ({"turned_deg": 90}, "turned by 90 degrees"),
        ({"mirrored": True}, "mirrored"),
        ({"pixel_aspect": "128:45"}, "of pixels 128:45 wide"),
        ({"interlaced": True}, "one field is shown"),
        ({"tracks": 2}, "video_track chooses"),
        ({"width": 4020, "height": 20}, "more than 200"),
    ],
)
def test_advice_names_what_is_wrong(trait: dict[str, object], words: str) -> None:
    advice = list(advise(replace(GOOD, **trait), "rtsp", 5.0))  # type: ignore[arg-type]
    assert len(advice) == 1
    assert words in advice[0]

"""What `resadapt probe` prints."""

from dataclasses import asdict, replace

from pipeline.cli.probe import describe
from tests.unit.test_sources import GOOD


def told(**traits: object) -> dict[str, str]:
    return dict(describe(asdict(replace(GOOD, **traits)), 4.0))  # type: ignore[arg-type]


def test_a_stream_is_described_in_words_with_units() -> None:
    assert told() == {
        "kind": "live",
        "codec": "h264 Main yuv420p",
        "size": "1280 x 720 px",
        "rate": "25 frames/s",
        "key frames": "at most 1 s (25 frames) apart",
        "bit rate": "2.0 Mbit/s",
        "time": "the camera's own",
        "hardware": "can be decoded by cuda",
    }


def test_what_is_not_known_is_left_out() -> None:
    found = told(hwaccel=(), bit_rate=None, fps=None, keyframe_s=None, live=False, clock="file", profile=None)
    assert found["kind"] == "a recording"
    assert found["rate"] == "one picture"
    assert found["key frames"] == "fewer than two in 4 s"
    assert not {"hardware", "bit rate"} & set(found)


def test_nothing_is_told_as_code_or_twice() -> None:
    found = told(live=False, duration_s=60.0, variable_rate=True, b_frames=True)
    assert found["kind"] == "a recording of 60 s"
    assert "rtsp://cam/1" not in str(found)
    assert not [words for words in found.values() if set(words) & set("()[]'") - set("()'") or "None" in words]


def test_a_picture_that_is_stored_otherwise_than_shown_is_described_so() -> None:
    found = told(width=360, height=640, stored="640x360", turned_deg=90, mirrored=True, tracks=2)
    assert found["size"] == "360 x 640 px, stored as 640 x 360, turned by 90 degrees, mirrored"
    assert found["videos"].startswith("2, ")
    assert told(stored="640x720", pixel_aspect="2:1")["size"].endswith("stored as 640 x 720, of pixels 2:1")


def test_a_field_without_words_of_its_own_is_told_by_its_name() -> None:
    found = dict(describe(asdict(GOOD) | {"new_field": 90, "no_field": False, "sounds": ("a", "b")}, 4.0))
    assert (found["new field"], found["sounds"]) == ("90", "a, b")
    assert "no field" not in found

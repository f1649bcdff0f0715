"""Pictures that are missing from an H.264 stream show in its numbers, however it is packed."""

from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.h264 import PictureNumbers
from tests import clips

COUNT = 60
LAYOUTS = ["clip.mkv", "clip.mp4", "clip.ts", "clip.h264"]


@pytest.fixture(scope="module", params=LAYOUTS)
def packets(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[bytes]]:
    """The parameter sets of the container, and a stream's pictures; each may be built on the one before."""
    path = clips.write(tmp_path_factory.mktemp("h264") / request.param, clips.steady(COUNT / 25), gop=20)
    with av.open(str(path)) as read:
        sets = read.streams.video[0].codec_context.extradata or b""
        return sets, [bytes(packet) for packet in read.demux(video=0) if packet.size]


def test_nothing_is_missing_from_a_whole_stream(packets: tuple[bytes, list[bytes]]) -> None:
    numbers = PictureNumbers(packets[0])
    assert len(packets[1]) == COUNT
    assert [numbers.missing(packet) for packet in packets[1]] == [False] * COUNT


def test_a_missing_picture_shows_in_the_next_but_for_a_key_frame(packets: tuple[bytes, list[bytes]]) -> None:
    for lost in range(1, COUNT - 1):
        numbers = PictureNumbers(packets[0])
        seen = [number for number, packet in enumerate(packets[1]) if number != lost and numbers.missing(packet)]
        assert seen == ([] if (lost + 1) % 20 == 0 else [lost + 1])


def test_pictures_that_nothing_is_built_on_are_not_missed(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "clip.mkv", clips.steady(2), gop=25, b_frames=2)
    with av.open(str(path)) as read:
        sets = read.streams.video[0].codec_context.extradata
        units = [bytes(packet) for packet in read.demux(video=0) if packet.size]
    disposable = [unit for unit in units if not unit[4] & 0x60]
    assert disposable
    numbers = PictureNumbers(sets)
    assert not any([numbers.missing(unit) for unit in units if unit not in disposable])


@given(st.binary(max_size=400), st.lists(st.binary(max_size=400), max_size=4))
def test_whatever_a_stream_holds_is_no_reason_to_stop(sets: bytes, packets: list[bytes]) -> None:
    numbers = PictureNumbers(sets)
    for packet in packets:
        numbers.missing(packet)
        numbers.missing(b"\x00\x00\x01\x67" + packet + b"\x00\x00\x01\x68" + packet + b"\x00\x00\x01\x41" + packet)

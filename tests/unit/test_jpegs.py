"""JPEG pictures are found by their own structure, whatever a camera wraps them in."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.sources.jpegs import MAX_PICTURE_BYTES, JpegCutter


def jpeg(number: int, *, progressive: bool = False, size: int = 48) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (size, size, 3), np.uint8)
    made = BytesIO()
    Image.fromarray(pixels).save(made, "JPEG", progressive=progressive)
    return made.getvalue()


PICTURES = [jpeg(1), jpeg(2, progressive=True), jpeg(3, size=16)]
WITH_THUMBNAIL = (
    PICTURES[0][:2] + b"\xff\xe1" + (len(PICTURES[2]) + 2).to_bytes(2, "big") + PICTURES[2] + PICTURES[0][2:]
)


def cut(data: bytes, *, piece: int) -> list[bytes]:
    cutter = JpegCutter()
    return [picture for at in range(0, len(data), piece) for picture in cutter.feed(data[at : at + piece])]


def part(picture: bytes, *, boundary: bytes = b"--cam", length: bool = True, line: bytes = b"\r\n") -> bytes:
    size = b"Content-Length: %d" % len(picture) + line if length else b""
    return boundary + line + b"Content-Type: image/jpeg" + line + size + line + picture


WRAPPINGS = {
    "as the standard says": lambda one: part(one) + b"\r\n",
    "no boundary before the first": lambda one: part(one, boundary=b"") + b"\r\n--cam\r\n",
    "the boundary twice": lambda one: b"--cam\r\n" + part(one) + b"\r\n",
    "no length": lambda one: part(one, length=False) + b"\r\n",
    "no line end behind": part,
    "bare line feeds": lambda one: part(one, line=b"\n") + b"\n",
    "nothing at all": lambda one: one,
    "filled up": lambda one: one + bytes(37),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("piece", [1, 7, 1000, 1 << 20])
def test_pictures_come_out_as_they_went_in(wrapping: str, piece: int) -> None:
    pictures = [*PICTURES, WITH_THUMBNAIL]
    data = b"".join(WRAPPINGS[wrapping](picture) for picture in pictures)
    assert cut(data, piece=piece) == pictures


def test_a_picture_is_there_with_its_last_byte() -> None:
    cutter = JpegCutter()
    assert cutter.feed(part(PICTURES[0])) == [PICTURES[0]]


def test_one_that_breaks_off_ends_where_the_next_begins() -> None:
    broken = PICTURES[0][: len(PICTURES[0]) * 2 // 3]
    assert cut(broken + part(PICTURES[2]), piece=100)[-1] == PICTURES[2]
    assert cut(PICTURES[0][:30] + PICTURES[0] + PICTURES[2], piece=100)[-1] == PICTURES[2]


@given(
    st.lists(st.sampled_from([b"\xff", b"\xd8", b"\xd9", b"\xda", b"\x00", b"\xff\xd8\xff", b"--", b"\xe0\x00\x10"]))
)
def test_no_bytes_upset_it_and_a_picture_behind_them_is_found(noise: list[bytes]) -> None:
    cutter = JpegCutter()
    cutter.feed(b"".join(noise))
    found = [picture for _ in range(300) for picture in cutter.feed(PICTURES[2])]
    assert PICTURES[2] in found


def test_what_has_no_end_is_given_up() -> None:
    cutter = JpegCutter()
    cutter.feed(PICTURES[0][:-2])
    for _ in range(MAX_PICTURE_BYTES // (1 << 22) + 1):
        cutter.feed(bytes(1 << 22))
    assert cutter.skipped >= MAX_PICTURE_BYTES
    assert cutter.feed(PICTURES[2]) == [PICTURES[2]]

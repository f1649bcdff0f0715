"""From stored pixels to shown ones: display matrices, pixels that are not square, bounds."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.sources.av_picture import AvPicture
from pipeline.sources.settings import MAX_PIXELS
from pipeline.sources.shape import UPRIGHT, Display, of_matrix

ONE = 1 << 16
QUARTERS = [(ONE, 0, 0, ONE), (0, ONE, -ONE, 0), (-ONE, 0, 0, -ONE), (0, -ONE, ONE, 0)]
shapes = st.builds(Display, st.booleans(), st.booleans(), st.booleans())
sides = st.integers(1, 40)


def matrix(x_right: int, x_down: int, y_right: int, y_down: int) -> bytes:
    """Where a step to the right and one down in the stored picture go on the screen."""
    return struct.pack("=9i", x_right, x_down, 0, y_right, y_down, 0, 0, 0, 1 << 30)


@given(st.sampled_from(QUARTERS), st.booleans(), st.integers(1, 3 << 16), sides, sides)
def test_every_stored_pixel_lands_where_the_matrix_sends_it(
    quarter: tuple[int, int, int, int], mirrored: bool, scale: int, height: int, width: int
) -> None:
    x_right, x_down, y_right, y_down = (value * scale // ONE for value in quarter)
    if mirrored:
        x_right, y_right = -x_right, -y_right
    shape = of_matrix(matrix(x_right, x_down, y_right, y_down))
    stored = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3)
    shown = shape.turn(stored)  # type: ignore[arg-type]
    assert shown.shape[:2] == shape.shown(height, width)
    for row, column in ((0, 0), (height - 1, width - 1), (height // 2, width // 3)):
        right = np.sign(x_right) * column + np.sign(y_right) * row
        down = np.sign(x_down) * column + np.sign(y_down) * row
        # A picture that was turned to the left of the origin, or above it, is moved back.
        right += (shown.shape[1] - 1) * (min(x_right, y_right) < 0)
        down += (shown.shape[0] - 1) * (min(x_down, y_down) < 0)
        assert np.array_equal(shown[down, right], stored[row, column])


@pytest.mark.parametrize(("quarter", "turned"), list(zip(QUARTERS, (0, 90, 180, 270), strict=True)))
def test_a_quarter_turn_is_stated_clockwise(quarter: tuple[int, int, int, int], turned: int) -> None:
    shape = of_matrix(matrix(*quarter))
    assert (shape.turned_deg, shape.mirrored) == (turned, False)


@given(shapes, sides, sides)
def test_turning_and_mirroring_as_stated_is_what_turning_does(shape: Display, height: int, width: int) -> None:
    stored = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3)
    stated = np.rot90(stored, -(shape.turned_deg // 90))
    stated = stated[:, ::-1] if shape.mirrored else stated
    assert np.array_equal(shape.turn(stored), stated)  # type: ignore[arg-type]


@given(st.binary(max_size=48))
def test_whatever_stands_for_a_matrix_is_some_quarter_turn(data: bytes) -> None:
    assert of_matrix(data).shown(2, 3) in ((2, 3), (3, 2))


@given(shapes, st.fractions(Fraction(1, 16), 16), st.integers(1, 1400), st.integers(1, 1400))
def test_pixels_become_square_and_nothing_stored_is_lost(
    shape: Display, aspect: Fraction, height: int, width: int
) -> None:
    shown = shape.with_aspect(aspect).shown(height, width)
    rows, columns = reversed(shown) if shape.swapped else shown
    assert rows >= height and columns >= width  # noqa: PT018 - one thing said of two sides
    assume(min(rows, columns) > 50)
    assert columns / rows == pytest.approx(float(aspect) * width / height, rel=0.02)


@given(st.fractions(Fraction(1, 16), 16), st.integers(1, 20_000))
def test_square_pixels_never_make_a_picture_larger_than_any_may_be(aspect: Fraction, width: int) -> None:
    height = max(MAX_PIXELS // width, 1)
    rows, columns = UPRIGHT.with_aspect(aspect).shown(height, width)
    assert rows * columns <= MAX_PIXELS + max(rows, columns)


@pytest.mark.parametrize("absurd", [None, Fraction(0), Fraction(65535), Fraction(1, 1000)])
def test_an_absurd_pixel_is_square(absurd: Fraction | None) -> None:
    assert UPRIGHT.with_aspect(absurd).shown(90, 160) == (90, 160)


def test_a_picture_is_rendered_at_the_size_it_is_shown_at() -> None:
    rgb = np.zeros((90, 160, 3), np.uint8)
    rgb[:, :80] = (250, 0, 0)
    frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="yuv444p")
    picture = AvPicture(frame, Fraction(2))
    assert (picture.height, picture.width) == (90, 320)
    shown = picture.render(45, 160).astype(int)
    assert np.abs(shown[:, :78] - (250, 0, 0)).max() < 10
    assert shown[:, 82:].max() < 10

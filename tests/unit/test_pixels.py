"""Pictures without OpenCV: the same luma and blur, lossless PNGs, averages of areas."""

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.allocators.motion import blurred, luma
from pipeline.mllm.png import png
from pipeline.sources.synthetic import ArrayPicture, SyntheticScene

SIDES = st.integers(1, 90)


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=60)
@given(st.integers(0, 99), SIDES, SIDES)
def test_luma_and_blur_are_opencvs_to_the_last_digit(seed, height, width):
    rgb = noise(seed, height, width)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    assert (luma(rgb) == grey).all()
    assert (blurred(grey) == cv2.GaussianBlur(grey, (5, 5), 0)).all()


@settings(max_examples=30)
@given(st.integers(0, 99), SIDES, SIDES)
def test_a_png_decodes_to_what_was_encoded(seed, height, width):
    rgb = noise(seed, height, width)
    assert (cv2.imdecode(np.frombuffer(png(rgb), np.uint8), cv2.IMREAD_COLOR_RGB) == rgb).all()


def test_a_png_of_a_view_is_that_of_the_view():
    rgb = noise(0, 40, 60)[::2, 10:40]
    assert (cv2.imdecode(np.frombuffer(png(rgb), np.uint8), cv2.IMREAD_COLOR_RGB) == rgb).all()


@settings(max_examples=30)
@given(st.integers(0, 99), st.integers(20, 200), st.integers(20, 200), st.floats(0.1, 1.0))
def test_a_picture_in_memory_is_averaged_over_areas(seed, height, width, scale):
    rgb = cv2.GaussianBlur(noise(seed, height, width), (9, 9), 0)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    expected = cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(ArrayPicture(rgb).render(*size).astype(int) - expected).max() <= 3


def test_boxes_are_drawn_to_the_last_pixel_and_cut_at_the_sides():
    scene = SyntheticScene(width=160, height=90, seed=3)
    cut = False
    for time_s in np.arange(0, 12, 0.25):
        boxes = scene.boxes(float(time_s))
        picture = scene.draw(float(time_s))
        for box in boxes[-1:]:
            left, right = max(0, box.left), min(160, box.left + box.width)
            cut |= box.left < 0
            assert (picture[box.top : box.top + box.height, left:right] == box.colour).all()
            if right < 160:
                assert (picture[box.top, right] != box.colour).any()
    assert cut

"""Pictures of segments come back pixel by pixel, whatever they show and however small they are."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from pipeline.evidence.bundle import EvidenceDamaged
from pipeline.evidence.pictures import frames_of, segment_png, smaller

SHAPES = st.tuples(st.integers(1, 2), st.integers(1, 40), st.integers(1, 40), st.just(3))


@given(pixels=SHAPES.flatmap(lambda shape: arrays(np.uint8, shape)))
def test_what_the_model_saw_comes_back_as_it_was(pixels):
    data = segment_png(pixels)
    assert np.array_equal(frames_of(data, len(pixels)), pixels)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("PNG", (pixels.shape[2], pixels.shape[0] * pixels.shape[1]))


@given(data=st.binary(max_size=200))
def test_what_is_no_picture_is_named(data):
    with pytest.raises(EvidenceDamaged, match="cannot be read"):
        frames_of(data, 1)
    with pytest.raises(EvidenceDamaged, match="cannot be read"):
        smaller(data, 100, 80)


def test_a_picture_cut_short_or_of_another_height_is_named():
    data = segment_png(np.zeros((1, 9, 9, 3), np.uint8))
    with pytest.raises(EvidenceDamaged):
        frames_of(data[:-20], 1)
    with pytest.raises(EvidenceDamaged, match="9 rows cannot hold 2 frames"):
        frames_of(data, 2)

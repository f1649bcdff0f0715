import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator_engine.encode import (
    HopView,
    batch,
    elapsed_s,
    empty_memory,
    grant_level,
    native_tokens,
    no_queries,
    nothing_read,
    scales,
    thumbnails,
)
from allocator_engine.fit import FitRules, fit
from allocator_engine.grid import GRIDS
from allocator_engine.spec import STREAM
from pipeline.sources.synthetic import ArrayPicture

GRID = GRIDS["qwen3_vl"]


def view(frames: int, queries: int) -> HopView:
    rng = np.random.default_rng(frames)
    return HopView(
        rng.integers(0, 256, (frames, 128, 224, 3)).astype(np.uint8),
        np.ones(frames, np.float32),
        rng.normal(size=(queries, 128)).astype(np.float32),
        -1.5,
        empty_memory(),
        nothing_read(queries),
    )


def test_hops_of_all_lengths_share_a_batch_padded_behind():
    tensors = batch([view(1, 0), view(3, 2)])
    STREAM.check_inputs(tensors)
    assert tensors["present"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert tensors["asked"].tolist() == [[0, 0], [1, 1]]
    assert tensors["grant"].tolist() == [-1.5, -1.5]
    assert not tensors["thumbnails"][0, 1:].any()
    assert (tensors["thumbnails"][1] == view(3, 2).thumbnails).all()


def test_a_single_hop_and_one_without_queries_are_batches_too():
    tensors = batch([view(2, 0)])
    STREAM.check_inputs(tensors)
    assert tensors["queries"].shape == (1, 1, 128)
    assert tensors["asked"].tolist() == [[0]]
    assert no_queries().shape == (0, 128)


def test_wrong_arrays_are_refused_by_name():
    good = view(2, 1)
    with pytest.raises(ValueError, match=r"elapsed_s of a hop is float32\[3\]; expected float32\[2\]"):
        batch([replace(good, elapsed_s=np.zeros(3, np.float32))])
    with pytest.raises(ValueError, match=r"queries of a hop is float64"):
        batch([replace(good, queries=good.queries.astype(np.float64))])
    with pytest.raises(ValueError, match=r"readings of a hop is float32\[2, 64\]; expected float32\[1, 64\]"):
        batch([replace(good, readings=nothing_read(2))])
    with pytest.raises(ValueError, match="at least one"):
        batch([])


def test_pauses_are_counted_from_the_frame_before_and_bounded():
    assert elapsed_s([3.0, 3.5], None).tolist() == [0.0, 0.5]
    assert elapsed_s([3.0, 3.5], 2.5).tolist() == [0.5, 0.5]
    assert elapsed_s([200.0], 2.5).tolist() == [60.0]
    assert elapsed_s([1.0], 2.0).tolist() == [0.0], "a stream that jumped back has not waited"
    assert elapsed_s([], 2.0).shape == (0,)


def test_a_grant_is_told_as_a_power_of_two_of_native():
    assert grant_level(112, 112) == 0.0
    assert grant_level(14, 112) == -3.0
    assert grant_level(0, 112) == grant_level(5, 0) == -8.0
    assert grant_level(10**9, 112) == 2.0


@given(st.integers(1, 5), st.sampled_from([1, 2]))
def test_native_tokens_are_what_fit_spends_with_an_endless_grant(frames, per_segment):
    rules = FitRules(GRID, per_segment)
    sizes = [(256, 448)] * frames
    assert native_tokens(sizes, rules) == math.ceil(frames / per_segment) * 112
    assert fit(sizes, [1.0] * frames, native_tokens(sizes, rules), rules).tokens == native_tokens(sizes, rules)


def test_thumbnails_are_rendered_at_one_size_whatever_the_aspect():
    pictures = [ArrayPicture(np.full((720, 1280, 3), 7, np.uint8)), ArrayPicture(np.full((90, 30, 3), 9, np.uint8))]
    found = thumbnails(pictures)
    assert found.shape == (2, 128, 224, 3)
    assert set(found[0].ravel()) == {7}
    assert thumbnails([]).shape == (0, 128, 224, 3)


def test_means_are_scales_and_nan_stays_nan():
    found = scales(np.array([0.0, 0.25, 1.0, np.nan], np.float32))
    assert found[:3].tolist() == [0.0, 0.25, 1.0]
    assert math.isnan(found[3])

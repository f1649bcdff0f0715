"""Pixels packed without loss."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.context import Context, ContextRules
from pipeline.mllm.packing import pack, packed
from pipeline.types import Segment, segment_of

SIDES = st.integers(1, 60).map(lambda side: 4 * side)


def plain(height: int, width: int) -> np.ndarray:
    return np.full((2, height, width, 3), 90, np.uint8)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 99), st.integers(1, 3), SIDES, SIDES)
def test_what_is_unpacked_is_what_was_packed(seed, frames, height, width):
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    held = pack(pixels)
    assert held.shape == pixels.shape
    for unpacked in (held.unpack(), held.unpack()):
        assert unpacked.dtype == np.uint8
        assert (unpacked == pixels).all()


def test_what_would_not_come_back_is_refused():
    with pytest.raises(ValueError, match="5x3 cannot be packed"):
        pack(plain(5, 3))


def segments() -> tuple[Segment, Segment]:
    noise = np.random.default_rng(1).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    return segment_of("gate", (0.0, 0.5), plain(64, 96), 6), segment_of("gate", (1.0, 1.5), noise, 6)


def held_bytes(segment: Segment) -> int:
    return sum(map(len, (*segment.held.packets, segment.held.codec_data)))


def test_a_packed_context_is_the_same_context_in_less_memory():
    calm, noise = segments()
    context = Context.empty("gate", ContextRules()).append((calm, noise))
    once = packed(context)
    assert once == context
    assert [one.size for one in once.segments] == [(64, 96), (64, 96)]
    assert all((one.pixels == was.pixels).all() for one, was in zip(once.segments, context.segments, strict=True))
    assert held_bytes(once.segments[0]) < calm.held.nbytes / 5
    assert held_bytes(once.segments[1]) < 1.1 * noise.held.nbytes
    assert packed(once) is once


def test_only_what_came_since_is_packed():
    calm, _ = segments()
    context = packed(Context.empty("gate", ContextRules()).append((calm,)))
    grown = packed(context.append((replace(calm, pts_s=(2.0, 2.5), held=plain(64, 96)),)))
    assert grown.segments[0].held is context.segments[0].held
    assert (grown.segments[1].pixels == 90).all()

"""Caches that share memory hold what caches that share nothing would."""

import copy
import gc

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicLayer

from pipeline.mllm.transformers.cache import SPARE_TOKENS, SharingLayer

ROWS, HEADS, WIDTH = 1, 2, 3

WHICH = st.integers(0, 20)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), WHICH, st.integers(1, 2 * SPARE_TOKENS)),
        st.tuples(st.just("branch"), WHICH, st.just(0)),
        st.tuples(st.just("drop"), WHICH, st.just(0)),
        st.tuples(st.just("rows"), WHICH, st.integers(1, 3)),
        st.tuples(st.just("crop"), WHICH, st.integers(1, 5)),
    ),
    max_size=40,
)


def states(rows, tokens, first):
    values = torch.arange(first, first + rows * HEADS * tokens * WIDTH, dtype=torch.float32)
    return values.reshape(rows, HEADS, tokens, WIDTH), -values.reshape(rows, HEADS, tokens, WIDTH)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_whatever_is_read_branched_and_dropped_each_holds_what_it_read(steps):
    pairs = [(SharingLayer(), DynamicLayer())]
    first = 0
    for step, which, amount in steps:
        shared, plain = pairs[which % len(pairs)]
        if step == "read":
            rows = plain.keys.shape[0] if plain.is_initialized else ROWS
            more = states(rows, amount, first)
            first += 10_000
            for got, wanted in zip(shared.update(*more), plain.update(*more), strict=True):
                assert torch.equal(got, wanted)
        elif step == "branch":
            pairs.append((copy.deepcopy(shared), copy.deepcopy(plain)))
        elif step == "drop" and len(pairs) > 1:
            pairs.pop(which % len(pairs))
            del shared, plain
        elif step == "rows" and plain.is_initialized:
            for layer in (shared, plain):
                layer.batch_repeat_interleave(amount)
        elif step == "crop" and plain.is_initialized and plain.get_seq_length() > amount:
            for layer in (shared, plain):
                layer.crop(-amount)
        for one, other in pairs:
            assert one.get_seq_length() == other.get_seq_length()
            assert not other.is_initialized or torch.equal(one.keys, other.keys)
            assert not other.is_initialized or torch.equal(one.values, other.values)


def test_reading_on_copies_nothing_while_there_is_room_and_a_branch_gives_its_room_back():
    layer = SharingLayer()
    layer.update(*states(ROWS, 10, 0))
    place = layer.keys.data_ptr()
    for first in range(1000, 9000, 1000):
        branch = copy.deepcopy(layer)
        assert branch.update(*states(ROWS, 5, first))[0].data_ptr() == place
        del branch
        gc.collect()
        layer.update(*states(ROWS, 2, first))
        assert layer.keys.data_ptr() == place
    kept = copy.deepcopy(layer)
    kept.update(*states(ROWS, 5, 0))
    layer.update(*states(ROWS, 5, 500))
    assert layer.keys.data_ptr() != place

"""The paper's allocator on whole clips, with a random head on a tiny random SmolVLM."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from allocator_engine.errors import EngineMismatch
from allocator_engine.evaluate.baselines import native
from allocator_engine.evaluate.whole_clip import PaperAllocator, share_out
from allocator_engine.fit import FitRules
from allocator_engine.grid import GRIDS
from allocator_engine.model.paper import PaperHead, PaperShape, save
from allocator_engine.model.paper_features import SmolFeatures
from pipeline.sources.synthetic import ArrayPicture
from tests.pretrained import tiny_smol

RULES = FitRules(GRIDS["qwen3_vl"], 2)
SIZE = (256, 448)
NATIVE = native([SIZE, SIZE], RULES).tokens


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A head whose decisions hang on what it sees, hears and is granted."""
    folder = tmp_path_factory.mktemp("paper")
    features = SmolFeatures(str(tiny_smol(folder / "smol")))
    torch.manual_seed(1)
    head = PaperHead(PaperShape(inputs=32, width=64, heads=4, depth=1))
    with torch.no_grad():
        for weight in (head.skip.weight, head.grant.weight):
            weight.normal_()
    save(head, {"features": features.name, "weights": features.weights}, folder / "allocator.safetensors")
    return folder / "allocator.safetensors"


def clip(*seeds: int) -> list[list[ArrayPicture]]:
    """A hop of two frames for each seed."""
    return [
        [ArrayPicture(np.random.default_rng((seed, n)).integers(0, 256, (*SIZE, 3), dtype=np.uint8)) for n in range(2)]
        for seed in seeds
    ]


scales = st.lists(st.tuples(st.floats(0, 1.5), st.floats(0, 1.5)), min_size=1, max_size=6)


@given(scales, st.integers(0, 6 * NATIVE))
def test_a_clip_never_costs_more_than_it_may_and_is_as_proposed_where_that_is_paid_for(proposed, tokens):
    hops = [([SIZE, SIZE], pair) for pair in proposed]
    shared = share_out(hops, tokens, RULES)
    assert len(shared) == len(hops)
    spent = sum(allocation.tokens for allocation in shared)
    assert spent <= tokens
    assert spent <= sum(allocation.tokens for allocation in share_out(hops, tokens + NATIVE, RULES))
    whole = share_out(hops, 6 * NATIVE, RULES)
    if sum(allocation.tokens for allocation in whole) <= tokens:
        assert shared == whole


def test_one_hop_may_have_what_another_leaves(checkpoint):
    shared = share_out([([SIZE, SIZE], [0.0, 0.0]), ([SIZE, SIZE], [1.0, 1.0])], NATIVE, RULES)
    assert [allocation.tokens for allocation in shared] == [0, NATIVE]


def test_what_comes_later_and_what_is_asked_change_how_a_clip_begins(checkpoint):
    allocator, tokens = PaperAllocator(checkpoint, RULES), round(1.5 * NATIVE)
    first, seconds = allocator.allocate("a", clip(1, 2, 3), ["is the gate open"], tokens, 3 * NATIVE)
    again, _ = allocator.allocate("a", clip(1, 2, 3), ["is the gate open"], tokens, 3 * NATIVE)
    assert first == again
    assert 0 < sum(allocation.tokens for allocation in first) <= tokens
    assert seconds > 0
    later, _ = allocator.allocate("b", clip(1, 2, 9), ["is the gate open"], tokens, 3 * NATIVE)
    other, _ = allocator.allocate("a", clip(1, 2, 3), ["is a dog"], tokens, 3 * NATIVE)
    assert first[0] != later[0] or first[1] != later[1]
    assert first != other


def test_another_smolvlm_than_it_was_trained_on_is_refused(checkpoint, tmp_path):
    from allocator_engine.model.paper import load

    head, notes = load(checkpoint)
    save(head, {**notes, "weights": "0" * 12}, tmp_path / "allocator.safetensors")
    with pytest.raises(EngineMismatch, match=r"has the weights \w+; expected 000000000000"):
        PaperAllocator(tmp_path / "allocator.safetensors", RULES)

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.mllm.transformers.positions import Run, positions
from tests.checkpoints import FAMILIES, tiny

runs = st.lists(st.integers(1, 9) | st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=8)


def test_text_counts_on_and_a_picture_takes_its_longer_side() -> None:
    where, then = positions([2, (2, 3), 1], start=10)
    assert where.tolist() == [
        [10, 11, 12, 12, 12, 12, 12, 12, 15],
        [10, 11, 12, 12, 12, 13, 13, 13, 15],
        [10, 11, 12, 13, 14, 12, 13, 14, 15],
    ]
    assert then == 16


@given(runs, runs)
def test_a_prompt_can_be_appended_to(first: list[Run], second: list[Run]) -> None:
    whole, end = positions([*first, *second])
    head, middle = positions(first)
    tail, then = positions(second, middle)
    assert np.array_equal(whole, np.concatenate([head, tail], axis=1))
    assert then == end


def test_nothing_has_no_positions() -> None:
    where, then = positions([], start=7)
    assert where.shape == (3, 0)
    assert then == 7


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_equal_the_models_own_on_whole_prompts(family: str) -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(tiny(family))
    rng = np.random.default_rng(0)
    for _ in range(12):
        # Text stands between any two pictures, as it does in every prompt.
        layout: list[Run] = [int(rng.integers(1, 9))]
        kinds: list[int] = []
        for kind in rng.integers(1, 3, size=rng.integers(1, 7)):
            layout += [(int(rng.integers(1, 8)), int(rng.integers(1, 8))), int(rng.integers(1, 9))]
            kinds.append(int(kind))
        pictures = [run for run in layout if not isinstance(run, int)]
        lengths = [run if isinstance(run, int) else run[0] * run[1] for run in layout]
        types = [0, *itertools.chain.from_iterable((kind, 0) for kind in kinds)]
        grids = {
            kind: torch.tensor([(1, 2 * h, 2 * w) for (h, w), k in zip(pictures, kinds, strict=True) if k == kind])
            for kind in set(kinds)
        }
        tokens = torch.tensor([[t for t, n in zip(types, lengths, strict=True) for _ in range(n)]])
        theirs, deltas = model.model.get_rope_index(
            torch.ones_like(tokens),
            mm_token_type_ids=tokens.int(),
            image_grid_thw=grids.get(1),
            video_grid_thw=grids.get(2),
        )
        ours, then = positions(layout)
        assert np.array_equal(ours, theirs[:, 0].numpy())
        assert then == tokens.shape[1] + int(deltas[0])

"""What stands in place of pixels is an output of transformers' own kind."""

import numpy as np
import torch

from pipeline.mllm.transformers.vision import Encoded, encoder_outputs
from pipeline.types import Segment


def segment(pts_s: tuple[float, ...]) -> Segment:
    return Segment(pts_s, np.zeros((len(pts_s), 32, 64, 3), np.uint8), 2, str(pts_s))


def seen(value: float) -> Encoded:
    return Encoded(torch.full((2, 4), value), (torch.full((2, 4), 10 * value),))


def test_pictures_and_films_are_handed_in_apart_and_in_their_order():
    given = [segment((0.0,)), segment((1.0, 1.5)), segment((2.0,))]
    outputs = encoder_outputs(given, [seen(1.0), seen(2.0), seen(3.0)])
    assert outputs is not None
    assert [float(tokens[0, 0]) for tokens in outputs["image"].pooler_output] == [1.0, 3.0]
    assert [float(tokens[0, 0]) for tokens in outputs["video"].deepstack_features[0]] == [20.0]
    assert encoder_outputs([], []) is None


def test_they_can_be_taken_apart_as_newer_versions_do_with_what_they_were_given():
    outputs = encoder_outputs([segment((0.0,))], [seen(1.0)])
    assert outputs is not None
    tokens, levels = outputs["image"].to_tuple()
    assert torch.equal(tokens[0], seen(1.0).tokens)
    assert torch.equal(levels[0][0], seen(1.0).levels[0])

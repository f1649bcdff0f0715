import numpy as np
import pytest

from allocator_engine.spec import EngineSpec, TensorSpec

FRAMES = TensorSpec("frames", "uint8", (None, 64, 112, 3))
SCALES = TensorSpec("scales", "float32", (None,))
SPEC = EngineSpec((64, 112), (FRAMES,), (SCALES,), (0.0, 1.0))


def test_tensors_of_any_allowed_size_pass():
    SPEC.check_inputs({"frames": np.zeros((3, 64, 112, 3), np.uint8)})
    SPEC.check_outputs({"scales": np.zeros(9, np.float32)})


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 64, 112, 3), np.float32),
        np.zeros((3, 64, 111, 3), np.uint8),
        np.zeros((64, 112, 3), np.uint8),
    ],
)
def test_a_tensor_that_does_not_fit_is_named_with_what_was_expected(array):
    with pytest.raises(ValueError, match=r"'frames' is .* expected uint8\[None, 64, 112, 3\]"):
        SPEC.check_inputs({"frames": array})


def test_a_missing_tensor_is_named():
    with pytest.raises(ValueError, match=r"expected \['frames'\]"):
        SPEC.check_inputs({})


@pytest.mark.parametrize("scale_range", [(1.0, 0.5), (-0.1, 1.0), (float("nan"), 1.0)])
def test_an_impossible_scale_range_is_refused(scale_range):
    with pytest.raises(ValueError, match="scale_range"):
        EngineSpec((64, 112), (FRAMES,), (SCALES,), scale_range)


def test_tensor_names_are_unique():
    with pytest.raises(ValueError, match="names repeat"):
        EngineSpec((64, 112), (FRAMES,), (FRAMES,), (0.0, 1.0))

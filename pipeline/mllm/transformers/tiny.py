"""Small random checkpoints that load like any Qwen, for tests and first tries. Their answers mean nothing.

A tiny checkpoint is confident but arbitrary: the output rows of "yes" and "no" are a random direction and its
opposite, so that which of them wins is some function of the pixels and the question. Its config.json says
`"resadapt_meaningless": true`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from allocator_engine.grid import GRIDS, Grid
from pipeline.errors import ConfigError
from pipeline.mllm.card import read_card
from pipeline.mllm.prompt import INSTRUCTION, NO, YES, looks, opening, suffix
from pipeline.mllm.transformers.files import SPECIAL, make_tokenizer, write_processors
from pipeline.types import Segment

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_VOCABULARY = 512
_HIDDEN = 128
_HEAD = 64
_SPREAD = 0.2  # standard deviation of the weights
_SHARPNESS = 8.0  # length of the attention's normalised queries, 1 as made
_FORGETTING = -6.0  # logarithm of the decay rate of linear attention
_STEADY = 0  # the hidden channel that no text layer changes
_SILENCE = 20.0  # how far below zero the logits of all other tokens lie, at least
_CONFIDENCE = 6.0  # logit of "yes" one standard deviation away from undecided
_PROBES = ("Is anybody there?", "Is the gate open?", "Has a red car parked on the left?", "Is it raining?")


def make_tiny(folder: Path, family: str = "qwen3_vl", seed: int = 0) -> Path:
    """Write a random checkpoint of `family` (about a million parameters, float32) to `folder` and return it.

    The same seed gives the same weights. Raises ConfigError for an unknown family.
    """
    if family not in GRIDS:
        raise ConfigError(f"there is no tiny checkpoint of the family {family!r}; expected one of {', '.join(GRIDS)}")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(family)
    tokenizer.save_pretrained(folder)
    write_processors(folder, GRIDS[family])
    config = _config(family, tokenizer)
    config.save_pretrained(folder)
    _model(config, tokenizer, folder, seed).save_pretrained(folder)
    return folder


def _tokenizer(family: str) -> "PreTrainedTokenizerBase":
    """One in which each spelling of yes and no is one token."""
    return make_tokenizer(
        [*YES, *NO, " seconds", " is", " the", " there", *(f" {w}" for w in INSTRUCTION.split())], family
    )


def _config(family: str, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedConfig":
    from transformers import AutoConfig

    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    return AutoConfig.for_model(
        family,
        text_config=_text_fields(family)
        | {"bos_token_id": None, "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]},
        vision_config=_vision_fields(family),
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
        dtype="float32",
        resadapt_meaningless=True,
    )


def _model(
    config: "PreTrainedConfig", tokenizer: "PreTrainedTokenizerBase", folder: Path, seed: int
) -> "PreTrainedModel":
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForImageTextToText.from_config(config)  # type: ignore[no-untyped-call]
        torch.nn.Module.eval(model)
        _sharpen(model)
        _make_confident(model, tokenizer, folder)
    return model


def _sharpen(model: "PreTrainedModel") -> None:
    """Let the text layers attend to few tokens rather than to the average of all, and forget slowly, so that a new
    picture can change the answer of a long context. Keep one channel of text the same in all layers."""
    for name, weight in model.named_parameters():
        if name.endswith("embed_tokens.weight"):
            weight[:, _STEADY] = 1.0
        if "language_model" in name and name.endswith(("o_proj.weight", "out_proj.weight", "down_proj.weight")):
            weight[_STEADY] = 0.0
        if name.endswith("q_norm.weight"):  # Qwen2.5-VL has none: its random queries are large enough as they are.
            weight.add_(_SHARPNESS - 1)  # stored from 1 or from 0, by family
        elif name.endswith("A_log"):
            weight.fill_(_FORGETTING)


def _make_confident(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    """Set the output rows so that "yes" or "no" takes nearly all probability, each about as often.

    The direction is random among those in which the last hidden state differs from one picture to the next, and at
    right angles to its mean for each question; the rest of the vocabulary points against the steady channel.
    """
    import torch

    states = _probe(model, tokenizer, folder)
    steady = states[..., _STEADY].min()
    states[..., _STEADY] = 0.0
    differences = (states[1:] - states[:-1]).flatten(0, 1)
    means, _ = torch.linalg.qr(states.mean(dim=0).T)
    direction = differences.T @ torch.randn(len(differences))
    direction -= means @ (means.T @ direction)
    direction /= (differences @ direction).std()
    rows = model.get_parameter("lm_head.weight")
    rows[:, _STEADY] = -_SILENCE / steady
    rows[tokenizer.convert_tokens_to_ids("yes")] = _CONFIDENCE * direction
    rows[tokenizer.convert_tokens_to_ids("no")] = -_CONFIDENCE * direction


def _probe(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: Path) -> "torch.Tensor":
    """Last hidden states `[pictures, questions, hidden]` of questions after each picture of some growing prompts."""
    import torch

    from pipeline.mllm.transformers.reader import PromptReader

    states: list[torch.Tensor] = []
    probes: list[torch.Tensor] = []
    hook = model.get_submodule("lm_head").register_forward_pre_hook(lambda _, inputs: states.append(inputs[0][0, -1]))
    card = read_card(str(folder))
    reader = PromptReader(card, model, tokenizer)
    rng = np.random.default_rng(0)
    questions = [reader.tokens(suffix(text, card.family).text) for text in _PROBES]
    for _ in range(4):
        prefix = reader.empty()
        reader.extend(prefix, [opening(card.family)])
        background, square = rng.integers(0, 256, (2, 3))
        for second in range(6):
            reader.extend(prefix, looks([_picture(card.grid, second, background, square)], 0.0))
            states.clear()
            for question in questions:
                reader.answer(prefix, [question])
            probes.append(torch.stack(states))
    hook.remove()
    return torch.stack(probes)


def _picture(grid: Grid, second: int, background: NDArray[np.int64], square: NDArray[np.int64]) -> Segment:
    """A square of one colour that moves by a cell a second before another, in 3 x 4 cells."""
    cell = grid.cell_px
    pixels = np.empty((1, 3 * cell, 4 * cell, 3), np.uint8)
    pixels[:] = background
    left = second % 4 * cell
    pixels[0, cell : 2 * cell, left : left + cell] = square
    return Segment((float(second),), pixels, tokens=12, content_id=f"{second}")


def _text_fields(family: str) -> dict[str, object]:
    fields: dict[str, object] = {
        "vocab_size": _VOCABULARY,
        "hidden_size": _HIDDEN,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 32768,
        "initializer_range": _SPREAD,
        "tie_word_embeddings": False,
    }
    if family == "qwen2_5_vl":  # has no head_dim: hidden size over heads
        rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
        return fields | {"num_attention_heads": _HIDDEN // _HEAD, "rope_parameters": rope}
    fields |= {"head_dim": _HEAD, "num_attention_heads": 3}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_interleaved": True}
    if family == "qwen3_vl":
        return fields | {"rope_parameters": rope | {"mrope_section": [12, 10, 10]}}
    linear: dict[str, object] = {"linear_key_head_dim": 64, "linear_value_head_dim": 64, "linear_num_key_heads": 1}
    rope |= {"mrope_section": [3, 3, 2], "partial_rotary_factor": 0.25}
    layers = ["linear_attention", "linear_attention", "linear_attention", "full_attention"]
    linear |= {"linear_num_value_heads": 2, "num_hidden_layers": len(layers), "layer_types": layers}
    return fields | linear | {"rope_parameters": rope}


def _vision_fields(family: str) -> dict[str, object]:
    grid = GRIDS[family]
    fields: dict[str, object] = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "out_hidden_size": _HIDDEN,
        "patch_size": grid.patch_px,
        "spatial_merge_size": grid.merge,
        "temporal_patch_size": grid.temporal_patch,
        "initializer_range": _SPREAD,
    }
    if family == "qwen2_5_vl":
        return fields | {"window_size": 112, "fullatt_block_indexes": [1]}
    return fields | ({"deepstack_visual_indexes": [0]} if family == "qwen3_vl" else {})

"""The yard's MLLM as a checkpoint: configuration, tokenizer and weights in one folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError
from pipeline.mllm.prompt import INSTRUCTION, NO, YES
from pipeline.mllm.transformers.files import SPECIAL, make_tokenizer, write_processors
from samples.yard.questions.grammar import answers, sayings
from samples.yard.shape import FAMILY, HIDDEN, grid, vision_fields

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase, Qwen3VLConfig, Qwen3VLForConditionalGeneration

TIMES = tuple(f"{tenths / 10:.1f}" for tenths in range(640))
"""Seconds as contexts and answers write them. Each is one token: digit by digit they would have to be put together
before any could be found or told apart."""

_MAX_POSITIONS = 32768


def tokenizer() -> "PreTrainedTokenizerBase":
    """One in which every word of the grammar, and every time, is one token; other words fall apart into bytes."""
    asked = {word for text in (*sayings(), INSTRUCTION, " seconds") for word in _words(text)}
    answered = {word for text in answers() for word in (*_words(text), text) if word.strip().isalpha()}
    roles = ("Question", "system", "user", "assistant")
    return make_tokenizer([*YES, *NO, *roles, *asked, *answered], FAMILY, TIMES)


def _words(text: str) -> list[str]:
    """The words of a text as they stand behind a space."""
    bare = "".join(character if character.isalpha() else " " for character in text).split()
    return [f" {word}" for word in bare]


def config(words: "PreTrainedTokenizerBase") -> "Qwen3VLConfig":
    """The configuration of the whole model, for the tokenizer `words`."""
    from transformers import Qwen3VLConfig

    ids = {token: words.encode(token, add_special_tokens=False)[0] for token in SPECIAL}
    text = {
        "vocab_size": -(-len(words) // 64) * 64,
        "hidden_size": HIDDEN,
        "intermediate_size": 3 * HIDDEN,
        "num_hidden_layers": 5,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "max_position_embeddings": _MAX_POSITIONS,
        "initializer_range": 0.02,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": [12, 10, 10],
            "mrope_interleaved": True,
        },
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "tie_word_embeddings": True,
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision_fields(),
        resadapt_plain_questions=True,  # type: ignore[call-arg]
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
        dtype="float32",
    )


def untrained(words: "PreTrainedTokenizerBase", seed: int) -> "Qwen3VLForConditionalGeneration":
    """The model with random weights: the same seed, the same weights."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3VLForConditionalGeneration(config(words))


def save(model: "Qwen3VLForConditionalGeneration", words: "PreTrainedTokenizerBase", folder: Path) -> None:
    """Write a checkpoint that transformers and vLLM load like any Qwen3-VL."""
    folder.mkdir(parents=True, exist_ok=True)
    words.save_pretrained(folder)
    write_processors(folder, grid())
    model.save_pretrained(folder)


def vision_weights(folder: Path) -> dict[str, "Tensor"]:
    """The weights of a checkpoint's vision part, by their names inside it. Raises ConfigError where there are none
    that can be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file, part = folder / "model.safetensors", "model.visual."
    if not file.exists():
        raise ConfigError(f"{folder} holds no model.safetensors; expected the folder of a trained checkpoint")
    try:
        held = load_file(file)
    except SafetensorError as error:
        raise ConfigError(f"{file} is damaged ({error}); expected the weights of a trained checkpoint") from error
    found = {name.removeprefix(part): weight for name, weight in held.items() if name.startswith(part)}
    if not found:
        raise ConfigError(f"{file} holds no {part}*; expected the weights of a yard's MLLM")
    return found

"""Tiny random models of others, in folders as they are published."""

from pathlib import Path

import torch
from transformers import BertConfig, BertModel, SmolVLMConfig, SmolVLMModel

from pipeline.mllm.transformers.files import make_tokenizer

_WORDS = ("is", " is", " the", " a", " gate", " open", " dog")


def tiny_bert(folder: Path, hidden: int = 144) -> Path:
    """A BERT that loads like a sentence encoder."""
    words = make_tokenizer(_WORDS, "qwen3_vl")
    words.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=hidden, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=160,
    )  # fmt: skip
    return _saved(BertModel, config, folder)


def tiny_smol(folder: Path) -> Path:
    """A SmolVLM whose frames are 4 tokens of 32 features."""
    words = make_tokenizer(_WORDS, "qwen3_vl")
    words.save_pretrained(folder)
    few = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = SmolVLMConfig(
        vision_config={**few, "image_size": 64, "patch_size": 16},
        text_config={**few, "model_type": "llama", "num_key_value_heads": 2, "vocab_size": len(words)},
        scale_factor=2,
        pad_token_id=0,
        image_token_id=1,
    )
    return _saved(SmolVLMModel, config, folder)


def _saved(kind: type, config: object, folder: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kind(config).save_pretrained(folder)
    return folder

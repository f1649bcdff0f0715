"""The files of a small checkpoint beside its weights, made from nothing: tokenizer, chat template, processors."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from allocator_engine.grid import Grid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<think>",
    "</think>",
)
"""The special tokens of the Qwen families that a checkpoint here knows."""

_CHAT_TEMPLATE = """{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content -%}
{% if part.type in ('image', 'image_url') %}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type in ('video', 'video_url') %}<|vision_start|><|video_pad|><|vision_end|>
{%- else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
ASSISTANT{% endif %}"""
_CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def make_tokenizer(words: Iterable[str], family: str, numbers: Iterable[str] = ()) -> "PreTrainedTokenizerBase":
    """A byte-level BPE of the Qwen families' own class, in which each of `words` is one token.

    A word may begin with a space, as inside a sentence, or not, as an answer. Each of `numbers` is one as well, where
    the families otherwise go digit by digit. Any other text falls apart into known beginnings and bytes.
    """
    from tokenizers import AddedToken, pre_tokenizers
    from transformers import Qwen2Tokenizer

    vocabulary = dict.fromkeys(sorted(pre_tokenizers.ByteLevel.alphabet()))
    merges: dict[tuple[str, str], None] = {}
    for word in sorted(set(words), key=_merged_first):
        symbols = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(word)[0][0]
        for end in range(2, len(symbols) + 1):
            merges.setdefault((symbols[: end - 1], symbols[end - 1]))
            vocabulary.setdefault(symbols[:end])
    tokenizer = Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate(vocabulary)},
        merges=list(merges),  # type: ignore[arg-type]
        eos_token="<|im_end|>",
        extra_special_tokens=list(SPECIAL),
    )
    tokenizer.add_tokens([AddedToken(number, single_word=True, normalized=False) for number in numbers])
    thought = "<think>\n\n</think>\n\n" if family == "qwen3_5" else ""
    tokenizer.chat_template = _CHAT_TEMPLATE.replace("ASSISTANT", thought)
    return tokenizer


def _merged_first(word: str) -> tuple[bool, int, str]:
    """Words grow from their first letter. Those behind a space come first, then the long ones, so that no short word
    takes its letters out of the middle of another."""
    return not word.startswith(" "), -len(word), word


def write_processors(folder: Path, grid: Grid) -> None:
    """The two processor files in the layout of the published checkpoints, with one cell as the least size."""
    common = {
        "patch_size": grid.patch_px,
        "temporal_patch_size": grid.temporal_patch,
        "merge_size": grid.merge,
        "size": {"shortest_edge": grid.min_pixels, "longest_edge": grid.max_pixels},
        **(_CLIP if grid.family == "qwen2_5_vl" else _HALF),
    }
    name = "Qwen2_5_VLProcessor" if grid.family == "qwen2_5_vl" else "Qwen3VLProcessor"
    video = "Qwen2VLVideoProcessor" if grid.family == "qwen2_5_vl" else "Qwen3VLVideoProcessor"
    files = {
        "preprocessor_config.json": {"image_processor_type": "Qwen2VLImageProcessor"},
        "video_preprocessor_config.json": {"video_processor_type": video},
    }
    for file, fields in files.items():
        text = json.dumps({"processor_class": name, **fields, **common}, indent=2)
        (folder / file).write_text(text, encoding="utf-8")

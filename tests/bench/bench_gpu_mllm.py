"""Time of a hop on one GPU: a model in the shape of Qwen3-VL-8B with random weights, made on the card, in bfloat16.

python -m tests.bench.bench_gpu_mllm [--shape 8b|tiny] [--device cuda] [--side 28] [--hops 8]

Speed does not depend on the values of weights. A second of stream is one two-frame segment of `side` x `side` cells at
native size (28: 784 tokens), less at 25 and 10 % retention. Measured for 1 and 16 watches, 22 seconds of context:

    hop        what is new is encoded, read into the kept prefix, and the questions branch from it
    restart    the last 15 seconds are encoded and read anew, as after a re-anchor, then the same
    peers      a fixed chunk of ten seconds at native size is encoded and read for each rule (told per second)

`streams` is how many streams at one hop per second the time allows, a restart every 15 hops included; `fit` how many
contexts the memory beside the weights holds. Last line: JSON. What a trained model would answer is not shown by this.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from allocator_engine.grid import GRIDS
from pipeline.mllm.card import Card
from pipeline.mllm.patches import Normalisation
from pipeline.mllm.prompt import NO, YES, looks, opening, suffix
from pipeline.mllm.transformers.backend import MAX_PREFILL_TOKENS
from pipeline.mllm.transformers.cache import Prefix
from pipeline.mllm.transformers.files import SPECIAL, make_tokenizer
from pipeline.mllm.transformers.reader import PromptReader
from pipeline.mllm.transformers.vision import Encoded
from pipeline.types import Segment
from tests.bench.report import median, tell

FAMILY = "qwen3_vl"
RETENTIONS = (1.0, 0.25, 0.1)
WATCHES = (1, 16)
FULL_S, KEPT_S, CHUNK_S = 22, 15, 10
WORDS = (" seconds", "Question", " Is", " there", " a", " person", " at", " place", "assistant")
"""One token each, so that a question is about as long as a real tokenizer makes it."""

TEXT = {
    "8b": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
           "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936, "mrope_section": [24, 20, 20]},
    "tiny": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 3,
             "num_key_value_heads": 1, "head_dim": 64, "vocab_size": 512, "mrope_section": [12, 10, 10]},
}  # fmt: skip
VISION = {
    "8b": {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16,
           "deepstack_visual_indexes": [8, 16, 24]},
    "tiny": {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "deepstack_visual_indexes": [0]},
}  # fmt: skip
"""By shape: the fields of the published configuration of Qwen3-VL-8B that decide its speed, and of a toy."""


@dataclass(frozen=True)
class Row:
    """Milliseconds per hop of one stream, at a share of the native tokens."""

    way: str
    retention: float
    watches: int
    tokens: int
    encode_ms: float
    prefill_ms: float
    questions_ms: float
    restart_ms: float
    streams: float
    fit: float


class OnDevice:
    """The model on its device, and how to time it."""

    def __init__(self, shape: str, device: str, dtype: torch.dtype) -> None:
        self.device = torch.device(device)
        tokenizer = make_tokenizer([*YES, *NO, *WORDS], FAMILY)
        ids = {token: int(tokenizer.convert_tokens_to_ids(token)) for token in SPECIAL}
        grid = GRIDS[FAMILY]
        card = Card(Path("random"), FAMILY, grid, Normalisation((0.5,) * 3, (0.5,) * 3), False, 262_144)
        self.model = make_model(shape, ids, self.device, dtype)
        self.reader = PromptReader(card, self.model, tokenizer)
        self.cell_px = grid.cell_px

    def timed(self, work: Callable[[], object]) -> float:
        """Milliseconds, all kernels included."""
        self._wait()
        began = time.perf_counter()
        work()
        self._wait()
        return 1000 * (time.perf_counter() - began)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def segment(self, second: int, side: int) -> Segment:
        pixels = np.random.default_rng(second).integers(
            0, 256, (2, side * self.cell_px, side * self.cell_px, 3), np.uint8
        )
        return Segment((float(second), second + 0.5), pixels, side * side, f"{second}:{side}")

    def read(self, prefix: Prefix, segments: Sequence[Segment]) -> tuple[float, float]:
        """Milliseconds of encoding and of reading segments into a prefix, in passes as the backend takes them."""
        at_once = max(1, MAX_PREFILL_TOKENS // segments[0].tokens)
        passes = [segments[first : first + at_once] for first in range(0, len(segments), at_once)]
        encode, prefill = zip(*(self._pass(prefix, group) for group in passes), strict=True)
        return sum(encode), sum(prefill)

    def _pass(self, prefix: Prefix, segments: Sequence[Segment]) -> tuple[float, float]:
        found: list[Encoded] = []
        encode = self.timed(lambda: found.extend(self.reader.encode(segments)))
        encoded = {segment.content_id: one for segment, one in zip(segments, found, strict=True)}
        return encode, self.timed(lambda: self.reader.extend(prefix, looks(segments, 0.0), encoded))

    def ask(self, prefix: Prefix, watches: int) -> float:
        """Milliseconds of so many questions behind a prefix."""
        questions = [suffix(f"Is there a person at place {n}?", FAMILY).text for n in range(watches)]
        asked = [self.reader.tokens(text) for text in questions]
        return self.timed(lambda: self.reader.answer(prefix, asked))

    def opened(self) -> Prefix:
        prefix = self.reader.empty()
        self.reader.extend(prefix, [opening(FAMILY)])
        return prefix

    def free_bytes(self) -> int:
        """Of the memory where the caches lie, beside the weights."""
        if self.device.type == "cuda":
            return int(torch.cuda.mem_get_info(self.device)[1]) - int(torch.cuda.memory_allocated(self.device))
        return int(psutil.virtual_memory().available)


def make_model(shape: str, ids: dict[str, int], device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """Random weights in a shape, made on the device."""
    text = dict(TEXT[shape])
    rope = {
        "rope_type": "default",
        "rope_theta": 5e6,
        "mrope_interleaved": True,
        "mrope_section": text.pop("mrope_section"),
    }
    grid = GRIDS[FAMILY]
    config = AutoConfig.for_model(
        FAMILY,
        text_config=text | {"rope_parameters": rope, "max_position_embeddings": 262_144},
        vision_config=VISION[shape]
        | {"out_hidden_size": text["hidden_size"], "patch_size": grid.patch_px, "spatial_merge_size": grid.merge},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    with device:
        model: PreTrainedModel = AutoModelForImageTextToText.from_config(
            config, dtype=dtype, attn_implementation="sdpa"
        )
    torch.nn.Module.eval(model).requires_grad_(False)
    return model


def measure(card: OnDevice, retention: float, side: int, hops: int) -> list[Row]:
    """Hops and restarts at one share of the native tokens, for each number of watches."""
    shown = max(1, round(side * retention**0.5))
    segments = [card.segment(second, shown) for second in range(FULL_S + (hops + 1) * len(WATCHES))]
    prefix = card.opened()
    card.read(prefix, segments[:FULL_S])
    fit = card.free_bytes() / kv_bytes(prefix)
    rows, coming = [], iter(segments[FULL_S:])
    for watches in WATCHES:
        times = []
        for _ in range(hops + 1):
            encode, prefill = card.read(prefix, [next(coming)])
            times.append((encode, prefill, card.ask(prefix, watches)))
        encode, prefill, asking = (median(column) for column in zip(*times[1:], strict=True))  # the first warms up
        fresh = card.opened()
        restart = sum(card.read(fresh, segments[:KEPT_S])) + card.ask(fresh, watches)
        hop_ms = encode + prefill + asking
        streams = 1000 / (hop_ms + (restart - hop_ms) / KEPT_S)
        rows.append(Row("ours", retention, watches, shown**2, encode, prefill, asking, restart, streams, fit))
    return rows


def peers(card: OnDevice, side: int, hops: int) -> list[Row]:
    """A fixed chunk per rule."""
    chunk = [card.segment(second, side) for second in range(CHUNK_S)]
    times, fit = [], 0.0
    for _ in range(max(2, hops // 2)):
        prefix = card.opened()
        encode, prefill = card.read(prefix, chunk)
        times.append((encode, prefill, card.ask(prefix, 1)))
        fit = card.free_bytes() / kv_bytes(prefix)
    per_rule = [median(column) / CHUNK_S for column in zip(*times[1:], strict=True)]
    rows = []
    for watches in WATCHES:
        encode, prefill, asking = (watches * one for one in per_rule)
        streams = 1000 / (encode + prefill + asking)
        rows.append(Row("peers", 1.0, watches, watches * side**2, encode, prefill, asking, 0.0, streams, fit))
    return rows


def kv_bytes(prefix: Prefix) -> int:
    """Of the cache of a prefix."""
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in prefix.cache.layers)


def main(shape: str, device: str, side: int, hops: int) -> None:
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    with torch.inference_mode():
        card = OnDevice(shape, device, dtype)
        rows = [row for retention in RETENTIONS for row in measure(card, retention, side, hops)]
        rows += peers(card, side, hops)
    where = torch.cuda.get_device_name(card.device) if card.device.type == "cuda" else "cpu"
    parameters = sum(one.numel() for one in card.model.parameters())
    summary: dict[str, object] = {"shape": shape, "device": where, "dtype": str(dtype), "parameters": parameters}
    summary |= {"side": side, "rows": [asdict(row) for row in rows]}
    columns = tuple(name.removesuffix("_ms") for name in asdict(rows[0]))
    told = [tuple(round(v, 2) if isinstance(v, float) else v for v in asdict(row).values()) for row in rows]
    tell(f"ms per hop of one stream: random {FAMILY} of shape {shape} on {where}", columns, told, summary)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--shape", choices=sorted(TEXT), default="8b")
    options.add_argument("--device", default="cuda")
    options.add_argument("--side", type=int, default=28)
    options.add_argument("--hops", type=int, default=8)
    main(**vars(options.parse_args()))

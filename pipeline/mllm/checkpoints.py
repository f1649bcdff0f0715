"""Published checkpoints of the supported families: the memory they take, and how many frames fit beside them. Pure."""

from dataclasses import dataclass
from pathlib import Path

from allocator_engine.fit import FitRules, fit
from allocator_engine.grid import GRIDS
from pipeline.errors import ConfigError
from pipeline.mllm.card import Card, read_card, text_shape

BYTES = 2
"""Bytes of a weight, and of a number in the cache: bfloat16."""

OVERHEAD = 1.15
"""Memory beside weights and cache, as a factor: activations, and what an allocator of memory cannot give."""

GIB = 2**30
_EVERYTHING = 2**62

TESTED_FAMILY = "random weights of its family, in every backend's contract tests; these weights not run here"
NOT_RUN = "its family is supported; weights not run here"


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """A checkpoint: its family, billions of weights, the text layers that keep a cache, heads of that, and their width;
    `tested` is how it was."""

    name: str
    family: str
    billions: float
    layers: int
    kv_heads: int
    head_width: int = 128
    tested: str = TESTED_FAMILY

    @property
    def weights_gib(self) -> float:
        """GiB of its weights."""
        return self.billions * 1e9 * BYTES / GIB

    @property
    def token_bytes(self) -> int:
        """Bytes of the cache for one token."""
        return 2 * self.layers * self.kv_heads * self.head_width * BYTES


CHECKPOINTS = (
    CheckpointFacts("Qwen/Qwen3-VL-2B-Instruct", "qwen3_vl", 2.13, 28, 8),
    CheckpointFacts("Qwen/Qwen3-VL-4B-Instruct", "qwen3_vl", 4.44, 36, 8),
    CheckpointFacts("Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl", 8.77, 36, 8),
    CheckpointFacts("Qwen/Qwen3-VL-32B-Instruct", "qwen3_vl", 33.4, 64, 8),
    CheckpointFacts("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl", 3.75, 36, 2),
    CheckpointFacts("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", 8.29, 28, 4),
)
"""Published checkpoints, as their configurations say. Others of these families run too: name their folder."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The frames of a size that fit into the cache beside a checkpoint: the memory it needs at the least in GiB, vision
    tokens of a native frame, and native frames, and frames at a tenth of that, that can be kept together (0: it does
    not fit)."""

    checkpoint: CheckpointFacts
    needs_gib: float
    frame_tokens: int
    native_frames: int
    tenth_frames: int


def plan_memory(checkpoint: CheckpointFacts, memory_gib: float, size: tuple[int, int]) -> MemoryPlan:
    """The plan for memory of `memory_gib` GiB and frames of (height, width) in px, two to a segment."""
    rules = FitRules(GRIDS[checkpoint.family], 2)
    frame = fit([size, size], [1.0, 1.0], _EVERYTHING, rules).tokens / 2
    free = memory_gib / OVERHEAD - checkpoint.weights_gib
    tokens = max(0.0, free) * GIB / checkpoint.token_bytes
    needs = (checkpoint.weights_gib + 8192 * checkpoint.token_bytes / GIB) * OVERHEAD
    native = int(tokens / frame) if frame else 0
    return MemoryPlan(checkpoint, needs, round(frame), native, int(tokens / (frame / 10)) if frame else 0)


def facts_of(folder: str) -> CheckpointFacts:
    """The facts of a checkpoint in a folder or on the hub, from its JSON files. Raises ConfigError."""
    card: Card = read_card(folder)
    layers, heads, width = text_shape(card.folder, folder)
    weights = sum(file.stat().st_size for file in Path(card.folder).glob("*.safetensors"))
    if not weights:
        raise ConfigError(f"the checkpoint {folder} has no *.safetensors here, whose size is needed; fetch it first")
    tested = TESTED_FAMILY if card.family != "qwen3_5" else NOT_RUN
    return CheckpointFacts(folder, card.family, weights / BYTES / 1e9, layers, heads, width, tested)

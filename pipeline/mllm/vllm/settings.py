"""Settings of vLLM: its arguments, and the few that it takes only from the environment. Does not import vLLM."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from allocator_engine.grid import Grid
from pipeline.config.mllm import VllmConfig
from pipeline.types import Json

_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",  # nothing about a site leaves it
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout belongs to whoever runs the pipeline
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork of a process with threads may hang
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # decoders share the cores
}
_CPU_BLOCK_TOKENS = 32
_CPU_CACHE_BYTES = 2 * 2**30
"""Of an engine on the CPU that is told nothing: vLLM would take a share of the machine's whole memory, most of which
others may have."""
_STATEFUL = frozenset({"qwen3_5"})
"""Families whose linear attention keeps a running state: of a prefix vLLM then keeps snapshots, at block boundaries."""
_LEAST_ITEM_TOKENS = 4
"""A picture of one cell, its two markers, and at least one token of time text."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings with which an engine is started: `folder` holds the checkpoint, `longest_prompt` are the tokens of a
    prompt with its answer, the rest is as configured."""

    folder: str
    grid: Grid
    longest_prompt: int
    config: VllmConfig


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """The form of an answer: by the likeliest tokens, at most `most`; with a JSON schema, in JSON that
    follows it. Of the `watched` tokens the log-probabilities to come first are told."""

    most: int = 1
    watched: tuple[int, ...] = ()
    schema: Mapping[str, Json] | None = None


def prepare_environment() -> None:
    """Set what vLLM and the processes it starts read from the environment only, where the person has set nothing.

    Call before vLLM is first imported. It has no arguments for these, and its processes inherit the environment.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def advice(family: str, on_cpu: bool) -> str:
    """Advice on an engine that starts and then does not answer; empty where nothing is known."""
    if on_cpu and family in _STATEFUL:
        return (
            f"; on a CPU vLLM has no linear attention in float32, which {family} needs to answer as it should: use a"
            " GPU, or transformers:PATH_OR_NAME"
        )
    return ""


def arguments(settings: Settings, on_cpu: bool) -> dict[str, object]:
    """The arguments of vLLM's `AsyncEngineArgs`.

    Pictures come on the grid already, so the processor may neither enlarge a single cell, as the published minimum
    would, nor shrink the largest picture. A two-frame video is measured over both frames.
    """
    config = settings.config
    cache_bytes = None if config.kv_cache_gib is None else int(config.kv_cache_gib * 2**30)
    cell = settings.grid.cell_px**2
    largest = min(settings.grid.max_pixels, settings.longest_prompt * cell)
    most = max(1, settings.longest_prompt // _LEAST_ITEM_TOKENS)
    told: dict[str, object] = {
        "model": settings.folder,
        "dtype": "float32" if on_cpu and config.dtype == "auto" else config.dtype,
        "seed": 0,
        "use_tqdm_on_load": False,
        "max_model_len": settings.longest_prompt,
        "gpu_memory_utilization": config.gpu_memory,
        "kv_cache_memory_bytes": cache_bytes,
        "enable_prefix_caching": True,
        "mm_processor_cache_gb": config.picture_cache_gib,
        "limit_mm_per_prompt": {"image": most, "video": most},
        "mm_processor_kwargs": {
            "images_kwargs": {"size": {"shortest_edge": cell, "longest_edge": largest}},
            "videos_kwargs": {"size": {"shortest_edge": cell, "longest_edge": 2 * largest}},
        },
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
    }
    if on_cpu:
        told |= {"block_size": _CPU_BLOCK_TOKENS, "enforce_eager": True}
        told["kv_cache_memory_bytes"] = cache_bytes or _CPU_CACHE_BYTES
    if settings.grid.family in _STATEFUL:
        told["mamba_cache_mode"] = "align"
    return told

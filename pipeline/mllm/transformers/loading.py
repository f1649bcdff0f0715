"""A checkpoint's weights, frozen, on their device. Code that comes with a checkpoint is never run."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, TypeAlias, cast

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForImageTextToText, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from pipeline.errors import ConfigError, EngineMismatch
from pipeline.mllm.card import Card, fetch
from pipeline.mllm.transformers.reader import PromptReader

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,  # slow; in it, rounding and a real difference are told apart
}

PATCH_EMBEDDING = "patch_embed.proj"
"""How the name of the patch embedding ends, in all families."""

_LoadingReport: TypeAlias = Mapping[str, Iterable[object]]


class _AutoModel(Protocol):
    """`from_pretrained` with `output_loading_info`, whose type transformers does not state."""

    def from_pretrained(self, folder: Path, **options: object) -> tuple[PreTrainedModel, _LoadingReport]: ...


def load(checkpoint: str, card: Card, device: str, dtype: str) -> PromptReader:
    """A reader of the checkpoint (a folder or a Hub name).

    `device` is a torch device, or "auto": the first GPU, else the CPU. `dtype` is one of DTYPES, or "auto": what the
    checkpoint says on a GPU, float32 on the CPU. Raises ConfigError for weights or a tokenizer that are missing, and
    for an unknown device or dtype; EngineMismatch for weights that are damaged, incomplete or of other shapes.
    """
    where = device_of(device)
    kind = _dtype(dtype, where)
    folder = fetch(checkpoint)
    _check_files(folder)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call] # it would draw into the log
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the tokenizer in {folder} cannot be loaded: {error}") from error
    model = _model(folder, kind)
    multiply_patches(model)
    torch.nn.Module.to(model, where)
    return PromptReader(card, model, tokenizer)


def _model(folder: Path, dtype: torch.dtype | str) -> PreTrainedModel:
    try:
        model, report = cast(_AutoModel, AutoModelForImageTextToText).from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="sdpa",  # takes the boolean mask of packed questions as it is
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise EngineMismatch(f"the weights in {folder} do not load: {error}") from error
    # Left to itself, transformers fills what is missing with random numbers and only warns.
    if lacking := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
        raise EngineMismatch(f"the weights in {folder} lack {len(lacking)} tensors of the model, such as {lacking[0]}")
    torch.nn.Module.eval(model).requires_grad_(False)
    return model


class PatchProduct(torch.nn.Module):
    """A vision encoder's convolution over one patch at a time, as the matrix product that it is: `[patches, channels,
    frames, rows, columns]` to `[patches, width]`. Takes half of the time of torch's convolution on a CPU."""

    def __init__(self, convolution: torch.nn.Conv3d) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(convolution.weight.flatten(1), requires_grad=False)
        self.bias = convolution.bias

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(patches.flatten(1), self.weight, self.bias)


def multiply_patches(model: torch.nn.Module) -> None:
    """Put a PatchProduct in the place of the patch embedding of `model`, where that is a convolution and no more."""
    for name, part in list(model.named_modules()):
        if not name.endswith(PATCH_EMBEDDING) or not isinstance(part, torch.nn.Conv3d):
            continue
        if part.kernel_size == part.stride and part.padding == (0, 0, 0) and part.groups == 1:
            model.set_submodule(name, PatchProduct(part))


def _check_files(folder: Path) -> None:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{folder} holds no *.safetensors; expected the weights of the checkpoint there")
    for file in files:
        try:
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise EngineMismatch(f"{file} is damaged ({error}); fetch it again") from error


def device_of(device: str) -> torch.device:
    """The torch device of a name; "auto" is the first GPU, else the CPU. Raises ConfigError for one that is not
    here."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # an AssertionError is a torch built without that device
        raise ConfigError(
            f"the device {device!r} cannot be used here; expected auto, cpu, or, where this torch sees a GPU, cuda or"
            " cuda:N"
        ) from error
    return chosen


def _dtype(dtype: str, device: torch.device) -> torch.dtype | str:
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    if dtype not in DTYPES:
        raise ConfigError(f"the dtype {dtype!r} is unknown; expected auto or one of {', '.join(DTYPES)}")
    return DTYPES[dtype]

"""The description of a checkpoint in its JSON files: family, token grid, normalisation. No weights, no torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from allocator_engine.grid import GRIDS, Grid
from pipeline.errors import ConfigError
from pipeline.mllm.patches import Normalisation

_JSON_FILES = ("*.json",)
_ALL_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja")
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_ADVICE = "expected a folder with config.json and *.safetensors, or the name of such a repository on the Hub"

_LONGEST_PROMPT = 32_768
"""Of a checkpoint that does not say."""

Fields: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Card:
    """A checkpoint of a supported family: where its files lie, its token grid and normalisation, and the tokens of the
    longest prompt that it was made for.

    `meaningful` is False for a checkpoint that declares `"resadapt_meaningless": true` in its config.json;
    `plain_questions` holds for one that declares `"resadapt_plain_questions": true`: it was taught questions alone,
    and is not told what may answer them.
    """

    folder: Path
    family: str
    grid: Grid
    normalisation: Normalisation
    meaningful: bool
    longest_prompt: int
    plain_questions: bool = False


def read_card(checkpoint: str) -> Card:
    """The card of a local folder or of a Hub repository, whose JSON files are fetched.

    Raises ConfigError for what is not a checkpoint, cannot be reached, or is of an unsupported family.
    """
    folder = _folder(checkpoint, _JSON_FILES)
    config = _read(folder / "config.json", checkpoint)
    family = config.get("model_type")
    if not isinstance(family, str) or family not in GRIDS:
        raise ConfigError(f"{checkpoint} is of the family {family!r}; supported are {', '.join(GRIDS)}")
    image = _processor(folder, checkpoint)
    return Card(
        folder,
        family,
        _grid(GRIDS[family], _part(config, "vision_config")),
        Normalisation(_channels(image, "image_mean", checkpoint), _channels(image, "image_std", checkpoint)),
        meaningful=config.get("resadapt_meaningless") is not True,
        plain_questions=config.get("resadapt_plain_questions") is True,
        longest_prompt=_number(_part(config, "text_config") or config, "max_position_embeddings", _LONGEST_PROMPT),
    )


def fetch(checkpoint: str) -> Path:
    """The folder of a checkpoint with its weights. Raises ConfigError if it is not there or cannot be fetched."""
    return _folder(checkpoint, _ALL_FILES)


def text_shape(folder: Path, checkpoint: str) -> tuple[int, int, int]:
    """Text layers that keep a cache of every token, heads of that cache, and the width of one. Raises ConfigError."""
    config = _read(folder / "config.json", checkpoint)
    text = _part(config, "text_config") or config
    kinds = text.get("layer_types")
    layers = _number(text, "num_hidden_layers", 0)
    if isinstance(kinds, list):
        layers = sum(kind == "full_attention" for kind in kinds)
    heads = _number(text, "num_attention_heads", 1)
    width = _number(text, "head_dim", _number(text, "hidden_size", 0) // max(1, heads))
    return layers, _number(text, "num_key_value_heads", heads), width


def _folder(checkpoint: str, patterns: tuple[str, ...]) -> Path:
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return path
    if path.exists() or path.is_absolute() or checkpoint.startswith(".") or checkpoint.count("/") != 1:
        what = "is not a folder" if path.exists() else "does not exist"
        raise ConfigError(f"the checkpoint {checkpoint} {what}; {_ADVICE}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(checkpoint, allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:  # the Hub's own errors are one or the other
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"the checkpoint {checkpoint} is no local folder, nor can it be fetched from the Hub ({reason}); {_ADVICE}"
        ) from error


def _read(path: Path, checkpoint: str) -> Fields:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"the checkpoint {checkpoint} has no {path.name}; {_ADVICE}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON ({error}); {_ADVICE}") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"{path} holds no JSON object; {_ADVICE}")
    return fields


def _processor(folder: Path, checkpoint: str) -> Fields:
    """The image processor's fields: a file of its own as published, or a part of the processor's file."""
    for name in _PROCESSOR_FILES:
        if (folder / name).exists():
            fields = _read(folder / name, checkpoint)
            part = fields.get("image_processor", fields)
            return part if isinstance(part, Mapping) else {}
    raise ConfigError(f"the checkpoint {checkpoint} has neither {' nor '.join(_PROCESSOR_FILES)}")


def _part(config: Fields, key: str) -> Fields:
    part = config.get(key)
    return part if isinstance(part, Mapping) else {}


def _number(fields: Fields, key: str, default: int) -> int:
    value = fields.get(key, default)
    return value if isinstance(value, int) else default


def _grid(published: Grid, vision: Fields) -> Grid:
    grid = replace(
        published,
        patch_px=_number(vision, "patch_size", published.patch_px),
        merge=_number(vision, "spatial_merge_size", published.merge),
        temporal_patch=_number(vision, "temporal_patch_size", published.temporal_patch),
    )
    return replace(grid, min_pixels=grid.cell_px**2)


def _channels(image: Fields, key: str, checkpoint: str) -> tuple[float, ...]:
    values = image.get(key)
    if not isinstance(values, list) or len(values) != 3 or not all(isinstance(value, int | float) for value in values):
        raise ConfigError(f"{key} of the checkpoint {checkpoint} is {values!r}; expected three numbers")
    return tuple(float(value) for value in values)

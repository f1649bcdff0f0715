"""Frozen models of others, from a local folder or by their name on the Hub. Code that comes with one is never run."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from allocator_engine.errors import EngineMismatch, EngineMissing, not_installed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    _Report: TypeAlias = Mapping[str, Iterable[object]]

_ADVICE = "give a folder with config.json and its weights, or the name of such a repository on the Hub"


class _PretrainedClass(Protocol):
    """`from_pretrained` with `output_loading_info`, whose type transformers does not state."""

    def from_pretrained(self, name: str, **options: object) -> "tuple[PreTrainedModel, _Report]": ...


def model(name: str) -> "PreTrainedModel":
    """The bare model of a checkpoint (without a head), frozen, in float32 on the CPU.

    Raises EngineMissing if there is none or transformers is not installed, EngineMismatch if its weights are damaged,
    incomplete or of other shapes.
    """
    import torch

    try:
        from transformers import AutoModel
        from transformers.utils import logging
    except ImportError as error:
        raise EngineMissing(not_installed("transformers", "embedded")) from error

    _check(name)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call] # it would draw into the training's own
    try:
        loaded, report = cast(_PretrainedClass, AutoModel).from_pretrained(
            name, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
        )
    except OSError as error:
        raise EngineMissing(f"{name} cannot be loaded ({_line(error)}); {_ADVICE}") from error
    except (ValueError, RuntimeError) as error:
        raise EngineMismatch(f"{name} cannot be loaded: {_line(error)}") from error
    # What is missing is filled with random numbers otherwise. A pooler is never used here.
    lacking = sorted(key for key in map(str, report["missing_keys"]) if not key.startswith("pooler."))
    if lacking or report["mismatched_keys"]:
        first = next(iter([*lacking, *map(str, report["mismatched_keys"])]))
        raise EngineMismatch(f"the weights of {name} do not fit its configuration; the first to differ is {first}")
    return torch.nn.Module.eval(loaded).requires_grad_(False)


def tokenizer(name: str) -> "PreTrainedTokenizerBase":
    """The tokenizer of a checkpoint. Raises EngineMissing if there is none or transformers is not installed."""
    try:
        from transformers import AutoTokenizer, PreTrainedTokenizerBase
    except ImportError as error:
        raise EngineMissing(not_installed("transformers", "embedded")) from error

    _check(name)
    try:
        found = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise EngineMissing(f"the tokenizer of {name} cannot be loaded ({_line(error)}); {_ADVICE}") from error
    assert isinstance(found, PreTrainedTokenizerBase)
    return found


def full_name(name: str) -> str:
    """A local folder by its whole path, so that it is found from everywhere; a name on the Hub as it is."""
    return str(Path(name).expanduser().resolve()) if Path(name).expanduser().is_dir() else name


def _check(name: str) -> None:
    """Keep what is plainly a path from being looked up on the Hub."""
    folder = Path(name).expanduser()
    if not folder.is_dir() and (folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise EngineMissing(f"{name} is no folder; {_ADVICE}")


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

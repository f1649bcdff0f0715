"""What the Allocator costs per frame: `resadapt-allocator bench`, for an engine of the shipped shape if none is named.

Run: python -m tests.bench.bench_allocator [ENGINE [OPTIONS]]
ENGINE is an engine.json or its folder; without one the weights are random, which costs the same. OPTIONS are those of
the command. Where a TensorRT is installed a plan is added, to a copy.
Targets: at most 3 ms per frame and 1.5x torch eager on one core; at most 1 % of the operations of a Qwen3-VL-8B on a
tenth of the hop's tokens; at most 0.3 ms per frame at batch 16 on a GPU.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from allocator_engine.compile import compile_plan
from allocator_engine.errors import EngineError
from allocator_engine.export import export
from allocator_engine.manifest import manifest_path, read, verified
from allocator_engine.model.checkpoint import Checkpoint, save
from allocator_engine.model.network import StreamNetwork
from allocator_engine.model.query import QueryEncoder
from allocator_engine.runtime import load_checkpoint
from pipeline.lab.cli.main import app
from tests.bench.operations import PICTURES, QWEN3_VL_8B, network_operations, tokens_shown


def random_engine(folder: Path) -> Path:
    """An engine of the shipped shape with random weights."""
    file = folder / "allocator.safetensors"
    save(Checkpoint(StreamNetwork().eval(), QueryEncoder().eval()), file)
    export(file)
    return folder


def shares(engine: Path) -> str:
    """The operations of an engine's network on a hop, and their share of a large MLLM's on a tenth of its tokens."""
    count = network_operations(load_checkpoint(verified(engine, read(engine).checkpoint)).network)
    parts = ", ".join(
        f"{100 * count / QWEN3_VL_8B.operations(tokens_shown(height, width)[0]):.2g} % at {width}x{height} px"
        for height, width in PICTURES
    )
    return f"{count / 1e9:.2g} G operations per hop; of {QWEN3_VL_8B.name}'s on a tenth of it: {parts}"


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "engine"
        if arguments:
            shutil.copytree(manifest_path(Path(arguments[0])).parent, folder)
        else:
            random_engine(folder)
        try:
            compile_plan(folder)
        except EngineError as error:
            Console().print(f"no TensorRT plan is added: {error}", markup=False)
        Console().print(shares(folder), highlight=False)
        app(["bench", str(folder), *arguments[1:]])


if __name__ == "__main__":
    main(sys.argv[1:])

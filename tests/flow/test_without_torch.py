"""Where torch is not installed: a server answers, the engine allocates, and what needs torch names the extra."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from allocator_engine.manifest import SHIPPED, read, write
from tests.mllm_server import MODEL, serving

ROOT = Path(__file__).parents[2]
SCENE = "synthetic:?seconds=6&width=160&height=96&fps=4"
WITHOUT = """
import os, sys

MORE = os.environ["WITHOUT"].split()

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "tokenizers", "safetensors", *MORE):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
from pipeline.{room} import main
main.main()
"""


def run(
    folder: Path, room: str, *arguments: str, without: str = "cv2 matplotlib onnx onnxscript"
) -> subprocess.CompletedProcess[str]:
    """A command in a process in which nothing of torch can be imported."""
    return subprocess.run(  # noqa: PLW1510 - the exit code is what is tested
        [sys.executable, "-c", WITHOUT.replace("{room}", room), *arguments],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "WITHOUT": without},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def without_encoder(folder: Path) -> Path:
    """The shipped engine as engines were before their query encoder had a file."""
    engine = shutil.copytree(SHIPPED, folder / "older")
    (engine / "encoder.onnx").unlink()
    manifest = read(engine)
    proofs = {name: proof for name, proof in manifest.parity.items() if name != "encoder"}
    write(replace(manifest, encoder=None, mark="", parity=proofs), engine / "engine.json")
    return engine


def watch(server_url: str, *more: str) -> tuple[str, ...]:
    return ("run", SCENE, "--watch", "is there a car?", "--mllm", f"openai:{server_url}#{MODEL}", "--json",
            "--allocator", "learned", "--rate", "20", *more)  # fmt: skip


def test_a_server_answers_and_the_engine_allocates(tmp_path):
    with serving() as server:
        server.habits.share = 0.99
        done = run(tmp_path, "cli", *watch(server.url, "--engine", str(SHIPPED)))
        assert done.returncode == 0, done.stderr
        events = [json.loads(line) for line in done.stdout.splitlines()]
        opened = next(event for event in events if event["type"].endswith("watch.opened"))
        assert (opened["data"]["allocator"], opened["data"]["allocation_fell_back"]) == ("learned", False)
        assert server.asked


def test_an_engine_without_a_file_of_its_encoder_is_refused_with_what_makes_one(tmp_path):
    engine = without_encoder(tmp_path)
    with serving() as server:
        done = run(tmp_path, "cli", *watch(server.url, "--engine", str(engine)))
    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]
    assert "pip install 'resadapt-stream[embedded]'" in said
    assert f"resadapt-allocator export --only-encoder {engine / 'allocator.safetensors'}" in said
    assert "Traceback" not in done.stderr


def test_an_engine_is_checked_as_far_as_can_be(tmp_path):
    done = run(tmp_path, "lab.cli", "check", str(SHIPPED))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {line.split()[1]: line for line in done.stdout.splitlines()}
    assert "of the network when it was made; to compare here: torch is not installed" in lines["parity"]
    assert "resadapt-stream[embedded]" in lines["query"]
    assert run(tmp_path, "lab.cli", "check", str(without_encoder(tmp_path))).returncode == 3, "nothing reads questions"


@pytest.mark.parametrize(
    ("room", "arguments"),
    [
        ("cli", ("run", SCENE, "--watch", "is there a car?", "--mllm", "yard")),
        ("cli", ("run", SCENE, "--watch", "is there a car?", "--mllm", "tiny")),
        ("cli", ("run", SCENE, "--watch", "is there a car?", "--mllm", "transformers:somebody/model")),
        ("cli", ("demo", "--seconds", "4")),
        ("lab.cli", ("train", "--recipe", "yard", "--work", "w", "--out", "o")),
        ("lab.cli", ("export", str(SHIPPED / "allocator.safetensors"))),
        ("lab.cli", ("bench", str(SHIPPED))),
        ("lab.cli", ("evaluate", "--seeds", "800000:800001", "--seconds", "4", "--allocators", "fixed")),
    ],
    ids=" ".join,
)
def test_what_computes_here_names_the_extra_in_a_line(tmp_path, room, arguments):
    done = run(tmp_path, room, *arguments)
    assert done.returncode == 2, done.stderr
    assert "is not installed; pip install 'resadapt-stream[embedded]'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_server_is_compared_without_torch_too(tmp_path):
    with serving() as server:
        done = run(tmp_path, "lab.cli", "evaluate", "--seeds", "800000:800001", "--seconds", "4", "--budgets", "0.5",
                   "--allocators", "learned,fixed", "--families", "watch_f1", "--watches", "2",
                   "--mllm", f"openai:{server.url}#{MODEL}", "--json", without="onnx")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {point["allocator"] for point in json.loads(done.stdout.splitlines()[-1])["points"]} == {"learned", "fixed"}

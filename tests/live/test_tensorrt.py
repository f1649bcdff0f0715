"""TensorRT-RTX builds plans without a GPU. What a plan is, and what becomes of it where it cannot run."""

import shutil

import pytest
import torch
from typer.testing import CliRunner

from allocator_engine.check import examine, golden
from allocator_engine.compile import build, compile_plan, find_library
from allocator_engine.digests import sha256_of
from allocator_engine.errors import EngineMismatch, EngineMissing
from allocator_engine.manifest import read
from allocator_engine.runtime import LIMITS, load, plan_engine
from allocator_engine.spec import STREAM
from pipeline.lab.cli.main import app
from tests.engines import engine
from tests.services import require

pytestmark = pytest.mark.timeout(300)

GPU = torch.cuda.is_available()


@pytest.fixture(scope="module")
def trt():
    """The TensorRT that builds here, with its name."""
    try:
        name, module = find_library(for_this_gpu=GPU)
    except EngineMissing as error:
        name, module = "", str(error)
    require(name == "tensorrt_rtx" or (name == "tensorrt" and GPU), f"tensorrt_rtx, or tensorrt and a GPU: {module}")
    return name, module


@pytest.fixture(scope="module")
def compiled(trt, tmp_path_factory):
    """The folder of an engine with a plan. Do not write to it: other tests read it."""
    folder = shutil.copytree(engine(), tmp_path_factory.mktemp("plan") / "engine")
    portable = ["--portable"] if trt[0] == "tensorrt_rtx" else []
    result = CliRunner().invoke(app, ["compile", str(folder), *portable])
    assert result.exit_code == 0, result.output
    assert f"engine.plan by {trt[0]} {trt[1].__version__} for " in result.output
    return folder


@pytest.fixture
def own(compiled, tmp_path):
    """An engine with a plan that a test may break."""
    return shutil.copytree(compiled, tmp_path / "own")


def test_the_manifest_names_the_plan_its_library_its_gpu_and_its_limits(trt, compiled):
    name, module = trt
    plan = read(compiled).plan
    assert (plan.artifact.file, plan.artifact.sha256) == ("engine.plan", sha256_of(compiled / "engine.plan"))
    assert (plan.library, plan.version, plan.precision) == (name, module.__version__, "fp16")
    assert (plan.gpu == "") == (name == "tensorrt_rtx"), "a portable plan is for no card"
    assert plan.limits == LIMITS
    assert 0 < read(compiled).parity["half"].largest <= 2e-2
    assert ("tensorrt" in read(compiled).parity) == GPU


@pytest.mark.skipif(GPU, reason="this machine has a GPU")
def test_without_a_gpu_the_plan_is_refused_by_name_and_the_others_are_used(trt, compiled):
    chosen = load(compiled)
    assert chosen.backend == "onnxruntime"
    (passed_over,) = chosen.passed_over
    assert "engine.plan needs a GPU, and there is none here" in passed_over
    with pytest.raises(EngineMismatch, match=r"engine\.plan needs a GPU, and there is none here"):
        load(compiled, "tensorrt")
    with pytest.raises(EngineMismatch, match=f"{trt[0]} .* does not take the plan on this machine"):
        plan_engine((compiled / "engine.plan").read_bytes(), STREAM, trt[0])


@pytest.mark.skipif(not GPU, reason="needs a GPU")
def test_on_a_gpu_the_plan_answers_as_the_network(compiled):
    assert load(compiled).backend == "tensorrt"
    STREAM.check_outputs(load(compiled, "tensorrt").run(golden(0)))


def test_a_plan_whose_bytes_changed_is_refused_whoever_might_compute_the_rest(own):
    with (own / "engine.plan").open("ab") as changed:
        changed.write(b"\0")
    for backend in ("auto", "tensorrt"):
        with pytest.raises(EngineMismatch, match=r"engine\.plan has SHA-256 .* resadapt-allocator compile"):
            load(own, backend)
    assert "plan" in [finding.what for finding in examine(own) if not finding.healthy]


def test_check_says_one_line_of_each_part(compiled):
    result = CliRunner().invoke(app, ["check", str(compiled)])
    lines = [line.split()[:2] for line in result.output.splitlines()]
    gpu = [["ok", "GPU"], ["ok", "parity"], ["ok", "parity"]] if GPU else [["FAIL", "GPU"], ["ok", "parity"]]
    whole = ("spec", "checkpoint", "onnx", "encoder", "plan", "versions")
    assert lines == [*(["ok", part] for part in whole), *gpu, ["ok", "query"]]
    assert result.exit_code == (0 if GPU else 3)


def test_a_plan_in_single_precision_needs_no_half_and_replaces_the_other(own):
    manifest = compile_plan(own, "fp32")
    assert manifest == read(own)
    assert manifest.plan.precision == "fp32"
    assert "half" not in manifest.parity
    assert load(own).backend == ("tensorrt" if GPU else "onnxruntime")


def test_a_model_that_tensorrt_cannot_read_is_refused_in_its_own_words(trt):
    with pytest.raises(EngineMismatch, match=f"{trt[0]} cannot read the ONNX file: ."):
        build(b"not a model", STREAM, trt[1], for_this_gpu=False)


def test_compiling_an_engine_whose_onnx_file_changed_leaves_it_as_it_was(trt, own):
    before = read(own)
    (own / "engine.onnx").write_bytes(b"another")
    with pytest.raises(EngineMismatch, match=r"engine\.onnx has SHA-256"):
        compile_plan(own)
    assert read(own) == before
    assert sha256_of(own / "engine.plan") == before.plan.artifact.sha256

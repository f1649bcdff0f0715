"""An engine from checkpoint to ONNX Runtime and TensorRT: the same answers, and named errors for what does not fit."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import allocator_engine.compile as compile_module
from allocator_engine import bench as bench_module
from allocator_engine import runtime
from allocator_engine.bench import WARM_UP, compare, measure
from allocator_engine.check import crowd, examine, golden, parity, require_parity
from allocator_engine.compile import compile_plan, to_half
from allocator_engine.digests import sha256_of
from allocator_engine.encode import HopView, batch, empty_memory, no_queries, nothing_read
from allocator_engine.errors import EngineFailed, EngineMismatch, EngineMissing, ParityError
from allocator_engine.export import export
from allocator_engine.manifest import Artifact, TensorRTPlan, artifact_of, read, write
from allocator_engine.model.checkpoint import load as load_checkpoint
from allocator_engine.runtime import LIMITS, load, onnx_engine, torch_engine
from allocator_engine.spec import QUERY_FEATURES, STREAM
from pipeline.clock import SystemClock
from pipeline.errors import ConfigError
from pipeline.lab.cli.main import app
from tests.engines import Bright, engine, untrained


@pytest.fixture(scope="module")
def onnx():
    return load(engine(), "onnxruntime")


@pytest.fixture(scope="module")
def plain():
    return load(engine(), "torch")


@pytest.fixture
def own(tmp_path):
    """An engine that a test may break."""
    return shutil.copytree(engine(), tmp_path / "own")


def view(frames=2, queries=1, light=100):
    asked = np.zeros((queries, QUERY_FEATURES), np.float32)
    asked[:, 0] = 1
    seen = np.full((frames, 128, 224, 3), light, np.uint8)
    return HopView(seen, np.full(frames, 0.5, np.float32), asked, -2.0, empty_memory(), nothing_read(queries))


def test_onnx_runtime_answers_as_the_network(plain, onnx):
    found = parity(plain, onnx, tolerance=5e-4)
    require_parity(found, "the ONNX file")
    assert found.hops == read(engine()).parity["onnxruntime"].hops


class NotANumber:
    """An engine that answers NaN in the first hop."""

    spec = STREAM

    def __init__(self):
        self.calls = 0

    def run(self, tensors):
        self.calls += 1
        hops, frames = tensors["present"].shape
        said = np.full((hops, frames), np.nan if self.calls == 1 else 0.5, np.float32)
        kept = {"next_memory": tensors["memory"], "next_readings": tensors["readings"]}
        return {"mean": said, "concentration": said, **kept}


def test_parity_can_fail(plain):
    other = torch_engine(untrained(seed=1).network, STREAM)
    with pytest.raises(ParityError, match=r"expected at most 0\.0005"):
        require_parity(parity(plain, other, tolerance=5e-4), "another network")
    with pytest.raises(ParityError, match="differs from the network by nan"):
        require_parity(parity(plain, NotANumber(), tolerance=5e-4), "a broken engine")


def test_half_precision_moves_a_scale_by_little(plain):
    half = onnx_engine(to_half((engine() / "engine.onnx").read_bytes()), STREAM)
    assert 0 < parity(plain, half, tolerance=2e-2).largest <= 2e-2


@pytest.mark.parametrize(("frames", "queries", "hops"), [(1, 0, 1), (1, 1, 1), (16, 3, 2), (2, 200, 1), (2, 6, 64)])
def test_any_batch_any_frames_and_any_queries_fit_one_file(frames, queries, hops, onnx):
    outputs = onnx.run(crowd(hops, frames, queries))
    assert outputs["mean"].shape == (hops, frames)
    assert outputs["next_memory"].shape == (hops, 112, 64)
    assert outputs["next_readings"].shape == (hops, max(queries, 1), 64)


def test_a_hop_is_answered_the_same_alone_and_in_company(onnx):
    one = view(2, 3)
    alone = onnx.run(batch([one]))
    together = onnx.run(batch([view(5, 9, 30), one]))
    np.testing.assert_allclose(alone["mean"][0], together["mean"][1, :2], atol=1e-5)
    np.testing.assert_allclose(alone["next_memory"][0], together["next_memory"][1], atol=1e-5)
    np.testing.assert_allclose(alone["next_readings"][0], together["next_readings"][1, :3], atol=1e-5)


def test_black_frames_without_a_question_are_answered(onnx):
    black, begins = np.zeros((1, 128, 224, 3), np.uint8), np.zeros(1, np.float32)
    dark = HopView(black, begins, no_queries(), -8.0, empty_memory(), nothing_read(0))
    assert 0 <= onnx.run(batch([dark]))["mean"][0, 0] <= 1


def test_inputs_of_another_kind_are_refused(onnx):
    tensors = golden(0)
    with pytest.raises(ValueError, match="'grant' is float64"):
        onnx.run(tensors | {"grant": tensors["grant"].astype(np.float64)})
    with pytest.raises(ValueError, match="'grant' has 4 along batch, others 5"):
        onnx.run(tensors | {"grant": tensors["grant"][:4]})


def test_weights_that_are_not_finite_are_a_named_error():
    network = untrained().network
    with torch.no_grad():
        network.place[0, 0] = torch.nan
    with pytest.raises(EngineFailed, match="mean of the torch engine holds values that are not finite"):
        torch_engine(network, STREAM).run(golden(0))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda outputs: outputs | {"mean": outputs["mean"][:2]}, r"mean .* \[2, 4\]; expected \[5, 4\]"),
        (lambda outputs: outputs | {"mean": outputs["mean"].astype(np.float64)}, "'mean' is float64"),
        (lambda outputs: {"mean": outputs["mean"]}, "expected .*next_memory"),
    ],
)
def test_an_answer_of_another_shape_is_a_named_error(answer, words, onnx):
    with pytest.raises(EngineFailed, match=words):
        replace(onnx, compute=lambda tensors: answer(Bright().run(tensors))).run(golden(0))


def test_the_best_backend_that_works_here_is_chosen_and_the_others_are_explained(own):
    chosen = load(own)
    assert chosen.backend == "onnxruntime"
    assert len(chosen.passed_over) == 1
    assert "has no TensorRT plan" in chosen.passed_over[0]
    write(replace(read(own), onnx=None), own / "engine.json")
    assert load(own).backend == "torch"


def test_a_backend_that_nobody_knows_is_refused_with_the_known_ones():
    with pytest.raises(EngineMismatch, match="expected auto or one of tensorrt, onnxruntime, torch"):
        load(engine(), "abacus")


@pytest.mark.parametrize(("file", "backend"), [("engine.onnx", "auto"), ("allocator.safetensors", "torch")])
def test_a_file_that_is_not_the_manifests_is_never_loaded(file, backend, own):
    with (own / file).open("ab") as changed:
        changed.write(b"\0")
    with pytest.raises(EngineMismatch, match=f"{file} has SHA-256"):
        load(own, backend)
    assert [finding.what for finding in examine(own) if not finding.healthy]


def test_an_onnx_file_that_is_none_is_refused(own):
    (own / "engine.onnx").write_bytes(b"not a model")
    write(replace(read(own), onnx=artifact_of(own / "engine.onnx")), own / "engine.json")
    with pytest.raises(EngineMismatch, match="ONNX Runtime does not take the model"):
        load(own)


@pytest.mark.parametrize(
    ("card", "change", "words"),
    [
        (None, {}, "needs a GPU, and there is none here; choose another backend"),
        ("A (8.6)", {"gpu": "B", "capability": "9.0"}, r"was built for B \(9\.0\); this is A \(8\.6\); .* compile"),
        ("A (8.6)", {"version": "1.6"}, r"was built by tensorrt_rtx 1\.6; this is 1\.7; .* resadapt-allocator compile"),
        ("A (8.6)", {"library": "tensorrt"}, r"needs tensorrt 1\.7, which is not installed .* compile"),
        ("A (8.6)", {"limits": {"batch": 1}}, "was built for at most .*'batch': 1.* compile"),
    ],
)
def test_a_plan_that_does_not_fit_is_passed_over_but_not_when_it_is_asked_for(card, change, words, own, monkeypatch):
    def library(name):
        if name != "tensorrt_rtx":
            raise ImportError(name)
        return SimpleNamespace(__version__="1.7")

    monkeypatch.setattr(runtime, "gpu", lambda: tuple(card.rstrip(")").split(" (")) if card else None)
    monkeypatch.setattr(runtime, "tensorrt_library", library)
    (own / "engine.plan").write_bytes(b"a plan")
    plan = TensorRTPlan(artifact_of(own / "engine.plan"), "tensorrt_rtx", "1.7", "", "", "fp16", LIMITS)
    write(replace(read(own), plan=replace(plan, **change)), own / "engine.json")
    assert load(own).backend == "onnxruntime"
    with pytest.raises(EngineMismatch, match=rf"engine\.plan {words}"):
        load(own, "tensorrt")
    assert [finding.what for finding in examine(own) if not finding.healthy] == ["GPU"]


def test_a_plan_whose_bytes_changed_refuses_to_start(own):
    (own / "engine.plan").write_bytes(b"a plan")
    plan = TensorRTPlan(Artifact("engine.plan", "0" * 64), "tensorrt", "0.0", "", "", "fp16", LIMITS)
    write(replace(read(own), plan=plan), own / "engine.json")
    with pytest.raises(EngineMismatch, match=r"engine\.plan has SHA-256"):
        load(own)


def test_an_export_keeps_no_path_of_the_machine_it_ran_on():
    content = (engine() / "engine.onnx").read_bytes()
    assert b".py" not in content
    assert str(engine()).encode() not in content


def test_a_checkpoint_that_is_missing_or_damaged_is_refused(tmp_path):
    with pytest.raises(EngineMissing, match="there is no checkpoint"):
        export(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"12345678")
    with pytest.raises(EngineMismatch, match=r"bad\.safetensors is damaged"):
        export(tmp_path / "bad.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["bad.safetensors"]


def test_the_manifest_says_what_the_engine_was_made_of():
    manifest = read(engine())
    assert manifest.checkpoint.sha256 == sha256_of(engine() / "allocator.safetensors")
    assert manifest.trained_on == load_checkpoint(engine() / "allocator.safetensors").notes
    assert manifest.versions["opset"] == "20"


def test_without_tensorrt_compiling_names_the_packages(own, monkeypatch):
    def library(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(compile_module, "tensorrt_library", library)
    with pytest.raises(EngineMissing, match=r"tensorrt_rtx: No module .*resadapt-stream\[tensorrt-rtx\]"):
        compile_plan(own)
    assert read(own).plan is None


def test_check_says_of_each_part_whether_it_is_sound(own):
    result = CliRunner().invoke(app, ["check", str(own)])
    assert result.exit_code == 0
    assert [line.split()[1] for line in result.output.splitlines()] == [
        "spec", "checkpoint", "onnx", "encoder", "versions", "parity", "query",
    ]  # fmt: skip
    (own / "engine.onnx").unlink()
    assert CliRunner().invoke(app, ["check", str(own)]).exit_code == 3


def test_a_bench_tells_every_backend_against_torch_eager_and_ends_in_json():
    arguments = ["bench", str(engine()), "--batches", "1,2", "--rounds", "3", "--no-compile"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    *table, last = result.output.splitlines()
    assert any("without tensorrt: it computes on a GPU" in line for line in table)
    told = json.loads(last)
    assert [(row["backend"], row["batch"]) for row in told["rows"]] == [
        ("torch", 1), ("torch", 2), ("onnxruntime", 1), ("onnxruntime", 2),
    ]  # fmt: skip
    assert [row["ratio"] for row in told["rows"][:2]] == [1.0, 1.0]
    assert all(0 < row["median_ms"] <= row["p95_ms"] for row in told["rows"])
    assert {"torch", "onnxruntime"} <= set(told["versions"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--device", "tpu"], "expected cpu or cuda"), (["--batches", "1,x"], "expected numbers such as 1,16")],
)
def test_a_bench_that_cannot_be_is_refused(arguments, words):
    result = CliRunner().invoke(app, ["bench", str(engine()), *arguments])
    assert isinstance(result.exception, ConfigError)
    assert words in str(result.exception)


def test_a_backend_that_cannot_take_the_largest_batch_is_left_out_by_name(monkeypatch):
    class Small(Bright):
        def run(self, tensors):
            if len(tensors["grant"]) > 4:
                raise EngineFailed("beyond its limits")
            return super().run(tensors)

    monkeypatch.setattr(bench_module, "load", lambda engine, name: Small())
    report = measure(engine(), "cpu", [1, 8], 2, SystemClock().cpu_s, compiled=False)
    assert {row.backend for row in report.rows} == {"torch"}
    assert report.without["onnxruntime"] == "beyond its limits"


def test_what_torch_cannot_do_is_a_failed_answer_wherever_it_fails():
    class Full(torch.nn.Module):
        def forward(self, *given):
            raise torch.OutOfMemoryError("no memory left\nand more")

    with pytest.raises(EngineFailed, match=r"^torch: no memory left$"):
        torch_engine(Full(), STREAM).run(golden(0))


def test_a_gpu_without_memory_is_a_failed_answer_of_the_plan(monkeypatch):
    def full(tensor):
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(torch.Tensor, "cuda", full)
    calls = runtime.PlanCalls(STREAM, None, ())
    for _ in range(2):  # the lock is free again
        with pytest.raises(EngineFailed, match=r"^TensorRT: no memory left$"):
            calls(golden(0))


def test_backends_that_are_measured_take_turns():
    turns = []

    class Noted(Bright):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def run(self, tensors):
            turns.append(self.name)
            return super().run(tensors)

    ticks = iter(range(1000))
    rows = compare({"torch": Noted("torch"), "other": Noted("other")}, 4, 2, lambda: float(next(ticks)))
    assert turns == ["torch", "other"] * (WARM_UP + 2)
    assert [(row.median_ms, row.ratio) for row in rows] == [(125.0, 1.0)] * 2

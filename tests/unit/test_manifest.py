import json
from dataclasses import replace

import pytest

from allocator_engine.errors import EngineMismatch, EngineMissing
from allocator_engine.manifest import (
    Artifact,
    Manifest,
    Parity,
    TensorRTPlan,
    artifact_of,
    read,
    require_spec,
    verified,
    write,
)
from allocator_engine.spec import STREAM, TensorSpec

HASH = "0" * 64
PLAN = TensorRTPlan(Artifact("engine.plan", HASH), "tensorrt", "10.9", "H200", "9.0", "fp16", {"batch": 64})
WHOLE = Manifest(
    STREAM,
    Artifact("allocator.safetensors", HASH),
    Artifact("engine.onnx", HASH),
    PLAN,
    {"torch": "2.13.0"},
    {"onnxruntime": Parity(1e-6, 1e-4, 6)},
    {"world": "abc"},
)


@pytest.mark.parametrize("manifest", [WHOLE, Manifest(STREAM, Artifact("a.safetensors", HASH))])
def test_a_manifest_reads_back_as_it_was_written(manifest, tmp_path):
    write(manifest, tmp_path / "engine.json")
    assert read(tmp_path / "engine.json") == read(tmp_path) == manifest


def test_writing_leaves_nothing_else_behind(tmp_path):
    write(WHOLE, tmp_path / "engine.json")
    write(replace(WHOLE, plan=None), tmp_path / "engine.json")
    assert [file.name for file in tmp_path.iterdir()] == ["engine.json"]
    assert read(tmp_path).plan is None


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    (tmp_path / "engine.json").mkdir()
    with pytest.raises(OSError, match=r"engine\.json"):
        write(WHOLE, tmp_path / "engine.json")
    assert [file.name for file in tmp_path.iterdir()] == ["engine.json"]


def test_an_engine_that_is_not_there_says_how_to_make_one(tmp_path):
    with pytest.raises(EngineMissing, match="resadapt-allocator export"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda fields: fields.pop("checkpoint"), "checkpoint: Field required"),
        (lambda fields: fields.update(colour="red"), "colour"),
        (lambda fields: fields["onnx"].update(sha256="12"), "onnx.*not a SHA-256"),
        (lambda fields: fields["onnx"].update(file="../engine.onnx"), "onnx.*not the name of a file beside"),
        (lambda fields: fields["spec"].update(scale_range=[1, 0]), "scale_range"),
        (lambda fields: fields.update(format="another"), "'another'"),
    ],
)
def test_a_damaged_manifest_is_refused_naming_the_part(change, words, tmp_path):
    write(WHOLE, tmp_path / "engine.json")
    fields = json.loads((tmp_path / "engine.json").read_text())
    change(fields)
    (tmp_path / "engine.json").write_text(json.dumps(fields))
    with pytest.raises(EngineMismatch, match=f"(?s){words}.*resadapt-allocator export"):
        read(tmp_path)


def test_text_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "engine.json").write_text("{")
    with pytest.raises(EngineMismatch, match="no engine manifest"):
        read(tmp_path)


def test_a_file_is_given_out_only_with_the_manifests_hash(tmp_path):
    file = tmp_path / "engine.onnx"
    file.write_bytes(b"as exported")
    artifact = artifact_of(file)
    assert verified(tmp_path, artifact) == file
    file.write_bytes(b"as changed")
    with pytest.raises(EngineMismatch, match=r"engine\.onnx has SHA-256 .* the manifest says .* export "):
        verified(tmp_path, artifact)
    file.unlink()
    with pytest.raises(EngineMismatch, match=r"compile .*engine\.json"):
        verified(tmp_path, artifact, "compile")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (replace(STREAM, scale_range=(0.2, 1.0)), "scale_range is"),
        (replace(STREAM, thumbnail=(32, 56)), "thumbnail is"),
        (replace(STREAM, inputs=STREAM.inputs[:-1]), "inputs have nothing where readings float32"),
        (
            replace(STREAM, outputs=(*STREAM.outputs[:2], TensorSpec("next_memory", "float32", (None, 9)))),
            "next_memory",
        ),
    ],
)
def test_an_engine_of_another_spec_is_refused_naming_what_differs(spec, words, tmp_path):
    with pytest.raises(EngineMismatch, match=words):
        require_spec(tmp_path, replace(WHOLE, spec=spec), STREAM)
    require_spec(tmp_path, WHOLE, STREAM)

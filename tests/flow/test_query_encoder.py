"""The query encoder's ONNX file: the checkpoint's vectors, proved, verified, and added to engines that lack it."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from allocator_engine.check import QUESTIONS, encoder_parity, examine
from allocator_engine.errors import EngineMismatch, ParityError
from allocator_engine.export import add_encoder, export
from allocator_engine.manifest import SHIPPED, mark_of, read, sha256_of, write
from allocator_engine.model.checkpoint import Checkpoint, save
from allocator_engine.model.checkpoint import load as load_checkpoint
from allocator_engine.model.sentence import PretrainedEncoder
from allocator_engine.query import load_encoder, onnx_encoder
from pipeline.lab.cli.main import app
from tests.engines import engine, untrained
from tests.pretrained import tiny_bert


@pytest.fixture
def older(tmp_path) -> Path:
    """An engine as engines were before their query encoder had a file."""
    folder = shutil.copytree(engine(), tmp_path / "older")
    (folder / "encoder.onnx").unlink()
    manifest = read(folder)
    proofs = {name: proof for name, proof in manifest.parity.items() if name != "encoder"}
    write(replace(manifest, encoder=None, parity=proofs), folder / "engine.json")
    return folder


@pytest.fixture(scope="module")
def both():
    return load_checkpoint(engine() / "allocator.safetensors").encoder, load_encoder(engine())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=120), max_size=4))
def test_the_file_gives_the_checkpoints_vectors_for_any_text(both, texts):
    encoder, embed = both
    found = embed(texts)
    assert found.dtype == np.float32
    assert found.shape == (len(texts), 128)
    assert np.abs(found - encoder.embed(texts)).max(initial=0) <= 1e-5


def test_a_text_has_the_same_vector_whatever_is_asked_beside_it(both):
    alone = both[1](["is there a car?"])[0]
    assert (both[1](["a much longer question about the gate?", "is there a car?"])[1] == alone).all()


def test_the_shipped_file_gives_the_shipped_checkpoints_vectors():
    reference = load_checkpoint(SHIPPED / "allocator.safetensors").encoder.embed
    assert encoder_parity(reference, load_encoder(SHIPPED), 1e-5).largest <= 1e-5


def test_an_engine_without_the_file_still_opens_where_torch_is(older, both):
    assert (load_encoder(older)(QUESTIONS) == both[0].embed(QUESTIONS)).all()
    said = {one.what: one for one in examine(older)}["query encoder"]
    assert said.healthy
    assert f"export --only-encoder {older / 'allocator.safetensors'}" in said.detail


def test_adding_the_file_leaves_the_others_and_the_name_of_the_figures(older, both):
    mark, before = mark_of(older), {path.name: sha256_of(path) for path in older.iterdir()}
    result = CliRunner().invoke(app, ["export", str(older / "allocator.safetensors"), "--only-encoder"])
    assert result.exit_code == 0, result.output
    assert "encoder within" in result.output
    after = {path.name: sha256_of(path) for path in older.iterdir()}
    assert set(after) - set(before) == {"encoder.onnx"}
    assert {name for name in before if after[name] != before[name]} == {"engine.json"}
    assert mark_of(older) == mark
    assert (load_encoder(older)(QUESTIONS) == both[1](QUESTIONS)).all()
    assert all(finding.healthy for finding in examine(older))


def test_a_file_that_is_not_the_manifests_is_refused_with_what_makes_it(older):
    add_encoder(older)
    (older / "encoder.onnx").write_bytes(b"not it")
    with pytest.raises(EngineMismatch, match=r"encoder\.onnx has SHA-256 .*; .* export --only-encoder .*safetensors"):
        load_encoder(older)
    assert "encoder" in [finding.what for finding in examine(older) if not finding.healthy]


def test_a_file_of_another_encoder_is_found_by_check(older, tmp_path):
    other = tmp_path / "other"
    save(replace(untrained(seed=1), network=untrained().network), other / "allocator.safetensors")
    export(other / "allocator.safetensors")
    shutil.copy(other / "encoder.onnx", older / "encoder.onnx")
    write(replace(read(older), encoder=read(other).encoder), older / "engine.json")
    (fault,) = [finding for finding in examine(older) if not finding.healthy]
    assert fault.what == "query encoder"
    assert "differs from the network" in fault.detail


def test_an_encoder_that_does_not_fit_is_not_written(older, monkeypatch):
    nothing = np.zeros((len(QUESTIONS), 128), np.float32)
    monkeypatch.setattr("allocator_engine.export.onnx_encoder", lambda model: lambda texts: nothing)
    before = (older / "engine.json").read_bytes()
    with pytest.raises(ParityError, match="query encoder"):
        add_encoder(older)
    assert (older / "engine.json").read_bytes() == before
    assert not (older / "encoder.onnx").exists()


def test_what_is_no_model_is_refused():
    with pytest.raises(EngineMismatch, match="does not take the model"):
        onnx_encoder(b"not a model")


def test_a_sentence_encoder_of_others_has_no_file(tmp_path):
    checkpoint = Checkpoint(untrained().network, PretrainedEncoder(str(tiny_bert(tmp_path / "words"))), {})
    save(checkpoint, tmp_path / "allocator.safetensors")
    manifest = export(tmp_path / "allocator.safetensors")
    assert manifest.encoder is None
    assert not (tmp_path / "encoder.onnx").exists()
    assert (load_encoder(tmp_path)(["a dog"]) == checkpoint.encoder.embed(["a dog"])).all()
    with pytest.raises(EngineMismatch, match=r"a sentence encoder of others.*\[embedded\]"):
        add_encoder(tmp_path)

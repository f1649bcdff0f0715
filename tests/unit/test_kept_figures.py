"""Figures that were kept before a change of paths, names or the manifest are still those of what is measured."""

from dataclasses import replace

import pytest

from allocator_engine.manifest import SHIPPED, Artifact, Manifest, mark_of, read, write
from allocator_engine.spec import STREAM
from pipeline.build import YARD
from pipeline.config.mllm import YardConfig
from pipeline.lab.comparison import Comparison, kept_files
from samples.yard.card import report
from samples.yard.card.evaluate import hashes as card_hashes
from samples.yard.card.evaluate import kept_file
from samples.yard.card.replay import SETTINGS

COMPARED = Comparison(
    tasks="yard", seeds=range(800_000, 800_003), seconds=32.0, budgets=(0.1,), allocators=("learned", "fixed"),
    families=("watch_f1",), engine=SHIPPED, mllm=YardConfig(),
)  # fmt: skip


def test_a_resume_folder_of_the_yard_keeps_its_file_names():
    """What was asked keeps its name; what was spent is named by the version of the ledger."""
    assert kept_files(COMPARED.hashes()) == ("spent-92babd786b65.jsonl", "asked-2a1692720395.jsonl")


def test_figures_of_the_shipped_engine_keep_their_name():
    """It was measured before its query encoder had a file."""
    assert COMPARED.hashes()["engine"] == mark_of(SHIPPED) == "be677affd67d"


def test_figures_of_an_engine_are_named_after_its_manifest_unless_that_says_otherwise(tmp_path):
    manifest = Manifest(STREAM, Artifact("a.safetensors", "0" * 64))
    write(manifest, tmp_path / "engine.json")
    own = mark_of(tmp_path)
    assert len(own) == 12
    write(replace(manifest, encoder=Artifact("encoder.onnx", "1" * 64), mark=own), tmp_path / "engine.json")
    assert mark_of(tmp_path) == own
    write(replace(manifest, encoder=Artifact("encoder.onnx", "1" * 64)), tmp_path / "engine.json")
    assert mark_of(tmp_path) != own


def test_the_shipped_engine_learned_from_the_shipped_mllm():
    assert card_hashes(YARD)["weights"] == read(SHIPPED).trained_on["mllm"]


def test_the_records_behind_the_card_keep_their_file_names(tmp_path):
    assert kept_file(tmp_path, SETTINGS["native"], YARD) == (
        tmp_path / "native-d7fad19b916f-e5b6812bd494-2b0230bfc32a-1cffcbc64414-540bbe8e4706.jsonl"
    )


def test_the_card_was_measured_on_what_is_here_now():
    assert report.measured_on((YARD / "README.md").read_text()) == card_hashes(YARD)


@pytest.mark.parametrize("part", ["world", "weights"])
def test_figures_of_something_else_do_not_enter_the_card(part, tmp_path, monkeypatch, capsys):
    summary = report.Summary(seeds="800000:800001", hashes=card_hashes(YARD) | {part: "else"}, settings={})
    assert report.stale([summary], YARD) is not None
    assert report.stale([replace_hashes(summary)], YARD) is None


def replace_hashes(summary: report.Summary) -> report.Summary:
    return summary.model_copy(update={"hashes": card_hashes(YARD)})

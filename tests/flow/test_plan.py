"""`resadapt plan` and `resadapt bench machine`, as people type them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.errors import ConfigError

SITE = """
mllm: openai:http://mllm:8000/v1#Qwen/Qwen3-VL-8B-Instruct
streams: {%s}
watches: {lorry: {question: "Is a lorry at the gate?"}}
"""


def site(tmp_path: Path, streams: int) -> Path:
    file = tmp_path / "site.yaml"
    file.write_text(SITE % ", ".join(f"s{n}: {{url: 'rtsp://10.0.0.{n}/1'}}" for n in range(streams)))
    return file


def resadapt(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "120"})
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def test_a_site_that_fits_says_what_gives_first(tmp_path: Path) -> None:
    code, said = resadapt("plan", "-c", site(tmp_path, 2), "--gpu", "h100", "--cores", 16)
    assert code == 0, said
    assert "it fits" in said
    assert "gives first" in said


def test_without_cores_it_is_about_this_machine_whose_memory_is_known(tmp_path: Path) -> None:
    _, there = resadapt("plan", "-c", site(tmp_path, 2), "--gpu", "h100", "--cores", 16)
    _, here = resadapt("plan", "-c", site(tmp_path, 2), "--gpu", "h100")
    assert "memory is not known here: --memory GIB" in there
    assert "not known" not in here


def test_one_that_does_not_says_what_to_change_and_ends_with_3(tmp_path: Path) -> None:
    code, said = resadapt("plan", "-c", site(tmp_path, 120), "--gpu", "orin", "--cores", 12)
    assert code == 3
    assert "it does not fit" in said
    assert "budget.rate_tokens_per_s" in said


def test_programs_get_every_part(tmp_path: Path) -> None:
    code, said = resadapt("plan", "-c", site(tmp_path, 2), "--gpu", "l40s", "--cores", 16, "--json")
    found = json.loads(said)
    assert (code, found["fits"]) == (0, True)
    assert {"cores", "MLLM", "decoding", "store", "network", "memory", "prefix cache"} <= {
        one["part"] for one in found["parts"]
    }


@pytest.mark.parametrize(
    "wrong", [["--gpu", "h1000"], ["--size", "big"], ["--fps", "0"], ["--cores", "0"], ["--measured", "/nowhere"]]
)
def test_what_is_wrong_is_refused(wrong: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        resadapt("plan", "-c", site(tmp_path, 2), *wrong)


def test_what_a_machine_does_is_measured_and_planned_with(tmp_path: Path) -> None:
    code, said = resadapt("bench", "machine", "--size", "320x180", "--seconds", 2, "--json")
    assert code == 0
    figures = json.loads(said)["machine"]
    assert min(figures[one] for one in ("core_pixels_per_s", "allocate_s", "commit_s")) > 0
    measured = tmp_path / "machine.json"
    measured.write_text(said)
    code, said = resadapt("plan", "-c", site(tmp_path, 2), "--gpu", "h100", "--measured", measured, "--json")
    parts = {one["part"]: one["source"] for one in json.loads(said)["parts"]}
    assert (parts["cores"], parts["MLLM"]) == ("measured", "estimated")


@pytest.mark.parametrize("wrong", [["--size", "321x180"], ["--seconds", "0"], ["--size", "wide"]])
def test_a_clip_that_cannot_be_made_is_refused(wrong: list[str]) -> None:
    with pytest.raises(ConfigError):
        resadapt("bench", "machine", *wrong)

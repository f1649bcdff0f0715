"""What a person sees of an MLLM on the command line: a server that is not there, and the bench."""

import json
from pathlib import Path

import pytest

from tests.flow.test_cli import SCENE, resadapt
from tests.mllm_server import MODEL, serving


def test_a_server_that_cannot_be_reached_at_the_start_is_named_in_one_line(tmp_path: Path) -> None:
    spec = f"openai:http://127.0.0.1:1/v1#{MODEL}"
    done = resadapt("run", SCENE, "--watch", "is there a car?", "--mllm", spec, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "http://127.0.0.1:1 cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_bench_of_an_mllm_ends_with_one_line_of_json(tmp_path: Path) -> None:
    with serving() as server:
        spec = f"openai:{server.url}#{MODEL}"
        done = resadapt(
            "bench", "mllm", "--mllm", spec, "--watches", "1,2", "--hops", "1", "--sliding", "3", "--json", cwd=tmp_path
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {"encoded_ratio", "prefill_vs_naive", "wall_vs_naive", "sliding_saved"} <= told.keys()
    assert told["encoded_ratio"] == 1.0
    assert told["plan"] | {"watches": [1, 2], "hops": 1, "sliding_s": 3} == told["plan"]


@pytest.mark.parametrize(("options", "asked"), [(["--mllm", "tiny:one"], "'one'"), ([], "'other'")])
def test_the_mllm_named_to_the_bench_wins_over_that_of_the_site_file(
    tmp_path: Path, options: list[str], asked: str
) -> None:
    (tmp_path / "site.yaml").write_text("mllm: tiny:other\n")
    done = resadapt("bench", "mllm", "--config", "site.yaml", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert asked in done.stderr


@pytest.mark.parametrize(
    ("options", "said"), [(["--watches", "some"], "--watches is 'some'"), (["--hops", "99"], "--hops is 99")]
)
def test_what_the_bench_cannot_measure_is_refused(tmp_path: Path, options: list[str], said: str) -> None:
    done = resadapt("bench", "mllm", "--mllm", "null", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr

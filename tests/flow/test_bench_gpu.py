"""The bench of a GPU runs from end to end where there is none: a toy of the same architecture on the CPU."""

import json

import pytest

from tests.bench.bench_gpu_mllm import RETENTIONS, WATCHES, main


def test_the_bench_of_a_gpu_tells_every_row_of_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    main("tiny", "cpu", side=6, hops=1)
    *_, line = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    ours = [(row["retention"], row["watches"], row["tokens"]) for row in told["rows"] if row["way"] == "ours"]
    assert ours == [(r, w, tokens) for r, tokens in zip(RETENTIONS, (36, 9, 4), strict=True) for w in WATCHES]
    assert [row["tokens"] for row in told["rows"] if row["way"] == "peers"] == [36, 16 * 36]
    for row in told["rows"]:
        assert min(row["encode_ms"], row["prefill_ms"], row["questions_ms"], row["streams"], row["fit"]) > 0
    assert told["device"] == "cpu"

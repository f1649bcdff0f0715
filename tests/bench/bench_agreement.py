"""Whether vLLM and the embedded backend give the same answers: yard questions on held-out episodes, images and pairs.

python -m tests.bench.bench_agreement [EPISODES]
"""

import asyncio
import os
import sys

from tests.bench.report import p95, tell
from tests.live.test_yard_vllm import COUNTS, FIRST_SEED, VERDICTS, Both, both_answer, show

SAME_SCORE = 0.02


def main(episodes: int) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    lengths = [(count, frames) for frames, counts in COUNTS.items() for count in counts]
    wanted = [lengths[index % len(lengths)] for index in range(episodes)]
    shown = [show(FIRST_SEED + index, *one) for index, one in enumerate(wanted)]
    ours, theirs = asyncio.run(both_answer(shown))
    asked = [(frames, question) for (_, frames), one in zip(wanted, shown, strict=True) for question in one.questions]
    answers = [Both(*one, *said) for one, said in zip(asked, zip(ours, theirs, strict=True), strict=True)]
    rows, summary = [], {}
    for frames, name in ((1, "images"), (2, "pairs"), (0, "all")):
        found = [one for one in answers if frames in (0, one.frames)]
        off = [abs(one.ours.read.score - one.theirs.read.score) for one in found if one.question.answer in VERDICTS]
        agree = sum(one.agree for one in found) / len(found)
        same = sum(value <= SAME_SCORE for value in off) / len(off)
        rows.append((name, len(found), agree, len(off), same, p95(off), max(off)))
        summary[name] = {"questions": len(found), "agree": agree, "same_score": same, "worst_score": max(off)}
    columns = ("segments", "questions", "same answer", "yes/no", f"score within {SAME_SCORE}", "p95 off", "worst")
    tell("vLLM against transformers, yard questions", columns, rows, summary)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)

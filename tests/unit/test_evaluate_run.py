"""An evaluation with a bench that only counts: rates are matched, nothing is asked twice."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from allocator_engine.errors import EngineMismatch
from allocator_engine.evaluate.equal import STEP
from allocator_engine.evaluate.records import Records
from allocator_engine.evaluate.run import Evaluation, Pass, Show, Spending
from allocator_engine.evaluate.tasks import Task, TaskOutcome, TaskQuestion

NATIVE = 1000
EPISODES = [
    (
        Task(f"{number} q", "qa", str(number), f"clip {number}", (TaskQuestion("so?", "yes", "yes_no", 0),)),
        Task(
            f"{number} g", "grounding", str(number), f"clip {number}", (TaskQuestion("when?", "0 to 1", "interval", 0),)
        ),
    )
    for number in range(20)
]


class Counting:
    """`lazy` spends 0.8 of its budget; `steps` whole hundreds; `shy` never more than 50; all others all of it."""

    def __init__(self, fails_after: int = 10**9) -> None:
        self.spent: list[Pass] = []
        self.shown: list[Show] = []
        self.fails_after = fails_after

    def tokens(self, dry: Pass) -> int:
        tokens = dry.budget * NATIVE * STEP**dry.step
        return int(
            {"lazy": 0.8 * tokens, "steps": tokens // 100 * 100, "shy": min(tokens, 50)}.get(dry.allocator, tokens)
        )

    def spend(self, passes: Sequence[Pass]):
        self.spent += passes
        for dry in passes:
            yield Spending(self.tokens(dry), NATIVE, 10, 10, 0.01, 5.0, f"{self.tokens(dry)} tokens")

    def show(self, shows: Sequence[Show]):
        for one in shows:
            if len(self.shown) == self.fails_after:
                raise ConnectionError("gone")
            self.shown.append(one)
            yield one, tuple(TaskOutcome((1.0,), (), 0.1) for _ in one.tasks)


def evaluation(bench: Counting, folder: Path | None = None, **options) -> Evaluation:
    files = [folder / "spent.jsonl", folder / "asked.jsonl"] if folder else [None, None]
    return Evaluation(EPISODES, bench, Records(Spending, files[0]), Records(TaskOutcome, files[1]), **options)


def test_realised_tokens_are_equal_where_they_can_be():
    cells = evaluation(Counting()).cells(["fixed", "lazy", "steps", "shy"], [0.15])
    realised = {cell.allocator: (round(cell.realised, 3), cell.reached) for cell in cells if cell.family == "qa"}
    assert realised["fixed"] == (0.15, True)
    assert realised["lazy"][0] == pytest.approx(0.15, rel=0.02)
    assert realised["lazy"][1]
    assert realised["steps"] == (0.15, True), "half of the episodes a hundred, half two hundred"
    assert realised["shy"] == (0.05, False)


def test_what_is_spent_at_the_rate_itself_is_said_and_can_be_compared():
    for equal in ("tokens", "rates"):
        lazy, steps = evaluation(Counting(), equal=equal).cells(["lazy", "steps"], [0.15])[::2]
        assert (lazy.at_rate, steps.at_rate) == pytest.approx((0.12, 0.1))
        assert (lazy.realised == lazy.at_rate) == (equal == "rates")
        assert lazy.reached == (equal == "tokens")


def test_equal_allocations_of_a_clip_are_shown_once_for_all_that_is_asked():
    bench = Counting()
    evaluation(bench).cells(["fixed", "other", "another"], [0.1, 1.0])
    assert len(bench.shown) == 2 * len(EPISODES)
    assert all(show.tasks == (f"{show.dry.index} q", f"{show.dry.index} g") for show in bench.shown)


def test_a_stopped_evaluation_goes_on_where_it_was(tmp_path):
    first = Counting(fails_after=7)
    with pytest.raises(ConnectionError):
        evaluation(first, tmp_path).cells(["fixed", "lazy"], [0.1])
    (tmp_path / "asked.jsonl").open("a").write('{"name": "cut off')
    second = Counting()
    cells = evaluation(second, tmp_path).cells(["fixed", "lazy"], [0.1])
    assert not second.spent
    assert not {show.dry.task for show in first.shown} & {show.dry.task for show in second.shown}
    third = Counting()
    assert evaluation(third, tmp_path).cells(["fixed", "lazy"], [0.1]) == cells
    assert not third.spent
    assert not third.shown


def test_records_of_another_engine_are_not_taken(tmp_path):
    evaluation(Counting(), tmp_path, marks={"learned": "one"}).cells(["learned", "fixed"], [0.1])
    bench = Counting()
    evaluation(bench, tmp_path, marks={"learned": "two"}).cells(["learned", "fixed"], [0.1])
    assert {dry.allocator for dry in bench.spent} == {"learned"}
    assert not bench.shown, "it allocates as the other did"


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"name": "a", "value": {"tokens": "many"}}'])
def test_a_damaged_record_is_named_by_file_and_line(tmp_path, line):
    file = tmp_path / "spent.jsonl"
    evaluation(Counting(), tmp_path).cells(["fixed"], [0.1])
    first = file.read_text().splitlines(keepends=True)[0]
    file.write_text(f"{first}{line}\n")
    with pytest.raises(EngineMismatch, match=r"line 2 of .*spent\.jsonl is damaged"):
        Records(Spending, file)


def test_progress_is_told():
    heard: list[tuple[str, int, int]] = []
    evaluation(Counting(), on_progress=lambda *what: heard.append(what)).cells(["fixed"], [0.1])
    assert heard[-1] == ("asking the MLLM", 20, 20)

"""What a person reads at the end of a run."""

import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from pipeline.cli.output import ScreenColumn, fitted, plain, share
from pipeline.cli.summary import StreamSummary, advice, report
from pipeline.core.budget import Rate
from pipeline.core.context import Context, ContextRules
from pipeline.core.hops import HopRules
from pipeline.core.judge import WatchState
from pipeline.core.state import Counts, StreamRun, StreamState
from pipeline.core.tally import Tallies, Tally
from pipeline.testing import START
from pipeline.types import Answer, Event, WatchQuery

WATCH = WatchQuery("car", "is there a car?", open_at=0.7, clear_at=0.3)
COUNTS = Counts(hops=60, frames=120, native=6720, allocated=6720, spent=6720, answers=60)
SEEN = Tally(no=60, lowest=0.01, highest=0.04)


def summary(tally: Tally = SEEN, watch: WatchQuery = WATCH, **counts: int) -> StreamSummary:
    run = StreamRun("gate", HopRules(2.0, 1.0), Context.empty("gate", ContextRules()), decided_s=60.0)
    run.counts = replace(COUNTS, **counts)
    return StreamSummary(run, [watch], {watch.id: tally}, Rate(400.0, 4000), "learned")


def printed(found: StreamSummary, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    report(found, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (summary(), "never scored above 0.04: it did not happen, or the MLLM does not see it; try other words"),
        (summary(replace(SEEN, highest=0.64)), "reached 0.64 and opens at 0.70; try --open-at 0.6"),
        (summary(replace(SEEN, highest=0.35)), "never scored above 0.35"),
        (summary(replace(SEEN, highest=0.9), replace(WATCH, confirm=(2, 3))), "not in 2 of 3 answers"),
        (summary(Tally(unknown=60)), "was answered unknown every time"),
        (summary(Tally()), "was never answered"),
        (summary(allocated=600, spent=600), "27,400 tokens of the budget were left unspent"),
        (summary(allocated=600, spent=600), "does not see it at the size that was shown"),
        (summary(native=60_000, allocated=27_000, spent=27_500), "--rate 1000 pays for every frame"),
        (summary(skipped=7), "7 of 60 hops were not asked about"),
        (summary(lost=7), "7 frames were lost"),
        (summary(hops=0), "nothing was seen"),
    ],
)
def test_what_to_try_next_follows_from_what_happened(found: StreamSummary, said: str) -> None:
    assert said in "\n".join(advice(found))


@pytest.mark.parametrize("tally", [Tally(yes=9, no=51, lowest=0.0, highest=0.9, opened=1), Tally(no=60, cleared=1)])
def test_a_watch_that_fired_at_native_size_needs_no_advice(tally: Tally) -> None:
    assert list(advice(summary(tally))) == []


def test_a_watch_that_is_open_since_the_last_run_needs_none_either() -> None:
    found = summary()
    found.run.state = StreamState({WATCH.key: WatchState(is_open=True)})
    assert list(advice(found)) == []


def test_a_run_that_goes_on_has_the_budget_of_its_own_seconds() -> None:
    assert summary().allowed == 4000 + 60 * 400
    found = summary()
    found.run.began_s = 40.0
    assert found.allowed == 20 * 400


@given(st.integers(20, 200))
def test_a_report_is_never_wider_than_its_terminal(width: int) -> None:
    found = summary(Tally(yes=9, no=51, lowest=0.0123, highest=0.98765, opened=12, cleared=11))
    table = printed(found, width).splitlines()
    assert [line for line in table if cell_len(line) > width] == []
    assert "…" not in "".join(table)


def test_scores_have_two_digits_and_costs_are_shares_with_units() -> None:
    said = printed(summary(Tally(yes=9, no=51, lowest=0.0123, highest=0.98765, opened=1, cleared=1)), 200)
    assert "0.01 to 0.99" in said
    assert "6,720 vision tokens spent: 24 % of the 28,000 that the budget allowed" in said
    assert "6,720 of them for frames, 100 % of native size" in said


@given(
    st.lists(
        st.tuples(st.text("abc 界", min_size=1, max_size=30), st.integers(0, 9)),
        min_size=1,
        max_size=8,
        unique_by=lambda column: column[0],
    ),
    st.integers(30, 120),
)
def test_columns_that_do_not_fit_are_dropped_whole_the_lowest_first(columns: list[tuple[str, int]], width: int) -> None:
    made = [ScreenColumn(header, rank) for header, rank in columns]
    table = fitted(made, [["x"] * len(made)], width)
    headers = [str(column.header) for column in table.columns]
    assert headers[0] == made[0].header
    dropped = [one for one in made[1:] if one.header not in headers]
    kept = [one for one in made[1:] if one.header in headers]
    assert all(low.rank <= high.rank for low in dropped for high in kept)
    assert not dropped or sum(cell_len(one.header) + 2 for one in made) - 2 > width


def test_texts_stand_left_and_numbers_right() -> None:
    columns = [ScreenColumn("stream"), ScreenColumn("state", text=True), ScreenColumn("lost")]
    console = Console(width=80, file=io.StringIO())
    console.print(fitted(columns, [["gate", "up", "3"], ["dock", "connecting", "12"]], 80))
    assert isinstance(console.file, io.StringIO)
    assert [line.rstrip() for line in console.file.getvalue().splitlines()] == [
        "stream  state       lost",
        "gate    up             3",
        "dock    connecting    12",
    ]


@given(st.text())
def test_no_text_steers_a_terminal(text: str) -> None:
    assert plain(text).isprintable()


def test_nothing_has_no_share() -> None:
    assert (share(1, 4), share(1, 0)) == ("25 %", "-")


def test_tallies_are_kept_by_stream_and_watch() -> None:
    tallies = Tallies()
    opened = Event("1", "watch.opened", "gate", START, {}, "car")
    tallies.add("gate", [Answer("car", 0.9, 1.0), Answer("van", 0.4, 0.1)], [opened])
    tallies.add("gate", [Answer("car", 0.2, 1.0)], [Event("2", "stream.lost", "gate", START, {})])
    tallies.add("dock", [Answer("car", 0.6, 1.0)], [])
    assert tallies.of("gate", "car") == Tally(yes=1, no=1, lowest=0.2, highest=0.9, opened=1)
    assert tallies.of("gate", "van") == Tally(unknown=1)
    assert tallies.of("dock", "car").asked == 1
    assert tallies.of("dock", "van") == Tally()

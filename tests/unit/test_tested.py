"""What is kept of tests of wordings, and which wording did better by them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.entries import parse_watch
from pipeline.delivery.store import Store
from pipeline.delivery.wording_tests import MOST_TESTS, TESTS_DAYS, WordingTestBook
from pipeline.lab.tested import (
    KeptWordingResult,
    TriedSettings,
    WordingFigures,
    WordingResult,
    better_wordings,
    keep_result,
    results_of,
)
from pipeline.lab.tune import MARGIN
from pipeline.testing import ManualClock
from tests.unit.test_store import server as server
from tests.unit.test_store import url as url

OWN, OTHER, THIRD = "is there a car?", "is a car in view?", "do you see a car?"
WATCH = parse_watch("car", {"question": OWN})
SETTINGS = TriedSettings(WATCH.open_at, WATCH.clear_at, WATCH.confirm, WATCH.hold_s, WATCH.cooldown_s)
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def figures(question, gain=None, low=None, settings=SETTINGS):
    interval = None if low is None else (low, max(low, gain or 0.0))
    return WordingFigures(question, settings, 0.8, 0.9, 0.85, {"f1": (0.7, 0.9)}, 9, 2, 1, gain, interval)


def result(*others, question=OWN, digest="0123456789ab", **more):
    wordings = (figures(question, 0.0, 0.0), *others)
    known = {"zone": "", "count": ""} | more
    return WordingResult(
        1, ("noon.mp4",), digest, 3600.0, 10, known["zone"], known["count"], figures(question), wordings
    )


def kept(*results):
    """The newest last."""
    return [
        KeptWordingResult("me", NOON + timedelta(minutes=n), one.now.question != OWN, one)
        for n, one in enumerate(results)
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([OWN, OTHER, THIRD]),
            st.one_of(st.none(), st.floats(-1, 1)),
            st.one_of(st.none(), st.floats(-1, 1)),
        ),
        max_size=6,
    )
)
def test_only_what_was_surely_better_is_named_each_wording_once_and_the_best_first(tried):
    found = better_wordings(kept(*(result(figures(*one)) for one in tried)), WATCH)
    assert OWN not in {one.figures.question for one in found}
    assert len({one.figures.question for one in found}) == len(found)
    assert all(one.figures.gain >= MARGIN and one.figures.gain_interval[0] > 0 for one in found)
    assert [one.figures.gain for one in found] == sorted((one.figures.gain for one in found), reverse=True)


def test_the_newest_test_of_a_wording_is_what_counts():
    good, bad = result(figures(OTHER, 0.2, 0.1)), result(figures(OTHER, 0.01, -0.1))
    assert [one.figures.question for one in better_wordings(kept(bad, good), WATCH)] == [OTHER]
    assert better_wordings(kept(good, bad), WATCH) == ()


def test_a_test_against_another_question_zone_or_count_says_nothing(tmp_path):
    store = Store(str(tmp_path / "s.db"), ManualClock(NOON))
    book = WordingTestBook(store.database, ManualClock(NOON))
    better = figures(OTHER, 0.2, 0.1)
    for number, one in enumerate(
        (result(better, question=THIRD), result(better, zone="dock"), result(better, count="> 5"))
    ):
        keep_result(book, "car", replace(one, digest=f"{number:012x}"), "me")
    found = results_of(book, "car", WATCH)
    assert [one.stale for one in found] == [True] * 3
    assert better_wordings(found, WATCH) == ()
    keep_result(book, "car", result(better), "me")
    assert len(better_wordings(results_of(book, "car", WATCH), WATCH)) == 1
    counting = parse_watch("car", {"question": OWN, "count": {"op": ">", "value": 5}})
    assert len(better_wordings(results_of(book, "car", counting), counting)) == 1
    store.close()


def test_settings_that_were_changed_since_are_said():
    now = parse_watch("car", {"question": OWN, "open_at": 0.9})
    (one,) = better_wordings(kept(result(figures(OTHER, 0.2, 0.1))), now)
    assert one.other_settings
    assert one.changes == {"question": OTHER, "open_at": WATCH.open_at}
    assert not better_wordings(kept(result(figures(OTHER, 0.2, 0.1))), WATCH)[0].other_settings


@pytest.fixture
def book(tmp_path):
    clock = ManualClock(NOON)
    store = Store(str(tmp_path / "s.db"), clock)
    yield WordingTestBook(store.database, clock), clock
    store.close()


def test_the_newest_are_kept_of_each_watch_and_the_same_test_once(book):
    tests, _ = book
    for number in range(MOST_TESTS + 5):
        keep_result(tests, "car", result(digest=f"{number:012x}"), "me")
        keep_result(tests, "bus", result(), "me")
    found = results_of(tests, "car", WATCH)
    assert [one.result.digest for one in found] == [f"{n:012x}" for n in range(MOST_TESTS + 4, 4, -1)]
    assert len(results_of(tests, "bus", WATCH)) == 1


def test_old_results_are_forgotten_whatever_watch_they_were_of(book):
    tests, clock = book
    keep_result(tests, "car", result(), "me")
    clock.advance(TESTS_DAYS * 86_400 + 1)
    assert results_of(tests, "car", WATCH) == ()
    keep_result(tests, "bus", result(), "me")
    clock.advance(-TESTS_DAYS * 86_400)
    assert results_of(tests, "car", WATCH) == (), "it is gone from the store"


def test_a_result_of_another_shape_is_left_out(book):
    tests, _ = book
    keep_result(tests, "car", result(), "me")
    tests.keep("car", "of another release", '{"wording": 1}', "me")
    assert len(results_of(tests, "car", WATCH)) == 1


@pytest.mark.parametrize("watches", [("car", "bus"), ("car", "car")])
def test_books_of_two_processes_that_keep_at_once_lose_nothing(url, watches):
    stores = [Store(url, ManualClock(NOON)) for _ in watches]
    together, each = threading.Barrier(len(stores), timeout=60), MOST_TESTS // 2

    def keep(number):
        book = WordingTestBook(stores[number].database, ManualClock(NOON))
        for place in range(each):
            together.wait()
            book.keep(watches[number], f"{number} {place}", "{}", "me")

    with ThreadPoolExecutor(len(stores)) as threads:
        list(threads.map(keep, range(len(stores))))
    book = WordingTestBook(stores[0].database, ManualClock(NOON))
    found = {(watch, one.subject) for watch in watches for one in book.of(watch)}
    assert found == {(watch, f"{number} {place}") for number, watch in enumerate(watches) for place in range(each)}
    for store in stores:
        store.close()


def test_to_keep_a_result_touches_no_other_watch_whose_results_are_not_too_old(book, tmp_path):
    tests, _ = book
    for watch in ("bus", "car"):
        keep_result(tests, watch, result(), "me")
    other = sa.create_engine(f"sqlite:///{tmp_path / 's.db'}")
    with other.begin() as connection:
        for what in ("UPDATE", "DELETE"):
            connection.exec_driver_sql(
                f"CREATE TRIGGER no_{what} BEFORE {what} ON meta WHEN OLD.key = 'wording_tests:bus'"
                " BEGIN SELECT RAISE(ABORT, 'another watch'); END"
            )
    other.dispose()
    keep_result(tests, "car", result(digest="abcdefabcdef"), "me")
    assert [len(results_of(tests, watch, WATCH)) for watch in ("bus", "car")] == [1, 2]


def test_what_another_process_keeps_meanwhile_is_not_forgotten_with_what_was_too_old(tmp_path, monkeypatch):
    clock = ManualClock(NOON)
    own, other = (Store(str(tmp_path / "s.db"), clock) for _ in range(2))
    tests, others = (WordingTestBook(one.database, clock) for one in (own, other))
    tests.keep("car", "old", "{}", "me")
    clock.advance(TESTS_DAYS * 86_400 + 1)
    writing = own.database.writing

    def later():
        monkeypatch.undo()
        others.keep("car", "new", "{}", "other")
        return writing()

    monkeypatch.setattr(own.database, "writing", later)
    tests.keep("bus", "of another watch", "{}", "me")
    assert [one.subject for one in tests.of("car")] == ["new"]
    own.close()
    other.close()

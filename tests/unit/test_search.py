"""Events are found by words and by their pictures, the same in SQLite and PostgreSQL, and it is said what was not."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from pipeline.core.budget import Ledger, Rate
from pipeline.delivery.labels import LabelBook
from pipeline.delivery.store import Store
from pipeline.errors import ConfigError, MLLMOverloaded, MLLMUnavailable
from pipeline.evidence.folder import Folder
from pipeline.evidence.looking import LookRules, by_looking, by_words, question_for
from pipeline.evidence.search import MAX_TEXT_CHARS, DisplayNames, EventSearch, terms_of
from pipeline.evidence.shelf import Shelf
from pipeline.mllm.null import NullMLLM
from pipeline.testing import ManualClock, ScriptedMLLM
from tests.pictured import TIME, committed, happened, pictured, red, redness, seeing
from tests.unit.test_store import server as server
from tests.unit.test_store import url as url

NOW = TIME + timedelta(days=1)


@pytest.fixture
def store(url):
    store = Store(url, ManualClock(NOW))
    yield store
    store.close()


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "evidence")


class DoubtfulMLLM(ScriptedMLLM):
    """Sees how red a picture is, and does not know about what is very red."""

    def __init__(self):
        super().__init__(redness)
        self.info = seeing().info

    async def ask(self, *arguments):
        answers = await super().ask(*arguments)
        (one,) = answers.answers
        return replace(answers, answers=(replace(one, mass=0.1 if one.score > 0.5 else 1.0),))


def searching(store, folder, **names):
    shelf = Shelf(store.database, folder)
    labels = LabelBook(store.database, ManualClock(NOW))
    return EventSearch(store.history, labels, shelf.manifests, DisplayNames(**names)), shelf


def found(store, folder, text, names=None, **how):
    search, _ = searching(store, folder, **(names or {}))
    return by_words(search, terms_of(text, NOW, **how))


def ids(result):
    return [one.stored.event.id for one in result.events]


def looked(store, folder, text, mllm, budget=None, clock=None, limit=20, **rules):
    search, shelf = searching(store, folder)
    terms = terms_of(text, NOW, limit=limit)
    return asyncio.run(by_looking(search, shelf, terms, LookRules(**rules), mllm, clock or ManualClock(NOW), budget))


def test_an_event_is_found_by_every_text_that_is_kept_with_it(store, folder):
    committed(
        store,
        happened(1, "is a ladder at the fence?"),
        happened(2, "is a van at the dock?", text="A man carries a LADDER past the van."),
        happened(3, "which colour has the van?", value="turquoise"),
        happened(4, stream="north-gate"),
        happened(5, watch=None, kind="stream.lost", stream="yard", reason="the camera refuses its password"),
        happened(6, "is it raining?", watch="rain"),
    )
    event = store.history.event("event-6").event
    LabelBook(store.database, ManualClock(NOW)).mark(event, "false", "only a sprinkler", "ann")
    for text, wanted in (
        ("ladder", {"event-1", "event-2"}),
        ("Turquoise!", {"event-3"}),
        ("north", {"event-4"}),
        ("password refused", {"event-5"}),
        ("sprinklers", {"event-6"}),
        ("lost", {"event-5"}),
        ("an elephant", set()),
    ):
        assert set(ids(found(store, folder, text))) == wanted, text
    assert ids(found(store, folder, "back door", {"streams": {"north-gate": "The back door"}})) == ["event-4"]
    assert ids(found(store, folder, "weather", {"watches": {"rain": "Weather"}})) == ["event-6"]
    LabelBook(store.database, ManualClock(NOW)).mark(event, "true", "", "ann")
    assert ids(found(store, folder, "sprinkler")) == []


def test_the_best_come_first_the_newest_of_equals_and_what_was_searched_is_said(store, folder):
    vans = [happened(n) for n in range(1, 9)]
    committed(store, *vans, happened(9, "is a ladder at the dock?"))
    result = found(store, folder, "ladder van", limit=3)
    assert ids(result) == ["event-9", "event-8", "event-7"]
    assert result.events[0].ranked.words == ("ladder", "van")
    assert result.events[1].ranked.words == ("van",)
    assert (len(result.among.events), len(result.among.matched)) == (9, 9)
    assert (result.among.oldest, result.among.newest) == (vans[0].time, TIME + timedelta(minutes=9))
    assert result.left_out == ("6 more events that have words of it (limit 3)",)
    assert result.cost.asked == 0


def test_a_span_a_stream_and_a_watch_bound_what_is_searched(store, folder):
    committed(store, happened(1), happened(2, stream="yard"), happened(3, watch="bus"), happened(4), happened(600))
    assert ids(found(store, folder, "van", since="15h")) == ["event-600"]
    assert ids(found(store, folder, "van", until="23h", streams=frozenset({"yard"}))) == ["event-2"]
    assert ids(found(store, folder, "van", watch="bus")) == ["event-3"]
    assert ids(found(store, folder, "van", streams=frozenset())) == []


def test_no_more_events_are_read_than_the_bound_and_the_rest_is_counted(store, folder):
    committed(store, *(happened(n) for n in range(7)))
    search, _ = searching(store, folder)
    among = search.find(terms_of("van", NOW), most=4)
    assert [one.id for one in among.events] == ["event-6", "event-5", "event-4", "event-3"]
    assert among.left_out == ("3 older events of that span: 4 are looked through at most",)
    assert search.find(terms_of("van", NOW), most=7).left_out == ()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"text": ""}, "text: '' has no word"),
        ({"text": " \t?!"}, "has no word"),
        ({"text": "x" * 10_000}, "text: has 10000 characters; expected at most 500"),
        ({"since": "2026-06-01"}, r"since: 2026-06-01T00:00:00\+00:00 lies in the future"),
        ({"since": "soon"}, "since: 'soon' is no time"),
        ({"since": "1h", "until": "2h"}, "until: .* lies before since"),
        ({"limit": 0}, "limit: is 0"),
        ({"watch": "a\0"}, "watch: holds a NUL"),
        ({"streams": frozenset({"\0"})}, "stream: holds a NUL"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_name(how, words):
    with pytest.raises(ConfigError, match=words):
        terms_of(**{"text": "van", "now": NOW} | how)
    assert terms_of("x" * MAX_TEXT_CHARS, NOW)


def test_what_pictures_show_decides_where_the_mllm_is_asked(store, folder):
    shares = {1: 0.9, 2: 0.1, 3: 0.6}
    events = [happened(n) for n in range(1, 5)]
    committed(store, *events)
    for event, share in zip(events, shares.values(), strict=False):
        pictured(store, folder, event, red(share))
    mllm = seeing()
    result = looked(store, folder, "something red", mllm)
    assert ids(result) == ["event-1", "event-3", "event-2"]
    assert [round(one.answer.score, 1) for one in result.events] == [0.9, 0.6, 0.1]
    cost = result.cost
    assert (cost.asked, cost.yes, cost.no, cost.unknown) == (3, 2, 1, 0)
    assert cost.vision_tokens == sum(mllm.sent)
    assert result.question == "Is this to be seen in the picture: something red?"
    assert result.left_out == ("1 events of which no snapshot is kept",)


def test_those_with_words_of_the_text_are_asked_about_first_then_the_newest(store, folder):
    events = [happened(1, "is a ladder here?"), *(happened(n) for n in range(2, 6))]
    committed(store, *events)
    for n, event in enumerate(events):
        pictured(store, folder, event, red(0.5 + n / 20))
    mllm = seeing()
    result = looked(store, folder, "a ladder", mllm, at_most=2)
    assert [context.stream_id for context, _ in mllm.asked] == ["search at event-1", "search at event-5"]
    assert "3 more snapshots (at most 2 are asked about)" in result.left_out


def test_one_picture_of_several_events_is_asked_about_once(store, folder):
    events = [happened(n, watch=f"w{n}") for n in range(1, 4)]
    committed(store, *events)
    for event in events:
        pictured(store, folder, event, red(0.8))
    mllm = seeing()
    result = looked(store, folder, "red", mllm, at_most=1)
    assert len(mllm.asked) == 1
    assert ids(result) == ["event-3", "event-2", "event-1"]
    assert result.cost.asked == 1


@pytest.mark.parametrize("tokens", [16, 64, 256])
def test_a_snapshot_costs_no_more_than_its_tokens(store, folder, tokens):
    committed(store, event := happened(1))
    pictured(store, folder, event, red(0.8, 720, 1280))
    mllm = seeing()
    result = looked(store, folder, "red", mllm, tokens=tokens)
    assert 0 < result.cost.vision_tokens <= tokens
    assert mllm.asked[0][0].tokens == result.cost.vision_tokens


def test_an_unknown_answer_comes_behind_a_known_one_and_what_was_not_asked_behind_both(store, folder):
    events = [happened(n, "is it red?") for n in range(1, 4)]
    committed(store, *events)
    pictured(store, folder, events[0], red(0.4))
    pictured(store, folder, events[1], red(0.9))

    result = looked(store, folder, "red", DoubtfulMLLM())
    assert ids(result) == ["event-1", "event-2", "event-3"]
    assert (result.cost.no, result.cost.unknown) == (1, 1)
    assert result.events[2].answer is None


def test_evidence_that_was_changed_or_is_too_thin_is_left_out_by_name(store, folder):
    events = [happened(n) for n in range(1, 4)]
    committed(store, *events)
    pictured(store, folder, events[0], red(0.9)).write_bytes(b"something else")
    pictured(store, folder, events[1], red(0.7))
    pictured(store, folder, events[2], np.zeros((8, 4000, 3), np.uint8))
    result = looked(store, folder, "red", seeing())
    assert ids(result) == ["event-2"]
    assert any("1 snapshots: the snapshot" in one and "was changed" in one for one in result.left_out)
    assert any("too long and thin" in one for one in result.left_out)


def test_no_evidence_is_no_answer_and_no_cost(store, folder):
    committed(store, happened(1), happened(2, "is it red?"))
    result = looked(store, folder, "red", seeing())
    assert ids(result) == ["event-2"]
    assert result.cost.asked == result.cost.vision_tokens == 0
    assert result.left_out == ("2 events of which no snapshot is kept",)


def test_an_mllm_that_does_not_look_is_refused(store, folder):
    with pytest.raises(ConfigError, match="null answers without looking"):
        looked(store, folder, "red", NullMLLM())


def test_a_budget_that_runs_out_or_an_mllm_that_goes_away_ends_the_asking_in_the_open(store, folder):
    events = [happened(n) for n in range(1, 4)]
    committed(store, *events)
    for n, event in enumerate(events, 1):
        pictured(store, folder, event, red(n / 4))
    clock = ManualClock(NOW)
    budget = Ledger(clock, Rate(1, 20))
    result = looked(store, folder, "red", seeing(), budget, clock, tokens=16)
    assert result.cost.asked == 1
    assert any(
        one.startswith("2 snapshots that were not asked about: ") and "gpu_budget" in one for one in result.left_out
    )
    with pytest.raises(MLLMOverloaded, match="gpu_budget"):
        looked(store, folder, "red", seeing(), Ledger(clock, Rate(1, 1)), clock)
    away = seeing()
    away.failures = [None, MLLMUnavailable("the server is away")]
    result = looked(store, folder, "red", away)
    assert (result.cost.asked, len(result.events)) == (1, 1)
    assert "2 snapshots that were not asked about: the server is away" in result.left_out
    away.failures = [MLLMUnavailable("the server is away")]
    with pytest.raises(MLLMUnavailable):
        looked(store, folder, "red", away)


def test_asking_ends_in_time(store, folder):
    events = [happened(n) for n in range(1, 4)]
    committed(store, *events)
    for n, event in enumerate(events, 1):
        pictured(store, folder, event, red(n / 4))
    clock = ManualClock(NOW)

    def slow(_context, _query):
        clock.advance(100)
        return 1.0

    result = looked(store, folder, "red", seeing(slow), clock=clock)
    assert result.cost.asked == 2
    assert "1 snapshots that were not asked about: 120 s are over" in result.left_out


def test_a_text_that_is_a_question_is_asked_as_it_is_and_markup_is_not_sent():
    assert question_for(" is a  van at the dock? ") == "is a van at the dock?"
    assert question_for("有梯子吗\uff1f") == "有梯子吗\uff1f"
    assert question_for("a <|image_pad|> van") == "Is this to be seen in the picture: a van?"


@pytest.mark.parametrize("rules", [{"at_most": 0}, {"at_most": 501}, {"tokens": 1}, {"tokens": 100_000}])
def test_bounds_of_asking_are_named(rules):
    with pytest.raises(ConfigError, match=f"^{next(iter(rules))}: is "):
        LookRules(**rules)

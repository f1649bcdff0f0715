"""The registry: revisions, owners, history, all or none."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config.site import parse_site
from pipeline.delivery.store import Store
from pipeline.errors import ConfigError
from pipeline.registry import registry as limits
from pipeline.registry.desired import Composer
from pipeline.registry.entry import Change, EntryMissing, EntryOwned, EntryPresent, RevisionConflict
from pipeline.registry.registry import Registry
from pipeline.testing import ManualClock
from tests.unit.test_store import url  # noqa: F401 - a fixture: SQLite and PostgreSQL


@pytest.fixture
def registry(url):  # noqa: F811
    store = Store(url, ManualClock())
    yield Registry(store.database, ManualClock())
    store.close()


def stream(slug, owner="ann", expected="any", **spec):
    return Change("stream", slug, {"url": f"rtsp://{slug}/1", **spec}, owner, expected)


def test_an_entry_has_a_revision_more_with_each_change_and_none_without(registry):
    (gate,) = registry.edit([stream("gate")], "ann")
    (same,) = registry.edit([stream("gate")], "bob")
    (other,) = registry.edit([stream("gate", priority=2)], "bob")
    assert (gate.revision, same.revision, other.revision) == (1, 1, 2)
    assert registry.snapshot().get("stream", "gate").spec == {"url": "rtsp://gate/1", "priority": 2}
    history = registry.edits()
    assert [(edit.revision, edit.actor) for edit in history] == [(2, "bob"), (1, "ann")]
    assert (history[0].before, history[1].before) == ({"url": "rtsp://gate/1"}, None)


def test_of_two_operators_with_one_revision_the_second_is_told(registry):
    registry.edit([stream("gate")], "ann")
    registry.edit([stream("gate", expected=1, priority=2)], "ann")
    with pytest.raises(RevisionConflict, match="at revision 2 now"):
        registry.edit([stream("gate", expected=1, priority=3)], "bob")
    assert registry.snapshot().get("stream", "gate").spec["priority"] == 2


def test_of_many_who_edit_one_revision_at_once_one_succeeds(registry):
    registry.edit([stream("gate")], "ann")

    def attempt(n):
        try:
            registry.edit([stream("gate", expected=1, priority=n)], f"user {n}")
        except RevisionConflict:
            return 0
        return n

    with ThreadPoolExecutor(8) as threads:
        done = [n for n in threads.map(attempt, range(2, 18)) if n]
    assert len(done) == 1
    assert registry.snapshot().get("stream", "gate").spec["priority"] == done[0]


def test_changes_are_made_together_or_not_at_all(registry):
    with pytest.raises(EntryMissing, match="'yard'"):
        registry.edit([stream("gate"), Change("stream", "yard", None, "ann")], "ann")
    assert registry.snapshot().entries == {}
    assert registry.edits() == []


def test_adding_what_is_there_and_changing_what_is_not_are_refused(registry):
    registry.edit([stream("gate", expected="absent")], "ann")
    with pytest.raises(EntryPresent, match="already"):
        registry.edit([stream("gate", expected="absent")], "ann")
    with pytest.raises(EntryMissing, match="any more"):
        registry.edit([stream("yard", expected=4)], "ann")
    with pytest.raises(EntryMissing, match="there are gate"):
        registry.snapshot().get("stream", "yard")


def test_an_entry_that_comes_back_is_never_at_a_revision_it_had(registry):
    registry.edit([stream("gate")], "ann")
    registry.edit([Change("stream", "gate", None, "ann")], "ann")
    (again,) = registry.edit([stream("gate")], "ann")
    assert again.revision == 3


def test_what_a_file_says_is_changed_by_that_file_alone(registry):
    registry.edit([stream("gate", owner="file:/etc/site.yaml")], "file:/etc/site.yaml")
    for change in (stream("gate", priority=2), Change("stream", "gate", None, "ann")):
        with pytest.raises(EntryOwned, match=r"/etc/site\.yaml"):
            registry.edit([change], "ann")
    registry.edit([stream("gate", owner="file:/etc/site.yaml", priority=2)], "file:/etc/site.yaml")
    registry.edit([stream("yard"), stream("yard", owner="file:/etc/site.yaml")], "file:/etc/site.yaml")
    assert registry.snapshot().get("stream", "yard").file == "/etc/site.yaml"


def test_the_history_can_be_narrowed_and_paged(registry):
    registry.edit([stream(slug) for slug in "abc"], "ann")
    registry.edit([Change("watch", "a", {"question": "q?"}, "ann")], "ann")
    assert [edit.slug for edit in registry.edits(kind="stream", slug="a")] == ["a"]
    newest = registry.edits(limit=2)
    assert [(edit.kind, edit.slug) for edit in newest] == [("watch", "a"), ("stream", "c")]
    assert [edit.slug for edit in registry.edits(limit=2, before_seq=newest[-1].seq)] == ["b", "a"]


def test_bounds_are_kept(registry, monkeypatch):
    monkeypatch.setattr(limits, "MAX_ENTRIES", 2)
    monkeypatch.setattr(limits, "KEEP_EDITS", 3)
    registry.edit([stream("a"), stream("b")], "ann")
    with pytest.raises(ConfigError, match="the most there may be"):
        registry.edit([stream("c")], "ann")
    for n in range(1, 10):
        registry.edit([stream("a", priority=n)], "ann")
    assert len(registry.edits()) == 3
    with pytest.raises(ConfigError, match="bytes"):
        registry.edit([stream("a", display_name="x" * 70_000)], "ann")


operations = st.lists(
    st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(1, 9)), st.booleans()), max_size=30
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations)
def test_a_snapshot_read_by_parts_is_what_is_there(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("registry")
    store = Store(f"sqlite:///{folder / 'store.db'}", ManualClock())
    here, elsewhere = (Registry(store.database, ManualClock()) for _ in range(2))
    model: dict[str, int] = {}
    for slug, priority, remote in steps:
        editor = elsewhere if remote else here
        if priority is None:
            if slug in model:
                editor.edit([Change("stream", slug, None, "ann")], "ann")
                del model[slug]
        else:
            editor.edit([stream(slug, priority=priority)], "ann")
            model[slug] = priority
        found = {slug: entry.spec["priority"] for slug, entry in here.snapshot().of("stream").items()}
        assert found == model
    store.close()


RAW = {
    "defaults": {"sample_fps": 4},
    "streams": {"gate": {"url": "rtsp://me:s3cret@gate/1?key=s3cret", "tags": ["dock"]}},
    "watches": {"fire": {"question": "is there a fire?", "streams": ["tag:dock"]}},
    "sinks": {"hook": {"url": "https://hooks.example/T0/s3cret", "secret": "s3cret"}},
    "mllm": "null",
}


def composed(registry, composer):
    registry.edit(composer.changes(registry.snapshot()), composer.owner)
    return composer.compose(registry.snapshot())


def test_a_site_file_is_applied_and_runs_as_it_is_written(registry):
    composer = Composer(parse_site(RAW), RAW, Path("/etc/site.yaml"))
    desired = composed(registry, composer)
    assert desired.site == parse_site(RAW)
    assert "s3cret" not in json.dumps([dict(entry.spec) for entry in registry.snapshot().entries.values()])
    assert composed(registry, composer) == desired
    assert len(registry.edits()) == 3


def test_what_was_added_by_hand_stays_beside_the_file_and_what_the_file_dropped_goes(registry):
    composed(registry, Composer(parse_site(RAW), RAW, Path("/etc/site.yaml")))
    registry.edit([stream("yard", tags=["dock"]), Change("watch", "car", {"question": "a car?"}, "ann")], "ann")
    less = {**RAW, "streams": {}, "watches": {}}
    site = composed(registry, Composer(parse_site(less), less, Path("/etc/site.yaml"))).site
    assert list(site.streams) == ["yard"]
    assert site.streams["yard"].sample_fps == 4
    assert list(site.watches) == ["car"]
    assert list(composed(registry, Composer(parse_site({}), {}, None)).site.sinks) == ["journal"]


def test_an_entry_that_cannot_be_read_is_left_out_with_the_reason_and_takes_nobody_along(registry):
    registry.edit([stream("gate"), stream("yard", sample_fps="often")], "ann")
    desired = Composer(parse_site({}), {}, None).compose(registry.snapshot())
    assert list(desired.site.streams) == ["gate"]
    assert "sample_fps" in desired.faults["stream", "yard"]

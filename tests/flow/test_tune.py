"""A watch tuned by its labels: on a store, by the API and by the command line, with and without the service."""

import asyncio
import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from pipeline.api.labels import export_of
from pipeline.cli.main import app
from pipeline.config.entries import parse_watch
from pipeline.core.outcome import Decision, HopRecord
from pipeline.delivery.labels import LabelBook, LabelFilter
from pipeline.delivery.store import Store
from pipeline.errors import ConfigError
from pipeline.lab.kept import KeptSeries, rejudge
from pipeline.lab.labels import rows_in
from pipeline.lab.recorded import truths_of
from pipeline.lab.tuning import tune_watch
from pipeline.registry.entry import Change, EntryOwned
from pipeline.registry.registry import Registry
from pipeline.testing import ManualClock
from pipeline.types import Answer, Event, WatchQuery
from tests.api import running
from tests.flow.test_api_auth import make
from tests.flow.test_cli_remote import resadapt

WATCH = {"question": "is there a car?", "open_at": 0.95, "clear_at": 0.05}
SECONDS, CARS = 1200, 20
GATE = {"url": "synthetic:?seconds=inf&width=160&height=96&fps=4", "paused": True}
NOW = replace(WatchQuery("car", "is there a car?"), open_at=0.95, clear_at=0.05)


def fill(path, slug="car", entry=True, labelled=True):
    """A store with the answers, events and labels of a watch that missed most cars: one in a minute, for 10 s."""
    began = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=SECONDS + 60)
    clock = ManualClock(began)
    store = Store(f"sqlite:///{path}", clock)
    if entry:
        Registry(store.database, clock).edit([Change("watch", slug, WATCH, "key:me", "absent")], "key:me")
    rng, times = np.random.default_rng(1), np.arange(SECONDS, dtype=float)
    there = times % 60 // 10 == 2
    score = np.clip(np.where(there, 0.6, 0.1) + rng.normal(0, 0.05, SECONDS), 0, 1)
    score[140:144] = score[530:534] = 0.99  # a car, and a shadow
    series = KeptSeries(times, began.timestamp() + times, score, np.ones(SECONDS), (None,) * SECONDS)
    events = [_event(number, one, slug) for number, one in enumerate(rejudge(series, replace(NOW, id=slug)))]
    at = [began + timedelta(seconds=second) for second in range(SECONDS)]
    batch = [
        Decision("gate", "{}", tuple(one for one in events if one.time == at[second]), second + 1.0,
                 HopRecord(float(second), second + 1.0, 9, 9, 9, 0, None, ((float(second), 1.0),),
                           (Answer(slug, float(score[second]), 1.0),), at[second]))
        for second in range(SECONDS)
    ]  # fmt: skip
    for first in range(0, SECONDS, 60):
        store.commit(batch[first : first + 60])
        clock.advance(60.0)
    clock.advance(60.0)
    book = LabelBook(store.database, clock)
    for event in events if labelled else ():
        if event.type == "watch.opened":
            book.mark(event, "true" if 120 <= event.data["onset_s"] < 150 else "false", "", "me")
    for car in range(CARS if labelled else 0):
        start = began + timedelta(seconds=car * 60 + 20)
        if car != 2:
            book.missed("gate", slug, start, start + timedelta(seconds=10), "", "me")
    return store, clock


def _event(number, one, slug):
    since = "cleared_s" if one.kind == "watch.cleared" else "onset_s"
    data = {since: one.since_s, "hop_start_s": one.at_s, "captured_at": one.at.isoformat(), "n": number}
    return Event(f"event-{number}", one.kind, "gate", one.at, data, slug)


def tuned(store, clock, slug="car", since_s=86_400.0, **more):
    book = LabelBook(store.database, clock)
    return tune_watch(store.history, book, slug, parse_watch(slug, WATCH | more), clock.now(), since_s)


def test_labels_of_a_store_give_better_settings(tmp_path):
    store, clock = fill(tmp_path / "s.db")
    found = tuned(store, clock)
    assert dict(found.labels) == {"true": 1, "false": 1, "fixture": 0, "missed": CARS - 1}
    assert (found.streams, found.without_answers) == (("gate",), 0)
    assert (found.tuning.current.right, found.tuning.current.false) == (1, 1)
    assert found.tuning.reason == ""
    assert found.tuning.cross.f1 > 0.9
    assert 0.2 < found.changes["open_at"] < 0.6
    store.close()


def test_what_cannot_be_tuned_is_named(tmp_path):
    store, clock = fill(tmp_path / "s.db")
    with pytest.raises(ConfigError, match="there is no label of the watch dog"):
        tuned(store, clock, "dog")
    with pytest.raises(ConfigError, match="choice: car"):
        tuned(store, clock, choice=["red", "green"], open_at=0.7, clear_at=0.3)
    with pytest.raises(ConfigError, match="no answers of car are kept"):
        tuned(store, clock, since_s=1.0)
    early = tuned(store, clock, since_s=SECONDS / 2 + 60.0)
    assert early.without_answers == CARS // 2
    assert early.tuning.proposed is None or early.tuning.gain > 0
    store.close()


def test_a_label_that_was_withdrawn_counts_no_more(tmp_path):
    store, clock = fill(tmp_path / "s.db")
    book = LabelBook(store.database, clock)
    for label in book.find(LabelFilter(watch="car", kind="missed")):
        book.withdraw(label.id, "me")
    found = tuned(store, clock)
    assert found.labels["missed"] == 0
    assert found.tuning.proposed is None
    assert "name 1 times" in found.tuning.reason
    store.close()


def test_labels_are_exported_with_the_time_that_they_are_about(tmp_path):
    """A label of an event is about all of it, from its onset to its clear, which training has to know."""
    store, clock = fill(tmp_path / "s.db")
    found = LabelBook(store.database, clock).find(LabelFilter(), 100)[::-1]
    rows = list(csv.DictReader(io.StringIO(export_of(store.history, found))))
    store.close()
    began = datetime.fromisoformat(rows[0]["from"]) - timedelta(seconds=140)
    spans = [
        (row["kind"], *((datetime.fromisoformat(row[one]) - began).total_seconds() for one in ("from", "until")))
        for row in rows
    ]
    assert spans[0][:2] == ("true", 140.0)
    assert 144 <= spans[0][2] <= 155, "until its clear, not only its hop"
    assert datetime.fromisoformat(rows[0]["end"]) < datetime.fromisoformat(rows[0]["until"])
    assert spans[2] == ("missed", 20.0, 30.0)
    truth = truths_of(
        rows_in(export_of_rows(rows), ""),
        "",
        {"gate/a.mp4": Path("/r/gate/a.mp4")},
        Path("/r"),
        ["car"],
        Recorded(began),
    )["car"][Path("/r/gate/a.mp4")]
    assert truth.holds[0] == (20.0, 30.0)
    assert any(start <= 142 < end for start, end in truth.holds)


def export_of_rows(rows):
    made = io.StringIO()
    writer = csv.DictWriter(made, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return made.getvalue()


class Recorded:
    """A recording of the time that the store is about."""

    def __init__(self, began):
        self._began = began

    def length_s(self, file):
        return float(SECONDS)

    def began(self, file):
        return self._began


async def test_a_proposal_is_shown_applied_once_and_stands_in_the_history(tmp_path, unused_tcp_port):
    fill(tmp_path / "service.db")[0].close()
    async with running(tmp_path, unused_tcp_port, streams={"gate": GATE}) as service:
        client, path = service.client, "/v1/watches/car/tune"
        shown = (await client.post(path, json={})).json()
        assert (shown["applied"], shown["revision"], shown["reason"]) == (False, None, "")
        assert (await client.get("/v1/watches/car")).json()["revision"] == 1
        said = await resadapt(service, "watch", "tune", "car")
        assert "--apply does it" in said
        assert "taken for looked at" in said
        lines = (await resadapt(service, "watch", "tune", "car", "--json", "--apply")).splitlines()
        applied = json.loads(lines[-1])
        assert {**applied, "applied": False, "revision": None} == shown
        after = (await client.get("/v1/watches/car")).json()
        assert (after["revision"], applied["revision"]) == (2, 2)
        assert {name: after["spec"][name] for name in applied["changes"]} == applied["changes"]
        (edit, _) = (await client.get("/v1/watches/car/history")).json()["items"]
        assert edit["revision"] == 2
        again = (await client.post(path, json={"apply": True})).json()
        assert (again["proposed"], again["applied"], again["changes"]) == (None, False, {})
        assert "nothing is proposed" in await resadapt(service, "watch", "tune", "car")
        for body, status in (({"since_s": 0}, 422), ({"kept": 1}, 422), ({"apply": "perhaps"}, 422)):
            assert (await client.post(path, json=body)).status_code == status
        assert (await client.post("/v1/watches/dog/tune", json={})).status_code == 404


async def test_what_a_site_file_owns_is_proposed_for_and_not_changed(tmp_path, unused_tcp_port):
    fill(tmp_path / "service.db", entry=False)[0].close()
    more = {"streams": {"gate": GATE}, "watches": {"car": WATCH}}
    async with running(tmp_path, unused_tcp_port, **more) as service:
        refused = await service.client.post("/v1/watches/car/tune", json={"apply": True})
        assert (refused.status_code, refused.json()["title"]) == (409, "owned by a site file")
        assert "site.yaml" in refused.json()["detail"]
        with pytest.raises(ConfigError, match="change it there"):
            await resadapt(service, "watch", "tune", "car", "--apply")


async def test_it_takes_an_analyst_and_hides_the_watches_of_others(tmp_path, unused_tcp_port):
    fill(tmp_path / "service.db")[0].close()
    async with running(tmp_path, unused_tcp_port, streams={"gate": GATE}) as service:
        admin = await make(service, "root", "admin")
        viewer, analyst = [await make(service, one, one, by=admin) for one in ("viewer", "analyst")]
        stranger = await make(service, "other", "analyst", ["north"], by=admin)
        for who, status in ((viewer, 403), (stranger, 404), (analyst, 200)):
            answer = await service.client.post("/v1/watches/car/tune", json={}, headers=who)
            assert answer.status_code == status, answer.text


async def test_a_store_without_its_service_says_the_same(tmp_path, unused_tcp_port):
    fill(tmp_path / "service.db")[0].close()
    site = {"store": f"sqlite:///{tmp_path}/service.db", "streams": {"gate": GATE}, "watches": {"bus": WATCH}}
    (tmp_path / "beside.yaml").write_text(yaml.safe_dump(site))

    async def local(*arguments):
        result = await asyncio.to_thread(CliRunner().invoke, app, ["watch", "tune", *arguments])
        if result.exception:
            raise result.exception
        return json.loads(result.stdout.splitlines()[-1])

    store = ("--store", f"sqlite:///{tmp_path}/service.db", "--json")
    beside = await local("car", *store)
    async with running(tmp_path, unused_tcp_port, streams={"gate": GATE}) as service:
        assert (await service.client.post("/v1/watches/car/tune", json={})).json() == beside
    with pytest.raises(ConfigError, match="there is no watch 'dog'; there are car"):
        await local("dog", *store)
    with pytest.raises(ConfigError, match="expected a span"):
        await local("car", *store, "--kept", "long")
    with pytest.raises(EntryOwned, match="written in"):
        await local("bus", "-c", str(tmp_path / "beside.yaml"), "--apply")
    applied = await local("car", *store, "--apply")
    assert (applied["applied"], applied["revision"]) == (True, 2)
    assert (await local("car", *store))["now"]["open_at"] == applied["proposed"]["open_at"]

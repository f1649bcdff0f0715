"""Warnings where more is asked of a service than it has: by what was measured, else by what streams usually cost."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clock import SystemClock
from pipeline.config.site import BudgetConfig, SiteConfig, parse_site
from pipeline.delivery.nodes import NodeOffer, StoredNode
from pipeline.fleet.overview import costs_of
from pipeline.fleet.terms import NodeReport
from pipeline.service.costs import MEASURE_S
from pipeline.service.load import LoadMeter
from pipeline.service.plan import RunningCosts, running_needs, warnings_of, warnings_of_steps
from pipeline.service.service import Service
from pipeline.testing import START

SERVER = "openai:http://mllm:8000/v1#Qwen/Qwen3-VL-8B-Instruct"


def site(streams: int, **more: object) -> SiteConfig:
    cameras = {f"s{n}": {"url": f"rtsp://10.0.0.{n % 250}/1"} for n in range(streams)}
    watches = {"lorry": {"question": "Is there a lorry?"}}
    return parse_site({"mllm": SERVER, "streams": cameras, "watches": watches, **more})


def parts(streams: int, costs: RunningCosts, **more: object) -> set[str]:
    return {one.partition(":")[0] for one in warnings_of(running_needs(site(streams, **more), costs))}


def test_nothing_is_said_where_all_is_well() -> None:
    assert parts(2, RunningCosts(8)) == set()
    assert parts(0, RunningCosts(1)) == set()


def test_it_says_how_much_is_needed_what_there_is_and_what_to_change() -> None:
    (said,) = warnings_of(running_needs(site(20), RunningCosts(4)))
    assert said.startswith("cores: needs 5.9")
    assert " of 4 (148%, what is not measured is taken for cameras of 1920x1080 at 25 fps)" in said
    assert "sub-streams" in said


@settings(max_examples=25)
@given(st.integers(0, 40), st.integers(1, 20), st.floats(1, 64), st.floats(0.01, 2), st.integers(0, 40))
def test_a_further_stream_never_takes_a_warning_away(
    streams: int, more: int, capacity: float, cost: float, known: int
) -> None:
    costs = RunningCosts(capacity, 0.02, {f"s{n}": cost for n in range(known)})
    for bound in ({}, {"mllm": {"use": SERVER, "max_streams": 30}}):
        assert parts(streams, costs, **bound) <= parts(streams + more, costs, **bound)


@settings(max_examples=25)
@given(st.integers(1, 40), st.floats(1, 64), st.floats(0.01, 2), st.floats(0, 2))
def test_what_was_measured_counts_and_more_of_it_never_takes_a_warning_away(
    streams: int, capacity: float, cost: float, more: float
) -> None:
    measured = [RunningCosts(capacity, 0.02, {f"s{n}": one for n in range(streams)}) for one in (cost, cost + more)]
    assert parts(streams, measured[0]) <= parts(streams, measured[1])
    assert ("cores" in parts(streams, measured[0])) == (0.02 + streams * cost > capacity)


def test_the_same_streams_fit_where_they_were_measured_to_cost_little() -> None:
    assert "cores" in parts(20, RunningCosts(4))
    small = RunningCosts(4, 0.02, {f"s{n}": 0.05 for n in range(19)})
    assert parts(20, small) == set()


def test_what_is_measured_of_all_is_said_to_be() -> None:
    (said,) = warnings_of(running_needs(site(2), RunningCosts(1, 0.1, {"s0": 0.6, "s1": 0.6})))
    assert "cores: needs 1.3 of 1 (130%, measured)" in said


def test_a_model_in_the_process_that_works_all_the_time_has_no_room_for_another_stream() -> None:
    tokens = {"s0": 200.0, "s1": 200.0}
    half, full = (RunningCosts(64, tokens_per_s=tokens, mllm_busy=busy) for busy in (0.4, 0.95))
    assert "MLLM" not in parts(2, half)
    assert "MLLM" not in parts(2, full)
    assert "MLLM" in parts(3, full)
    assert parts(3, RunningCosts(64)) == set()  # the speed of a server is not known


@settings(max_examples=25)
@given(st.sampled_from(["url", "sample_fps", "hop_s", "budget"]), st.floats(0.1, 1), st.floats(1, 400))
def test_an_edited_stream_counts_as_unmeasured_and_the_model_as_fast_as_it_was(
    field: str, busy: float, rate: float
) -> None:
    new = {"url": "rtsp://10.1.1.1/1", "sample_fps": 4, "hop_s": 2.0, "budget": BudgetConfig(4000.0)}[field]
    before = site(2)
    gate = before.streams["s0"]
    edited = replace(before, streams=before.streams | {"s0": replace(gate, **{field: new})})
    costs = RunningCosts(64, 0.0, {"s0": 0.001, "s1": 0.001}, {"s0": rate, "s1": rate}, busy)
    as_it_was = {one.part: one for one in running_needs(before, costs, before)}
    wanted = {one.part: one for one in running_needs(edited, costs, before)}
    assert as_it_was == {one.part: one for one in running_needs(before, costs)}
    assert as_it_was["MLLM"].needs == pytest.approx(busy)
    assert wanted["cores"].needs > 0.1 > as_it_was["cores"].needs
    assert field == "hop_s" or wanted["MLLM"].needs >= as_it_was["MLLM"].needs


def test_a_stream_that_got_another_name_costs_what_was_measured() -> None:
    before = site(1)
    named = replace(before, streams={"s0": replace(before.streams["s0"], display_name="The gate")})
    costs = RunningCosts(64, 0.0, {"s0": 0.001}, {"s0": 3.0}, 0.5)
    assert running_needs(named, costs, before) == running_needs(before, costs)


@pytest.mark.parametrize(("mllm", "named"), [(SERVER, True), ("yard", False), ("tiny", False)])
def test_further_servers_are_advised_only_where_the_model_is_one(mllm: str, named: bool) -> None:
    for questions in (1, 60):
        watches = {f"w{n}": {"question": "Is there a lorry?"} for n in range(questions)}
        (need,) = [one for one in running_needs(site(1, mllm=mllm, watches=watches)) if one.part == "MLLM"]
        assert ("mllm.servers" in need.change) == named


def test_prefixes_that_the_configuration_does_not_keep_are_named() -> None:
    assert parts(31, RunningCosts(64), mllm={"use": SERVER, "max_streams": 30}) == {"kept prefixes"}


def test_paused_streams_are_no_load() -> None:
    many = {f"s{n}": {"url": "rtsp://10.0.0.1/1", "paused": True} for n in range(100)}
    assert warnings_of(running_needs(parse_site({"mllm": SERVER, "streams": many}), RunningCosts(1))) == ()


@given(st.lists(st.integers(0, 4), max_size=20), st.floats(0.01, 1))
def test_streams_that_are_late_already_are_named_from_a_share_on(steps: list[int], share: float) -> None:
    said = warnings_of_steps(steps, share)
    late = sum(step > 0 for step in steps)
    assert bool(said) == (late > 0 and late >= share * len(steps))
    assert not said or said[0].startswith(f"{late} of {len(steps)} streams are late already")
    assert not said or warnings_of_steps([*steps, 1], share)


def test_a_meter_measures_the_models_work_from_one_moment_to_another() -> None:
    now = [0.0, 0.0, 5.0]
    meter = LoadMeter(lambda: now[0], lambda: now[1], lambda: now[2])
    meter.note({"a": 0})
    assert (meter.mllm_busy, dict(meter.cores)) == (None, {})
    now[:] = MEASURE_S, 4.0, 10.0
    meter.note({"a": 100})
    assert meter.mllm_busy == pytest.approx(0.5)
    assert meter.cores["a"] == pytest.approx(0.4 - meter.base, abs=1e-3)


@pytest.mark.parametrize(("mllm", "busy"), [("yard", 0.5), ("detector:networks", None), (SERVER, None)])
def test_the_work_of_a_model_is_measured_where_it_asks_one_thing_at_a_time_in_the_process(
    mllm: str, busy: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The questions of a detector overlap: their seconds together say nothing of what it has left."""
    monkeypatch.setattr(LoadMeter, "mllm_busy", property(lambda self: 0.5, lambda self, value: None), raising=False)
    assert Service(site(1, mllm=mllm), SystemClock()).costs.mllm_busy == busy


class Book:
    """The nodes of a fleet and their reports."""

    def __init__(self, *nodes: tuple[StoredNode, NodeReport]) -> None:
        self._nodes = nodes

    def nodes(self) -> list[StoredNode]:
        return [node for node, _ in self._nodes]

    def reports(self) -> dict[str, str]:
        return {node.offer.name: report.to_json() for node, report in self._nodes}


def node(name: str, capacity: float, costs: dict[str, float], wanted: str = "active", until_s: float | None = 10.0):
    offer = NodeOffer(name, "holder", "1", capacity, None, frozenset({name}))
    return StoredNode(offer, until_s is not None, wanted, START, 0.0, until_s), NodeReport(costs=costs, base=0.02)


def test_a_fleet_has_the_cores_of_its_nodes_and_the_costs_that_they_measure() -> None:
    book = Book(
        node("a", 2.0, {"s0": 0.5}),
        node("b", 4.0, {"s1": 0.7}, "cordoned"),
        node("c", 8.0, {"s2": 0.9}, "drained"),
        node("d", 8.0, {"s3": 0.9}, until_s=None),
    )
    assert costs_of(book) == RunningCosts(6.0, 0.04, {"s0": 0.5, "s1": 0.7})

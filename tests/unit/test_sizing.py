"""What a site needs against what a machine has."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.config.site import SiteConfig, parse_site
from pipeline.core.sizing import CostSample, MachineCosts, SiteLoad, StreamLoad, fitted, needs_of
from pipeline.errors import ConfigError
from pipeline.service.plan import (
    ACCELERATORS,
    CameraShape,
    RunningCosts,
    fits,
    load_of,
    machine_of,
    measured,
    plan,
    running_needs,
    verdict,
)

SERVER = "openai:http://mllm:8000/v1#Qwen/Qwen3-VL-8B-Instruct"


def site(streams: int = 4, watches: int = 2, **more: object) -> SiteConfig:
    return parse_site(
        {
            "mllm": {"use": SERVER},
            "streams": {f"s{n}": {"url": f"rtsp://10.0.0.{n}/1"} for n in range(streams)},
            "watches": {f"w{n}": {"question": f"Is there a lorry at gate {n}?"} for n in range(watches)},
            **more,
        }
    )


def share(found: tuple, part: str) -> float:
    return next(need.share for need in found if need.part == part)


MACHINE = MachineCosts("m", 8, encode_s=1e-5, prefill_s=5e-5, ask_s=1e-3, memory_bytes=2**34)


def stream(tokens: float = 400.0, watches: int = 2) -> StreamLoad:
    return StreamLoad(1920, 1080, 25.0, 2.0, 1.0, tokens, 4000.0, 2.0, float(watches), watches, 30.0, 16_384)


@given(st.integers(1, 50), st.floats(1, 2000), st.integers(0, 20))
def test_more_of_anything_never_needs_less(streams: int, tokens: float, watches: int) -> None:
    def needs(count: int, each: float, asked: int) -> dict[str, float]:
        load = SiteLoad((stream(each, asked),) * count, kept_streams=64, kept_tokens=131_072, remote=True)
        return {need.part: need.needs for need in needs_of(load, MACHINE)}

    before = needs(streams, tokens, watches)
    for more in (
        needs(streams + 1, tokens, watches),
        needs(streams, tokens * 2, watches),
        needs(streams, tokens, watches + 1),
    ):
        assert all(more[part] >= value for part, value in before.items())


@pytest.mark.parametrize(("packed", "advised"), [(False, True), (True, False), (None, False)])
def test_packing_takes_less_memory_and_more_of_a_core_and_is_advised_where_it_can_help(packed, advised) -> None:
    raw, other = (
        {need.part: need for need in needs_of(SiteLoad((replace(stream(), packed=one),)), MACHINE)}
        for one in (False, packed)
    )
    assert (other["memory"].needs < raw["memory"].needs) == bool(packed)
    assert (other["cores"].needs > raw["cores"].needs) == bool(packed)
    assert ("context_packed" in other["memory"].change) == advised


def test_what_gives_first_stands_first() -> None:
    found = needs_of(SiteLoad((stream(),) * 20, kept_tokens=1000), MACHINE)
    assert found[0].part == "prefix cache"
    assert [need.share for need in found] == sorted((need.share for need in found), reverse=True)


def test_a_stream_that_nobody_watches_asks_for_nothing() -> None:
    idle, busy = (load_of(site(watches=count)) for count in (0, 1))
    assert idle.tokens_per_s == 0
    assert busy.tokens_per_s == 4 * 400
    assert share(needs_of(idle, MACHINE), "MLLM") == 0


def test_a_paused_stream_or_watch_is_no_load_and_watches_stand_where_they_say() -> None:
    found = load_of(
        parse_site(
            {
                "mllm": {"use": SERVER},
                "streams": {
                    "a": {"url": "rtsp://10.0.0.1/1", "tags": ["north"]},
                    "b": {"url": "rtsp://10.0.0.2/1"},
                    "c": {"url": "rtsp://10.0.0.3/1", "paused": True},
                },
                "watches": {
                    "north": {"question": "x?", "streams": ["tag:north"]},
                    "slow": {"question": "y?", "every_s": 10},
                    "off": {"question": "z?", "paused": True},
                },
            }
        )
    )
    assert [one.askings_per_s for one in found.streams] == [1.1, 0.1]


def test_the_budget_of_all_streams_together_is_the_bound() -> None:
    shared = {"gpu_budget": {"rate_tokens_per_s": 500, "burst_tokens": 5000}}
    assert load_of(site(10, **shared)).tokens_per_s == 500
    assert load_of(site(10)).tokens_per_s == 4000


def test_a_small_camera_cannot_spend_more_than_it_shows() -> None:
    small = load_of(site(1), CameraShape(320, 192, 10))
    assert small.tokens_per_s == 2 * (320 // 32) * (192 // 32)


def test_key_frames_alone_cost_a_fraction_of_the_decoding_and_the_same_network() -> None:
    every, keys = (load_of(site(1, defaults={"decode": decode})).streams[0] for decode in ("all", "keys"))
    assert keys.pixels_per_s < every.pixels_per_s / 10
    assert keys.tokens_per_s <= every.tokens_per_s
    needs = [
        {need.part: need.needs for need in plan(site(1, defaults={"decode": one}), machine_of("cpu", site(1)))}
        for one in ("all", "keys")
    ]
    assert needs[0]["network"] == needs[1]["network"]
    assert needs[1]["cores"] < needs[0]["cores"]


def test_key_frames_alone_are_decoded_by_cores_also_where_a_gpu_decodes() -> None:
    found = {}
    for decode in ("all", "keys"):
        one = site(1, defaults={"decode": decode})
        found[decode] = {need.part: need.needs for need in plan(one, machine_of("l40s", one, cores=8))}
    assert found["all"]["decoding"] > found["keys"]["decoding"] == 0
    assert found["keys"]["cores"] > found["all"]["cores"]


def test_a_stream_whose_watches_are_all_about_zones_shows_no_more_than_these() -> None:
    corner = {"dock": [[0, 0], [0.3, 0], [0.3, 0.3], [0, 0.3]]}
    watches = {"lorry": {"question": "is there a lorry?", "zone": "dock"}}
    streams = {
        slug: {"url": "rtsp://10.0.0.1/1", **more}
        for slug, more in {"dock": {"zones": corner}, "whole": {"zones": corner, "crop": "none"}, "yard": {}}.items()
    }
    dock, whole, yard = load_of(parse_site({"mllm": {"use": SERVER}, "streams": streams, "watches": watches})).streams
    assert 0.1 < dock.native_tokens_per_s / whole.native_tokens_per_s < 0.2
    assert (whole.watches, yard.watches, yard.native_tokens_per_s) == (1, 0, 0)


def test_what_was_measured_of_a_stream_holds_no_more_where_another_part_is_shown() -> None:
    zones = {"dock": [[0, 0], [0.3, 0], [0.3, 0.3], [0, 0.3]]}
    streams = {"dock": {"url": "rtsp://10.0.0.1/1", "zones": zones}}
    watches = {"lorry": {"question": "is there a lorry?", "zone": "dock"}}
    before, same, more = (
        parse_site({"mllm": {"use": SERVER}, "streams": streams, "watches": watches | more})
        for more in ({}, {"van": watches["lorry"]}, {"car": {"question": "is there a car?"}})
    )
    costs = RunningCosts(tokens_per_s={"dock": 1e6}, mllm_busy=0.5)
    needs = [share(running_needs(site, costs, before), "MLLM") for site in (same, more)]
    assert needs[0] == pytest.approx(0.5, rel=0.1)
    assert needs[1] < 0.1


def test_further_servers_share_the_work() -> None:
    one, three = (
        plan(site(8, mllm={"use": SERVER, "servers": servers}), MACHINE)
        for servers in ([], ["http://b:8000/v1", "http://c:8000/v1"])
    )
    assert share(one, "MLLM") == pytest.approx(3 * share(three, "MLLM"))
    assert share(one, "prefix cache") == pytest.approx(3 * share(three, "prefix cache"))


@pytest.mark.parametrize("name", ACCELERATORS)
def test_more_cameras_fit_a_larger_machine(name: str) -> None:
    found = plan(site(4), machine_of(name, site(4), cores=8))
    better = plan(site(4), machine_of("h100", site(4), cores=8))
    assert share(better, "MLLM") <= share(found, "MLLM")


def test_a_larger_model_costs_more() -> None:
    small, large = (
        share(plan(site(4, mllm={"use": use}), machine_of("l40s", site(4, mllm={"use": use}))), "MLLM")
        for use in (SERVER.replace("8B", "4B"), SERVER.replace("8B", "32B"))
    )
    assert large == pytest.approx(8 * small)


def test_two_hundred_cameras_do_not_fit_and_the_reason_stands_first() -> None:
    found = plan(site(200), machine_of("orin", site(200), cores=12))
    assert not fits(found)
    assert verdict(found).startswith(f"it does not fit: {found[0].part} gives first")
    assert found[0].change in verdict(found)


def test_what_is_not_known_is_said_and_not_guessed() -> None:
    yard = site(2, mllm="yard")
    found = plan(yard, machine_of("cpu", yard, cores=64))
    (mllm,) = [need for need in found if need.part == "MLLM"]
    assert mllm.has is None
    assert "of MLLM nothing is known" in verdict(found).replace("memory, ", "")


def test_history_that_is_kept_for_a_shorter_time_does_not_keep_a_site_from_running() -> None:
    found = plan(site(4, keep={"answers_mib": 1}), machine_of("h100", site(4), cores=64))
    assert share(found, "kept answers") > 1
    assert fits(found)


def test_a_null_mllm_asks_for_none() -> None:
    assert "MLLM" not in {need.part for need in plan(site(1, mllm="null"), MACHINE)}


# What was measured

COSTS = st.tuples(*[st.floats(1e-6, 1e-3)] * 2, st.floats(1e-4, 1e-1))


@given(COSTS, st.integers(0, 10_000))
def test_costs_that_made_the_figures_are_found_again(costs: tuple[float, float, float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [tuple(map(float, rng.integers(1, high, 9))) for high in (400, 8000, 32)]
    samples = [CostSample(e, p, a, e * costs[0] + p * costs[1] + a * costs[2]) for e, p, a in zip(*rows, strict=True)]
    assert fitted(samples) == pytest.approx(costs, rel=1e-3)


@settings(max_examples=50)
@example([(0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 5e-324, 1.0)])
@given(st.lists(st.tuples(*[st.floats(0, 1e4)] * 3, st.floats(1e-3, 1e3)), min_size=1, max_size=12))
def test_no_cost_is_ever_negative(rows: list[tuple[float, float, float, float]]) -> None:
    assert min(fitted([CostSample(*row) for row in rows])) >= 0


def report(tmp_path: Path, found: object) -> Path:
    file = tmp_path / "bench.json"
    file.write_text(f"a line for people\n{json.dumps(found)}\n")
    return file


def test_a_measurement_takes_the_place_of_the_data_sheet(tmp_path: Path) -> None:
    yard = site(2, mllm="yard")
    rows = [(200, 2000, 1), (200, 2300, 16), (3000, 32000, 16)]
    costs = [
        {"way": way, "encoded": e, "prefilled": p, "watches": w, "p50_s": e * 1e-4 + p * 2e-5 + w * 1e-3}
        for way, (e, p, w) in zip(("ours", "ours", "naive"), rows, strict=True)
    ]
    costs.append({"way": "video", "encoded": 1, "prefilled": 1, "watches": 1, "p50_s": 100.0})
    machine = measured(machine_of("cpu", yard, cores=8), [report(tmp_path, {"costs": costs, "plan": {"streams": 1}})])
    assert (machine.encode_s, machine.prefill_s, machine.ask_s) == pytest.approx((1e-4, 2e-5, 1e-3))
    figures = {"core_pixels_per_s": 1e8, "allocate_s": 0.002, "commit_s": 0.001}
    machine = measured(machine, [report(tmp_path, {"machine": figures})])
    assert machine.core_pixels_per_s == 1e8
    found = {need.part: need for need in plan(yard, machine)}
    assert (found["MLLM"].source, found["cores"].source, found["network"].source) == (
        "measured",
        "measured",
        "estimated",
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"mllm": 1}',
        '{"costs": [], "plan": {"streams": 1}}',
        '{"costs": 3, "plan": {}}',
        '{"machine": {}}',
    ],
)
def test_a_file_that_is_no_measurement_is_refused_by_its_name(text: str, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"bench\.json"):
        measured(MACHINE, [file])
    with pytest.raises(ConfigError, match="nowhere"):
        measured(MACHINE, [tmp_path / "nowhere"])


def test_an_unknown_machine_and_a_site_without_streams_are_refused() -> None:
    with pytest.raises(ConfigError, match="h100"):
        machine_of("h1000", site())
    with pytest.raises(ConfigError, match="streams"):
        plan(site(0), MACHINE)

"""Zones: a watch about a part of the picture says so to the MLLM, and stands where the zone is."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator_engine.fit import FitRules
from allocator_engine.grid import GRIDS
from pipeline.allocators.motion import MotionAllocator
from pipeline.config.entries import parse_watch
from pipeline.config.site import parse_site
from pipeline.core.cropping import crop_around, crop_of
from pipeline.core.questions import distinct
from pipeline.errors import ConfigError
from pipeline.mllm.prompt import suffix
from pipeline.service.board import WatchBoard, as_served
from pipeline.service.streams import _what_runs
from pipeline.sources.synthetic import ArrayPicture
from pipeline.testing import frame_at, textured
from pipeline.types import Hop, WatchQuery, Zone, without_zone

LEFT = ((0.0, 0.0), (0.4, 0.0), (0.4, 1.0), (0.0, 1.0))
DOCK = Zone("dock", LEFT)


def site(watch, **streams):
    return parse_site(
        {
            "streams": {slug: {"url": "synthetic:", **more} for slug, more in streams.items()},
            "watches": {"lorry": {"question": "is there a lorry?", **watch}},
        }
    )


def test_the_prompt_names_the_zone_and_where_it_is():
    query = WatchQuery("lorry", "is there a lorry?", zone=DOCK)
    said = suffix(query.asked, "qwen3_vl").text
    assert 'the zone "dock"' in said
    assert "from 0% to 40% of its width" in said
    assert "is there a lorry?" in said
    assert WatchQuery("lorry", "is there a lorry?").asked == "is there a lorry?"


@given(st.text(min_size=1, max_size=40), st.sampled_from([None, DOCK, Zone("a b", LEFT)]))
def test_an_allocator_reads_the_question_alone(text, zone):
    query = WatchQuery("w", text, zone=zone)
    assert without_zone(query.asked) == (text if zone else without_zone(text))


def test_the_same_question_about_two_zones_is_two_questions():
    plain, dock = WatchQuery("a", "is there a lorry?"), WatchQuery("b", "is there a lorry?", zone=DOCK)
    assert distinct([plain, dock]) == (plain, dock)
    assert plain.revision != dock.revision != WatchQuery("b", "is there a lorry?", zone=Zone("dock", LEFT[:3])).revision


def test_a_watch_of_a_zone_stands_on_the_streams_that_have_it():
    found = site({"zone": "dock"}, gate={"zones": {"dock": LEFT}}, yard={})
    board = WatchBoard()
    board.replace(found.streams, found.watches)
    assert [query.zone for query in board.on("gate")] == [DOCK]
    assert board.on("yard") == ()


def test_a_stream_is_cropped_where_all_its_watches_are_about_zones_unless_it_is_not_to_be():
    zones = {"zones": {"dock": LEFT}}
    found = site({"zone": "dock"}, gate=zones, whole=zones | {"crop": "none"})
    board = WatchBoard()
    board.replace(found.streams, found.watches)
    crops = [crop_of(board.on(slug)) for slug in ("gate", "whole")]
    assert crops == [crop_around([DOCK]), None]
    with pytest.raises(ConfigError, match="crop"):
        site({}, gate={"crop": "zone"})


@pytest.mark.parametrize(
    ("watch", "streams", "words"),
    [
        ({"zone": "dock"}, {"gate": {}}, "expected one that is drawn under `zones`"),
        ({"zone": "dock"}, {"gate": {"zones": {"ramp": LEFT}}}, "no zone of gate; expected ramp"),
        (
            {"zone": "dock", "streams": ["gate", "yard"]},
            {"gate": {"zones": {"dock": LEFT}}, "yard": {}},
            "no zone of yard",
        ),
        ({"zone": "dock", "streams": ["tag:a"]}, {"gate": {"tags": ["a"]}}, "no zone of gate"),
        ({"zone": "The Dock"}, {"gate": {}}, "zone"),
        ({"zone": "dock", "question": "x" * 1950}, {"gate": {"zones": {"dock": LEFT}}}, "question"),
    ],
)
def test_a_zone_that_is_nowhere_is_refused_by_name(watch, streams, words):
    with pytest.raises(ConfigError, match=words) as refused:
        site(watch, **streams)
    assert "watches.lorry" in str(refused.value)


def test_a_trial_of_one_watch_shows_what_all_of_its_stream_show():
    dock = {"question": "is there a lorry?", "zone": "dock"}
    streams = {"gate": {"url": "synthetic:", "zones": {"dock": LEFT}}}
    alone = parse_site({"streams": streams, "watches": {"lorry": dock}})
    beside = parse_site({"streams": streams, "watches": {"lorry": dock, "car": {"question": "is there a car?"}}})
    assert [as_served(one.streams, one.watches)["gate"].crop for one in (alone, beside)] == ["zones", "none"]


def test_a_watch_by_itself_leaves_open_where_its_zone_is():
    assert parse_watch("lorry", {"question": "is there a lorry?", "zone": "dock", "streams": ["gate"]}).zone == "dock"


def test_drawing_a_zone_restarts_no_stream_and_a_mask_does():
    plain, zoned, masked = (
        site({}, gate=more).streams["gate"]
        for more in ({}, {"zones": {"dock": LEFT}, "crop": "none"}, {"masks": {"hut": LEFT}})
    )
    assert _what_runs(plain) == _what_runs(zoned) != _what_runs(masked)


def test_motion_outside_the_zones_is_no_reason_to_look():
    still, moved = textured(), textured()
    moved[60:200, 300:420] = 250  # on the right
    frames = [frame_at(second, ArrayPicture(pixels)) for second, pixels in enumerate((still, moved))]

    def tokens(*queries):
        motion = MotionAllocator(FitRules(GRIDS["qwen3_vl"]))

        async def spend():
            await motion.allocate(Hop("gate", 0, 1, frames[:1]), queries, 4000)
            return (await motion.allocate(Hop("gate", 1, 2, frames[1:]), queries, 4000)).tokens

        return asyncio.run(spend())

    whole, dock = WatchQuery("a", "?"), WatchQuery("b", "?", zone=DOCK)
    assert tokens(dock) == 0 < tokens(whole) == tokens(whole, dock)
    assert np.any(still != moved)

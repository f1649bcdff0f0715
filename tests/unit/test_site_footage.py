"""Recordings by camera and time: whose they are, what is held out, what is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator_engine.train.rollout import ClipHop
from pipeline.config.site import parse_site
from pipeline.errors import ConfigError
from pipeline.lab.footage import Clip, Footage, camera_of
from pipeline.lab.held_out import known_by_labels
from pipeline.lab.site_footage import HELD_OUT, AskedWatch, arrange, seconds_of, split
from pipeline.lab.truths import Reviewed
from pipeline.sources.synthetic import ArrayPicture
from pipeline.testing import textured

ROOT = Path("/recordings")


@pytest.mark.parametrize(
    ("below", "streams", "camera"),
    [
        ("gate/monday.mp4", (), "gate"),
        ("gate.mp4", (), "gate"),
        ("gate/monday.mp4", ("gate", "yard"), "gate"),
        ("gate-2026-11-29.mp4", ("gate", "yard"), "gate"),
        ("gate-north_1.mp4", ("gate", "gate-north"), "gate-north"),
        ("gates.mp4", ("gate",), None),
        ("attic/gate.mp4", ("gate",), None),
    ],
)
def test_a_recording_is_of_the_stream_whose_name_begins_it(below, streams, camera):
    assert camera_of(ROOT / below, ROOT, streams) == camera


@given(st.lists(st.integers(1, 16), min_size=1, max_size=20))
def test_the_last_quarter_is_held_out_whole_and_behind_the_rest(lengths):
    clips = [Clip(ROOT / "a.mp4", float(sum(lengths[:n])), float(sum(lengths[: n + 1]))) for n in range(len(lengths))]
    earlier, later = split(clips, 1.0)
    assert seconds_of([*earlier, *later]) == sum(lengths)
    assert abs(seconds_of(later) - HELD_OUT * sum(lengths)) <= 1.0
    assert all(clip.start_s < clip.end_s for clip in (*earlier, *later))
    if earlier and later:
        assert max(clip.end_s for clip in earlier) <= min(clip.start_s for clip in later)


SITE = {
    "streams": {
        "gate": {"url": "rtsp://a/1", "zones": {"door": [[0, 0], [0.5, 0], [0.5, 1]]}, "tags": ["outside"]},
        "hall": {"url": "rtsp://a/2"},
    },
    "watches": {
        "person": {"question": "Is there a person?"},
        "door": {"question": "Is there a person?", "zone": "door", "streams": ["gate"]},
        "van": {"question": "Is there a van?", "streams": ["tag:outside"]},
        "many": {"question": "How many people are there?", "count": {"op": ">", "value": 3}},
    },
}


def clips_of(*names: str, seconds: float = 40.0) -> Footage:
    return Footage(tuple(Clip(ROOT / name, 0.0, seconds) for name in names), ())


def test_each_camera_is_asked_its_own_watches_with_their_zones():
    found = arrange(clips_of("gate/a.mp4", "hall/a.mp4", "attic.mp4"), ROOT, parse_site(SITE), 1.0)
    asked = {clip.file.parent.name: clip.questions for clip in found.training}
    assert sum(text.startswith('Only about the zone "door", which is') for text in asked["gate"]) == 1
    assert len(asked["gate"]) == 3
    assert {clip.crop for clip in found.training} == {None}
    assert asked["hall"] == ("Is there a person?",)
    assert any("many is left out" in remark for remark in found.remarks)
    assert any("attic.mp4: no watch is about its camera" in remark for remark in found.remarks)
    assert {clip.file for clip in found.held_out} == {clip.file for clip in found.training}


def test_a_camera_whose_watches_are_all_about_zones_is_seen_as_it_is_served():
    site = parse_site(SITE | {"watches": {"door": SITE["watches"]["door"]}})
    (gate,) = arrange(clips_of("gate/a.mp4"), ROOT, site, 1.0).training
    assert (gate.crop.left, gate.crop.right) == (0.0, pytest.approx(0.58))
    assert "from 0% to 87% of its width" in gate.questions[0]
    hop = ClipHop(0.0, 1.0, (0.0,), (ArrayPicture(textured(100, 200)),))
    ((part,),) = (one.pictures for one in gate.cropped([hop]))
    assert (part.height, part.width) == (100, 116)
    whole = parse_site(SITE | {"watches": {"door": SITE["watches"]["door"]}, "defaults": {"crop": "none"}})
    assert arrange(clips_of("gate/a.mp4"), ROOT, whole, 1.0).training[0].crop is None


def test_watches_that_are_not_asked_here_have_a_part_in_what_is_shown():
    door, counted = SITE["watches"]["door"], SITE["watches"]["many"]
    site = parse_site(SITE | {"watches": {"door": door, "many": counted}})
    (gate,) = arrange(clips_of("gate/a.mp4"), ROOT, site, 1.0).training
    assert gate.crop is None
    assert "from 0% to 50% of its width" in gate.questions[0]


def test_what_nothing_can_be_made_of_is_refused_by_name():
    site = parse_site(SITE)
    with pytest.raises(ConfigError, match=r"of none of the cameras that the watches are about \(gate, hall\)"):
        arrange(clips_of("attic/a.mp4"), ROOT, site, 1.0)
    with pytest.raises(ConfigError, match="12 s of recordings; expected at least 30 s"):
        arrange(clips_of("gate/a.mp4", seconds=12.0), ROOT, site, 1.0)
    counted = parse_site({"watches": {"many": SITE["watches"]["many"]}})
    with pytest.raises(ConfigError, match="nothing to watch for"):
        arrange(clips_of("gate/a.mp4"), ROOT, counted, 1.0)


def test_what_is_held_out_is_known_by_people_where_they_looked_else_by_the_mllm():
    clip, config = Clip(ROOT / "gate" / "a.mp4", 4.0, 8.0), parse_site(SITE).watches["person"]
    watches = [AskedWatch(slug, slug, config) for slug in ("person", "van")]
    native = np.array([[1, 1, 1, 1], [0, -1, 0, 1]], np.int8)
    truths = {"person": {clip.file: Reviewed(0.0, 7.5, ((5.0, 6.5),))}, "van": {}}
    assert known_by_labels(clip, native, 1.0, watches, truths).tolist() == [[0, 1, 0, 1], [0, -1, 0, 1]]

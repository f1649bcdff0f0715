from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.hops import HopCutter, HopRules, hops
from pipeline.errors import SourceUnavailable
from pipeline.sources.base import Sampler
from pipeline.testing import ScriptedSource, frame_at
from tests.pictures import broken

NO_PICTURE = object()


def stamped(pts_s):
    return frame_at(pts_s, NO_PICTURE)


async def cut(script, rules=HopRules()):
    return [hop async for hop in hops(ScriptedSource(script), "yard", rules)]


async def test_a_steady_camera_gives_one_full_hop_a_second():
    got = await cut([stamped(i / 25) for i in range(75)])
    assert [(h.start_s, h.end_s) for h in got] == [(0, 1), (1, 2), (2, 3)]
    assert [[f.pts_s for f in h.frames] for h in got] == [[0.0, 0.52], [1.0, 1.52], [2.0, 2.52]]


async def test_a_hop_comes_with_its_last_sample_and_does_not_wait_for_the_next():
    source = ScriptedSource([stamped(0.0), stamped(0.5), stamped(1.0)])
    got = hops(source, "yard", HopRules())
    first = await anext(got)
    assert (first.end_s, source.counts.decoded) == (1.0, 2)
    await got.aclose()


async def test_a_pause_gives_no_empty_hops():
    got = await cut([stamped(0.0), stamped(20.2), stamped(20.7)])
    assert [(h.start_s, len(h.frames)) for h in got] == [(0.0, 1), (20.0, 2)]


async def test_the_hop_under_way_is_given_before_the_loss_is_raised():
    source = ScriptedSource([stamped(0.0), broken(), stamped(5.0)])
    got = []
    with pytest.raises(SourceUnavailable):
        async for hop in hops(source, "yard", HopRules()):
            got.append(hop)
    assert [h.start_s for h in got] == [0.0]
    assert [h.start_s async for h in hops(source, "yard", HopRules())] == [5.0]


@given(st.lists(st.floats(0, 300), min_size=1, max_size=120).map(sorted), st.sampled_from([0.5, 1.0, 2.0, 5.0]))
async def test_every_wanted_frame_is_in_exactly_one_hop_that_holds_its_time(times, fps):
    rules = HopRules(fps, 2.0)
    sampler = Sampler(fps)
    wanted = [t for t in times if sampler.wants(t)]
    got = await cut([stamped(t) for t in times], rules)
    assert [f.pts_s for h in got for f in h.frames] == wanted
    for hop in got:
        assert len(hop.frames) <= rules.slots
        assert all(hop.start_s - 1e-5 <= f.pts_s < hop.end_s for f in hop.frames)


@given(st.lists(st.floats(0, 1000), max_size=200).map(sorted), st.floats(0.1, 60))
def test_a_sampler_takes_at_most_one_frame_of_a_slot(times, fps):
    sampler = Sampler(fps)
    slots = [sampler.slot(t) for t in times if sampler.wants(t)]
    assert slots == sorted(set(slots))


@pytest.mark.parametrize(("fps", "hop_s"), [(0, 1), (2, 0.3), (0.5, 1), (61, 1)])
def test_a_hop_must_hold_whole_samples(fps, hop_s):
    with pytest.raises(ValueError, match="expected"):
        HopRules(fps, hop_s)


async def test_a_hop_cut_by_the_end_of_a_connection_ends_behind_its_last_sample():
    source = ScriptedSource([stamped(4.0), broken(), stamped(4.6), stamped(5.0), stamped(5.5)])
    cut_short = []
    with pytest.raises(SourceUnavailable):
        async for hop in hops(source, "yard", HopRules()):
            cut_short.append(hop)
    assert [(h.start_s, h.end_s) for h in cut_short] == [(4.0, 4.5)]
    rest = [h async for h in hops(source, "yard", HopRules(), from_s=4.5)]
    assert [(h.start_s, h.end_s) for h in rest] == [(4.5, 5.0), (5.0, 6.0)]


def test_lost_frames_are_counted_once():
    cutter = HopCutter("yard", HopRules())
    cutter.push(stamped(0.0), 0)
    assert [hop.lost for hop in cutter.push(stamped(1.5), 2)] == [2, 0]


class Load:
    def __init__(self):
        self.stretch = 1


def test_under_load_hops_are_longer_and_no_frame_is_missed_where_their_length_changes():
    load = Load()
    cutter = HopCutter("yard", HopRules(), load=load)
    got = []
    for index in range(40):
        load.stretch = 2 if 5 <= index < 24 else 1
        got += cutter.push(stamped(index / 2), 0)
    assert [f.pts_s for h in got for f in h.frames] == [index / 2 for index in range(40)]
    assert [(h.start_s, h.end_s) for h in got[:5]] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 6)]
    assert [h.end_s - h.start_s for h in got[-3:]] == [1, 1, 1]
    assert all(a.end_s == b.start_s for a, b in pairwise(got))

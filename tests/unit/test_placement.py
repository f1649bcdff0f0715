"""Placement: nothing where it must not be, little that moves, and the same answer to the same question."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.fleet.placement import OVERLOAD, NodeRoom, StreamNeed, place

TAGS = ("dock", "gate")
costs = st.floats(0.05, 2.0).map(lambda cost: round(cost, 3))
needs = st.lists(
    st.builds(StreamNeed, st.integers(0, 40).map("s{}".format), costs, st.sampled_from([None, None, *TAGS])),
    max_size=30,
    unique_by=lambda need: need.stream,
)
rooms = st.lists(
    st.builds(
        NodeRoom,
        st.integers(0, 6).map("n{}".format),
        st.floats(0.5, 8.0),
        st.one_of(st.none(), st.integers(0, 10)),
        st.frozensets(st.sampled_from(TAGS)),
        st.booleans(),
        st.booleans(),
    ),
    max_size=6,
    unique_by=lambda room: room.node,
)
somewhere = st.dictionaries(st.integers(0, 40).map("s{}".format), st.integers(0, 8).map("n{}".format), max_size=30)


@given(needs, rooms, somewhere)
def test_a_stream_is_only_where_it_may_be_and_every_other_has_a_reason(wanted, nodes, now):
    found, there = place(wanted, nodes, now), {room.node: room for room in nodes}
    by_stream = {need.stream: need for need in wanted}
    assert set(found.nodes) | set(found.reasons) == set(by_stream)
    assert not set(found.nodes) & set(found.reasons)
    for stream, node in found.nodes.items():
        room, need = there[node], by_stream[stream]
        assert need.tag is None or need.tag in room.tags
        assert room.takes or (now.get(stream) == node and room.keeps)
    for node, room in there.items():
        on_it = [by_stream[stream] for stream, where in found.nodes.items() if where == node]
        if room.most is not None:
            assert len(on_it) <= room.most
        newly = [need for need in on_it if now.get(need.stream) != node]
        assert (
            len(on_it) <= 1 or sum(need.cost for need in on_it) <= (1.0 if newly else OVERLOAD) * room.capacity + 1e-6
        )


@given(needs, rooms, somewhere)
def test_what_comes_out_comes_out_again(wanted, nodes, now):
    once = place(wanted, nodes, now)
    assert place(reversed(wanted), reversed(nodes), once.nodes) == once


@given(needs.map(lambda several: [StreamNeed(one.stream, 1.0) for one in several]), st.integers(2, 6), st.data())
def test_only_the_streams_of_a_node_that_goes_move(wanted, count, data):
    nodes = [NodeRoom(f"n{n}", 100.0) for n in range(count)]
    before = place(wanted, nodes, {}).nodes
    gone = data.draw(st.sampled_from([room.node for room in nodes]))
    left = [room for room in nodes if room.node != gone]
    after = place(wanted, left, before).nodes
    moved = {stream for stream in before if after[stream] != before[stream]}
    assert moved == {stream for stream, node in before.items() if node == gone}


def test_a_node_that_joins_takes_its_share_and_no_more():
    wanted = [StreamNeed(f"s{n}", 1.0) for n in range(64)]
    three = [NodeRoom(f"n{n}", 100.0) for n in range(3)]
    before = place(wanted, three, {}).nodes
    after = place(wanted, [*three, NodeRoom("n3", 100.0)], before).nodes
    counts = [list(after.values()).count(f"n{n}") for n in range(4)]
    assert counts == [16, 16, 16, 16]
    assert sum(after[stream] != before[stream] for stream in before) == 16


def test_weights_are_shared_in_proportion_to_capacity():
    wanted = [StreamNeed(f"s{n}", 1.0) for n in range(30)]
    found = place(wanted, [NodeRoom("large", 40.0), NodeRoom("small", 20.0)], {}).nodes
    assert list(found.values()).count("large") == 20


def test_a_drained_node_is_left_by_all_and_a_cordoned_one_by_none():
    wanted = [StreamNeed(f"s{n}", 1.0) for n in range(8)]
    before = place(wanted, [NodeRoom("a", 10.0), NodeRoom("b", 10.0)], {}).nodes
    drained = place(wanted, [NodeRoom("a", 10.0, takes=False, keeps=False), NodeRoom("b", 10.0)], before)
    assert set(drained.nodes.values()) == {"b"}
    cordoned = place(wanted, [NodeRoom("a", 10.0, takes=False), NodeRoom("b", 10.0)], before)
    assert cordoned.nodes == before


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([], "no node is there"),
        ([NodeRoom("a", 10.0)], "no node has the tag 'dock'"),
        ([NodeRoom("a", 10.0, tags=frozenset({"dock"}), takes=False)], "no node takes streams"),
        ([NodeRoom("a", 10.0, 0, frozenset({"dock"}))], "no node has room for it"),
    ],
)
def test_a_stream_without_a_node_says_why(nodes, reason):
    found = place([StreamNeed("gate", 1.0, "dock")], nodes, {})
    assert found.nodes == {}
    assert found.reasons["gate"].startswith(reason)


def test_an_overloaded_node_gives_up_its_heaviest_and_a_little_more_than_its_capacity_is_borne():
    heavy, light = StreamNeed("heavy", 1.0), StreamNeed("light", 0.2)
    now, nodes = {"heavy": "a", "light": "a"}, [NodeRoom("a", 1.0), NodeRoom("b", 1.0)]
    assert place([heavy, light], nodes, now).nodes == {"heavy": "b", "light": "a"}
    light = StreamNeed("light", 0.1)
    assert place([heavy, light], [nodes[0]], now).nodes == now

"""The measured cost of streams: a stream costs the same alone as among others, whatever its process costs by itself."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.service.costs import (
    APART,
    BASE,
    IDLE_S,
    LEAST,
    MEASURE_S,
    MOST_BASE,
    CostMeter,
    CpuWindow,
    base_of,
    shared_out,
)

FPS = 10
bases = st.floats(0, MOST_BASE)
cores = st.floats(0, 16)
frames = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 1000), max_size=6)


class Process:
    """A process that spends `base` cores by itself, and `cost` for each stream that decodes FPS frames a second."""

    def __init__(self, base, cost):
        self.base, self.cost = base, cost
        self.now_s = self.spent_s = 0.0
        self.decoded = {}
        self.meter = CostMeter(lambda: self.now_s, lambda: self.spent_s)

    def run(self, seconds, *streams):
        """The costs after so many seconds with these streams, looked at each second."""
        self.decoded = {slug: self.decoded.get(slug, 0) for slug in streams}
        found = self.meter.of(self.decoded)
        for _ in range(int(seconds)):
            self.now_s += 1
            self.spent_s += self.base + self.cost * len(streams)
            self.decoded = {slug: count + FPS for slug, count in self.decoded.items()}
            found = self.meter.of(self.decoded)
        return found


@given(cores, bases, frames)
def test_what_is_beyond_the_base_is_shared_by_frames_and_never_below_the_least(spent, base, decoded):
    found = shared_out(spent, base, decoded)
    assert set(found) == {slug for slug, count in decoded.items() if count}
    assert all(cost >= LEAST for cost in found.values())
    assert sum(found.values()) <= max(spent - base, 0) + LEAST * len(found) + 1e-9
    if found and all(cost > LEAST for cost in found.values()):
        assert sum(found.values()) == pytest.approx(max(spent - base, 0))
    assert [found[slug] for slug in sorted(found, key=decoded.get)] == sorted(found.values())


@given(cores, st.floats(0, 4), bases, frames)
def test_more_cpu_never_makes_a_stream_cheaper_and_a_larger_base_never_dearer(spent, more, base, decoded):
    found = shared_out(spent, base, decoded)
    assert all(found[slug] <= cost for slug, cost in shared_out(spent + more, base, decoded).items())
    assert all(found[slug] >= cost for slug, cost in shared_out(spent, base + more, decoded).items())


@settings(max_examples=40)
@given(bases, st.floats(LEAST, 0.5), st.integers(1, 12))
def test_one_stream_alone_costs_what_it_costs_among_others(base, cost, count):
    alone, among = Process(base, cost), Process(base, cost)
    for process in (alone, among):
        process.run(IDLE_S)
    several = [f"s{n}" for n in range(count)]
    assert alone.run(2 * MEASURE_S, "s0")["s0"] == pytest.approx(cost, abs=2e-3)
    assert among.run(2 * MEASURE_S, *several)["s0"] == pytest.approx(cost, abs=2e-3)


@settings(max_examples=30)
@given(bases, st.floats(LEAST, 0.5), st.integers(1, 6), st.integers(1, 6))
def test_a_base_that_was_never_seen_alone_is_found_once_streams_come_or_go(base, cost, first, then):
    assume(abs(first - then) > APART * max(first, then))
    process = Process(base, cost)
    streams = [f"s{n}" for n in range(6)]
    process.run(2 * MEASURE_S, *streams[:first])
    assert process.meter.base == BASE
    process.run(20 * MEASURE_S, *streams[:then])
    assert process.meter.base == pytest.approx(base, abs=2e-3)


@given(st.lists(st.builds(CpuWindow, st.one_of(st.just(0.0), st.floats(1, 500)), cores), max_size=16))
def test_a_base_is_never_negative_nor_more_than_the_most(windows):
    found = base_of(windows)
    assert found is None or 0 <= found <= MOST_BASE


@given(bases, st.floats(0, 0.01), st.lists(st.floats(1, 500), min_size=5, max_size=12), st.integers(0, 1000))
def test_one_measurement_in_five_that_is_far_off_does_not_change_the_base(base, per_frame, rates, seed):
    straight = [CpuWindow(rate, base + per_frame * rate) for rate in rates]
    odd = straight[seed % len(rates)]
    off = [CpuWindow(one.frames_per_s, 0.0 if one is odd else one.cores) for one in straight]
    assume(base_of(straight) is not None)
    pairs = [
        (a, b)
        for n, a in enumerate(straight)
        for b in straight[n + 1 :]
        if abs(a.frames_per_s - b.frames_per_s) > APART * max(a.frames_per_s, b.frames_per_s)
    ]
    assume(2 * sum(odd in pair for pair in pairs) < len(pairs))
    assert base_of(off) == pytest.approx(base, abs=1e-6)


def test_a_stream_costs_its_share_of_the_cpu_by_the_frames_decoded_for_it():
    now = [0.0, 0.0]
    meter = CostMeter(lambda: now[0], lambda: now[1])
    assert meter.of({"a": 5, "b": 0}) == {}
    now[:] = MEASURE_S, MEASURE_S / 2
    spent = 0.5 - BASE
    found = meter.of({"a": 35, "b": 10, "new": 10})
    assert found == pytest.approx({"a": 0.6 * spent, "b": 0.2 * spent}, abs=1e-3)
    now[:] = 2 * MEASURE_S, MEASURE_S / 2
    found = meter.of({"a": 65, "new": 19})
    assert found == {"a": pytest.approx(0.6 * spent + 0.3 * (LEAST - 0.6 * spent), abs=1e-3), "new": LEAST}


@given(
    st.floats(LEAST, 0.5),
    st.integers(1, 6),
    st.integers(0, 40),
    st.lists(st.tuples(st.integers(1, int(MEASURE_S) - 1), st.integers(1, 12)), max_size=4),
)
def test_streams_that_come_or_begin_anew_while_it_is_measured_make_no_other_stream_dearer(cost, known, seen, changes):
    """Each frame takes the same CPU, so each stream costs the same, whoever else comes, goes or begins again."""
    process = Process(BASE, cost)
    first = [f"s{n}" for n in range(known)]
    process.decoded = dict.fromkeys(first, seen)
    process.run(0, *first)
    measured = {}
    at = 0
    for second, others in sorted(changes):
        measured = process.run(second - at, *process.decoded) if second > at else measured
        at = second
        for slug in first[1:]:
            process.decoded[slug] = 0
        process.run(0, *first, *(f"new{n}" for n in range(others)))
    measured = process.run(MEASURE_S - at, *process.decoded)
    assert measured == pytest.approx(dict.fromkeys(first, cost), abs=2e-3)


def test_a_stream_that_is_gone_has_no_cost_and_one_without_frames_keeps_what_it_had():
    process = Process(0.01, 0.1)
    assert set(process.run(2 * MEASURE_S, "a", "b")) == {"a", "b"}
    assert set(process.run(1, "a")) == {"a"}
    assert process.run(1) == {}

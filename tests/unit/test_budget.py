from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.budget import BURST_S, GRANT_HOPS, Ledger, Rate
from pipeline.testing import ManualClock

RATES = st.builds(Rate, st.floats(0.5, 5000), st.integers(1, 20000))


@st.composite
def traces(draw):
    """Streams that ask, take more, spend part of it and settle, at irregular times."""
    streams = [f"s{i}" for i in range(draw(st.integers(1, 6)))]
    rates = {stream: draw(RATES) for stream in streams}
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(streams),
                st.floats(0, 3),  # seconds that pass before
                st.integers(0, 3000),  # owed
                st.booleans(),  # resent
                st.integers(0, 3000),  # kept for a second look
                st.integers(0, 30_000),  # what may be saved up from now on
                st.integers(0, 3000),  # a hop at native size
                st.integers(0, 3000),  # taken besides
                st.floats(0, 1),  # share that is spent
            ),
            max_size=40,
        )
    )
    return rates, draw(st.none() | RATES), steps


@given(traces())
def test_over_any_interval_no_more_is_spent_than_rate_times_interval_plus_burst(trace):
    rates, parent, steps = trace
    clock = ManualClock()
    ledger = Ledger(clock, parent)
    for stream, rate in rates.items():
        ledger.open(stream, rate, 0.0)
    spent = []
    for stream, pause, owed, resent, reserve, burst, native, more, share in steps:
        clock.advance(pause)
        at_s = clock.monotonic_s()
        ledger.resize(stream, burst, native)
        rates[stream] = replace(rates[stream], burst_tokens=max(rates[stream].burst_tokens, burst))
        shown = int(ledger.grant(stream, at_s, owed, resent, reserve) * share)
        ledger.keep(stream, shown)
        held = shown + ledger.take(stream, at_s, more)
        used = int(held * share)
        ledger.settle(stream, used)
        spent.append((stream, at_s, used))

    limits = [({stream}, rate) for stream, rate in rates.items()] + ([(set(rates), parent)] if parent else [])
    for members, rate in limits:
        mine = [(at_s, used) for stream, at_s, used in spent if stream in members]
        for first in range(len(mine)):
            total = 0
            for at_s, used in mine[first:]:
                total += used
                interval = at_s - mine[first][0]
                assert total <= rate.tokens_per_s * interval + rate.burst_tokens + 1e-3 + interval * 1e-3


@given(
    st.floats(0.5, 500),
    st.integers(1, 2000),
    st.integers(0, 5000),
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 1500)), max_size=40),
)
def test_who_may_save_up_more_has_never_spent_less(rate, burst, more, wishes):
    ledger = Ledger(ManualClock())
    spent = {"narrow": 0, "wide": 0}
    for stream in spent:
        ledger.open(stream, Rate(rate, burst), 0.0)
    ledger.resize("wide", burst + more, burst + more)
    at_s = 0.0
    for pause_s, wish in wishes:
        at_s += pause_s
        for stream in spent:
            used = min(wish, ledger.grant(stream, at_s))
            ledger.settle(stream, used)
            spent[stream] += used
        assert spent["wide"] >= spent["narrow"] - 1  # a part of a token that is full is gone


@given(st.integers(2, 5000), st.integers(0, 10_000), st.integers(0, 10_000), st.booleans(), st.floats(1, 500))
def test_whatever_is_kept_back_a_full_bucket_pays_for_new_frames(burst, owed, reserve, resent, rate):
    ledger = Ledger(ManualClock())
    ledger.open("a", Rate(rate, burst), 0.0)
    granted = ledger.grant("a", 0.0, owed, resent, reserve)
    assert granted >= burst // 4
    ledger.settle("a", 0)
    assert ledger.grant("a", 0.0, owed, resent, reserve + 1) <= granted


def test_what_a_wider_bucket_has_room_for_has_to_be_saved_up_and_goes_when_it_is_narrow_again():
    ledger, _ = ledger_of()
    ledger.resize("a", 3000, 1000)
    assert ledger.grant("a", 0.0) == 1000
    ledger.settle("a", 0)
    assert ledger.grant("a", 100.0) == 3000
    ledger.settle("a", 0)
    ledger.resize("a", 2000, 1000)
    assert ledger.grant("a", 100.0) == 2000
    ledger.settle("a", 0)
    ledger.resize("a", 10, 1000)
    assert ledger.grant("a", 100.0) == 1000, "never fewer than it was opened with"


@given(st.floats(0.5, 500), st.integers(1, 50_000), st.integers(1, 3000), st.integers(0, 5000))
def test_savings_are_not_granted_to_one_hop_but_to_hops_one_after_the_other(rate, burst, native, owed):
    ledger = Ledger(ManualClock())
    ledger.open("a", Rate(rate, burst), 0.0)
    ledger.resize("a", 0, native)
    most = min(burst, max(round(GRANT_HOPS * native), round(BURST_S * rate)))
    left = burst - min(owed, most // 2)
    while left:
        granted = ledger.grant("a", 0.0, owed)
        assert granted == min(left, most)
        ledger.settle("a", granted)
        left -= granted
    assert ledger.grant("a", 0.0, owed) == 0


def ledger_of(rate=100.0, burst=1000, parent=None, streams=("a",), priorities=(1, 1, 1, 1)):
    clock = ManualClock()
    ledger = Ledger(clock, parent)
    for stream, priority in zip(streams, priorities, strict=False):
        ledger.open(stream, Rate(rate, burst), 0.0, priority)
    return ledger, clock


def test_a_bucket_starts_full_and_refills_at_its_rate():
    ledger, _ = ledger_of()
    assert ledger.grant("a", 0.0) == 1000
    ledger.settle("a", 1000)
    assert ledger.grant("a", 2.5) == 250


def test_what_was_granted_and_not_spent_stays_in_the_bucket():
    ledger, _ = ledger_of()
    ledger.grant("a", 0.0)
    ledger.settle("a", 300)
    assert ledger.grant("a", 0.0) == 700


def test_time_that_runs_backwards_fills_nothing():
    ledger, _ = ledger_of()
    ledger.grant("a", 100.0)
    ledger.settle("a", 1000)
    assert ledger.grant("a", 50.0) == 0
    assert ledger.grant("a", 101.0) == 100


def test_what_a_restart_will_send_again_is_kept_back():
    ledger, _ = ledger_of()
    assert ledger.grant("a", 0.0, owed=200) == 800


def test_a_token_that_will_be_sent_twice_is_paid_for_twice():
    ledger, _ = ledger_of()
    assert ledger.grant("a", 0.0, owed=200, resent=True) == 400


def test_at_most_half_of_the_burst_is_kept_back():
    ledger, _ = ledger_of()
    assert ledger.grant("a", 0.0, owed=5000) == 500


def test_what_a_hop_does_not_show_pays_for_what_is_sent_again():
    ledger, _ = ledger_of()
    assert ledger.grant("a", 0.0, owed=600) == 500
    assert ledger.take("a", 0.0, 600) == 500
    ledger.settle("a", 0)
    assert ledger.grant("a", 0.0, owed=600) == 500
    ledger.keep("a", 100)
    ledger.keep("a", 200)
    assert ledger.take("a", 0.0, 600) == 600
    ledger.settle("a", 700)
    assert ledger.grant("a", 0.0) == 300


def test_a_steady_stream_can_pay_for_its_restart_when_it_comes():
    """30 s contexts that keep 15 s: what survives has been saved up for by the time it is sent again."""
    ledger, _ = ledger_of(rate=100.0, burst=2000)
    ledger.settle("a", ledger.grant("a", 0.0))
    owed, at_s = 0, 0.0
    for second in range(1, 16):
        at_s = float(second)
        tokens = ledger.grant("a", at_s, owed, resent=True)
        ledger.settle("a", tokens)
        owed += tokens
    assert owed == 750
    assert ledger.take("a", at_s, owed) == owed


def test_streams_share_a_short_parent_by_priority():
    ledger, clock = ledger_of(10_000.0, 10_000, Rate(1000.0, 1000), ("a", "b"), (3, 1))
    spent = {"a": 0, "b": 0}
    for second in range(1, 201):
        clock.advance(0.5)
        stream = "a" if second % 2 else "b"
        tokens = ledger.grant(stream, float(second))
        ledger.settle(stream, tokens)
        spent[stream] += tokens
    assert spent["a"] / spent["b"] == pytest.approx(3.0, rel=0.1)
    assert sum(spent.values()) == pytest.approx(101 * 1000, rel=0.03)


def test_a_lone_stream_gets_all_of_the_parent():
    ledger, clock = ledger_of(10_000.0, 10_000, Rate(1000.0, 1000), ("a", "b"))
    clock.advance(60)
    assert ledger.grant("a", 60.0) == 1000


@pytest.mark.parametrize(("rate", "burst"), [(0.0, 10), (-1.0, 10), (float("nan"), 10), (float("inf"), 10), (1.0, 0)])
def test_an_impossible_rate_is_refused(rate, burst):
    with pytest.raises(ValueError, match="expected"):
        Rate(rate, burst)


def test_a_stream_has_one_account():
    ledger, _ = ledger_of()
    with pytest.raises(ValueError, match="has an account already"):
        ledger.open("a", Rate(1.0, 1), 0.0)

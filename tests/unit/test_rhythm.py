"""How long a stream may be silent: as its rhythm is."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.rhythm import Rhythm


def beaten(pauses: list[float], rhythm: Rhythm | None = None) -> Rhythm:
    rhythm, now_s = rhythm or Rhythm(5.0, 30.0), 100.0
    rhythm.connect()
    rhythm.beat(now_s)
    for pause_s in pauses:
        now_s += pause_s
        rhythm.beat(now_s)
    return rhythm


@given(st.lists(st.floats(0, 100), max_size=50), st.floats(0.1, 60), st.floats(0.1, 60))
def test_the_patience_is_never_shorter_than_asked_for_nor_longer_than_for_a_first_picture(
    pauses: list[float], stall_s: float, first_picture_s: float
) -> None:
    rhythm = beaten(pauses, Rhythm(stall_s, first_picture_s))
    assert stall_s <= rhythm.patience_s <= max(stall_s, first_picture_s)


@given(st.floats(0.01, 10.0), st.integers(1, 200))
def test_a_steady_stream_is_given_three_of_its_pauses(pause_s: float, count: int) -> None:
    assert beaten([pause_s] * count).patience_s >= min(max(2.9 * pause_s, 5.0), 30.0)


def test_a_stream_whose_rhythm_is_not_known_is_given_the_time_of_a_first_picture() -> None:
    assert Rhythm(5.0, 30.0).patience_s == 30.0
    assert beaten([]).patience_s == 30.0


def test_one_long_pause_is_forgotten_in_time() -> None:
    assert beaten([0.04] * 50 + [4.0]).patience_s == 12.0
    assert beaten([0.04] * 50 + [4.0] + [0.04] * 200).patience_s == 5.0


def test_bursts_between_long_pauses_do_not_hide_the_pauses() -> None:
    assert beaten(([6.0] + [0.01] * 10) * 5).patience_s > 15.0


def test_the_rhythm_outlives_a_connection_and_the_pause_between_two_is_none() -> None:
    rhythm = beaten([0.04] * 10)
    beaten([], rhythm)
    assert rhythm.patience_s == 5.0
    assert beaten([8.0], rhythm).patience_s == 24.0

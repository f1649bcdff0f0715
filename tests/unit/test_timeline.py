"""Time stamps to stream seconds, and the pacing of bursts."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.pace import Pacer
from pipeline.sources.timeline import JUMP_S, WRAP_TICKS, Timeline

TICK_S = 1 / 90_000
PERIOD_S = WRAP_TICKS * TICK_S


def connected(live: bool, timeline: Timeline | None = None, **known: float) -> Timeline:
    timeline = timeline or Timeline()
    timeline.connect(live=live, tick_s=TICK_S, interval_s=0.04, **known)
    return timeline


def placed(
    timeline: Timeline, media_s: list[float | None], arrival_s: float = 100.0, every_s: float = 0.04
) -> list[float]:
    return [timeline.place(media, arrival_s + number * every_s) for number, media in enumerate(media_s)]


media = st.one_of(st.none(), st.floats(-2e5, 2e5, allow_nan=False))


@given(st.lists(st.lists(st.tuples(media, st.floats(0, 60)), max_size=20), max_size=4))
def test_stream_time_never_runs_backwards_whatever_a_live_camera_sends(
    connections: list[list[tuple[float | None, float]]],
) -> None:
    timeline, arrival_s, times = Timeline(), 0.0, [0.0]
    for frames in connections:
        connected(True, timeline)
        for media_s, passed_s in frames:
            arrival_s += passed_s
            times.append(timeline.place(media_s, arrival_s))
    assert times == sorted(times)
    assert times[1:2] in ([], [0.0])


@given(st.lists(st.integers(1, 5 * 90_000), min_size=1, max_size=60), st.integers(0, WRAP_TICKS - 1), st.booleans())
def test_a_counter_that_wraps_gives_the_times_of_one_that_does_not(steps: list[int], start: int, live: bool) -> None:
    ticks = [start]
    for step in steps:
        ticks.append(ticks[-1] + step)
    times = placed(connected(live), [tick % WRAP_TICKS * TICK_S for tick in ticks])
    assert times == pytest.approx([(tick - start) * TICK_S for tick in ticks], abs=1e-6)


@given(st.lists(st.floats(0.001, 600.0), min_size=1, max_size=40), st.floats(0, 5000))
def test_pauses_of_a_recording_are_kept_as_real_time(steps: list[float], origin_s: float) -> None:
    media_s = [origin_s]
    for step in steps:
        media_s.append(media_s[-1] + step)
    timeline = connected(False, origin_s=origin_s, end_s=media_s[-1] - origin_s)
    assert placed(timeline, media_s) == pytest.approx([time - origin_s for time in media_s], abs=1e-6)
    assert timeline.discontinuities == 0


def test_a_long_pause_of_a_live_camera_is_kept_when_as_much_time_passed_here() -> None:
    timeline = connected(True)
    assert timeline.place(50.0, 0.0) == 0.0
    assert timeline.place(75.0, 24.9) == pytest.approx(25.0)
    assert timeline.discontinuities == 0


@pytest.mark.parametrize("jump_s", [JUMP_S + 1, 3600.0, -2.0, -3600.0])
def test_a_jump_of_a_live_camera_is_counted_and_time_goes_on_by_arrival(jump_s: float) -> None:
    timeline = connected(True)
    placed(timeline, [1000.0, 1000.04])
    assert timeline.place(1000.04 + jump_s, 100.24) == pytest.approx(0.24)
    assert timeline.place(1000.08 + jump_s, 100.28) == pytest.approx(0.28)
    assert timeline.discontinuities == 1


def test_a_jump_beyond_the_length_of_a_recording_is_a_discontinuity() -> None:
    timeline = connected(False, origin_s=0.0, end_s=60.0)
    assert placed(timeline, [0.0, 0.04, 90_000.0, 90_000.04]) == pytest.approx([0.0, 0.04, 0.08, 0.12])
    assert timeline.discontinuities == 1


def test_missing_time_stamps_follow_the_rate_of_a_recording_and_the_arrival_of_a_live_stream() -> None:
    assert placed(connected(False), [None, None, None], every_s=1.0) == pytest.approx([0.0, 0.04, 0.08])
    assert placed(connected(True), [None, None, None], every_s=1.0) == pytest.approx([0.0, 1.0, 2.0])


def test_jitter_of_a_time_stamp_keeps_the_time_of_the_frame_before() -> None:
    timeline = connected(True)
    assert placed(timeline, [5.0, 5.04, 5.03, 5.08]) == pytest.approx([0.0, 0.04, 0.04, 0.08])
    assert timeline.discontinuities == 0


def test_a_reconnected_camera_goes_on_by_the_time_that_passed() -> None:
    timeline = connected(True)
    timeline.place(700.0, 10.0)
    timeline.place(701.0, 11.0)
    connected(True, timeline)
    assert timeline.place(3.0, 41.0) == pytest.approx(31.0)
    assert timeline.place(3.5, 41.5) == pytest.approx(31.5)
    assert timeline.discontinuities == 0


def test_a_recording_that_is_resumed_keeps_its_file_time() -> None:
    timeline = connected(False, origin_s=1.4)
    placed(timeline, [1.4, 2.4, 3.4])
    connected(False, timeline, origin_s=1.4, resume_s=1.0)
    assert placed(timeline, [1.9, 2.9]) == pytest.approx([1.0, 1.5])


@given(st.lists(st.floats(0, 20), min_size=1, max_size=50), st.sampled_from([1.0, 4.0]))
def test_a_burst_is_never_faster_than_its_speed_and_its_allowance(steps: list[float], speed: float) -> None:
    pacer, now_s, pts_s = Pacer(speed, late_s=0.5), 0.0, 0.0
    pacer.wait_s(0.0, 0.0)
    for step in steps:
        pts_s += step
        now_s += pacer.wait_s(pts_s, now_s)
    assert now_s == pytest.approx(pts_s / speed, abs=1e-6)


@given(st.lists(st.tuples(st.floats(0.01, 1.0), st.floats(0.0, 3.0)), min_size=1, max_size=50))
def test_a_source_that_is_late_is_never_made_to_wait(frames: list[tuple[float, float]]) -> None:
    pacer, now_s, pts_s = Pacer(1.0, late_s=2.0), 0.0, 0.0
    pacer.wait_s(0.0, 0.0)
    for step_s, late_s in frames:
        pts_s += step_s
        now_s += step_s + late_s
        assert pacer.wait_s(pts_s, now_s) <= 1e-9


def test_a_long_stop_is_not_followed_by_an_equally_long_burst() -> None:
    pacer = Pacer(1.0, late_s=2.0)
    pacer.wait_s(0.0, 0.0)
    assert pacer.wait_s(0.04, 30.0) == 0.0
    assert pacer.wait_s(2.04, 30.0) == pytest.approx(0.0)
    assert pacer.wait_s(3.04, 30.0) == pytest.approx(1.0)


def test_a_live_stream_goes_on_where_an_earlier_run_ended() -> None:
    timeline = Timeline(start_s=3600.0)
    timeline.connect(live=True, tick_s=1 / 90_000, interval_s=0.04)
    assert placed(timeline, [512.0, 512.04, 512.08]) == pytest.approx([3600.0, 3600.04, 3600.08])


def lying(media_s: list[float], every_s: float = 0.1) -> tuple[Timeline, list[float]]:
    timeline = connected(True)
    return timeline, placed(timeline, list(media_s), every_s=every_s)


RNG = random.Random(0)
LIES = {
    "stand still": [7.0] * 600,
    "stand still from the middle on": [number / 10 for number in range(200)] + [20.0] * 400,
    "jump": [RNG.uniform(0, 9e4) for _ in range(600)],
    "jump back again and again": [number % 20 / 10 for number in range(600)],
    "one of ten is out of place": [number / 10 + (1.1 if number % 10 == 9 else 0.0) for number in range(600)],
    "one of ten is far out of place": [number / 10 + (3e4 if number % 10 == 9 else 0.0) for number in range(600)],
    "run ten times too slow": [number / 100 for number in range(600)],
    "run ten times too fast": [float(number) for number in range(600)],
    "a clock of half a second that stops": [min(number // 5 / 2, 20.0) for number in range(600)],
}


@pytest.mark.parametrize("lie", LIES)
def test_time_stamps_that_lie_are_found_out_and_pictures_are_placed_by_arrival(lie: str) -> None:
    timeline, times = lying(LIES[lie])
    steps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert timeline.lie is not None
    assert not timeline.stamped
    assert steps[-200:] == pytest.approx([0.1] * 200)
    assert timeline.restamped >= 200


def test_a_lie_is_a_matter_of_one_connection() -> None:
    timeline, _ = lying(LIES["stand still"])
    connected(True, timeline)
    assert timeline.lie is None
    last_s = timeline.last_s or 0.0
    assert timeline.place(3.0, 200.0) == pytest.approx(last_s + 200.0 - 159.9)
    assert timeline.place(3.5, 200.4) == pytest.approx(last_s + 200.5 - 159.9)
    assert timeline.stamped


@given(st.integers(2, 15), st.integers(30, 200))
def test_a_clock_that_ticks_in_steps_gives_the_right_times_between_them(ticks: int, count: int) -> None:
    media_s = [number // ticks * ticks / 25 for number in range(count)]
    timeline, times = lying(media_s, every_s=0.04)
    assert timeline.lie is None
    assert times == pytest.approx([number / 25 for number in range(count)], abs=0.05)


@given(st.lists(st.floats(0.0, 3.0), min_size=50, max_size=300), st.integers(0, 100))
def test_honest_time_stamps_are_believed_however_late_their_pictures_come(delays: list[float], backlog: int) -> None:
    timeline, arrival_s, times = connected(True), 0.0, []
    for number, delay_s in enumerate(delays):
        sent_s = max(number - backlog, 0) / 25
        arrival_s = max(arrival_s, sent_s + delay_s)
        times.append(timeline.place(number / 25, arrival_s))
    assert timeline.lie is None
    assert timeline.restamped == timeline.discontinuities == 0
    assert times == pytest.approx([number / 25 for number in range(len(delays))])


def test_a_clock_that_wanders_off_a_little_is_believed_for_days() -> None:
    timeline = connected(True)
    for number in range(200_000):
        timeline.place(number * 1.0002, float(number))
    assert timeline.lie is None
    assert timeline.discontinuities == 0


def test_a_recording_that_begins_without_time_stamps_loses_none_of_its_frames() -> None:
    timeline = connected(False, origin_s=0.4)
    times = placed(timeline, [None] * 10 + [0.4 + number / 25 for number in range(10)])
    assert times == pytest.approx([number / 25 for number in range(20)])


def test_frames_of_a_recording_whose_time_stamps_stand_still_follow_its_rate() -> None:
    times = placed(connected(False, origin_s=0.0), [0.0] * 100)
    assert times == pytest.approx([number / 25 for number in range(100)])


@pytest.mark.parametrize(("waits", "lie"), [(0.0, None), (0.15, "run too slow")])
def test_a_reader_that_is_too_slow_itself_does_not_blame_the_camera(waits: float, lie: str | None) -> None:
    timeline = connected(True)
    for number in range(600):
        timeline.place(number / 25, number / 5, number * waits)
    assert timeline.lie == lie

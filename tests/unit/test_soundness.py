"""What is built on a damaged picture, until when; in which order pictures may go; when damage is called long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.soundness import LONG_S, Coded, InOrder, LongDamage, Soundness

INTERVAL_S = 0.04
GOP = 12


def verdicts(codec: str, lost: set[int], count: int = 60, corrupt: frozenset[int] = frozenset()) -> list[str]:
    """Of a stream with a key frame every GOP pictures, shown in order of coding."""
    soundness, said = Soundness(codec, INTERVAL_S), []
    for number in range(count):
        coded = soundness.coded(key=number % GOP == 0, lost=number in lost)
        if number in corrupt:
            soundness.hit(coded)
        said.append(soundness.judge(coded, key=number % GOP == 0, intra=number % GOP == 0))
    return said


@given(st.sampled_from(["h264", "hevc", "mpeg2video"]), st.sets(st.integers(0, 59)), st.frozensets(st.integers(0, 59)))
def test_a_picture_is_sound_if_and_only_if_nothing_was_lost_since_a_whole_key_frame(
    codec: str, lost: set[int], corrupt: frozenset[int]
) -> None:
    hit = lost | {number + 1 for number in lost} | corrupt
    whole = codec == "h264"  # its decoder waits for a key frame by itself
    for number, verdict in enumerate(verdicts(codec, lost, corrupt=corrupt)):
        if number in hit:
            whole = False
        elif number % GOP == 0:
            whole = True
        assert (verdict == "sound") is whole


def test_what_came_before_the_connection_is_nobodys_damage() -> None:
    soundness = Soundness("hevc", INTERVAL_S)
    said = []
    for number in range(10):
        coded = soundness.coded(key=number == 6, lost=False)
        said.append(soundness.judge(coded, key=number == 6, intra=number == 6))
    assert said == ["joining"] * 6 + ["sound"] * 4


def test_what_is_shown_before_a_key_frame_but_coded_after_it_may_be_built_on_what_came_before() -> None:
    soundness = Soundness("hevc", INTERVAL_S)
    first, lost, key, leading, trailing = (
        soundness.coded(key=number in (0, 2), lost=number == 1) for number in range(5)
    )
    key_after = soundness.coded(key=True, lost=False)
    leads = soundness.coded(key=False, lost=False)
    follows = soundness.coded(key=False, lost=False)
    assert soundness.judge(first, key=True, intra=True) == "sound"
    said = [soundness.judge(coded, key=False, intra=False) for coded in (lost, leading, key, trailing, leads)]
    assert said == ["damaged"] * 5
    assert soundness.judge(key_after, key=True, intra=True) == "sound"
    assert soundness.judge(follows, key=False, intra=False) == "sound"


def test_an_intra_refresh_counts_once_it_has_begun_and_passed_behind_the_damage() -> None:
    soundness, sound = Soundness("h264", INTERVAL_S), []
    for number in range(50):
        coded = soundness.coded(key=number % 10 == 0, lost=number == 15)
        sound.append(soundness.judge(coded, key=number == 0, intra=number == 0) == "sound")
    assert [number for number, whole in enumerate(sound) if not whole] == list(range(15, 30))


def test_damage_within_an_intra_refresh_needs_another() -> None:
    soundness, sound = Soundness("h264", INTERVAL_S), []
    for number in range(60):
        coded = soundness.coded(key=number % 10 == 0, lost=number in (15, 24))
        sound.append(soundness.judge(coded, key=number == 0, intra=number == 0) == "sound")
    assert [number for number, whole in enumerate(sound) if not whole] == list(range(15, 40))


def test_intra_pictures_count_where_none_is_marked_and_so_does_a_long_time_without_damage() -> None:
    for intra, limit_s in ((True, 10.0), (False, 60.0)):
        soundness = Soundness("h264", INTERVAL_S)
        first = None
        for number in range(2000):
            coded = soundness.coded(key=number == 0, lost=number == 20)
            if soundness.judge(coded, key=number == 0, intra=intra) == "sound" and number > 20:
                first = number
                break
        assert first is not None
        assert first * INTERVAL_S == pytest.approx(limit_s + 20 * INTERVAL_S, abs=0.2)


@given(st.integers(0, 3), st.integers(1, 40), st.sets(st.integers(0, 39)), st.booleans())
def test_pictures_go_in_order_of_display_each_behind_all_it_may_be_built_on(
    b_frames: int, count: int, never_come: set[int], stamped: bool
) -> None:
    display = list(range(count))
    coding: list[int] = []  # each group: its last picture first, then those between
    for start in range(0, count, b_frames + 1):
        group = display[start : start + b_frames + 1]
        coding += [group[-1], *group[:-1]]
    order, went, came = InOrder(), [], []
    coded = {at: Coded(number, False, at if stamped else None) for number, at in enumerate(coding)}
    inside: list[int] = []
    for at in [*coding, *[None] * (b_frames + 2)]:
        if at is not None:
            order.sent(coded[at])
            inside.append(at)
        if len(inside) <= b_frames + 1 and at is not None:
            continue
        if not inside:
            continue
        out = min(inside)
        inside.remove(out)
        if out in never_come:
            continue
        came.append(out)
        for _ in range(order.came(coded[out])):
            one = came[len(went)]
            went.append(one)
            before = [other for other in came if coded[other].number < coded[one].number]
            assert not stamped or all(other in came for other in before)
    assert went == came[: len(went)]
    assert len(came) - len(went) <= 16
    if not b_frames:
        assert went == came


def test_long_damage_is_told_of_when_it_begins_and_when_it_ends() -> None:
    damage, told = LongDamage(), []
    for number in range(3000):
        at_s = number * 0.1
        changed = damage.push(at_s, 1000 <= number < 2000 and number % 5 != 0)
        if changed is not None:
            told.append((changed, at_s))
    (begun, begun_s), (ended, ended_s) = told
    assert (begun, ended) == (True, False)
    assert 100 < begun_s < 100 + LONG_S
    assert 200 < ended_s <= 200 + LONG_S


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_begin_and_end_of_long_damage_take_turns(damaged: list[bool]) -> None:
    damage = LongDamage()
    told = [c for number, hit in enumerate(damaged) if (c := damage.push(number / 2, hit)) is not None]
    assert told == [number % 2 == 0 for number in range(len(told))]

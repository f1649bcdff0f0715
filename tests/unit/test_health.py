"""Health: alarms for what is wrong for long, none for what only changes, and each once whatever is killed."""

from functools import cache, partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from allocator_engine.spec import THUMBNAIL
from pipeline.core.health import Alarm, Checkup, HealthRules, HealthState, judge_health
from pipeline.core.looks import look_at
from pipeline.core.state import StreamState
from pipeline.testing import START, frame_at
from pipeline.types import Answer, WatchQuery

CHECKUP = Checkup(HealthRules(frozen_s=20, blind_s=10, moved_s=20, unknown_s=30, clear_s=6, settle_s=100))
SCENES = range(4)
HEIGHT, WIDTH = THUMBNAIL


@cache
def scene(seed, height=HEIGHT, width=WIDTH) -> NDArray[np.float32]:
    """A street of boxes under a sky."""
    random = np.random.default_rng(seed)
    rgb = np.zeros((height, width, 3), np.float32) + random.uniform(60, 140)
    rgb += np.linspace(-20, 20, height, dtype=np.float32)[:, None, None]
    for _ in range(70):
        left, top = random.integers(0, width), random.integers(0, height)
        wide, tall = random.integers(5, width // 5), random.integers(5, height // 4)
        rgb[top : top + tall, left : left + wide] = random.uniform(10, 240, 3)
    return rgb


def noisy(rgb, seed, deviation=2.0):
    noise = np.random.default_rng(seed).normal(0, deviation, rgb.shape[:2])[:, :, None]
    return np.clip(rgb + noise, 0, 255).astype(np.uint8)


def blurred(rgb, radius=4):
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(radius)))


class ShownPicture:
    """A picture that is a thumbnail already."""

    def __init__(self, rgb):
        self.rgb = rgb

    def render(self, height, width):
        assert (height, width, 3) == self.rgb.shape
        return self.rgb


def run(pictures, state=HealthState(), begin=0, checkup=CHECKUP, queries=(), answers=lambda second: ()):
    """Judge one picture a second; the findings as (second, kind, what it ends)."""
    found = []
    for second, picture in enumerate(pictures, begin):
        look = None
        if picture is not None and checkup.is_due(state, second + 1):
            shown = picture() if callable(picture) else picture
            look = look_at(frame_at(second, ShownPicture(shown)), checkup.masks)
        state, findings = judge_health(state, look, queries, answers(second), checkup, (second, second + 1))
        found += [(second + 1, one.kind, one.data.get("of")) for one in findings]
    return state, found


def kinds(found):
    return [kind if of is None else f"{kind} {of}" for _, kind, of in found]


def living(seed, seconds, begin=0):
    return [partial(noisy, scene(seed), (seed, begin + second)) for second in range(seconds)]


@pytest.mark.parametrize("seed", SCENES)
@pytest.mark.parametrize("deviation", [0.5, 2.0, 6.0])
def test_a_static_scene_with_noise_is_well(seed, deviation):
    pictures = [partial(noisy, scene(seed), (seed, second), deviation) for second in range(120)]
    assert run(pictures)[1] == []


@pytest.mark.parametrize("seed", SCENES)
@pytest.mark.parametrize("curve", [1.0, 0.6, 1.8])
def test_dusk_and_dawn_are_no_alarm(seed, curve):
    """Down to an eighth of the light and back, the dark with more noise, in contrast that changes on the way."""
    pictures = []
    for second in range(240):
        light = 0.125 + 0.875 * abs(1 - second / 120)
        shade = 1 + (curve - 1) * (1 - light)
        rgb = 255 * light * (scene(seed).clip(0, 255) / 255) ** shade
        pictures.append(partial(noisy, rgb, (seed, second), 1.5 + 1.5 * (1 - light)))
    assert run(pictures)[1] == []


@pytest.mark.parametrize("seed", SCENES)
def test_a_light_that_is_switched_is_no_alarm(seed):
    pictures = [
        partial(noisy, scene(seed) * (1.0 if second // 50 % 2 else 0.3), (seed, second)) for second in range(200)
    ]
    assert run(pictures)[1] == []


@pytest.mark.parametrize("seed", SCENES)
def test_passing_objects_are_no_alarm(seed):
    pictures = []
    for second in range(150):
        rgb = scene(seed).copy()
        for lane, speed in enumerate((11, 23, 37)):
            left = (second * speed) % 320 - 100
            rgb[20 + 32 * lane : 58 + 32 * lane, max(left, 0) : max(left + 90, 0)] = (200, 40, 40 * lane)
        if 60 <= second < 72:  # a lorry stops before the camera
            rgb[8:120, 14:210] = 120
        pictures.append(partial(noisy, rgb, (seed, second)))
    assert run(pictures)[1] == []


@pytest.mark.parametrize("seed", SCENES)
def test_a_parked_lorry_over_half_the_picture_is_no_alarm(seed):
    parked = scene(seed).copy()
    parked[28:114, 14:133] = 110
    pictures = living(seed, 40) + [partial(noisy, parked, (seed, second)) for second in range(120)]
    assert run(pictures)[1] == []


WRONG = {
    "stream.frozen": lambda rgb, second: noisy(rgb, 7),
    "stream.frozen ": lambda rgb, second: noisy(rgb, second % 3),  # key frames coded anew: a few pictures in turns
    "stream.blind": lambda rgb, second: np.zeros(rgb.shape, np.uint8),
    "stream.blind ": lambda rgb, second: noisy(np.full(rgb.shape, 9.0), second),
    "stream.blind  ": lambda rgb, second: noisy(np.full(rgb.shape, 252.0), second),
    "stream.blind   ": lambda rgb, second: noisy(np.full(rgb.shape, 90.0), second),
    "stream.blind    ": lambda rgb, second: blurred(noisy(rgb, second)),
    "stream.moved": lambda rgb, second: noisy(scene(77), second),
    "stream.moved ": lambda rgb, second: noisy(np.roll(rgb, (9, 42), (0, 1)), second),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("seed", SCENES)
def test_each_trouble_is_one_alarm_and_its_end_one_event(wrong, seed):
    pictures = living(seed, 40) + [partial(WRONG[wrong], scene(seed), 1000 + second) for second in range(60)]
    state, found = run([*pictures, *living(seed, 40, 200)])
    kind = wrong.strip()
    assert kinds(found) == [kind, f"stream.clear {kind}"]
    assert 40 + 8 <= found[0][0] <= 40 + 36
    assert 100 + 5 <= found[1][0] <= 100 + 12
    assert state.on == ()


@pytest.mark.parametrize("wrong", WRONG)
def test_what_lasts_too_short_is_no_alarm(wrong):
    pictures = [WRONG[wrong](scene(1), 1000 + second) for second in range(8)]
    assert run([*living(1, 40), *pictures, *living(1, 40, 200)])[1] == []


@pytest.mark.parametrize("wrong", WRONG)
def test_a_kill_at_any_hop_repeats_no_alarm_and_loses_none(wrong):
    pictures = living(2, 30) + [WRONG[wrong](scene(2), 1000 + second) for second in range(40)] + living(2, 20, 200)
    whole_state, whole = run(pictures)
    for cut in range(1, len(pictures), 13):
        state, before = run(pictures[:cut])
        stored = StreamState(lineage="x", health=state).to_json()
        after_state, after = run(pictures[cut:], StreamState.from_json(stored).health, cut)
        assert before + after == whole
        assert after_state == whole_state


def test_a_new_view_that_stays_is_taken_for_the_cameras_own():
    turned = [noisy(scene(9), second) for second in range(160)]
    _, found = run([*living(1, 40), *turned, *[np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 14, *turned[:20]])
    assert kinds(found)[:2] == ["stream.moved", "stream.clear stream.moved"]
    assert "stream.moved" not in kinds(found)[2:]


def test_another_camera_or_other_masks_are_no_turned_camera():
    state, _ = run(living(1, 40))
    other = Checkup(CHECKUP.rules, "another")
    assert run(living(5, 60), state, 40, other)[1] == []
    dark, found = run([np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 20, state, 40)
    assert kinds(found) == ["stream.blind"]
    assert kinds(run(living(5, 30), dark, 60, other)[1]) == ["stream.clear stream.blind"]


def test_an_alarm_that_is_switched_off_ends():
    dark, _ = run([*living(1, 20), *[np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 20])
    assert dark.on == ("blind",)
    off = Checkup(HealthRules(0, 0, 0, 0))
    assert kinds(run([None], dark, 40, off)[1]) == ["stream.clear stream.blind"]
    assert run([np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 100, checkup=off)[1] == []


def test_masks_are_no_part_of_the_view():
    mask = ((0.0, 0.0), (0.6, 0.0), (0.6, 1.0), (0.0, 1.0))
    checkup = Checkup(CHECKUP.rules, "camera", (mask,))

    def masked(pictures):
        return [
            np.where(np.arange(WIDTH)[None, :, None] <= 135, 0, one).astype(np.uint8)
            for one in (one() if callable(one) else one for one in pictures)
        ]

    white = [noisy(np.full((HEIGHT, WIDTH, 3), 252.0), second) for second in range(30)]
    turned = [noisy(scene(9), second) for second in range(60)]
    assert run(masked(living(3, 100)), checkup=checkup)[1] == []
    assert kinds(run(masked([*living(3, 40), *white]), checkup=checkup)[1]) == ["stream.blind"]
    assert kinds(run(masked([*living(3, 40), *turned]), checkup=checkup)[1]) == ["stream.moved"]


QUERY = WatchQuery("lorry", "is there a lorry?")


@settings(deadline=None)
@given(st.lists(st.sampled_from(["known", "unknown", "not asked"]), max_size=120))
def test_a_watch_is_unknown_when_all_its_answers_were_for_long(script):
    said = {"known": [Answer("lorry", 0.9, 0.9)], "unknown": [Answer("lorry", 0.5, 0.1)], "not asked": []}
    _, found = run([None] * len(script), queries=[QUERY], answers=lambda second: said[script[second]])
    expected, since, on = [], None, False
    for second, word in enumerate(script):
        if word == "known":
            if on:
                expected.append((second + 1, "watch.known", "watch.unknown"))
            since, on = None, False
        elif word == "unknown":
            since = second if since is None else since
            if not on and second + 1 - since >= 30:
                expected.append((second + 1, "watch.unknown", None))
                on = True
    assert found == expected


def test_a_watch_that_is_removed_is_no_longer_unknown():
    state, found = run([None] * 40, queries=[QUERY], answers=lambda second: [Answer("lorry", 0.5, 0.1)])
    assert kinds(found) == ["watch.unknown"]
    state, found = run([None], state, 40)
    assert kinds(found) == ["watch.known watch.unknown"]
    assert state.alarms == {}


@given(
    st.lists(st.tuples(st.booleans() | st.none(), st.floats(0.1, 10)), max_size=60),
    st.floats(0.5, 30),
    st.floats(0.5, 30),
)
def test_an_alarm_changes_after_unbroken_evidence_only(script, raise_s, clear_s):
    alarm, at_s, held_s = Alarm(), 0.0, 0.0
    for evidence, seconds in script:
        at_s += seconds
        before, alarm = alarm, alarm.step(evidence, at_s, seconds, raise_s, clear_s)
        if evidence is not None:
            held_s = held_s + seconds if evidence != before.on else 0.0
        changed = alarm.on != before.on
        against = evidence is not None and evidence != before.on
        assert changed == (against and held_s >= (clear_s if before.on else raise_s) - 1e-6)
        held_s = 0.0 if changed else held_s


def test_its_events_count_with_the_streams_own():
    state = StreamState(lineage="x")
    _, found = run([*living(1, 20), *[np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 20])
    assert found
    state, attached = state.stream_event("gate", "stream.attached", START, {})
    _, findings = judge_health(
        HealthState(of="a", alarms={"blind": Alarm(True, 0, 3.0)}), None, (), (), Checkup(of="b"), (9, 10)
    )
    state, (event,) = state.found("gate", findings, START, 10.0)
    assert (event.type, event.data["n"], event.data["of"]) == ("stream.clear", 2, "stream.blind")
    assert event.id != attached.id
    assert state.well("gate", START, 11.0, "stream removed")[1] == ()

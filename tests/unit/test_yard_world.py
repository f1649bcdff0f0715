import json
from functools import cache

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samples.yard.world.__main__ import main
from samples.yard.world.codec import surveillance, write_video
from samples.yard.world.facts import FAR_PERSON_PX, GLYPH_PX, GLYPHS, HEIGHT, WIDTH
from samples.yard.world.layout import make_layout
from samples.yard.world.scene import Scene
from samples.yard.world.script import (
    BARRIER_S,
    GATE_S,
    BagRole,
    PersonRole,
    Script,
    VehicleRole,
    gain_at,
    life,
    opened,
)
from samples.yard.world.stage import YardStage

SEEDS = st.integers(800_000, 899_999)


@cache
def scene(seed: int, scale: int = 1) -> Scene:
    return Scene(seed, 32.0, scale=scale)


def roles_of(kind: type, seeds: range):
    """Every (scene, role) of a kind that is on stage inside the episode."""
    for seed in seeds:
        for role in scene(seed).script.roles:
            if isinstance(role, kind) and life(role)[0] > 0.5 and life(role)[1] < 31:
                yield scene(seed), role


@settings(max_examples=6, deadline=None)
@given(SEEDS, st.floats(0, 32, allow_nan=False))
def test_a_frame_depends_on_seed_and_time_only(seed, time_s):
    one, two = Scene(seed), Scene(seed)
    for earlier in (3.0, 17.5):
        one.look(earlier)
    first, second = one.look(time_s), two.look(time_s)
    assert first.pixels.tobytes() == second.pixels.tobytes()
    assert first.ids.tobytes() == second.ids.tobytes()
    assert first.facts == second.facts


def test_quiet_time_before_an_episode_shows_nothing_that_is_asked_about_and_leaves_the_episode_as_it_is():
    quiet, plain = Scene(800_003, 32.0, quiet_s=40.0), Scene(800_003)
    before = [quiet.look(time_s) for time_s in (-40.0, -31.0, -17.5, -5.0)]
    parked = [thing.id for thing in before[0].facts.things]
    for look in before:
        assert [thing.id for thing in look.facts.things] == parked
        assert (look.facts.gate_open, look.facts.barrier_up) == (False, False)
    assert (before[0].pixels != before[2].pixels).any()
    for time_s in (0.0, 0.52, 13.0, 31.0):
        assert quiet.look(time_s).pixels.tobytes() == plain.look(time_s).pixels.tobytes()


def test_seeds_and_moments_differ():
    assert (scene(800_000).look(1.0).pixels != scene(800_001).look(1.0).pixels).any()
    assert (scene(800_000).look(1.0).pixels != scene(800_000).look(1.04).pixels).any()


@settings(max_examples=8, deadline=None)
@given(SEEDS)
def test_facts_agree_with_the_id_picture(seed):
    yard = Scene(seed)
    for time_s in np.arange(0, 32, 2.3):
        look = yard.look(float(time_s))
        assert look.pixels.shape == (HEIGHT, WIDTH, 3)
        assert look.ids.shape == (HEIGHT, WIDTH)
        assert set(np.unique(look.ids).tolist()) - {0} == {thing.id for thing in look.facts.things}
        for thing in look.facts.things:
            rows, columns = np.nonzero(look.ids == thing.id)
            left, top, wide, high = thing.box
            assert (left, top) == (columns.min(), rows.min())
            assert (wide, high) == (np.ptp(columns) + 1, np.ptp(rows) + 1)
            assert 0 < thing.fraction <= 1
            assert thing.contrast >= 0
            assert (thing.colour is not None) == (thing.kind in ("car", "van", "truck"))
            assert (thing.helmet is not None) == (thing.kind == "person")
            assert thing.plate is None or set(thing.plate) <= set(GLYPHS)


def test_a_scripted_person_is_in_the_facts_and_in_the_pixels():
    yard, role = next((yard, role) for yard, role in roles_of(PersonRole, range(800_000, 800_020)))
    middle = sum(life(role)) / 2
    with_person = yard.look(middle)
    others = tuple(other for other in yard.script.roles if other.id != role.id)
    empty = YardStage(yard.seed, yard.layout, Script(others, yard.script.gate, yard.script.barrier), 1)
    without = empty.show(middle, measure=True)
    mask = with_person.ids == role.id
    assert mask.any()
    changed = np.abs(with_person.pixels.astype(int) - without.pixels).max(axis=2) > 20
    assert changed[mask].mean() > 0.5


def test_people_are_near_middle_or_far_never_between():
    heights = [
        thing.height_px
        for seed in range(800_000, 800_012)
        for time_s in range(0, 32, 3)
        for thing in scene(seed).look(float(time_s)).facts.things
        if thing.kind == "person"
    ]
    assert any(height < FAR_PERSON_PX for height in heights)
    assert not [height for height in heights if 34 < height < 46 or 74 < height < 78]


def test_a_helmet_taken_off_is_told():
    yard, role = next((yard, role) for yard, role in roles_of(PersonRole, range(800_000, 800_060)) if role.bare)
    start, end = role.bare[0]
    told = {
        when: thing.helmet
        for when, time_s in (("before", start - 0.1), ("while", (start + end) / 2), ("after", end + 0.1))
        for thing in yard.look(time_s).facts.things
        if thing.id == role.id and thing.helmet is not None
    }
    assert "while" in told
    assert told == {when: when != "while" for when in told}


def test_a_plate_is_legible_near_the_camera_only():
    yard, role = next(
        (yard, role)
        for yard, role in roles_of(VehicleRole, range(800_000, 800_040))
        if role.side == "front" and role.plate
    )
    sizes = {}
    for time_s in np.arange(*life(role), 0.2):
        facts = yard.look(float(time_s)).facts
        sizes |= {thing.height_px: thing for thing in facts.things if thing.id == role.id and thing.fraction > 0.9}
    near, far = sizes[max(sizes)], sizes[min(sizes)]
    assert near.plate_px >= GLYPH_PX
    assert near.plate == role.plate
    assert far.plate_px < GLYPH_PX
    assert far.legible is None


def test_plate_boxes_are_those_of_the_facts():
    for seed in range(800_000, 800_010):
        for time_s in range(0, 32, 4):
            boxes = scene(seed).plate_boxes(float(time_s))
            things = {thing.id: thing for thing in scene(seed).look(float(time_s)).facts.things}
            assert {key for key, thing in things.items() if thing.plate_px > 0} == set(boxes)
            for key, (left, top, wide, high) in boxes.items():
                assert wide > high > things[key].plate_px * 0.9
                assert -wide < left < WIDTH
                assert -high < top < HEIGHT


def test_a_bag_stays_after_its_owner_left():
    yard, role = next((yard, role) for yard, role in roles_of(BagRole, range(800_000, 800_060)))
    assert not any(thing.id == role.id for thing in yard.look(role.start - 0.1).facts.things)
    assert any(
        thing.id == role.id and thing.kind == "bag"
        for share in (0.2, 0.5, 0.8)
        for thing in yard.look(role.start + share * (role.end - role.start)).facts.things
    )
    assert not any(thing.id == role.id for thing in yard.look(role.end + 0.1).facts.things)


@pytest.mark.parametrize(
    ("spans", "travel_s", "name"), [("gate", GATE_S, "gate_open"), ("barrier", BARRIER_S, "barrier_up")]
)
def test_gate_and_barrier_are_told_as_they_stand(spans, travel_s, name):
    told: dict[str, int] = {"shut": 0, "open": 0, "moving": 0}
    for seed in range(800_000, 800_008):
        yard = scene(seed)
        for time_s in np.arange(0, 32, 0.7):
            share = opened(getattr(yard.script, spans), float(time_s), travel_s)
            stated = getattr(yard.look(float(time_s)).facts, name)
            if 0.25 < share < 0.75:
                assert stated is None
                told["moving"] += 1
            elif stated is not None:
                assert stated == (share >= 0.75)
                told["open" if stated else "shut"] += 1
    assert told["open"]
    assert told["shut"] > told["open"]


def test_twice_the_size_has_the_same_facts():
    small, large = scene(800_003), scene(800_003, 2)
    for time_s in (2.0, 11.0, 23.0):
        one, two = small.look(time_s), large.look(time_s)
        assert two.pixels.shape == (2 * HEIGHT, 2 * WIDTH, 3)
        assert one.facts == two.facts
        assert (one.ids == two.ids).all()
        halved = two.pixels.reshape(HEIGHT, 2, WIDTH, 2, 3).mean(axis=(1, 3))
        assert np.abs(halved - one.pixels).mean() < 7


def test_without_facts_the_pixels_are_the_same():
    assert (scene(800_004).look(9.0).pixels == scene(800_004).look(9.0, facts=False).pixels).all()
    assert scene(800_004).look(9.0, facts=False).facts.things == ()


def test_state_boxes_lie_inside_the_picture_and_mirror_with_it():
    mirrored = set()
    for seed in range(800_000, 800_020):
        yard = scene(seed)
        for left, top, wide, high in (yard.gate_box, yard.barrier_box):
            assert left >= 0
            assert top >= 0
            assert left + wide <= WIDTH
            assert top + high <= HEIGHT
            assert wide >= 50
        mirrored.add(yard.gate_box[0] > WIDTH / 2)
        assert make_layout(seed).view.flip == (yard.gate_box[0] > WIDTH / 2)
    assert mirrored == {True, False}


def test_exposure_steps_in_a_third_of_a_second():
    gains = ((-1e9, 1.0), (4.0, 1.2))
    assert gain_at(gains, 3.9) == 1.0
    assert gain_at(gains, 4.15) == pytest.approx(1.1)
    assert gain_at(gains, 9.0) == pytest.approx(1.2)


@pytest.mark.parametrize("fps", [2.0, 25.0])
def test_the_codec_keeps_size_count_and_order(fps):
    yard = scene(800_002)
    frames = [yard.look(index / fps).pixels for index in range(9)]
    decoded = surveillance(frames, fps, seed=800_002)
    assert [picture.shape for picture in decoded] == [(HEIGHT, WIDTH, 3)] * 9
    away = [[np.abs(one.astype(int) - two).mean() for two in decoded] for one in frames]
    assert max(away[index][index] for index in range(9)) < 12
    assert all(row[index] <= min(row) + 0.5 for index, row in enumerate(away)), "a picture came back as another"
    assert surveillance([], fps) == []


def test_the_codec_refuses_pictures_of_two_sizes():
    frames = [np.zeros((64, 64, 3), np.uint8), np.zeros((64, 32, 3), np.uint8)]
    with pytest.raises(ValueError, match=r"64 x 64 px; got \(64, 32\)"):
        surveillance(frames, 2.0)


def test_a_file_holds_key_frames_every_two_seconds_and_no_b_frames(tmp_path):
    assert write_video(tmp_path / "yard.mkv", scene(800_000), seconds=4.4) == 110
    with av.open(str(tmp_path / "yard.mkv")) as clip:
        stream = clip.streams.video[0]
        frames = list(clip.decode(stream))
        assert (stream.codec_context.name, frames[0].height, frames[0].width) == ("h264", HEIGHT, WIDTH)
    assert len(frames) == 110
    assert [index for index, frame in enumerate(frames) if frame.key_frame] == [0, 50, 100]
    assert not any(frame.pict_type == av.video.frame.PictureType.B for frame in frames)


def test_the_command_writes_playable_files_and_their_truth(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "sys.argv", ["world", "--seed", "800005", "--minutes", "0.1", "--cameras", "2", "--out", str(tmp_path)]
    )
    main()
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert [camera["seed"] for camera in truth["cameras"]] == [800_005, 800_006]
    for camera in truth["cameras"]:
        with av.open(str(tmp_path / camera["file"])) as clip:
            assert sum(1 for _ in clip.decode(video=0)) == 150
        assert len(camera["frames"]) == 6 * truth["facts_fps"]
        assert all(span["end_s"] > span["start_s"] for spans in camera["watches"].values() for span in spans)
    assert "truth.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    "given", [{"seed": -1}, {"seed": 1, "seconds": 0.0}, {"seed": 1, "scale": 3}, {"seed": 1, "quiet_s": -1}]
)
def test_a_scene_that_cannot_be_is_refused(given):
    with pytest.raises(ValueError, match="seed >= 0, seconds > 0 and scale 1 or 2"):
        Scene(**given)


def test_an_empty_script_gives_an_empty_yard():
    layout = make_layout(800_000)
    shown = YardStage(800_000, layout, Script(), 1).show(1.0, measure=True)
    assert shown.cast == ()
    assert not shown.ids.any()

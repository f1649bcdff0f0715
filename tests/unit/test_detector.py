"""A detector in the place of an MLLM: what it understands, what it answers from, what it refuses."""

import asyncio
import os
import threading
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.build import build_mllm, weight_files
from pipeline.clock import SystemClock
from pipeline.config.mllm import DetectorConfig
from pipeline.config.site import parse_site
from pipeline.errors import ConfigError
from pipeline.mllm.detector import networks
from pipeline.mllm.detector.backend import DetectorMLLM, looked_at
from pipeline.mllm.detector.words import COLOURS, DetectedObject, inside, rectangle, understand
from pipeline.rules import Count, Rules
from pipeline.types import Segment, WatchQuery, Zone
from tests.checkpoints import context
from tests.detector import BrightNetworks, folder_of_networks
from tests.services import require

MAN = DetectedObject("person", 0.9, (0.1, 0.2, 0.2, 0.6))
CHILD = DetectedObject("person", 0.6, (0.7, 0.7, 0.8, 0.9))
CAR = DetectedObject("vehicle", 0.8, (0.5, 0.1, 0.9, 0.4), {"car": 0.75, "van": 0.25}, {"red": 0.5, "black": 0.5})
SCENE = (MAN, CHILD, CAR)
DOOR = Zone("door", ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)))


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Is there a person?", 0.9),
        ("is anybody there", 0.9),
        ("Are there any people in view?", 0.9),
        ("Is a person in the right half of the picture?", 0.6),
        ("Is there a person in the upper part?", 0.9),
        ("Is there a person in the lower half?", 0.6),
        ("Are there at least two people?", 0.6),
        ("Are there 2 or more persons in view?", 0.6),
        ("Are there more than two people?", 0.0),
        ("Is there a vehicle?", 0.8),
        ("Is there a red car?", 0.4),
        ("Is a grey vehicle in view?", 0.0),
        ("Is there a van?", 0.2),
        ("Do you see a bicycle?", 0.0),
        (f"{DOOR.words} Is there a person?", 0.9),
        (f"{DOOR.words} Are there at least 2 people?", 0.0),
    ],
)
def test_the_closed_vocabulary_is_answered_from_confidences(text, score):
    question = understand(text)
    assert question is not None
    assert question.probability(SCENE) == pytest.approx(score)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Is there a boat?",
        "Is there no person?",
        "Is there a person on the ladder?",
        "Are there two people?",
        "Is there a red person?",
        "Did a person leave?",
        "Is there a person? Answer yes.",
        "How many at least two people are there?",
        "What colour is the car?",
        "Ist da jemand?",
    ],
)
def test_any_other_question_is_not_understood(text):
    assert understand(text) is None


def test_how_many_is_a_number_and_its_shares_are_those_of_at_least():
    question = understand("How many people are in view?")
    assert question is not None
    assert question.word(SCENE) == "2"
    assert question.shares(SCENE, 4) == pytest.approx([0.1, 0.3, 0.6, 0.0, 0.0])


@given(st.lists(st.floats(0, 1), max_size=12), st.integers(1, 20))
def test_shares_of_numbers_are_a_distribution_that_agrees_with_at_least(sure, most):
    found = [DetectedObject("person", one, (0.4, 0.4, 0.6, 0.6)) for one in sure]
    shares = understand("How many people are there?").shares(found, most)
    assert len(shares) == most + 1
    assert min(shares) >= 0
    assert sum(shares) == pytest.approx(1.0)
    for number in range(1, most + 1):
        at_least = understand(f"Are there at least {number} people?")
        assert sum(shares[number:]) == pytest.approx(at_least.probability(found), abs=1e-9)
        assert at_least.probability(found) <= understand("Is there a person?").probability(found)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_halves_share_the_picture(x, y):
    thing = [DetectedObject("person", 1.0, (x - 0.01, y - 0.01, x + 0.01, y + 0.01))]
    for one, other in (("left", "right"), ("upper", "lower")):
        sides = [understand(f"Is a person in the {part} half?").probability(thing) for part in (one, other)]
        assert sorted(sides) == [0.0, 1.0]


def test_a_polygon_that_is_no_rectangle_has_an_inside():
    corner = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    assert inside(corner, 0.2, 0.2)
    assert not inside(corner, 0.8, 0.8)
    assert inside(rectangle(0.2, 0.2, 0.4, 0.4), 0.3, 0.3)


def frame(pts_s: float, rows: int, columns: int, patch: tuple[int, int, int, int] | None = None) -> Segment:
    """A dark picture, with a bright patch (left, top, right, bottom in px) if one is given."""
    pixels = np.full((1, rows * 32, columns * 32, 3), 30, np.uint8)
    if patch:
        left, top, right, bottom = patch
        pixels[0, top:bottom, left:right] = 230
    return Segment((pts_s,), pixels, rows * columns, f"{pts_s}:{rows}:{columns}:{patch}")


def test_it_looks_at_the_largest_of_the_newest_second_and_else_at_the_newest():
    old, large, small = frame(0.0, 9, 9), frame(2.0, 4, 4), frame(2.5, 1, 2)
    assert looked_at([old, large, small]) is large
    assert looked_at([old, small]) is small
    assert looked_at([frame(2.0, 2, 2), last := frame(2.5, 2, 2)]) is last
    assert looked_at([]) is None


async def detector() -> DetectorMLLM:
    mllm = DetectorMLLM(DetectorConfig(use="detector:x"), opened=lambda folder, threads: BrightNetworks())
    await mllm.start()
    return mllm


async def test_it_answers_from_the_pixels_that_were_allocated():
    mllm = await detector()
    asked = [WatchQuery("a", "Is there a person?"), WatchQuery("b", "Is the gate open?")]
    scores = {}
    for share, (rows, columns) in {1.0: (4, 4), 0.25: (2, 2), 0.0625: (1, 1)}.items():
        side = 128 * rows // 4
        shown = frame(0.0, rows, columns, (side // 4, side // 2, side // 2, side // 2 + side // 8))
        answers = (await mllm.ask(context(shown, stream_id=str(share)), asked)).answers
        assert answers[1].verdict == "unknown"
        scores[share] = answers[0].score
    assert scores[1.0] == 1.0
    assert all(less < more for more, less in pairwise(scores.values()))


async def test_a_picture_that_many_ask_about_at_once_is_looked_at_once_also_after_one_gave_up():
    class Slow(BrightNetworks):
        looks, may_see = 0, threading.Event()

        def find(self, pixels):
            self.looks += 1
            assert self.may_see.wait(60)
            return super().find(pixels)

    networks = Slow()
    mllm = DetectorMLLM(DetectorConfig(use="detector:x"), opened=lambda folder, threads: networks)
    await mllm.start()
    shown = frame(0.0, 4, 4, (10, 40, 30, 80))
    query = [WatchQuery("a", "Is there a person?")]
    asks = [asyncio.create_task(mllm.ask(context(shown, stream_id=str(number)), query)) for number in range(4)]
    while not networks.looks:
        await asyncio.sleep(0)
    asks[0].cancel()
    await asyncio.sleep(0)
    networks.may_see.set()
    done = await asyncio.gather(*asks, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert [one.answers[0].score for one in done[1:]] == [1.0] * 3
    assert networks.looks == 1


async def test_a_watch_with_a_zone_or_a_count_is_answered_by_it():
    mllm = await detector()
    shown = context(frame(0.0, 4, 4, (10, 40, 30, 80)))
    right = Zone("right", ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0)))
    asked = [
        WatchQuery("here", "Is there a person?", zone=DOOR),
        WatchQuery("there", "Is there a person?", zone=right),
        WatchQuery("many", "How many people are there?", rules=Rules(count=Count(">=", 1))),
        WatchQuery("which", "Is there a person?", rules=Rules(choice=("yes", "maybe"))),
    ]
    here, there, many, which = (await mllm.ask(shown, asked)).answers
    assert (here.score, there.score) == (1.0, 0.0)
    assert (many.value, many.score) == ("1", 1.0)
    assert which.verdict == "unknown"


async def test_it_says_single_words_and_follows_no_schema():
    mllm = await detector()
    shown = context(frame(0.0, 4, 4, (10, 40, 30, 80)))
    questions = ["Is there a person?", "Is there a car?", "How many people are there?", "What is this?"]
    assert await mllm.say(shown, questions) == ["yes", "no", "1", "unknown"]
    with pytest.raises(ConfigError, match="no JSON schema"):
        await mllm.say(shown, questions, schema={"type": "object"})


async def test_a_folder_without_its_files_is_refused_by_name(tmp_path):
    for missing in sorted(file.name for file in folder_of_networks(tmp_path / "all").iterdir()):
        folder = folder_of_networks(tmp_path / missing)
        (folder / missing).unlink()
        mllm = build_mllm(parse_site({"mllm": f"detector:{folder}"}).mllm, SystemClock())
        with pytest.raises(ConfigError, match=f"lacks {missing}"):
            await mllm.start()
    with pytest.raises(ConfigError, match="lacks person-vehicle-bike"):
        await build_mllm(parse_site({"mllm": "detector:/nowhere"}).mllm, SystemClock()).start()
    with pytest.raises(ConfigError, match="expected a folder"):
        build_mllm(parse_site({"mllm": "detector:"}).mllm, SystemClock())


async def test_where_openvino_is_not_installed_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "find_spec", lambda name: None)
    mllm = build_mllm(parse_site({"mllm": f"detector:{folder_of_networks(tmp_path)}"}).mllm, SystemClock())
    with pytest.raises(ConfigError, match=r"openvino is not installed.*resadapt-stream\[detector\]"):
        await mllm.start()


def test_its_weights_are_its_two_files(tmp_path):
    config = parse_site({"mllm": f"detector:{folder_of_networks(tmp_path)}"}).mllm
    assert [file.suffix for file in weight_files(config)] == [".bin", ".bin"]


@pytest.fixture
def models() -> Path:
    """The folder of real networks that TEST_REAL_FOOTAGE names."""
    named = os.environ.get("TEST_REAL_FOOTAGE")
    require(bool(named), "TEST_REAL_FOOTAGE names a folder with real footage and a detector")
    require(find_spec("openvino") is not None, "openvino computes the detector's networks")
    return Path(named) / "real" / "models"


def test_real_networks_take_pictures_of_any_size(models):
    opened = networks.open_networks(models, 1)
    for height, width in ((32, 32), (64, 32), (576, 768)):
        for found in opened.find(np.full((height, width, 3), 90, np.uint8)):
            assert 0 <= found.confidence <= 1
            assert set(found.colours) in (set(), set(COLOURS))


def test_damaged_networks_are_refused_by_name(tmp_path, models):
    folder = folder_of_networks(tmp_path)
    with pytest.raises(ConfigError, match=r"barrier-0039|2002\.xml cannot be opened"):
        networks.open_networks(folder, 1)

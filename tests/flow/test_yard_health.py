"""The health of yard cameras: none is alarmed about in any light or weather, and one that is frozen, black or turned
is."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from pipeline.core.health import Checkup, HealthRules
from pipeline.loop import watch_stream
from pipeline.sources.synthetic import ArrayPicture
from pipeline.testing import ScriptedSource, frame_at
from samples.yard.world.codec import surveillance
from samples.yard.world.scene import Scene
from tests.flow.test_loop import CAR, build

WEATHER = {800_000: ("day", False), 800_002: ("dusk", False), 800_001: ("night", False), 800_004: ("day", True)}
SECONDS, EVERY_S, BROKEN_S = 120, 2, 40
CHECKUP = Checkup(HealthRules(frozen_s=20, blind_s=10, moved_s=20, clear_s=6))


@cache
def filmed(seed: int):
    """Pictures of a yard as its camera's codec leaves them, one each time that health looks at one."""
    scene = Scene(seed, float(SECONDS))
    looks = [scene.look(float(at_s)) for at_s in range(0, SECONDS, EVERY_S)]
    assert (looks[0].facts.light, looks[0].facts.rain) == WEATHER[seed], "the yard has changed; choose other seeds"
    return surveillance([look.pixels for look in looks], 1 / EVERY_S, seed=seed)


async def alarms(pictures) -> list[str]:
    """The types of the stream's events."""
    run, runtime = build(CAR)
    frames = [frame_at(float(EVERY_S * number), ArrayPicture(one)) for number, one in enumerate(pictures)]
    await watch_stream(replace(run, checkup=CHECKUP), ScriptedSource(frames), runtime)
    return [event.type for event in runtime.outbox.events if event.type.startswith("stream.")]


def broken(pictures, how):
    """The pictures, from BROKEN_S on made by `how`."""
    first = BROKEN_S // EVERY_S
    return [*pictures[:first], *(how(pictures, number) for number in range(first, len(pictures)))]


def frozen(pictures, _number):
    return pictures[BROKEN_S // EVERY_S - 1]


def black(pictures, number):
    return np.zeros_like(pictures[number])


def turned(pictures, number):
    """The picture of a camera that was pushed over: what it shows is all elsewhere."""
    return np.ascontiguousarray(pictures[number][::-1, ::-1])


@pytest.mark.parametrize("seed", WEATHER)
async def test_a_yard_is_well_in_any_light_and_weather(seed):
    assert await alarms(filmed(seed)) == []


@pytest.mark.parametrize("seed", WEATHER)
@pytest.mark.parametrize(
    ("how", "alarm"), [(frozen, "stream.frozen"), (black, "stream.blind"), (turned, "stream.moved")]
)
async def test_one_that_no_longer_shows_its_yard_is_named(seed, how, alarm):
    assert await alarms(broken(filmed(seed), how)) == [alarm]

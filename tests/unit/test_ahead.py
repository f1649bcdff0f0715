"""Clips that are made in another process, which imports this module: so it imports little."""

import os
import signal
from dataclasses import dataclass

import numpy as np
import pytest

from allocator_engine.train.ahead import Ahead
from allocator_engine.train.rollout import ClipHop, Episode


@dataclass(frozen=True)
class Plain:
    """A picture of one level."""

    level: int
    height: int = 64
    width: int = 96

    def render(self, height: int, width: int) -> np.ndarray:
        return np.full((height, width, 3), self.level, np.uint8)


@dataclass(frozen=True)
class Numbered:
    """Episodes that say which they are; the one number `broken` cannot be made, at `deadly` the process dies."""

    broken: int = -1
    deadly: int = -1

    def episode(self, step: int, index: int) -> Episode:
        if 2 * step + index == self.broken:
            raise ValueError("this clip is broken")
        if 2 * step + index == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return Episode(
            f"{step}-{index} {os.getpid()}",
            (ClipHop(0.0, 1.0, (0.5,), (Plain(2 * step + index),)),),
            (),
            (),
            np.zeros((0, 1), np.int8),
        )


def test_clips_made_ahead_are_those_asked_for_and_of_another_process():
    with Ahead(Numbered(broken=3), 2) as ahead:
        made = [ahead.episode(step, index) for step, index in ((0, 0), (0, 1), (1, 0))]
        assert [one.name.split()[0] for one in made] == ["0-0", "0-1", "1-0"]
        assert {one.name.split()[1] for one in made} != {str(os.getpid())}
        with pytest.raises(ValueError, match="this clip is broken"):
            ahead.episode(1, 1)
        again = ahead.episode(0, 0)
    assert again.name == made[0].name
    assert (made[2].hops[0].pictures[0].render(2, 3) == 2).all()


def test_a_process_that_died_is_told_by_name():
    with (
        Ahead(Numbered(deadly=0), 2) as ahead,
        pytest.raises(ConnectionError, match="the process that makes clips"),
    ):
        ahead.episode(0, 0)

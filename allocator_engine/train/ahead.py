"""Clips made in a process of their own, so that the next step's are there when this one is done."""

import signal
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Self

import torch

from allocator_engine.train.rollout import Clips, Episode


class Ahead:
    """Clips that are asked for in order, `prompts_per_step` in each step, and made up to a step ahead.

    The real `clips`, and the pictures of their episodes, are pickled. To be used in a `with`. `episode` raises
    ConnectionError when the process has died, and whatever making a clip raises.
    """

    def __init__(self, clips: Clips, prompts_per_step: int) -> None:
        self._per_step = prompts_per_step
        # Spawned, because a fork of a process with torch's threads may wait for ever.
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _begin, (clips,))
        self._made: dict[int, Future[Episode]] = {}

    def episode(self, step: int, index: int) -> Episode:
        """See Clips."""
        wanted = step * self._per_step + index
        for number in range(wanted, wanted + self._per_step + 1):
            if number not in self._made:
                self._made[number] = self._pool.submit(_episode, *divmod(number, self._per_step))
        try:
            return self._made.pop(wanted).result()
        except BrokenProcessPool as error:
            raise ConnectionError("the process that makes clips has died, perhaps for lack of memory") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)


_clips: list[Clips] = []  # of the process that makes them


def _begin(clips: Clips) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the training, which then ends this process
    torch.set_num_threads(1)
    _clips.append(clips)


def _episode(step: int, index: int) -> Episode:
    return _clips[0].episode(step, index)

"""Examiners at work side by side: each in a process of its own, each with its own episodes."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

import cv2

from allocator_engine.evaluate.run import Pass, Show, Spending
from allocator_engine.evaluate.tasks import Task, TaskOutcome
from allocator_engine.fit import Allocation
from pipeline.lab.examiner import Examiner, Setup
from pipeline.logs import set_up_logs
from pipeline.types import Hop

Given = TypeVar("Given")
Done = TypeVar("Done")

_LOG_LEVEL = "error"  # of watches that are not understood every episode would tell again


class ExaminerPool:
    """A Bench of `jobs` processes, or with one job of this process alone. Use as a context manager.

    An episode is always the same examiner's, who keeps what it decoded of it.
    """

    def __init__(self, setup: Setup, jobs: int) -> None:
        self._alone: Examiner | None = None
        self._pools: list[ProcessPoolExecutor] = []
        if jobs == 1:
            set_up_logs(_LOG_LEVEL)
            self._alone = Examiner(setup)
            return
        spawn = multiprocessing.get_context("spawn")
        self._pools = [
            ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin, initargs=(setup,)) for _ in range(jobs)
        ]

    def __enter__(self) -> "ExaminerPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._alone:
            self._alone.close()
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)

    def tasks(self, indices: Sequence[int]) -> Iterator[tuple[Task, ...]]:
        """The tasks of episodes, in order."""
        return self._each(Examiner.tasks, indices, lambda index: index)

    def look(self, dry: Pass) -> tuple[tuple[Hop, ...], tuple[Allocation, ...], int]:
        """See Examiner.look; for a crew of one."""
        assert self._alone is not None
        return self._alone.look(dry)

    def spend(self, passes: Sequence[Pass]) -> Iterator[Spending]:
        """See Bench."""
        return self._each(Examiner.spend, passes, lambda dry: dry.index)

    def show(self, shows: Sequence[Show]) -> Iterator[tuple[Show, tuple[TaskOutcome, ...]]]:
        """See Bench."""
        if self._alone:
            yield from ((one, self._alone.show(one)) for one in shows)
            return
        futures = {self._send(Examiner.show, one, one.dry.index): one for one in shows}
        with _alive():
            for future in as_completed(futures):
                yield futures[future], future.result()

    def _each(
        self, work: Callable[[Examiner, Given], Done], given: Sequence[Given], index: Callable[[Given], int]
    ) -> Iterator[Done]:
        if self._alone:
            for one in given:
                yield work(self._alone, one)
            return
        futures = [self._send(work, one, index(one)) for one in given]
        with _alive():
            yield from (future.result() for future in futures)

    def _send(self, work: Callable[[Examiner, Given], Done], one: Given, index: int) -> "Future[Done]":
        return self._pools[index % len(self._pools)].submit(_do, work, one)


@contextmanager
def _alive() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise ConnectionError(f"a process of the evaluation ended ({error}); is memory short?") from error


_setup: Setup | None = None
_examiner: Examiner | None = None


def _begin(setup: Setup) -> None:
    global _setup
    cv2.setNumThreads(1)
    set_up_logs(_LOG_LEVEL)
    _setup = setup


def _do(work: Callable[[Examiner, Given], Done], one: Given) -> Done:
    # Made with the first work, not by _begin: what cannot be opened has to come back as that work's error.
    global _examiner
    if _examiner is None:
        assert _setup is not None
        _examiner = Examiner(_setup)
    return work(_examiner, one)

"""One thread that does the model's work in the order in which it was asked for, within bounds."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from pipeline.clock import Clock
from pipeline.core.context import Context
from pipeline.errors import MLLMOverloaded, MLLMTimeout, MLLMUnavailable
from pipeline.mllm.counters import Counters
from pipeline.types import Segment

if TYPE_CHECKING:
    from pipeline.mllm.transformers.vision import Encoded

T = TypeVar("T")

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(eq=False, slots=True)
class Turn:
    """One `ask` or `say`: what is looked at, for at most `limit` new vision tokens (None: any number); when it was
    asked, must be done, and came to the model (monotonic seconds). `sent` tells whether the model has begun with it;
    `encoded` holds, by content id, segments that were encoded together with those of another turn."""

    context: Context
    aside: tuple[Segment, ...] = ()
    limit: int | None = None
    asked_s: float = 0.0
    deadline_s: float = 0.0
    came_s: float = 0.0
    sent: bool = False
    encoded: "dict[str, Encoded]" = field(default_factory=dict)


class ModelWorker:
    """The thread, and those who wait for it.

    With `max_queue` turns unfinished, another is refused with MLLMOverloaded; one that is not done after `timeout_s`
    seconds ends in MLLMTimeout, and is skipped if the thread has not come to it.
    """

    def __init__(self, name: str, max_queue: int, timeout_s: float, clock: Clock) -> None:
        self._name, self._max_queue, self._timeout_s, self._clock = name, max_queue, timeout_s, clock
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="mllm")
        self._waiting: dict[Turn, None] = {}
        self._unfinished: set[object] = set()
        self._closed = False
        self.counters = Counters()

    async def take(self, turn: Turn, work: Callable[[], T]) -> T:
        """Do `work` in the thread when it comes to `turn`. Raises MLLMUnavailable, or one of its kinds, as above and
        when closed, and whatever the work raises."""
        future = self._submit(turn, work)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.wrap_future(future)
        except (TimeoutError, MLLMTimeout) as error:
            self.counters.timed_out += 1
            never_begun = future.done() and not turn.sent
            raise MLLMTimeout(
                f"{self._name} has no answer after timeout_s = {self._timeout_s:g} seconds", sent=not never_begun
            ) from error
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            raise MLLMUnavailable(f"{self._name} was closed before it could answer", turn.sent) from error

    def waiting(self) -> list[Turn]:
        """Turns that the thread has not come to, in order."""
        return list(self._waiting)

    def in_time(self, turn: Turn) -> None:
        """Raise MLLMTimeout when it is too late for this turn."""
        self._check(turn, self._clock.monotonic_s())

    def _check(self, turn: Turn, now_s: float) -> None:
        if now_s > turn.deadline_s:
            raise MLLMTimeout(f"{self._name} came to it too late")

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` in the thread, whatever waits and however long it takes."""
        return await asyncio.wrap_future(self._worker.submit(work))

    def afterwards(self, work: Callable[[], None]) -> None:
        """Do `work` in the thread once all present turns are done; nothing if there are none."""
        if self._unfinished:
            self._worker.submit(work)

    async def close(self) -> None:
        """Finish the turn under way; those that wait end in MLLMUnavailable."""
        self._closed = True
        self._worker.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._worker.shutdown)

    def _submit(self, turn: Turn, work: Callable[[], T]) -> "Future[T]":
        if self._closed:
            raise MLLMUnavailable(f"{self._name} is closed", sent=False)
        if len(self._unfinished) >= self._max_queue:
            self.counters.refused += 1
            raise MLLMOverloaded(f"{self._name} has {self._max_queue} asks unfinished, which is max_queue", sent=False)
        turn.asked_s = self._clock.monotonic_s()
        turn.deadline_s = turn.asked_s + self._timeout_s
        self._waiting[turn] = None
        future = self._worker.submit(self._come, turn, work)
        self._unfinished.add(future)
        future.add_done_callback(lambda done: self._done(turn, done))
        return future

    def _done(self, turn: Turn, future: object) -> None:
        self._unfinished.discard(future)
        self._waiting.pop(turn, None)  # One that was cancelled is waiting still.

    def _come(self, turn: Turn, work: Callable[[], T]) -> T:
        self._waiting.pop(turn, None)
        turn.came_s = self._clock.monotonic_s()
        self._check(turn, turn.came_s)
        return work()


def is_out_of_memory(error: BaseException) -> bool:
    """True if the model failed for want of memory: on the CPU torch raises a plain RuntimeError, and its text tells."""
    said = isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)
    return said or isinstance(error, MemoryError)

"""A bounded ring from one thread to one asyncio reader."""

import asyncio
import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class RingClosed(Exception):
    """The reader is gone: the writing thread stops."""


class Ring(Generic[T]):
    """At most `capacity` items on their way from a thread to the event loop that built the ring.

    When it is full, the writer chooses: drop the oldest item or wait for room. The thread may block, the loop never
    does. Ending lets the reader take what is left; closing does not.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._posted: deque[T] = deque()
        self._changed = threading.Condition()
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._ended = False
        self._error: Exception | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """True if the reader is gone."""
        return self._closed

    def put(self, item: T, *, drop_oldest: bool) -> int:
        """Add an item from the thread; returns how many older ones had to go. Raises RingClosed."""
        dropped = 0
        with self._changed:
            while not self._closed and not drop_oldest and len(self._items) >= self._capacity:
                self._changed.wait()
            if self._closed:
                raise RingClosed
            while len(self._items) >= self._capacity:
                self._items.popleft()
                dropped += 1
            self._items.append(item)
        self._notify()
        return dropped

    def post(self, item: T) -> None:
        """Add an item from the thread that goes before the others and is never dropped: for what is rare."""
        with self._changed:
            if not self._closed:
                self._posted.append(item)
        self._notify()

    def end(self, error: Exception | None = None) -> None:
        """No more items; the reader is given what is left, then `error` if there is one. The first call counts."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
        self._notify()

    async def get(self) -> T | None:
        """The next item; None when the ring has ended or was closed. Raises the error that it ended with."""
        while True:
            with self._changed:
                if self._closed:
                    return None
                if self._posted:
                    return self._posted.popleft()
                if self._items:
                    item = self._items.popleft()
                    self._changed.notify()
                    return item
                if self._ended:
                    if self._error is not None:
                        raise self._error
                    return None
                self._wake.clear()
            await self._wake.wait()

    def close(self) -> None:
        """Drop everything; the reader gets None from now on, the writer RingClosed."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._posted.clear()
            self._changed.notify_all()
        self._notify()

    def _notify(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._wake.set)
        except RuntimeError:  # the loop is closed, and with it the reader
            self._closed = True

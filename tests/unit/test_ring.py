"""The ring between a decoding thread and the event loop."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.ring import Ring, RingClosed


async def drained(ring: Ring[int]) -> list[int]:
    items = []
    while (item := await ring.get()) is not None:
        items.append(item)
    return items


@given(st.integers(1, 10), st.integers(0, 40))
def test_a_full_ring_drops_the_oldest_and_says_how_many(capacity: int, count: int) -> None:
    async def play() -> tuple[list[int], int]:
        ring: Ring[int] = Ring(capacity)
        lost = sum(ring.put(number, drop_oldest=True) for number in range(count))
        ring.end()
        return await drained(ring), lost

    items, lost = asyncio.run(play())
    assert items == list(range(count))[-capacity:]
    assert lost == count - len(items)


async def test_a_waiting_writer_loses_nothing_to_a_slow_reader() -> None:
    ring: Ring[int] = Ring(3)

    def write() -> None:
        for number in range(500):
            ring.put(number, drop_oldest=False)
        ring.end()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    assert await asyncio.wait_for(drained(ring), 10) == list(range(500))
    writer.join(5)


async def test_closing_frees_a_writer_that_waits_for_room_and_a_reader_that_waits_for_items() -> None:
    full: Ring[int] = Ring(1)
    full.put(1, drop_oldest=False)
    outcome: list[str] = []

    def write() -> None:
        try:
            full.put(2, drop_oldest=False)
        except RingClosed:
            outcome.append("closed")

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    await asyncio.sleep(0.05)
    full.close()
    writer.join(5)
    assert outcome == ["closed"]
    assert await full.get() is None

    empty: Ring[int] = Ring(1)
    reader = asyncio.create_task(empty.get())
    await asyncio.sleep(0)
    empty.close()
    assert await asyncio.wait_for(reader, 5) is None


async def test_an_error_comes_after_what_was_left_and_the_first_end_counts() -> None:
    ring: Ring[int] = Ring(4)
    ring.put(7, drop_oldest=False)
    ring.end(OSError("first"))
    ring.end(OSError("second"))
    assert await ring.get() == 7
    with pytest.raises(OSError, match="first"):
        await ring.get()


def test_a_writer_whose_event_loop_is_gone_stops() -> None:
    async def build() -> Ring[int]:
        return Ring(2)

    ring = asyncio.run(build())
    ring.put(1, drop_oldest=False)
    with pytest.raises(RingClosed):
        ring.put(2, drop_oldest=False)

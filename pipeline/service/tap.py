"""The newest frame of a stream, for people who want to look: kept only while somebody does."""

import asyncio

from pipeline.types import Frame


class FrameTap:
    """Passes frames that were sampled anyway to those who wait for one. Costs nothing while nobody does."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[Frame]] = []

    def offer(self, frame: Frame) -> None:
        """The stream has sampled a frame."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(frame)

    async def next(self) -> Frame:
        """The next frame that is sampled."""
        arriving: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._waiting.append(arriving)
        try:
            return await arriving
        finally:
            if arriving in self._waiting:
                self._waiting.remove(arriving)

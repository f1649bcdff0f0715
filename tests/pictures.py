"""Pictures made on the spot, for tests that need no decoder."""

from pipeline.errors import SourceUnavailable
from pipeline.testing import NotedPicture, frame_at, textured
from pipeline.types import Hop


def yard(height: int = 256, width: int = 448, box: tuple[int, int] | None = None, light: int = 0) -> NotedPicture:
    """A grey scene with texture; `box` puts a bright 64 px square with its corner there (row, column)."""
    rgb = textured(height, width, light)
    if box:
        rgb[box[0] : box[0] + 64, box[1] : box[1] + 64] = 250
    return NotedPicture(rgb)


def hop(start_s: float, *pictures: NotedPicture, stream_id: str = "yard") -> Hop:
    step = 1.0 / max(1, len(pictures))
    frames = tuple(frame_at(start_s + i * step, picture) for i, picture in enumerate(pictures))
    return Hop(stream_id, start_s, start_s + 1.0, frames)


def broken(reason: str = "the camera went away") -> SourceUnavailable:
    return SourceUnavailable(reason)

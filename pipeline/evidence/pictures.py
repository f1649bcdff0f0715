"""Pictures to bytes and back. Everything here may take milliseconds and is called in threads."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from allocator_engine.resize import Picture, Pixels
from pipeline.evidence.bundle import EvidenceDamaged
from pipeline.sources.synthetic import ArrayPicture

SNAPSHOT_QUALITY = 88
PNG_LEVEL = 1
"""Fast rather than small: most of what zlib can save of camera pictures it saves at once."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB, _UP = 2, 2


def png(pixels: Pixels) -> bytes:
    """Frames `[frames, height, width, 3]` as one PNG without loss, the frames one above the other.

    Every row is filtered by the one above it: Pillow tries five filters on each, which takes more time than the rest.
    """
    frames, height, width, _ = pixels.shape
    rows = pixels.reshape(frames * height, width * 3)
    filtered = np.empty((frames * height, 1 + width * 3), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    head = struct.pack(">IIBBBBB", width, frames * height, 8, _RGB, 0, 0, 0)
    data = zlib.compress(filtered.tobytes(), PNG_LEVEL)
    return _SIGNATURE + b"".join(_chunk(*one) for one in ((b"IHDR", head), (b"IDAT", data), (b"IEND", b"")))


def _chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk: length, kind, data, checksum of kind and data (RFC 2083 section 3.2)."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def frames_of(data: bytes, frames: int) -> Pixels:
    """The frames of a PNG of `png`. Raises EvidenceDamaged for what is none."""
    if not data.endswith(_chunk(b"IEND", b"")):  # Pillow takes one that lacks its end
        raise EvidenceDamaged("a picture of a segment cannot be read: its end is missing")
    try:
        with Image.open(io.BytesIO(data)) as image:
            rgb = np.asarray(image.convert("RGB"), dtype=np.uint8)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise EvidenceDamaged(f"a picture of a segment cannot be read: {error}") from error
    if rgb.shape[0] % frames:
        raise EvidenceDamaged(f"a picture of {rgb.shape[0]} rows cannot hold {frames} frames")
    return np.ascontiguousarray(rgb.reshape(frames, rgb.shape[0] // frames, rgb.shape[1], 3))


def full_size(picture: Picture) -> bytes:
    """A picture as JPEG at its native size."""
    return _bytes(Image.fromarray(picture.render(picture.height, picture.width)), "JPEG", quality=SNAPSHOT_QUALITY)


def picture_of(data: bytes) -> ArrayPicture:
    """A stored picture, to be shown at another size. Raises EvidenceDamaged for what is none."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return ArrayPicture(np.asarray(image.convert("RGB"), dtype=np.uint8))
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise EvidenceDamaged(f"a picture cannot be read: {error}") from error


def smaller(data: bytes, width: int, quality: int) -> bytes:
    """A picture as JPEG, at most `width` px wide. Raises EvidenceDamaged for what is none."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            shown = image.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise EvidenceDamaged(f"a picture cannot be read: {error}") from error
    if shown.width > width:
        shown = shown.resize((width, max(round(shown.height * width / shown.width), 1)))
    return _bytes(shown, "JPEG", quality=quality)


def _bytes(image: Image.Image, kind: str, **options: int) -> bytes:
    made = io.BytesIO()
    image.save(made, kind, **options)
    return made.getvalue()

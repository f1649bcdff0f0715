"""Pictures to bytes and back. Everything here may take milliseconds and is called in threads."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from allocator_engine.resize import Picture, Pixels
from pipeline.evidence.bundle import EvidenceDamaged

SNAPSHOT_QUALITY = 88
PNG_LEVEL = 1
"""Fast rather than small: most of what zlib can save of camera pictures it saves at once."""


def png(pixels: Pixels) -> bytes:
    """Frames `[frames, height, width, 3]` as one PNG without loss, the frames one above the other."""
    frames, height, width, _ = pixels.shape
    return _bytes(Image.fromarray(pixels.reshape(frames * height, width, 3)), "PNG", compress_level=PNG_LEVEL)


def frames_of(data: bytes, frames: int) -> Pixels:
    """The frames of a PNG of `png`. Raises EvidenceDamaged for what is none."""
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

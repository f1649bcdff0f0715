"""Pictures to bytes and back. Everything here may take milliseconds and is called in threads."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from allocator_engine.resize import Picture, Pixels
from pipeline.evidence.bundle import EvidenceDamaged
from pipeline.mllm.png import png
from pipeline.sources.synthetic import ArrayPicture

SNAPSHOT_QUALITY = 88

_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
"""The chunk that ends every PNG (RFC 2083 section 4.1.4)."""


def segment_png(pixels: Pixels) -> bytes:
    """Frames `[frames, height, width, 3]` as one PNG without loss, the frames one above the other."""
    frames, height, width, channels = pixels.shape
    return png(pixels.reshape(frames * height, width, channels))


def frames_of(data: bytes, frames: int) -> Pixels:
    """The frames of a PNG of `segment_png`. Raises EvidenceDamaged for what is none."""
    if not data.endswith(_PNG_END):  # Pillow takes one that lacks its end
        raise EvidenceDamaged("a picture of a segment cannot be read: its end is missing")
    rgb = np.asarray(_opened(data, "a picture of a segment"), dtype=np.uint8)
    if rgb.shape[0] % frames:
        raise EvidenceDamaged(f"a picture of {rgb.shape[0]} rows cannot hold {frames} frames")
    return np.ascontiguousarray(rgb.reshape(frames, rgb.shape[0] // frames, rgb.shape[1], 3))


def jpeg(picture: Picture, height: int, width: int, quality: int) -> bytes:
    """A picture as JPEG of a size in px."""
    return _jpeg(Image.fromarray(picture.render(height, width)), quality)


def full_size(picture: Picture) -> bytes:
    """A picture as JPEG at its native size."""
    return jpeg(picture, picture.height, picture.width, SNAPSHOT_QUALITY)


def picture_of(data: bytes) -> ArrayPicture:
    """A stored picture, to be shown at another size. Raises EvidenceDamaged for what is none."""
    return ArrayPicture(np.asarray(_opened(data, "a picture"), dtype=np.uint8))


def smaller(data: bytes, width: int, quality: int) -> bytes:
    """A picture as JPEG, at most `width` px wide. Raises EvidenceDamaged for what is none."""
    shown = _opened(data, "a picture")
    if shown.width > width:
        shown = shown.resize((width, max(round(shown.height * width / shown.width), 1)))
    return _jpeg(shown, quality)


def _opened(data: bytes, what: str) -> Image.Image:
    """The RGB picture of a file's content. Raises EvidenceDamaged for what is none."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise EvidenceDamaged(f"{what} cannot be read: {error}") from error


def _jpeg(image: Image.Image, quality: int) -> bytes:
    made = io.BytesIO()
    image.save(made, "JPEG", quality=quality)
    return made.getvalue()

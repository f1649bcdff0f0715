"""Snapshots of any kind of picture that FFmpeg decodes, as JPEG: cameras that send PNG or WebP are polled as well."""

import io
from collections.abc import Callable
from fractions import Fraction
from itertools import islice

import av
from av.codec import CodecContext
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from pipeline.errors import SourceUnavailable
from pipeline.sources.jpegs import MAX_PICTURE_BYTES, START, Pictures
from pipeline.sources.web import CHUNK_BYTES

_PNG = b"\x89PNG\r\n\x1a\n"
_BEGINNINGS = (
    *(_PNG, b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"qoif"),
    *(b"\0\0\0\x0cJXL ", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
)
_BRANDS = frozenset([b"avif", b"heic", b"heix", b"mif1"])
_QUALITY = "1"  # the least loss that JPEG has


class NoSinglePicture(SourceUnavailable):
    """A body is no picture, or more than one."""


def begins_still(head: bytes, kind: str, length: int | None) -> bool:
    """True if a reply may be one picture of another kind than JPEG, by its first bytes, or by its content type where
    it says where it ends."""
    if head.startswith(START):
        return False
    webp = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    bitmap = head.startswith(b"BM") and head[6:10] == b"\0\0\0\0"
    boxed = head[4:8] == b"ftyp" and head[8:12] in _BRANDS
    stated = kind.startswith("image/") and kind not in ("image/jpeg", "image/jpg") and length is not None
    return webp or bitmap or boxed or stated or head.startswith(_BEGINNINGS)


def read_still(body: Pictures) -> bytes:
    """A whole body. Raises NoSinglePicture where it is too long, or another picture follows."""
    whole = bytearray()
    while piece := body.read(CHUNK_BYTES):
        whole += piece
        if len(whole) > MAX_PICTURE_BYTES or (whole.startswith(_PNG) and whole.find(_PNG, len(_PNG)) > 0):
            raise NoSinglePicture("what it sends is more than one picture")
    return bytes(whole)


def as_jpeg(data: bytes, max_pixels: int) -> bytes:
    """One picture of any kind as JPEG; a JPEG as it is. Raises NoSinglePicture, and SourceUnavailable for a picture of
    more than `max_pixels` px, which is not decoded."""
    if data.startswith(START):
        return data
    try:
        frame = _only_frame(data, max_pixels)
        return _encoded(frame)
    except (FFmpegError, ValueError) as error:
        raise NoSinglePicture(f"what it sends is no picture that can be decoded: {type(error).__name__}") from None


def still_asker(ask: Callable[[], Pictures], max_pixels: int) -> Callable[[], Pictures]:
    """Asks for a snapshot as `ask` does, and gives it as JPEG."""

    def again() -> Pictures:
        body = ask()
        try:
            data = read_still(body)
        finally:
            body.close()
        return io.BytesIO(as_jpeg(data, max_pixels))

    return again


def _only_frame(data: bytes, max_pixels: int) -> VideoFrame:
    bounds = {"max_pixels": str(max_pixels)}
    with av.open(io.BytesIO(data), "r", options=bounds | {"protocol_whitelist": "data"}) as container:
        if not container.streams.video:
            raise NoSinglePicture("what it sends holds no picture")
        video = container.streams.video[0]
        width, height = video.codec_context.width, video.codec_context.height
        if width * height > max_pixels:
            raise SourceUnavailable(f"it sends pictures of {width}x{height}, more than max_pixels {max_pixels} allows")
        video.codec_context.options = bounds
        frames: list[VideoFrame] = list(islice(container.decode(video), 2))
    if len(frames) != 1:
        raise NoSinglePicture(f"what it sends holds {'more than one picture' if frames else 'no picture'}")
    return frames[0]


def _encoded(frame: VideoFrame) -> bytes:
    encoder = CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuvj444p"
    encoder.framerate = Fraction(1)
    encoder.options = {"qmin": _QUALITY, "qmax": _QUALITY}
    picture = frame.reformat(format="yuvj444p")
    picture.pts, picture.pict_type = 0, 0
    return b"".join(bytes(packet) for packet in (*encoder.encode(picture), *encoder.encode(None)))

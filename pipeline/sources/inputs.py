"""Inputs for FFmpeg where it does not open a URL itself: the web, playlists, pictures, pipes.

Whether it is live or a recording is decided here by what the server says, and left open where only the container can.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO, RawIOBase
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from pipeline.clock import Clock
from pipeline.errors import SourceUnavailable
from pipeline.sources.address import Address
from pipeline.sources.dates import SegmentDates
from pipeline.sources.hls import FFMPEG_OPTIONS, MAX_PLAYLIST_BYTES, Body, Playlist, is_playlist
from pipeline.sources.jpegs import START, JpegCutter, PictureFile, first_pictures
from pipeline.sources.pipe_file import PipeFile
from pipeline.sources.policy import AddressPolicy, Reach, wider
from pipeline.sources.stills import NoSinglePicture, as_jpeg, begins_still, read_still, still_asker
from pipeline.sources.web import Web, WebReply
from pipeline.sources.web_file import WebFile

HEAD_BYTES = 512
"""By so much of its beginning it is told what a server or file gives."""

PICTURE_OPTIONS = {"probesize": "32", "analyzeduration": "0", "fpsprobesize": "0"}
"""A picture says all there is to know of it; looking at more of them would take their interval each."""

NO_PROTOCOLS = {"protocol_whitelist": "data"}
"""What a container names is opened by us or not at all."""


class Cut(Protocol):
    """Ends a read that is under way in another thread."""

    def __call__(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Input:
    """A file-like object for FFmpeg, with what goes with it.

    `format` is FFmpeg's where it must not guess; `open` fetches what the container names. `live` is None where the
    container has to say. `ended` tells of a live stream that came to an end whether it was a recording after all,
    `fault` why what was read came to an end, where FFmpeg does not know.
    """

    file: RawIOBase | BinaryIO
    cut: Cut
    close: Callable[[], None]
    format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    open: Callable[[str, int, dict[str, str]], Body] | None = None
    live: bool | None = None
    dates: SegmentDates | None = None
    ended: Callable[[], bool] = lambda: False
    fault: Callable[[], SourceUnavailable | None] = lambda: None


class WebInput:
    """Opens an address on the web. `cut` ends it at any moment, also while it opens."""

    def __init__(
        self, address: Address, policy: AddressPolicy, connect_s: float, read_s: float, clock: Clock, max_pixels: int
    ) -> None:
        self._url = address.target
        self._max_pixels = max_pixels
        self._clock = clock
        self._web = Web(address.url, policy, connect_s, read_s)
        self._playlist: Playlist | None = None
        self._pictures: PictureFile | None = None

    def cut(self) -> None:
        """End what is under way, for good."""
        for reading in (self._playlist, self._pictures):
            if reading is not None:
                reading.cut = True
        self._web.interrupt()

    def close(self) -> None:
        """Free all connections."""
        self._web.close()

    def open(self, every_s: float) -> Input:
        """The input; snapshots are asked for every `every_s` seconds. Raises SourceUnavailable."""
        # A part from the first byte on is the whole, and whether it comes as a part tells whether others may be had.
        reply = self._web.get(self._url, None, (0, None))
        file = WebFile(self._web, reply, None, self._url)
        head = file.peek(HEAD_BYTES)
        if is_playlist(head):
            return self._open_playlist(file, reply)
        if reply.kind.startswith("multipart/") or head.startswith(START):
            pictures = self._open_pictures(file, reply, every_s)
            if pictures is not None:
                return pictures
            reply = self._web.get(self._url, None, (0, None))
            file = WebFile(self._web, reply, None, self._url)
        elif begins_still(head, reply.kind, file.length):
            try:
                return self._open_still(file, every_s)
            except NoSinglePicture:  # which FFmpeg may play
                file.close()
            reply = self._web.get(self._url, None, (0, None))
            file = WebFile(self._web, reply, None, self._url)
        live = False if file.length is not None else None
        return Input(file, self.cut, self.close, options=NO_PROTOCOLS, live=live, ended=file.begins_again)

    def _open_playlist(self, file: WebFile, reply: WebReply) -> Input:
        whole = bytearray()
        while piece := file.read(65_536):
            whole += piece
            if len(whole) > MAX_PLAYLIST_BYTES:
                raise SourceUnavailable(f"its playlist is longer than {MAX_PLAYLIST_BYTES} bytes")
        fetcher = _WebFetcher(self._web, reply.reach)
        text = whole.decode("utf-8-sig", "replace")
        self._playlist = playlist = Playlist(reply.url, text, fetcher, self._clock)
        return _hls(playlist, self.cut, self.close)

    def _open_pictures(self, file: WebFile, reply: WebReply, every_s: float) -> Input | None:
        """The pictures of a camera; None for a file of many on the web, which FFmpeg plays."""
        whole = file.length is not None and not reply.kind.startswith("multipart/")
        cutter, found = first_pictures(file, 2 if whole else 1)
        if not found:
            raise SourceUnavailable("what it sends is no JPEG picture")
        if whole and len(found) > 1:
            file.close()
            return None

        return self._polled(PictureFile(file, cutter, found, self._ask, self._clock, every_s))

    def _open_still(self, file: WebFile, every_s: float) -> Input:
        """The snapshots of a camera that sends another kind of picture than JPEG. Raises NoSinglePicture."""
        first = as_jpeg(read_still(file), self._max_pixels)
        file.close()
        ask = still_asker(self._ask, self._max_pixels)
        return self._polled(PictureFile(BytesIO(), JpegCutter(), [first], ask, self._clock, every_s))

    def _polled(self, pictures: PictureFile) -> Input:
        self._pictures = pictures
        return Input(pictures, self.cut, self.close, format="mpjpeg", options=NO_PROTOCOLS | PICTURE_OPTIONS, live=True)

    def _ask(self) -> Body:
        return _Owned(self._web.get(self._url, None), self._web)


class _WebFetcher:
    """Fetches what playlists on the web name, each by the reach of the widest that led there."""

    def __init__(self, web: Web, origin: Reach) -> None:
        self._web = web
        self._origin = origin

    def playlist(self, url: str) -> Body:
        reply = self._get(url, None)
        self._origin = wider(self._origin, reply.reach)
        return _Owned(reply, self._web)

    def part(self, url: str, span: tuple[int, int | None] | None = None) -> Body:
        return _Owned(self._get(url, span), self._web)

    def _get(self, url: str, span: tuple[int, int | None] | None) -> WebReply:
        reply = self._web.get(url, self._origin, span)
        if span is not None and span[0] and reply.status != 206:
            self._web.forget(reply)
            raise SourceUnavailable("it does not give the part that was asked for")
        return reply


class _Owned:
    """A reply that is closed where it came from."""

    def __init__(self, reply: WebReply, web: Web) -> None:
        self._reply, self._web = reply, web

    def read(self, size: int) -> bytes:
        return self._reply.read(size)

    def close(self) -> None:
        self._web.forget(self._reply)


class _FileFetcher:
    """Fetches what a playlist on disk names: files, and what is on the web."""

    def __init__(self, web: Web, policy: AddressPolicy) -> None:
        self._policy = policy
        self._web = web
        self._from_web = _WebFetcher(web, "file")

    def playlist(self, url: str) -> Body:
        return self._from_web.playlist(url) if _is_web(url) else self.part(url)

    def part(self, url: str, span: tuple[int, int | None] | None = None) -> Body:
        if _is_web(url):
            return self._from_web.part(url, span)
        path = _file_of(url)
        if not self._policy.permits_file(path, "file"):
            raise SourceUnavailable("it names a file that is not allowed here; see allow_addresses")
        try:
            file = path.open("rb")
            if span is None:
                return file
            file.seek(span[0])
            return _FilePart(file, None if span[1] is None else span[1] - span[0])
        except OSError as error:
            raise SourceUnavailable(f"a file that it names cannot be read: {error.strerror}") from None


class _FilePart:
    """The next `left` bytes of a file."""

    def __init__(self, file: BinaryIO, left: int | None) -> None:
        self._file, self._left = file, left

    def read(self, size: int) -> bytes:
        data = self._file.read(size if self._left is None else min(size, self._left))
        if self._left is not None:
            self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()


def open_local_playlist(path: Path, policy: AddressPolicy, connect_s: float, read_s: float, clock: Clock) -> Input:
    """A playlist on disk. Raises SourceUnavailable."""
    web = Web(None, policy, connect_s, read_s)
    text = path.read_bytes()[: MAX_PLAYLIST_BYTES + 1].decode("utf-8-sig", "replace")
    playlist = Playlist(f"file:{path.absolute()}", text, _FileFetcher(web, policy), clock)

    def cut() -> None:
        playlist.cut = True
        web.interrupt()

    return _hls(playlist, cut, web.close)


def open_pipe(path: Path | None) -> Input:
    """Standard input, or a named pipe. It is played once, as fast as it is looked at. Raises SourceUnavailable."""
    file = PipeFile(path)
    return Input(file, file.interrupt, file.close, options=NO_PROTOCOLS, live=False)


def begins_playlist(path: Path) -> bool:
    """True if a file is a playlist, by its content."""
    with path.open("rb") as file:
        return is_playlist(file.read(HEAD_BYTES))


def _hls(playlist: Playlist, cut: Cut, close: Callable[[], None]) -> Input:
    return Input(
        playlist, cut, close, format="hls", options=NO_PROTOCOLS | FFMPEG_OPTIONS, open=playlist.open,
        live=not playlist.finished, dates=playlist.dates, fault=lambda: playlist.fault,
    )  # fmt: skip


def _is_web(url: str) -> bool:
    return urlsplit(url).scheme.lower() in ("http", "https")


def _file_of(url: str) -> Path:
    plain = url.removeprefix("file://").removeprefix("file:")
    if "://" in plain:
        raise SourceUnavailable("its playlist names what is neither a file nor on the web")
    return Path(plain) if Path(plain).exists() else Path(unquote(plain))

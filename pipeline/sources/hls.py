"""HLS (RFC 8216): FFmpeg plays the segments, this module reads the playlists and fetches everything for it.

Of a master playlist one variant is played and only that is fetched. Every playlist, key and segment is asked for by the
address policy, also where the playlist is a local file.
"""

import io
import logging
import re
from base64 import b64decode
from binascii import unhexlify
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import unquote, unquote_to_bytes, urljoin

import m3u8

from allocator_engine.errors import not_installed
from pipeline.clock import Clock
from pipeline.errors import SourceRefused, SourceUnavailable
from pipeline.sources.dates import SegmentDates

log = logging.getLogger(__name__)

MAX_PLAYLIST_BYTES = 16 << 20
MAX_MASTERS = 3
"""Playlists of playlists above one of segments; one that names itself ends here."""

MAX_FAILURES = 8
"""Segments in a row that cannot be had before the stream counts as lost."""

RELOAD_S = 0.5
"""A playlist is not read again sooner, whatever it says of itself."""

FFMPEG_OPTIONS = {
    "http_persistent": "0",  # the connections are ours
    "http_multiple": "0",
    "allowed_extensions": "ALL",
    "allowed_segment_extensions": "ALL",
    "extension_picky": "0",
}
_WAIT_STEP_S = 0.1
_HEAD = b"#EXTM3U"
_ENDED = re.compile(r"^#EXT-X-ENDLIST\b", re.MULTILINE)
_ON_DEMAND = re.compile(r"^#EXT-X-PLAYLIST-TYPE:\s*VOD\b", re.MULTILINE)
_KEY = re.compile(r'^#EXT-X-KEY:.*URI="([^"]+)"', re.MULTILINE)
_FAULTY = (ValueError, TypeError, LookupError, AttributeError)
"""What the parser raises on a playlist that is none."""


class Body(Protocol):
    """Something that is read forwards."""

    def read(self, size: int) -> bytes: ...

    def close(self) -> None: ...


class Fetcher(Protocol):
    """Opens what playlists name. Both raise SourceUnavailable."""

    def playlist(self, url: str) -> Body:
        """Another playlist, which names things in its turn."""
        ...

    def part(self, url: str, span: tuple[int, int | None] | None = None) -> Body:
        """A segment, header or key, or bytes `[first, end)` of it."""
        ...


def is_playlist(head: bytes) -> bool:
    """True if this is the beginning of a playlist, whatever its name."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(_HEAD)


class Playlist(io.BytesIO):
    """The playlist of one variant as FFmpeg reads it first, and `open`, which fetches what it names.

    `name` is where it was found, `fault` why there is no point in going on, if so. Raises SourceUnavailable for
    what is no playlist or has no end.
    """

    def __init__(self, name: str, text: str, fetcher: Fetcher, clock: Clock) -> None:
        self.dates = SegmentDates()
        self.cut = False
        self._fetcher = fetcher
        self._keys: frozenset[str] = frozenset()
        self._clock = clock
        self.name, text = self._variant(name, text)
        self.finished = _is_finished(text)
        self._loaded_s = clock.monotonic_s()
        self._failures = 0
        self.fault: SourceUnavailable | None = None
        super().__init__(self._learn(text))

    def seekable(self) -> bool:
        return False

    def open(self, url: str, _flags: int, options: dict[str, str]) -> Body:
        """Open what FFmpeg asks for: the playlist again, a key, a header or a segment.

        What cannot be had is empty, so that FFmpeg goes on with the next; once there is a `fault`, everything is.
        Raises SourceUnavailable where the playlist itself cannot be had.
        """
        if self.fault is not None:
            return _Once()
        if url == self.name:
            return self._reload()
        segment = _MediaSegment(url, options, self._fetcher, None if url in self._keys else self.dates)
        if segment.failed is None:
            self._failures = 0
            return segment
        self._failures += 1
        log.info("a segment of a playlist was left out: %s", segment.failed)
        if isinstance(segment.failed, SourceRefused | _Hopeless):
            self.fault = segment.failed
        elif self._failures >= MAX_FAILURES:
            self.fault = SourceUnavailable(f"{MAX_FAILURES} segments in a row could not be had: {segment.failed}")
        return segment

    def _variant(self, name: str, text: str) -> tuple[str, str]:
        for _ in range(MAX_MASTERS):
            parsed = _parse(text)
            if not parsed.playlists:
                return name, text
            # What a person would watch: the largest picture, of those the best.
            best = max(parsed.playlists, key=_worth)
            name = _join(name, best.uri)
            text = self._text(name)
        raise SourceUnavailable("its playlists name each other, and none has segments")

    def _text(self, url: str) -> str:
        body = self._fetcher.playlist(url)
        try:
            whole = bytearray()
            while piece := body.read(65_536):
                whole += piece
                if len(whole) > MAX_PLAYLIST_BYTES:
                    raise SourceUnavailable(f"its playlist is longer than {MAX_PLAYLIST_BYTES} bytes")
        finally:
            body.close()
        if not is_playlist(bytes(whole[:64])):
            raise SourceUnavailable("what it names as a playlist is none")
        return whole.decode("utf-8-sig", "replace")

    def _reload(self) -> io.BytesIO:
        while (rest_s := self._loaded_s + RELOAD_S - self._clock.monotonic_s()) > 0 and not self.cut:
            self._clock.wait(min(rest_s, _WAIT_STEP_S))
        if self.cut:
            raise SourceUnavailable("it was closed")
        self._loaded_s = self._clock.monotonic_s()
        return _Once(self._learn(self._text(self.name)))

    def _learn(self, text: str) -> bytes:
        """The playlist as FFmpeg is given it, its dates noted."""
        self.dates.note(_dates(text, self.name))
        self._keys = frozenset(_join(self.name, uri) for uri in _KEY.findall(text))
        if _is_finished(text) and not _ENDED.search(text):
            text += "\n#EXT-X-ENDLIST\n"
        return text.encode()


class _Hopeless(SourceUnavailable):
    """An error that no further segment mends."""


class _Once(io.BytesIO):
    def seekable(self) -> bool:
        return False


class _MediaSegment(io.RawIOBase):
    """A segment, header or key, decrypted where FFmpeg gives the key. `failed` says why it is empty, if it is.

    `dates` counts its bytes, as FFmpeg does for all but keys. A part of a file on the web begins with its first byte;
    in a file on disk FFmpeg goes to it by itself.
    """

    def __init__(self, url: str, options: dict[str, str], fetcher: Fetcher, dates: SegmentDates | None) -> None:
        self.failed: SourceUnavailable | None = None
        self._dates = dates
        plain = url.removeprefix("crypto+").removeprefix("crypto:")
        first, end = int(options.get("offset", 0)), int(options.get("end_offset", 0)) or None
        remote = plain.startswith("http")
        self._at = first if remote else 0
        self._first, self._end = first, end
        self._decrypt: Callable[[bytes], bytes] | None = None
        self._body: Body = io.BytesIO()
        try:
            self._decrypt = _decryption(options) if plain != url else None
            self._body = _data(plain) if plain.startswith("data:") else _part(fetcher, plain, first, end, remote)
            self._head = self._body.read(len(_HEAD))
        except SourceUnavailable as error:
            self.failed, self._head = error, b""
        if is_playlist(self._head):
            self._body.close()
            self._body, self._head = io.BytesIO(), b""
            self.failed = _Hopeless("its playlist names a playlist where a segment belongs")
        if dates is not None:
            dates.begin(plain, first)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return isinstance(self._body, io.BufferedIOBase) and self._decrypt is None

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if not isinstance(self._body, io.BufferedIOBase):
            raise OSError("it cannot be read at another place")
        self._head = b""
        if whence == io.SEEK_CUR:
            offset, whence = offset + self._at, io.SEEK_SET
        self._at = self._body.seek(offset, whence)
        return self._at

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._read(size)
        except SourceUnavailable as error:
            log.info("a segment of a playlist broke off: %s", error)
            data = b""
        return data

    def close(self) -> None:
        self._body.close()
        super().close()

    def _read(self, size: int) -> bytes:
        if self._decrypt is None:
            at = self._at
            data = self._plain(size)
            self._passed(self._at - max(at, self._first) if self._at > self._first else 0)
            return data
        data = b""
        # Padding can make a piece empty that is not the last.
        while not data and (piece := self._plain(max(size - 16, 16))):
            data = self._decrypt(piece)
        data = data or self._decrypt(b"")
        self._passed(len(data))
        return data

    def _passed(self, count: int) -> None:
        if self._dates is not None:
            self._dates.passed(count)

    def _plain(self, size: int) -> bytes:
        # Not beyond the end of a part, where FFmpeg stops reading: it counts what it took, and so do we.
        size = size if self._end is None else max(min(size, self._end - self._at), 0)
        if self._head:
            given, self._head = self._head[:size], self._head[size:]
        else:
            given = self._body.read(size)
        self._at += len(given)
        return given


def _part(fetcher: Fetcher, url: str, first: int, end: int | None, remote: bool) -> Body:
    return fetcher.part(url, (first, end) if remote and (first or end) else None)


def _decryption(options: dict[str, str]) -> Callable[[bytes], bytes]:
    """AES-128 in CBC with the padding of PKCS#7 (RFC 8216, 4.3.2.4). An empty piece ends it."""
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher
        from cryptography.hazmat.primitives.ciphers.algorithms import AES
        from cryptography.hazmat.primitives.ciphers.modes import CBC
    except ImportError:
        raise _Hopeless(f"its segments are encrypted, and {not_installed('cryptography', 'hls')}") from None
    decryptor = Cipher(AES(unhexlify(options["key"])), CBC(unhexlify(options["iv"]))).decryptor()
    held = bytearray()
    coming = bytearray()

    def decrypt(piece: bytes) -> bytes:
        # The last block is held back, for it ends with padding.
        coming.extend(piece)
        whole = len(coming) - len(coming) % 16
        held.extend(decryptor.update(bytes(coming[:whole])))
        del coming[:whole]
        if piece:
            given = bytes(held[:-16])
        else:
            pad = held[-1] if held else 0
            given = bytes(held[:-pad]) if 0 < pad <= 16 else bytes(held)
        del held[: len(given) if piece else len(held)]
        return given

    return decrypt


def _data(url: str) -> io.BytesIO:
    head, _, body = url.removeprefix("data:").partition(",")
    if head.endswith(";base64"):
        try:
            return io.BytesIO(b64decode(unquote(body)))
        except ValueError:
            raise SourceUnavailable("its playlist holds data that is damaged") from None
    return io.BytesIO(unquote_to_bytes(body))


def _parse(text: str) -> m3u8.M3U8:
    try:
        return m3u8.loads(text)
    except _FAULTY:
        raise SourceUnavailable("its playlist cannot be read") from None


def _is_finished(text: str) -> bool:
    return _ENDED.search(text) is not None or _ON_DEMAND.search(text) is not None


def _worth(variant: m3u8.Playlist) -> tuple[int, int]:
    width, height = variant.stream_info.resolution or (0, 0)
    return width * height, variant.stream_info.bandwidth or 0


def _dates(text: str, base: str) -> dict[tuple[str, int], datetime]:
    """When each segment was filmed, by URL and first byte, where the playlist says."""
    if "#EXT-X-PROGRAM-DATE-TIME" not in text:
        return {}
    try:
        segments = m3u8.loads(text).segments
    except _FAULTY:
        return {}
    found, behind = {}, 0
    for segment in segments:
        first, behind = _span(segment.byterange, behind)
        date = segment.current_program_date_time
        if date is not None:
            date = date if date.tzinfo else date.replace(tzinfo=UTC)
            found[_join(base, segment.uri), first] = date.astimezone(UTC)
    return found


def _join(base: str, uri: str | None) -> str:
    """The address of `uri` in the playlist `base`, in FFmpeg's way of writing files."""
    joined = urljoin(base, uri or "")
    return joined.replace("file:///", "file:/", 1) if joined.startswith("file:///") else joined


def _span(byterange: str | None, behind: int) -> tuple[int, int]:
    """First byte of a segment in its file, and the one behind its last; `behind` is that of the segment before."""
    if not byterange:
        return 0, 0
    size, at, first = byterange.partition("@")
    start = int(first) if at else behind
    return start, start + int(size)

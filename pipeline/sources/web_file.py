"""A file on the web as FFmpeg reads it: forwards, and anywhere where the server gives parts."""

import hashlib
import io

from pipeline.errors import SourceUnavailable
from pipeline.sources.policy import Reach
from pipeline.sources.web import Web, WebReply

SKIP_BYTES = 262_144
"""A jump forward that is not longer is read through; a longer one asks the server anew."""

RETRIES = 3
"""How often in a row a recording that broke off is asked for the rest."""

HEAD_BYTES = 65_536
"""By so much of its beginning a stream is known again."""

LONGEST_BYTES = 1 << 44
"""A length above this (16 TiB) is what cameras write that have none."""


class WebFile(io.RawIOBase):
    """The body of `reply`, and of further ones from `web` for other parts of it."""

    def __init__(self, web: Web, reply: WebReply, origin: Reach | None, asked: str) -> None:
        self.name = reply.url
        self.length = reply.length if reply.length is not None and reply.length < LONGEST_BYTES else None
        self._web = web
        self._reply: WebReply | None = reply
        self._origin = origin
        self._asked = asked
        self._ranges = reply.ranges and self.length is not None
        self._head = hashlib.sha256()
        self._head_bytes = 0
        self._back = bytearray()  # what was read before anybody wanted it
        self._at = 0
        self._reply_at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._ranges

    def tell(self) -> int:
        return self._at

    def peek(self, size: int) -> bytes:
        """The first `size` bytes, or all there are, without taking them. Only before the first read."""
        while len(self._back) < size and (piece := self._read_on(size - len(self._back))):
            self._back += piece
        return bytes(self._back[:size])

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes. Raises SourceUnavailable."""
        known = bytes(self._back[self._at : self._at + size])
        given = known or self._read_at(size)
        self._at += len(given)
        return given

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to where reading goes on; the server is only asked by the next read."""
        if whence == io.SEEK_END and self.length is None:
            raise OSError("its length is not known")
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.length or 0}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def close(self) -> None:
        if self._reply is not None:
            self._web.forget(self._reply)
            self._reply = None
        super().close()

    def begins_again(self) -> bool:
        """True if the server, asked anew, gives the same beginning: then what it gave was a recording, now at its end.

        Raises SourceUnavailable.
        """
        head, read = hashlib.sha256(), 0
        reply = self._web.get(self._asked, self._origin)
        try:
            while read < self._head_bytes and (piece := reply.read(self._head_bytes - read)):
                head.update(piece)
                read += len(piece)
        finally:
            self._web.forget(reply)
        return read > 0 and head.digest() == self._head.digest()

    def _read_at(self, size: int) -> bytes:
        if self.length is not None and self._at >= self.length:
            return b""
        for _ in range(RETRIES):
            self._go_to(self._at)
            try:
                piece = self._read_on(size)
            except SourceUnavailable:
                if not self._ranges:
                    raise
                piece = b""
            if piece or not self._ranges:
                return piece
            self._drop()  # cut off before its end
        raise SourceUnavailable("the connection broke off")

    def _read_on(self, size: int) -> bytes:
        piece = self._reply.read(size) if self._reply is not None else b""
        if self._reply_at == self._head_bytes and self._head_bytes < HEAD_BYTES:
            head = piece[: HEAD_BYTES - self._head_bytes]
            self._head.update(head)
            self._head_bytes += len(head)
        self._reply_at += len(piece)
        return piece

    def _go_to(self, at: int) -> None:
        ahead = at - self._reply_at
        if self._reply is None or ahead < 0 or ahead > SKIP_BYTES:
            if not self._ranges:
                raise SourceUnavailable("it cannot be read at another place")
            self._drop()
            self._reply, self._reply_at = self._web.get(self._asked, self._origin, (at, None)), at
            if self._reply.status != 206 and at > 0:
                raise SourceUnavailable("it does not give the part that was asked for")
        while ahead > 0 and self._reply_at < at:
            if not self._read_on(at - self._reply_at):
                return

    def _drop(self) -> None:
        if self._reply is not None:
            self._web.forget(self._reply)
            self._reply = None

"""A web server that says what a test tells it to: real HTTP on loopback, each request noted."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Page:
    """What is answered: a body, whole and with parts of it on request, or `stream`, written as it comes.

    `sized` says its length, `chunked` sends it in chunks.
    """

    body: bytes = b""
    kind: str = "application/octet-stream"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    sized: bool = True
    chunked: bool = False
    stream: Callable[[], Iterator[bytes]] | None = None


@dataclass
class Server:
    """Pages by path; one that is a function is called for each request. `asked` are the paths in order."""

    host: str
    port: int
    pages: dict[str, "Page | Callable[[BaseHTTPRequestHandler], Page]"] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def url(self, path: str, login: str = "") -> str:
        return f"http://{login}{self.host}:{self.port}{path}"

    def folder(self, folder: Path, **kinds: str) -> None:
        """Offer the files of a folder, with content types by suffix."""
        for file in folder.iterdir():
            self.pages[f"/{file.name}"] = Page(
                file.read_bytes(), kinds.get(file.suffix[1:], "application/octet-stream")
            )


@contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[Server]:
    """A server for the time of a test."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            server.asked.append(self.path)
            page = server.pages.get(path, Page(status=404))
            try:
                self.answer(page(self) if callable(page) else page)
            except OSError:
                self.close_connection = True

        def answer(self, page: Page) -> None:
            if page.stream is not None or page.chunked or not page.sized:
                self.flow(page)
                return
            body, status, total = page.body, page.status, len(page.body)
            wanted = self.headers.get("Range", "").removeprefix("bytes=")
            if wanted and status == 200 and page.headers.get("Accept-Ranges") != "none":
                first, _, last = wanted.partition("-")
                end = int(last) + 1 if last else total
                body, status = body[int(first) : end], 206
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {first}-{end - 1}/{total}")
            self.head(page, len(body))
            self.wfile.write(body)

        def flow(self, page: Page) -> None:
            self.send_response(page.status)
            if page.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Connection", "close")
                self.close_connection = True
            self.head(page, None)
            for piece in page.stream() if page.stream is not None else [page.body]:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if page.chunked else piece)
            if page.chunked:
                self.wfile.write(b"0\r\n\r\n")

        def head(self, page: Page, length: int | None) -> None:
            self.send_header("Content-Type", page.kind)
            if length is not None:
                self.send_header("Content-Length", str(length))
            for name, value in page.headers.items():
                self.send_header(name, value)
            self.end_headers()

    class Listener(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    listener = Listener((host, 0), Handler)
    server = Server(host, listener.server_address[1])
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()

"""A service as its own process, which a browser looks at, and a proxy before it."""

import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import yaml

from tests.live.cameras import free_port
from tests.services import require

PROGRAM = "from pipeline.cli.main import main; main()"
START_S = 180.0
LIVE = {"url": "synthetic:?seconds=inf&width=320&height=180&fps=4", "realtime": True}


class PageService:
    """`resadapt serve` on a port of loopback."""

    def __init__(self, folder: Path, **raw) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        api = {"port": self.port, "allow_addresses": ["loopback"], "rate_per_s": 1000, "burst": 5000}
        whole = {
            "mllm": "null",
            "sinks": {"journal": f"jsonl:{folder / 'events.jsonl'}"},
            "store": f"sqlite:///{folder / 'service.db'}",
            "metrics": {"port": 0},
            "drain_s": 2,
            "api": api,
        } | raw
        self._site = folder / "site.yaml"
        self._site.write_text(yaml.safe_dump(whole))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once it is ready."""
        log = (self.folder / "log").open("ab")
        command = [sys.executable, "-c", PROGRAM, "serve", "-c", str(self._site)]
        self._process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": os.getcwd()})
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.url}health/ready", timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            assert self._process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.2)
        raise AssertionError("the service did not start")

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """Drains, or is killed."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)

    def api(self, method: str, path: str, body=None, key: str | None = None) -> httpx.Response:
        """Ask its API."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.request(method, self.url + path, json=body, headers=headers, timeout=20)


@contextmanager
def page_service(folder: Path, **raw):
    service = PageService(folder, **raw)
    service.start()
    try:
        yield service
    finally:
        service.stop()


@contextmanager
def prefix_proxy(upstream: str, prefix: str):
    """A reverse proxy that offers a service below a path, as many do: the path is taken off."""

    class Handler(BaseHTTPRequestHandler):
        def pass_on(self) -> None:
            if not self.path.startswith(prefix):
                self.send_error(404)
                return
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in ("connection",)}
            url = upstream + self.path.removeprefix(prefix)
            with (
                httpx.Client(timeout=20) as client,
                client.stream(self.command, url, content=self.rfile.read(length), headers=headers) as answer,
            ):
                self.send_response(answer.status_code)
                for name, value in answer.headers.items():
                    if name.lower() not in ("connection", "transfer-encoding"):
                        self.send_header(name, value)
                self.send_header("Connection", "close")
                self.end_headers()
                for chunk in answer.iter_raw():
                    self.wfile.write(chunk)
                    self.wfile.flush()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on

        def log_message(self, *_args) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{prefix}"
    finally:
        server.shutdown()
        server.server_close()


def axe_source(folder: Path) -> str:
    """The script of axe-core, which npm fetches for the test alone; skipped where it cannot be had."""
    npm = shutil.which("npm")
    require(npm is not None, "no npm, which fetches axe-core")
    assert npm is not None
    packed = subprocess.run(
        [npm, "pack", "axe-core@4"], cwd=folder, capture_output=True, text=True, timeout=90, check=False
    )
    require(packed.returncode == 0, f"axe-core cannot be fetched: {packed.stderr[-200:]}")
    with tarfile.open(folder / packed.stdout.split()[-1]) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()

"""Cameras and servers for tests, as child processes that are always reaped."""

import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services import require

SYSTEM_PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).with_name("rtsp_server.py")
BALL = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=25/1 ! videoconvert"
    " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! rtph264pay name=pay0 pt=96 config-interval=1 )"
)
READY_S = 15.0


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clip_launch(clip: Path) -> str:
    """A launch description that plays an H.264 MP4 once, in real time."""
    return f'( filesrc location="{clip}" ! qtdemux ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=1 )'


def has_rtsp_server() -> bool:
    """Whether the distribution's Python can run the RTSP server."""
    check = (
        "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer, Gst;"
        "Gst.init(None); assert Gst.ElementFactory.find('x264enc')"
    )
    if not Path(SYSTEM_PYTHON).exists():
        return False
    return subprocess.run([SYSTEM_PYTHON, "-c", check], capture_output=True, timeout=30, check=False).returncode == 0


def require_ffmpeg(protocol: str | None = None) -> str:
    """The `ffmpeg` program, with `protocol` if one is named; else the test is skipped (fails in CI)."""
    program = shutil.which("ffmpeg")
    require(program is not None, "no `ffmpeg` program on the PATH")
    assert program is not None
    if protocol is not None:
        listed = subprocess.run([program, "-protocols"], capture_output=True, text=True, timeout=30, check=True).stdout
        require(protocol in listed.split(), f"this ffmpeg was built without {protocol}")
    return program


class Camera:
    """An RTSP camera that can be switched off and on, and frozen."""

    def __init__(self, launch: str, port: int, credentials: tuple[str, str] | None) -> None:
        self.launch = launch
        self.port = port
        self.credentials = credentials
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Its URL, with the right credentials."""
        login = ":".join(self.credentials) + "@" if self.credentials else ""
        return f"rtsp://{login}127.0.0.1:{self.port}/cam"

    def start(self) -> None:
        """Switch it on; returns when it listens."""
        command = [SYSTEM_PYTHON, str(SERVER), str(self.port), self.launch, *(self.credentials or ())]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], READY_S)
        if not readable or self._process.stdout.readline().strip() != "ready":
            self.kill()
            raise RuntimeError(f"the RTSP server did not start within {READY_S:g} s")

    def kill(self) -> None:
        """Cut its power."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None

    def pause(self) -> None:
        """Freeze it: its connections stay open and silent."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen one go on."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Cut its power and switch it on again at the same port."""
        self.kill()
        self.start()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "the camera is off"
        os.kill(self._process.pid, number)


@contextmanager
def rtsp_camera(scene: str | Path = BALL, credentials: tuple[str, str] | None = None) -> Iterator[Camera]:
    """A camera that shows a gst-launch description or plays an H.264 MP4; skips the test where none can run."""
    require(has_rtsp_server(), "no gst-rtsp-server for /usr/bin/python3 (gir1.2-gst-rtsp-server-1.0, x264enc)")
    launch = clip_launch(scene) if isinstance(scene, Path) else scene
    camera = Camera(launch, free_port(), credentials)
    camera.start()
    try:
        yield camera
    finally:
        camera.kill()


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A child process, killed and reaped at the end."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def wait_until_listening(port: int, limit_s: float = READY_S) -> None:
    """Return when something listens on a TCP port, without connecting to it: some servers take one client only."""
    wanted = f":{port:04X}"
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
        if any(row.split()[1].endswith(wanted) and row.split()[3] == "0A" for row in rows):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port} after {limit_s:g} s")

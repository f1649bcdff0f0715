"""GStreamer of the distribution, with a decoder in software in the place of a Jetson's."""

import subprocess
from functools import cache
from pathlib import Path

from tests.services import require

H264 = "openh264dec"
HEVC = "libde265dec"
BY_GSTREAMER = f"gstreamer:{H264}"


@cache
def has_element(*names: str) -> bool:
    code = (
        "import sys, gi; gi.require_version('Gst', '1.0'); from gi.repository import Gst; Gst.init(None)\n"
        "sys.exit(not all(Gst.ElementFactory.find(name) for name in sys.argv[1:]))"
    )
    if not Path("/usr/bin/python3").exists():
        return False
    command = ["/usr/bin/python3", "-I", "-c", code, *names]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def require_gstreamer(decoder: str = H264, parser: str = "h264parse") -> None:
    """Skip the calling test where the elements are absent, and fail it in CI."""
    packages = "python3-gi gir1.2-gstreamer-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-bad"
    require(has_element("appsrc", "videoconvert", parser, decoder), f"GStreamer: apt-get install {packages}")

"""Memory of pictures: nothing holds one that is no longer needed, and what was freed goes back to the system."""

import gc
import subprocess
import sys
from contextlib import aclosing

import psutil
import pytest
from av import VideoFrame

from pipeline.sources.base import Sampler
from tests.clips import av_source, steady, write

MIXED = """
import sys
import numpy as np, psutil
from pipeline.service.memory import keep_steady
from pipeline.config.mllm import EmbeddedConfig, NullConfig

if sys.argv[1] != "plain":
    keep_steady(EmbeddedConfig(use="tiny") if sys.argv[1] == "embedded" else NullConfig())
stays, own = [], psutil.Process()

def render():
    pictures = []
    for _ in range(70_000_000 // int(sys.argv[2])):
        pictures.append(np.ones(int(sys.argv[2]), np.uint8))
        stays.append(bytes(1_000))
    return sum(len(one) for one in pictures)

before = own.memory_info().rss
for _ in range(5):
    made = render()
print((own.memory_info().rss - before - sum(map(len, stays))) / made)
"""
glibc = pytest.mark.skipif(not psutil.LINUX, reason="heaps are those of glibc here")


def kept(how, picture_bytes=700_000):
    """The share of freed pictures that the process still holds."""
    command = [sys.executable, "-c", MIXED, how, str(picture_bytes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    return float(done.stdout)


@glibc
@pytest.mark.parametrize("picture_bytes", [700_000, 30_000])  # as it is rendered, and packed
def test_freed_pictures_leave_no_holes(picture_bytes):
    assert kept("steady", picture_bytes) < 0.1 < kept("plain", picture_bytes)


@glibc
def test_a_model_that_computes_in_this_process_keeps_its_heaps():
    assert kept("embedded") > 0.1


def decoded_frames():
    return sum(isinstance(one, VideoFrame) for one in gc.get_objects())


async def test_a_picture_goes_with_the_last_who_holds_it(tmp_path):
    source = av_source(str(write(tmp_path / "clip.mp4", steady(4.0))), name="clip")
    gc.collect()
    before = decoded_frames()
    gc.disable()
    try:
        async with aclosing(source.frames(Sampler(10))) as frames:
            seen = [frame.picture.render(48, 64).size async for frame in frames]
        await source.close()
        assert len(seen) > 20
        del frames
        assert decoded_frames() - before <= 2, "the decoder and its thread may hold the newest"
    finally:
        gc.enable()

"""How long a live stream is waited for: for its packets, for its first picture, as its rhythm is. Over real sockets."""

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from pipeline.errors import SourceStalled
from pipeline.sources.base import Notice, Sampler
from pipeline.types import Frame
from tests import clips
from tests.clips import av_source

FPS = 10
SAMPLES = 48_000 // FPS
pytestmark = pytest.mark.timeout(60)


def spoken(pictures: range, keys: range, sound: range = range(0), joined: int = 0) -> list[tuple[float, bytes]]:
    """A transport stream of H.264, by seconds: pictures at these tenths of a second, of which `keys` and the first are
    key frames, and sound at those. What comes before the tenth `joined` is left out."""
    sink, sent = io.BytesIO(), []
    with av.open(sink, "w", format="mpegts", options={"flush_packets": "1", "max_interleave_delta": "1"}) as out:
        video = out.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "tune": "zerolatency", "g": "999"})
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
        audio = out.add_stream("mp2", rate=48_000) if sound else None
        for tenth in range(max(pictures.stop, sound.stop)):
            if audio is not None and tenth in sound:
                silence = av.AudioFrame.from_ndarray(
                    np.zeros((1, 2 * SAMPLES), np.int16), format="s16", layout="stereo"
                )
                silence.sample_rate, silence.pts, silence.time_base = 48_000, tenth * SAMPLES, Fraction(1, 48_000)
                out.mux(audio.encode(silence))
            if tenth in pictures:
                frame = av.VideoFrame.from_ndarray(clips.picture(tenth, 96, 160), "rgb24")
                frame.pts, frame.time_base = tenth, Fraction(1, FPS)
                frame.pict_type = PictureType.I if tenth in keys else PictureType.P
                out.mux(video.encode(frame))
            if tenth >= joined:
                sent.append(((tenth - joined) / FPS, sink.getvalue()))
            sink.seek(0)
            sink.truncate()
    return sent


@contextmanager
def speaking(sent: list[tuple[float, bytes]]) -> Iterator[str]:
    """A camera that sends this to whoever connects, and then stays silent; gives its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def speak() -> None:
        with suppress(OSError):
            while not over.is_set():
                peer, _ = listener.accept()
                with peer, suppress(OSError):
                    began_s = time.monotonic()
                    for at_s, data in sent:
                        over.wait(max(began_s + at_s - time.monotonic(), 0.0))
                        peer.sendall(data)
                    over.wait(30)

    thread = threading.Thread(target=speak, daemon=True)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


async def take(url: str, count: int, told: list[Notice] | None = None, **options: object) -> list[Frame]:
    live = av_source(url, name="camera", **options)
    taken: list[Frame] = []

    async def tell(notice: Notice) -> None:
        if told is not None:
            told.append(notice)

    async with aclosing(live.frames(Sampler(FPS), tell)) as frames:
        async for frame in frames:
            taken.append(frame)
            if len(taken) == count:
                break
    return taken


def joined_late() -> list[tuple[float, bytes]]:
    """A stream with a key frame every four seconds, from just behind one on."""
    return spoken(range(80), keys=range(0, 80, 40), joined=1)


async def test_a_key_frame_that_is_far_away_is_waited_for() -> None:
    with speaking(joined_late()) as url:
        assert len(await take(url, 5, stall_s=3.0, first_picture_s=20.0)) == 5


async def test_one_that_is_too_far_away_is_named_with_what_to_do() -> None:
    with (
        speaking(spoken(range(300), keys=range(1), joined=1)) as url,
        pytest.raises(SourceStalled, match=r"no key frame.* 4 s \(first_picture_s\): set the camera's key frame"),
    ):
        await take(url, 1, stall_s=3.0, first_picture_s=4.0)


async def test_sound_before_the_first_picture_is_a_sign_of_life() -> None:
    sent = spoken(range(80, 110), keys=range(80, 81), sound=range(110))
    with speaking(sent) as url:
        assert len(await take(url, 5, stall_s=3.0, first_picture_s=30.0)) == 5
        with pytest.raises(SourceStalled, match="sound or data but no video"):
            await take(url, 1, stall_s=2.0, first_picture_s=2.0)


async def test_sound_is_none_once_there_were_pictures() -> None:
    with (
        speaking(spoken(range(10), keys=range(1), sound=range(60))) as url,
        pytest.raises(SourceStalled, match=r"is connected but silent.*no picture for 2 s"),
    ):
        await take(url, 100, stall_s=2.0, first_picture_s=4.0)


async def test_a_camera_that_sends_a_picture_every_other_second_is_not_lost() -> None:
    with speaking(spoken(range(0, 100, 20), keys=range(100))) as url:
        taken = await take(url, 4, stall_s=1.0, first_picture_s=10.0)
    steps = np.diff([frame.pts_s for frame in taken])
    assert steps == pytest.approx(2.0, abs=0.5)


async def test_a_camera_that_falls_silent_is_lost_after_the_time_that_was_asked_for() -> None:
    with (
        speaking(spoken(range(20), keys=range(1))) as url,
        pytest.raises(SourceStalled, match=r"no packet and no picture for 3 s"),
    ):
        await take(url, 100, stall_s=3.0, first_picture_s=10.0)

"""Real protocols on real sockets: cameras that die, freeze and come back, playlists, RTMP and SRT."""

import asyncio
import functools
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest

from pipeline.clock import SystemClock
from pipeline.errors import SourceStalled, SourceUnavailable
from pipeline.sources.av import AvSource
from pipeline.sources.base import Sampler
from pipeline.sources.probe import probe
from pipeline.types import Frame
from tests import clips
from tests.clips import av_source
from tests.gstreamer import BY_GSTREAMER, require_gstreamer
from tests.live.cameras import free_port, require_ffmpeg, rtsp_camera, running, wait_until_listening

CLOCK = SystemClock()
pytestmark = pytest.mark.timeout(60)


def source(url: str, **options: object) -> AvSource:
    return av_source(url, name="camera", clock=CLOCK, **{"stall_s": 3.0, "open_timeout_s": 4.0, **options})


async def take(camera: AvSource, count: int, fps: float = 10.0) -> list[Frame]:
    taken: list[Frame] = []
    async with aclosing(camera.frames(Sampler(fps))) as frames:
        async for frame in frames:
            taken.append(frame)
            if len(taken) == count:
                break
    return taken


async def test_a_camera_that_dies_is_unavailable_and_its_stream_time_goes_on_when_it_is_back() -> None:
    with rtsp_camera() as camera:
        live = source(camera.url)
        assert live.live
        before: list[Frame] = []
        with pytest.raises(SourceUnavailable, match="ended"):
            async for frame in live.frames(Sampler(5)):
                before.append(frame)
                if len(before) == 4:
                    camera.kill()
        died = CLOCK.monotonic_s()
        with pytest.raises(SourceUnavailable, match="connection refused"):
            await take(live, 1)
        camera.start()
        after = await take(live, 4, fps=5)
        away_s = CLOCK.monotonic_s() - died
    times = [frame.pts_s for frame in before + after]
    assert times == sorted(times)
    assert times[0] == 0.0
    assert 0.2 < after[0].pts_s - before[-1].pts_s < away_s + 1.0
    assert live.counts.connects == 2


async def test_a_camera_decoded_by_gstreamer_gives_its_pictures_as_they_come_and_again_after_a_break() -> None:
    require_gstreamer()
    with rtsp_camera() as camera:
        live = source(camera.url, hwaccel=BY_GSTREAMER)
        before = await take(live, 8)
        camera.restart()
        frames = before + await take(live, 8)
    times = [frame.pts_s for frame in frames]
    assert times == sorted(set(times))
    assert {frame.size for frame in frames} == {frames[0].size}
    assert (live.counts.hwaccel_fallbacks, live.counts.corrupt, live.counts.decode_errors) == (0, 0, 0)


async def test_a_frozen_camera_is_stalled_after_its_stall_time() -> None:
    with rtsp_camera() as camera:
        live = source(camera.url, stall_s=1.5)
        frozen = 0.0
        with pytest.raises(SourceStalled, match=r"no picture for 1\.5 s"):
            async for _ in live.frames(Sampler(5)):
                if not frozen:
                    camera.pause()
                    frozen = time.monotonic()
        assert 1.0 < time.monotonic() - frozen < 4.5
        camera.resume()
        assert len(await take(live, 2)) == 2


WHITE_NOISE = (
    "( videotestsrc is-live=true pattern=snow ! video/x-raw,width=320,height=180,framerate=25/1 ! videoconvert"
    " ! {codec} pt=96 config-interval=1 mtu=1200 ! identity drop-probability={loss} name=pay0 )"
)
H264 = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 bitrate=1500 ! rtph264pay"
HEVC = "x265enc tune=zerolatency speed-preset=ultrafast key-int-max=25 bitrate=1500 ! h265parse ! rtph265pay"


@pytest.mark.parametrize("codec", [H264, HEVC])
async def test_lost_packets_are_counted_and_what_is_built_on_them_is_not_shown(codec: str) -> None:
    with rtsp_camera(WHITE_NOISE.format(codec=codec, loss=0.005)) as camera:
        dropping = source(camera.url, rtsp_transport="udp")
        await take(dropping, 60, fps=25)
        keeping = source(camera.url, rtsp_transport="udp", on_corrupt="keep")
        await take(keeping, 100, fps=25)
    for counts in (dropping.counts, keeping.counts):
        assert counts.corrupt >= counts.gaps > 0
    assert dropping.counts.sampled + dropping.counts.corrupt <= dropping.counts.decoded
    assert keeping.counts.sampled + keeping.counts.corrupt > keeping.counts.decoded


async def test_a_stream_without_loss_has_no_gaps() -> None:
    with rtsp_camera(WHITE_NOISE.format(codec=H264, loss=0)) as camera:
        live = source(camera.url, rtsp_transport="tcp")
        await take(live, 50, fps=25)
    assert (live.counts.gaps, live.counts.corrupt, live.counts.restamped) == (0, 0, 0)


async def test_closing_is_prompt_while_the_camera_is_frozen() -> None:
    with rtsp_camera() as camera:
        live = source(camera.url, stall_s=30.0)
        reading = asyncio.create_task(take(live, 10_000))
        while live.counts.sampled < 2:
            await asyncio.sleep(0.05)
        camera.pause()
        await asyncio.sleep(0.3)
        started = time.monotonic()
        await live.close()
        await asyncio.wait_for(reading, 2.0)
        assert time.monotonic() - started < 2.0


async def test_the_cameras_own_clock_labels_frames_once_it_has_reported_it() -> None:
    with rtsp_camera() as camera:
        frames = await take(source(camera.url), 40)
        now = CLOCK.now()
    assert frames[-1].clock == "ntp"
    assert abs((now - frames[-1].captured_at).total_seconds()) < 2.0
    seconds = (frames[-1].captured_at - frames[-6].captured_at).total_seconds()
    assert seconds == pytest.approx(frames[-1].pts_s - frames[-6].pts_s, abs=0.02)


async def test_a_wrong_password_and_a_wrong_path_say_so_without_the_password() -> None:
    with rtsp_camera(credentials=("viewer", "right-secret")) as camera:
        assert await take(source(camera.url), 1)
        with pytest.raises(SourceUnavailable, match="user name or password") as wrong:
            await take(source(camera.url.replace("right-secret", "wrong-secret")), 1)
        with pytest.raises(SourceUnavailable, match="nothing at this path"):
            await take(source(camera.url.replace("/cam", "/garden")), 1)
    assert "secret" not in str(wrong.value)
    assert "viewer" not in str(wrong.value)


async def test_a_probe_describes_a_camera() -> None:
    with rtsp_camera() as camera:
        found = await asyncio.to_thread(probe, camera.url, clock=CLOCK, read_s=3.0)
    assert (found.codec, found.width, found.height, found.live) == ("h264", 320, 180, True)
    assert found.fps == pytest.approx(25, abs=1)
    assert found.keyframe_s == pytest.approx(1.0, abs=0.1)
    assert found.clock == "ntp"
    assert found.advice == ()


@contextmanager
def web_folder(folder: Path) -> Iterator[str]:
    """The folder over HTTP; gives its URL."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


async def test_the_backlog_of_a_live_playlist_is_paced(tmp_path: Path) -> None:
    ffmpeg = require_ffmpeg()
    clip = clips.write(tmp_path / "clip.mp4", clips.steady(8))
    hls = ["-c", "copy", "-f", "hls", "-hls_time", "1", "-hls_list_size", "0", "-hls_flags", "omit_endlist"]
    with running([ffmpeg, "-loglevel", "error", "-i", str(clip), *hls, str(tmp_path / "live.m3u8")]) as packager:
        await asyncio.to_thread(packager.wait)
    with web_folder(tmp_path) as url:
        live = source(f"{url}/live.m3u8")
        started = time.monotonic()
        frames = await take(live, 15)
        took_s = time.monotonic() - started
    passed_s = frames[-1].pts_s - frames[0].pts_s
    assert live.live
    assert took_s > 0.9 * passed_s > 1.0
    assert live.counts.lost == 0


async def test_a_finished_playlist_is_a_recording(tmp_path: Path) -> None:
    ffmpeg = require_ffmpeg()
    clip = clips.write(tmp_path / "clip.mp4", clips.steady(4))
    hls = ["-c", "copy", "-f", "hls", "-hls_time", "1", "-hls_playlist_type", "vod"]
    with running([ffmpeg, "-loglevel", "error", "-i", str(clip), *hls, str(tmp_path / "vod.m3u8")]) as packager:
        await asyncio.to_thread(packager.wait)
    with web_folder(tmp_path) as url:
        recording = source(f"{url}/vod.m3u8")
        frames = await take(recording, 1000, fps=5)
    assert len(frames) == 20
    assert not recording.live


async def test_rtmp_is_read_until_its_sender_leaves(tmp_path: Path) -> None:
    ffmpeg = require_ffmpeg("rtmp")
    clip = clips.write(tmp_path / "clip.mp4", clips.steady(5))
    url = f"rtmp://127.0.0.1:{free_port()}/live/cam"
    port = int(url.split(":")[2].split("/")[0])
    with running([ffmpeg, "-re", "-i", str(clip), "-c", "copy", "-f", "flv", "-listen", "1", url]):
        await asyncio.to_thread(wait_until_listening, port)
        live = source(url)
        frames: list[Frame] = []
        with pytest.raises(SourceUnavailable):
            async for frame in live.frames(Sampler(5)):
                frames.append(frame)
    assert len(frames) >= 15
    assert frames[-1].pts_s == pytest.approx(4.8, abs=0.5)


async def test_srt_is_read_through_the_ffmpeg_program(tmp_path: Path) -> None:
    ffmpeg = require_ffmpeg("srt")
    clip = clips.write(tmp_path / "clip.mp4", clips.steady(6))
    address = f"srt://127.0.0.1:{free_port()}"
    listener = f"{address}?mode=listener&passphrase=a-long-secret"
    with running([ffmpeg, "-re", "-i", str(clip), "-c", "copy", "-f", "mpegts", listener]):
        await asyncio.sleep(0.7)
        frames = await take(source(f"{address}?passphrase=a-long-secret"), 8, fps=5)
    assert len(frames) == 8
    with pytest.raises(SourceUnavailable) as refused:
        await take(source(f"{address}?passphrase=a-long-secret"), 1)
    assert "a-long-secret" not in str(refused.value)


async def test_a_port_that_never_answers_is_given_up_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for scheme in ("rtsp", "http"):
            started = time.monotonic()
            with pytest.raises(SourceUnavailable, match="did not answer within"):
                await take(source(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/x", open_timeout_s=1.0), 1)
            assert time.monotonic() - started < 5.0

"""Streams on the web are what their server and container say, and lead nowhere that the address policy forbids."""

import asyncio
import base64
import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.clock import SystemClock
from pipeline.errors import ConfigError, SourceRefused, SourceStalled, SourceUnavailable
from pipeline.sources.base import Sampler, Source
from pipeline.sources.hls import MAX_FAILURES, MAX_MASTERS
from pipeline.sources.policy import AddressPolicy
from pipeline.sources.probe import probe
from pipeline.sources.web import Web
from pipeline.types import Frame
from tests import clips
from tests.clips import av_source
from tests.web_server import Page, Server, serving

CLOCK = SystemClock()
FPS = 25.0
HLS_KIND = "application/vnd.apple.mpegurl"
FILMED = datetime(2025, 5, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


async def read(source: Source, fps: float = FPS, count: int | None = None) -> list[Frame]:
    frames: list[Frame] = []
    async with aclosing(source.frames(Sampler(fps))) as reading:
        async for frame in reading:
            frames.append(frame)
            if len(frames) == count:
                break
    return frames


def clip(folder: Path, name: str, seconds: float = 2.0, **options: object) -> Path:
    return clips.write(folder / name, clips.steady(seconds), gop=25, **options)  # type: ignore[arg-type]


def hls(folder: Path, name: str = "v", seconds: float = 6.0, size: tuple[int, int] = (90, 160), **options: str) -> Path:
    """A finished playlist of two-second segments `NAME0.ts` and on, each dated from FILMED on."""
    muxer = {"hls_time": "2", "hls_list_size": "0", "hls_segment_filename": str(folder / f"{name}%d.ts"), **options}
    path = clips.write(folder / f"{name}.m3u8", clips.steady(seconds), gop=50, size=size, options=muxer)
    lines, date = [], FILMED
    for line in path.read_text().splitlines():
        if line.startswith("#EXTINF"):
            lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{date.isoformat()}")
            date += timedelta(seconds=float(line.split(":")[1].rstrip(",")))
        lines.append(line)
    path.write_text("\n".join(lines) + "\n")
    return path


def live_edge(playlist: str, first: int, count: int) -> bytes:
    """What a live server shows of a finished playlist: a window of its segments, and no end."""
    lines = playlist.replace("#EXT-X-ENDLIST", "").replace("#EXT-X-PLAYLIST-TYPE:VOD", "").splitlines()
    starts = [at for at, line in enumerate(lines) if line.startswith("#EXT-X-PROGRAM-DATE-TIME")]
    head = [line for line in lines[: starts[0]] if not line.startswith("#EXT-X-MEDIA-SEQUENCE")]
    bounds = [*starts, len(lines)]
    window = lines[bounds[first] : bounds[min(first + count, len(starts))]]
    return "\n".join([*head, f"#EXT-X-MEDIA-SEQUENCE:{first}", *window, ""]).encode()


def jpeg(number: int, size: tuple[int, int] = (64, 96)) -> bytes:
    made = BytesIO()
    Image.fromarray(clips.picture(number, *size)).save(made, "JPEG")
    return made.getvalue()


@pytest.mark.parametrize("name", ["a.webm", "a.mkv", "a.h264", "a.ts", "a.mp4", "no-suffix"])
@pytest.mark.parametrize("manner", ["ranges", "length only", "chunked", "until it closes"])
async def test_a_finished_recording_plays_once(server: Server, tmp_path: Path, name: str, manner: str) -> None:
    codec = {"codec": "libvpx"} if name.endswith("webm") else {}
    path = clip(tmp_path, name if "." in name else "a.ts", options={"live": "1"} if name == "a.mkv" else {}, **codec)
    headers = {"Accept-Ranges": "none"} if manner == "length only" else {}
    unsized = manner in ("chunked", "until it closes")
    if unsized and name == "a.mp4":
        path.write_bytes(clip(tmp_path, "b.mp4", options={"movflags": "faststart"}).read_bytes())
    server.pages[f"/{name}"] = Page(path.read_bytes(), headers=headers, sized=not unsized, chunked=manner == "chunked")
    source = av_source(server.url(f"/{name}"), ring_frames=64)
    frames = await asyncio.wait_for(read(source), 30)
    assert source.counts.decoded == pytest.approx(50, abs=2)
    assert source.counts.connects == 1
    assert len(frames) == pytest.approx(50, abs=2)
    assert unsized or not source.live


@pytest.mark.parametrize("name", ["a.webm", "a.h264", "a.ts"])
async def test_a_recording_without_a_length_loses_nothing_to_a_reader_that_takes_its_time(
    server: Server, tmp_path: Path, name: str
) -> None:
    path = clip(tmp_path, name, 8.0, **({"codec": "libvpx"} if name == "a.webm" else {}))
    server.pages[f"/{name}"] = Page(path.read_bytes(), chunked=True)
    source = av_source(server.url(f"/{name}"), ring_frames=4)
    frames: list[Frame] = []
    async with aclosing(source.frames(Sampler(5.0))) as reading:
        async for frame in reading:
            frames.append(frame)
            await asyncio.sleep(0.02)
    assert not source.live  # the server begins with it again
    assert source.counts.lost == 0
    assert [frame.pts_s for frame in frames] == pytest.approx([n / 5 for n in range(40)], abs=0.09)


async def test_what_goes_on_is_live_whatever_its_name(server: Server, tmp_path: Path) -> None:
    body, over = clip(tmp_path, "a.ts").read_bytes(), threading.Event()

    def flow() -> Iterator[bytes]:
        yield body
        over.wait(20)

    server.pages["/film.mp4"] = Page(stream=flow, kind="video/mp4", chunked=True)
    source = av_source(server.url("/film.mp4"), stall_s=1.0)
    with pytest.raises(SourceStalled):
        await read(source)
    over.set()
    assert source.live


async def test_a_live_stream_that_another_one_follows_is_lost_and_not_over(server: Server, tmp_path: Path) -> None:
    bodies = [clip(tmp_path, "a.ts", 1.0).read_bytes(), clip(tmp_path, "b.ts", 1.0, size=(90, 160)).read_bytes()]
    server.pages["/live"] = lambda _request: Page(bodies[len(server.asked) % 2], sized=False)
    with pytest.raises(SourceUnavailable, match="ended, as a live stream should not"):
        await read(av_source(server.url("/live")))


async def test_a_recording_that_breaks_off_is_read_on(server: Server, tmp_path: Path) -> None:
    body = clip(tmp_path, "a.ts", 4.0).read_bytes()

    def cut(request: BaseHTTPRequestHandler) -> Page:
        if len(server.asked) > 1:
            return Page(body)
        request.close_connection = True
        return Page(
            body[: len(body) // 2], headers={"Content-Length": str(len(body)), "Accept-Ranges": "bytes"}, sized=False
        )

    server.pages["/a.ts"] = cut
    assert len(await read(av_source(server.url("/a.ts")))) == 100
    assert 2 <= len(server.asked) <= 4


async def test_schemes_are_read_in_any_case(server: Server, tmp_path: Path) -> None:
    server.pages["/a.mp4"] = Page(clip(tmp_path, "a.mp4").read_bytes())
    assert len(await read(av_source(server.url("/a.mp4").replace("http", "HTTP")))) == 50


@pytest.mark.parametrize("address", ["/live.m3u8", "/stream", "/play?id=7&fmt=.mp4", "/cam.mp4"])
async def test_live_hls_is_known_by_its_content_and_paced_as_it_plays(
    server: Server, tmp_path: Path, address: str
) -> None:
    text, began = hls(tmp_path, seconds=20).read_text(), time.monotonic()
    server.folder(tmp_path, ts="video/mp2t")

    def window(_request: object) -> Page:
        return Page(live_edge(text, int((time.monotonic() - began) / 2), 4), kind=HLS_KIND)

    server.pages[address.partition("?")[0]] = window
    source = av_source(server.url(address), stall_s=3.0)
    frames = await asyncio.wait_for(read(source, fps=5, count=40), 30)
    passed_s = time.monotonic() - began
    assert source.live
    assert source.counts.connects == 1
    assert frames[-1].pts_s - frames[0].pts_s <= passed_s + 2.5
    assert {frame.clock for frame in frames} == {"arrival"}  # a live camera that dates its pictures a year back
    segments = [path for path in server.asked if path.endswith(".ts")]
    assert len(segments) == len(set(segments))


async def test_encrypted_hls_names_the_extra_where_no_cipher_is_installed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    (tmp_path / "key").write_bytes(bytes(range(16)))
    (tmp_path / "info").write_text(f"key\n{tmp_path}/key\n")
    hls(tmp_path, hls_key_info_file=str(tmp_path / "info"))
    server.folder(tmp_path, m3u8=HLS_KIND)
    with pytest.raises(SourceUnavailable, match=r"its segments are encrypted, and .*resadapt-stream\[hls\]"):
        await read(av_source(server.url("/v.m3u8")), fps=1)


@pytest.mark.parametrize("kind", ["ts", "fmp4", "ranges", "encrypted"])
async def test_finished_hls_is_dated_by_its_playlist(server: Server, tmp_path: Path, kind: str) -> None:
    options = {}
    if kind == "fmp4":
        options = {"hls_segment_type": "fmp4", "hls_segment_filename": str(tmp_path / "v%d.m4s")}
    elif kind == "ranges":
        options = {"hls_flags": "single_file"}
    elif kind == "encrypted":
        (tmp_path / "key").write_bytes(bytes(range(16)))
        (tmp_path / "info").write_text(f"key\n{tmp_path}/key\n")
        options = {"hls_key_info_file": str(tmp_path / "info")}
    path = hls(tmp_path, **options)
    # The second half was filmed an hour later.
    text = path.read_text().replace(
        (FILMED + timedelta(seconds=4)).isoformat(), (FILMED + timedelta(hours=1)).isoformat()
    )
    path.write_text(text)
    server.folder(tmp_path, m3u8=HLS_KIND)
    for url in (server.url("/v.m3u8"), str(path)):
        source = av_source(url)
        frames = await read(source, fps=1)
        assert not source.live
        assert [round(frame.pts_s) for frame in frames] == list(range(6))
        late = [timedelta(0)] * 4 + [timedelta(hours=1) - timedelta(seconds=4)] * 2
        for frame, more in zip(frames, late, strict=True):
            expected = FILMED + timedelta(seconds=frame.pts_s) + more
            assert abs(frame.captured_at - expected) < timedelta(seconds=0.1)
            assert frame.clock == "file"
        resumed = await read(av_source(url, start_s=3.5), fps=1)
        assert [frame.captured_at for frame in resumed[-2:]] == [frame.captured_at for frame in frames[-2:]]


async def test_of_a_master_playlist_only_the_best_variant_is_loaded(server: Server, tmp_path: Path) -> None:
    master = ["#EXTM3U"]
    for name, size in (("small", (90, 160)), ("large", (180, 320)), ("middle", (120, 200))):
        hls(tmp_path, name, 4.0, size=size, hls_segment_filename=str(tmp_path / f"{name}%d.bin"))
        master += [f"#EXT-X-STREAM-INF:BANDWIDTH=1000,RESOLUTION={size[1]}x{size[0]}", f"{name}.m3u8"]
    server.folder(tmp_path, m3u8=HLS_KIND)
    server.pages["/deep/master"] = Page("\n".join(master).replace("\nlarge", "\n/large").encode(), kind=HLS_KIND)
    frames = await read(av_source(server.url("/deep/master")), fps=1)
    assert {frame.size for frame in frames} == {(180, 320)}
    assert [path for path in server.asked if path.endswith(".bin")] == ["/large0.bin", "/large1.bin"]
    assert not [path for path in server.asked if "small" in path or "middle" in path]


@pytest.mark.parametrize("scheme", ["http", "file"])
async def test_a_snapshot_is_asked_for_as_often_as_it_is_looked_at(server: Server, scheme: str) -> None:
    def snap(_request: object) -> Page:
        return Page(jpeg(len(server.asked)), kind="image/jpeg", sized=scheme == "http")

    server.pages["/snap"] = snap
    source, began = av_source(server.url("/snap")), time.monotonic()
    frames = await read(source, fps=4, count=6)
    assert source.live
    assert 1.0 <= time.monotonic() - began < 20
    assert {frame.size for frame in frames} == {(64, 96)}
    assert 6 <= len(server.asked) <= 9
    assert source.counts.connects == 1


STILLS = {"png": "PNG", "webp": "WEBP", "bmp": "BMP", "gif": "GIF", "tif": "TIFF", "ppm": "PPM"}


def still(number: int, kind: str, size: tuple[int, int] = (64, 96), **how: object) -> bytes:
    made = BytesIO()
    Image.fromarray(clips.picture(number, *size)).save(made, kind, **how)
    return made.getvalue()


@pytest.mark.parametrize("name", STILLS)
@pytest.mark.parametrize("manner", ["named", "nameless"])
async def test_a_snapshot_of_any_kind_is_asked_for_as_often_as_it_is_looked_at(
    server: Server, name: str, manner: str
) -> None:
    if (name, manner) == ("ppm", "nameless"):
        pytest.skip("nothing tells it from text")

    def snap(_request: object) -> Page:
        kind = f"image/{name}" if manner == "named" else "application/octet-stream"
        return Page(still(len(server.asked), STILLS[name]), kind=kind, sized=manner == "named" or len(server.asked) > 1)

    server.pages["/snap"] = snap
    source, began = av_source(server.url("/snap")), time.monotonic()
    frames = await read(source, fps=4, count=6)
    assert source.live
    assert 1.0 <= time.monotonic() - began < 20
    assert {frame.size for frame in frames} == {(64, 96)}
    assert 6 <= len(server.asked) <= 9
    assert source.counts.connects == 1


async def test_a_snapshot_is_shown_in_the_colours_it_has(server: Server) -> None:
    colours = np.zeros((64, 96, 3), np.uint8)
    colours[:, :48], colours[:, 48:] = (200, 40, 90), (16, 235, 128)
    made = BytesIO()
    Image.fromarray(colours).save(made, "PNG")
    server.pages["/snap.png"] = Page(made.getvalue(), kind="image/png")
    (frame,) = await read(av_source(server.url("/snap.png")), fps=4, count=1)
    shown = frame.picture.render(64, 96).astype(int)
    for columns in (slice(4, 44), slice(52, 92)):
        assert np.abs(shown[:, columns] - colours[:, columns].astype(int)).max() <= 4


async def test_a_moving_picture_is_a_recording(server: Server) -> None:
    more = [Image.fromarray(clips.picture(number, 64, 96)) for number in range(1, 12)]
    body = still(0, "GIF", save_all=True, append_images=more, duration=100, loop=1)
    server.pages["/film.gif"] = Page(body, kind="image/gif")
    source = av_source(server.url("/film.gif"))
    frames = await read(source)
    assert not source.live
    assert len(frames) >= 8


async def test_pictures_without_end_are_a_stream_of_their_own(server: Server) -> None:
    def flow() -> Iterator[bytes]:
        for number in range(60):
            yield still(number, "PNG")
            time.sleep(0.05)

    server.pages["/flow"] = Page(kind="image/png", stream=flow)
    frames = await read(av_source(server.url("/flow")), count=4)
    assert len(frames) == 4


async def test_a_snapshot_that_is_damaged_once_is_missed_and_one_that_is_too_large_is_refused(server: Server) -> None:
    def snap(_request: object) -> Page:
        number = len(server.asked)
        return Page(b"\x89PNG\r\n\x1a\nnothing" if number == 3 else still(number, "PNG"), kind="image/png")

    server.pages["/snap.png"] = snap
    source = av_source(server.url("/snap.png"))
    assert len(await read(source, fps=5, count=4)) == 4
    assert source.counts.connects == 1
    server.pages["/large.png"] = Page(still(0, "PNG", (300, 400)), kind="image/png")
    with pytest.raises((SourceUnavailable, ConfigError), match="400x300, more than max_pixels 10000 allows"):
        await read(av_source(server.url("/large.png"), max_pixels=10_000), fps=5, count=1)


async def test_a_snapshot_that_fails_now_and_then_is_not_lost_and_one_that_goes_is(server: Server) -> None:
    def snap(_request: object) -> Page:
        number = len(server.asked)
        if number == 3:
            raise ConnectionError("the camera hangs up")
        return Page(jpeg(number), kind="image/jpeg") if number < 6 else Page(status=404)

    server.pages["/snap.jpg"] = snap
    source = av_source(server.url("/snap.jpg"))
    with pytest.raises(SourceUnavailable, match="404"):
        await read(source, fps=5)
    assert source.counts.decoded == 4


MJPEG = {
    "standard": lambda one: b"--cam\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(one), one),
    "no boundary first": lambda one: b"Content-Type: image/jpeg\r\n\r\n" + one + b"\r\n--cam\r\n",
    "twice": lambda one: b"--cam\r\n--cam\r\nContent-type: image/jpeg\r\n\r\n" + one + b"\r\n",
    "bare line feeds": lambda one: b"--cam\nContent-Type: image/jpeg\n\n" + one + b"\n",
    "nothing between": lambda one: one,
}


@pytest.mark.parametrize("kind", ["multipart/x-mixed-replace;boundary=other", "image/jpeg", "application/octet-stream"])
@pytest.mark.parametrize("wrapping", MJPEG)
async def test_mjpeg_is_shown_whatever_stands_between_its_pictures(server: Server, wrapping: str, kind: str) -> None:
    if wrapping not in ("nothing between", "standard") and not kind.startswith("multipart"):
        pytest.skip("what no camera sends: only its content type says that it is MJPEG")
    if wrapping == "standard" and kind.startswith("image"):
        pytest.skip("likewise")

    def flow() -> Iterator[bytes]:
        for number in range(200):
            yield MJPEG[wrapping](jpeg(number, (64, 96) if number < 5 else (96, 128)))
            time.sleep(0.05)

    server.pages["/cam"] = Page(stream=flow, kind=kind, sized=False)
    source = av_source(server.url("/cam"))
    frames = await asyncio.wait_for(read(source, count=10), 20)
    assert source.live
    assert (frames[0].size, frames[-1].size) == ((64, 96), (96, 128))


async def test_a_file_of_jpegs_is_a_recording(server: Server) -> None:
    server.pages["/film.mjpeg"] = Page(b"".join(jpeg(number) for number in range(30)), kind="video/x-motion-jpeg")
    source = av_source(server.url("/film.mjpeg"))
    assert len(await read(source)) == 30
    assert not source.live


def basic(request: BaseHTTPRequestHandler, user: str, password: str) -> bool:
    expected = base64.b64encode(f"{user}:{password}".encode()).decode()
    return request.headers.get("Authorization", "") == f"Basic {expected}"


def digest(request: BaseHTTPRequestHandler, user: str, password: str) -> bool:
    said = request.headers.get("Authorization", "")
    if not said.startswith("Digest "):
        return False
    fields = {name.strip(): value.strip(' "') for name, _, value in (one.partition("=") for one in said[7:].split(","))}

    def md5(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    ha1, ha2 = md5(f"{user}:cam:{password}"), md5(f"GET:{fields['uri']}")
    middle = ":".join([fields["nonce"], *([fields["nc"], fields["cnonce"], fields["qop"]] if "qop" in fields else [])])
    return fields["response"] == md5(f"{ha1}:{middle}:{ha2}")


ASKS = {"Basic": ('Basic realm="cam"', basic), "Digest": ('Digest realm="cam", nonce="abc", qop="auth"', digest)}


@pytest.mark.parametrize("scheme", ASKS)
async def test_a_login_is_given_to_who_asks_for_it_and_to_nobody_else(
    server: Server, tmp_path: Path, scheme: str
) -> None:
    user, password = "operator", "p@ss/w#rd%1?: x"
    asks, accepts = ASKS[scheme]
    path = hls(tmp_path)

    def guarded(request: BaseHTTPRequestHandler) -> Page:
        if not accepts(request, user, password):
            return Page(status=401, headers={"WWW-Authenticate": asks})
        return Page(path.read_bytes().replace(b"v1.ts", f"http://127.0.0.2:{other.port}/v1.ts".encode()), kind=HLS_KIND)

    seen: list[str | None] = []

    def elsewhere(request: BaseHTTPRequestHandler) -> Page:
        seen.append(request.headers.get("Authorization"))
        return Page((tmp_path / "v1.ts").read_bytes())

    server.folder(tmp_path)
    server.pages["/v.m3u8"] = guarded
    with serving("127.0.0.2") as other:
        other.pages["/v1.ts"] = elsewhere
        url = f"http://operator:p@ss/w#rd%1?: x@{server.host}:{server.port}/v.m3u8"
        assert len(await read(av_source(url), fps=1)) == 6
    assert seen == [None]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_password_is_named_and_asked_once(server: Server, status: int) -> None:
    headers = {"WWW-Authenticate": 'Basic realm="cam"'} if status == 401 else {}
    server.pages["/cam"] = Page(status=status, headers=headers)
    source = av_source(server.url("/cam", "operator:QXZ%41pass@"), hwaccel="auto")
    with pytest.raises(SourceRefused, match=str(status)) as refused:
        await read(source)
    assert "QXZ" not in str(refused.value)
    assert len(server.asked) <= 2


def leading(server: Server, target: str, how: str, tmp_path: Path) -> str:
    """A page of `server` that leads to `target`: by a redirect, or as a segment, key or variant of a playlist."""
    text = hls(tmp_path).read_text()
    server.folder(tmp_path)
    pages = {
        "redirect": Page(status=302, headers={"Location": target}),
        "variant": Page(f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{target}\n".encode()),
        "segment": Page(text.replace("v0.ts", target).encode()),
        "key": Page(
            text.replace(
                "#EXT-X-TARGETDURATION", f'#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXT-X-TARGETDURATION'
            ).encode()
        ),
        "header": Page(text.replace("#EXTINF", f'#EXT-X-MAP:URI="{target}"\n#EXTINF', 1).encode()),
    }
    server.pages["/start"] = pages[how]
    return server.url("/start")


async def read_or_refused(source: Source) -> tuple[list[Frame], str]:
    """What it shows, and why not."""
    try:
        return await asyncio.wait_for(read(source, fps=1), 20), ""
    except (SourceUnavailable, ConfigError) as error:
        return [], str(error)


HOWS = ["redirect", "variant", "segment", "key", "header"]


@pytest.mark.parametrize("how", HOWS)
async def test_what_a_server_names_is_not_asked_where_the_policy_forbids_it(
    server: Server, tmp_path: Path, how: str
) -> None:
    with serving("127.0.0.2") as inner:
        inner.pages["/secret"] = Page(b"x" * 16)
        url = leading(server, inner.url("/secret"), how, tmp_path)
        frames, refused = await read_or_refused(av_source(url, deny_addresses=("127.0.0.2",), stall_s=1.0))
        assert how in ("segment", "key", "header") or (not frames and "not followed" in refused)
        assert inner.asked == []
        assert server.asked[0] == "/start"


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    "target", ["file:///etc/hostname", "/etc/hostname", "http://169.254.169.254/latest/", "gopher://x/", "concat:a|b"]
)
async def test_no_file_or_metadata_is_read_for_a_server(server: Server, tmp_path: Path, how: str, target: str) -> None:
    frames, _ = await read_or_refused(av_source(leading(server, target, how, tmp_path)))
    assert how in ("segment", "key", "header") or not frames


def test_a_name_is_judged_by_where_it_leads(server: Server) -> None:
    names = {"cam.example": "127.0.0.1", "inner.example": "127.0.0.2"}
    server.pages["/ok"] = Page(b"here")
    server.pages["/x"] = Page(status=302, headers={"Location": f"http://cam.example:{server.port}/ok"})
    server.pages["/y"] = Page(status=302, headers={"Location": f"http://inner.example:{server.port}/ok"})
    policy = AddressPolicy.of(deny=["127.0.0.2"])
    web = Web(None, policy, 2.0, 2.0, resolve=lambda host: (ip_address(names.get(host, host)),))
    assert web.get(server.url("/x"), None).read_all(100) == b"here"
    with pytest.raises(SourceUnavailable, match="not followed"):
        web.get(server.url("/y"), None)
    web.close()


async def test_a_redirect_is_followed_and_a_circle_of_them_ends(server: Server, tmp_path: Path) -> None:
    server.pages["/a.mp4"] = Page(clip(tmp_path, "a.mp4").read_bytes())
    server.pages["/there"] = Page(status=307, headers={"Location": "/a.mp4"})
    server.pages["/round"] = Page(status=302, headers={"Location": "/round"})
    assert len(await read(av_source(server.url("/there")))) == 50
    with pytest.raises(SourceUnavailable, match="redirects more than"):
        await read(av_source(server.url("/round")))


@pytest.mark.parametrize("kind", ["segment", "live segment", "variant", "missing segments", "no time"])
async def test_a_playlist_that_leads_nowhere_ends_within_few_requests(
    server: Server, tmp_path: Path, kind: str
) -> None:
    hls(tmp_path)
    many = "".join(f"#EXTINF:1,\n/gone{number}.ts\n" for number in range(500))
    texts = {
        "segment": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/me\n#EXT-X-ENDLIST\n",
        "live segment": "#EXTM3U\n#EXT-X-TARGETDURATION:0\n#EXTINF:0,\n/me\n",
        "variant": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n/me\n",
        "missing segments": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n{many}#EXT-X-ENDLIST\n",
        "no time": "#EXTM3U\n#EXT-X-TARGETDURATION:0\n",
    }
    server.pages["/me"] = Page(texts[kind].encode(), kind=HLS_KIND)
    with pytest.raises((SourceUnavailable, ConfigError)):
        await asyncio.wait_for(read(av_source(server.url("/me"), stall_s=1.0, open_timeout_s=2.0)), 20)
    assert len(server.asked) <= max(MAX_FAILURES, MAX_MASTERS) + 10


async def test_a_playlist_of_secrets_shows_none_of_them(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.pages["/QXZJ/live"] = Page(status=500)
    with pytest.raises(SourceUnavailable) as failed:
        await read(av_source(server.url("/QXZJ/live?token=QXZJ"), shown="http://cam/***"))
    assert "QXZJ" not in str(failed.value) + caplog.text


def test_a_probe_of_a_snapshot_says_what_it_is(server: Server) -> None:
    server.pages["/snap.jpg"] = Page(jpeg(1), kind="image/jpeg")
    found = probe(server.url("/snap.jpg"), clock=CLOCK, read_s=0.5)
    assert (found.codec, found.width, found.height, found.live) == ("mjpeg", 96, 64, True)
    server.pages["/snap.png"] = Page(still(1, "PNG"), kind="image/png")
    found = probe(server.url("/snap.png"), clock=CLOCK, read_s=0.5)
    assert (found.width, found.height, found.live) == (96, 64, True)


async def test_a_named_pipe_is_read_once(tmp_path: Path) -> None:
    body, pipe = clip(tmp_path, "a.ts").read_bytes(), tmp_path / "pipe.ts"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(body), daemon=True)
    writer.start()
    source = av_source(str(pipe))
    assert len(await read(source)) == 50
    assert not source.live
    writer.join(5)


async def test_standard_input_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = clip(tmp_path, "a.ts").read_bytes()
    reading, writing = os.pipe()
    monkeypatch.setattr("pipeline.sources.pipe_file.STANDARD_INPUT", reading)

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(body)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    source = av_source("-")
    assert len(await read(source)) == 50
    writer.join(5)
    os.close(reading)


async def test_a_pipe_that_nobody_writes_is_let_go(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "nobody writes")
    source = av_source(str(tmp_path / "nobody writes"), open_timeout_s=0.2)
    with pytest.raises(SourceUnavailable, match="did not answer"):
        await read(source)
    await asyncio.wait_for(source.close(), 5)
    (reader,) = [one for one in threading.enumerate() if "nobody writes" in one.name] or [None]
    assert reader is None

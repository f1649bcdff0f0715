"""Nothing that was damaged on its way is shown, nor anything that is built on it, until the stream is whole again."""

import random
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.sources.av import AvSource
from pipeline.sources.base import Sampler
from tests import clips
from tests.clips import av_source

FPS = 25.0
SECONDS = 8.0
GOP = 25
SIZE = (96, 160)

X264 = {"preset": "ultrafast", "sc_threshold": "0"}
CODECS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {**X264, "bf": "0"}),
    "h264 with b frames": ("libx264", {**X264, "preset": "veryfast", "bf": "2", "b-pyramid": "none"}),
    "h264 open groups": ("libx264", {**X264, "preset": "veryfast", "bf": "2", "x264-params": "open-gop=1"}),
    "h264 slices": ("libx264", {**X264, "bf": "0", "x264-params": "slices=4"}),
    "hevc": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none:bframes=0:repeat-headers=1"}),
    "hevc with b frames": (
        "libx265",
        {"preset": "ultrafast", "x265-params": "log-level=none:bframes=2:repeat-headers=1"},
    ),
    "mpeg2": ("mpeg2video", {"bf": "0"}),
}


def write(path: Path, codec: str, seconds: float = SECONDS, **more: str) -> Path:
    """A clip with much movement, of which no two pictures are alike."""
    name, options = CODECS[codec]
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 160, (SIZE[0], 2 * SIZE[1], 3), np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(name, rate=25, options={**options, **more})
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        stream.codec_context.gop_size = GOP
        stream.codec_context.bit_rate = 400_000
        for number in range(round(seconds * FPS)):
            left = number * 3 % SIZE[1]
            rgb = noise[:, left : left + SIZE[1]] // 2 + clips.picture(number, *SIZE) // 2
            out.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))
        out.mux(stream.encode(None))
    return path


def lossy_ts(path: Path, out: Path, share: float, seed: int) -> Path:
    """The stream without some of its transport packets, but for the tables and the first key frame."""
    data, random_ = path.read_bytes(), random.Random(seed)
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    kept = [packet for number, packet in enumerate(packets) if number < 150 or random_.random() >= share]
    assert len(kept) < len(packets)
    out.write_bytes(b"".join(kept))
    return out


def without_pictures(path: Path, lost: set[int], out: Path) -> Path:
    """The stream without some of its pictures, counted in order of coding."""
    with av.open(str(path)) as read, av.open(str(out), "w") as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(read.demux(video=0)):
            if packet.size and number not in lost:
                packet.stream = stream
                written.mux(packet)
    return out


async def shown(path: Path, **options: object) -> tuple[dict[float, np.ndarray], AvSource]:
    source = av_source(path, **options)
    return {round(f.pts_s, 2): f.picture.render(*SIZE).astype(int) async for f in source.frames(Sampler(60))}, source


def damaged(pictures: dict[float, np.ndarray], clean: dict[float, np.ndarray]) -> list[float]:
    return [at for at, picture in pictures.items() if np.abs(picture - clean[at]).mean() > 1.0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("codec", CODECS)
async def test_of_a_transport_stream_with_losses_no_damaged_picture_is_shown(
    folder: Path, tmp_path: Path, codec: str, seed: int
) -> None:
    whole = folder / f"{codec}.ts"
    whole = whole if whole.exists() else write(whole, codec)
    clean, _ = await shown(whole)
    lossy = lossy_ts(whole, tmp_path / "lossy.ts", 0.004, seed)
    kept, keeping = await shown(lossy, on_corrupt="keep")
    pictures, dropping = await shown(lossy)
    assert damaged(kept, clean), "the losses show"
    assert damaged(pictures, clean) == []
    assert len(pictures) > GOP, "it is shown again behind whole key frames"
    assert dropping.counts.gaps == keeping.counts.gaps > 0
    assert dropping.counts.corrupt == keeping.counts.corrupt >= len(damaged(kept, clean))
    keys, _ = await shown(lossy, decode="keys")
    assert damaged(keys, clean) == []
    assert len(keys) > 1


@pytest.mark.parametrize("codec", [name for name in CODECS if name.startswith("h264")])
async def test_pictures_that_are_missing_altogether_spoil_those_built_on_them(tmp_path: Path, codec: str) -> None:
    whole = write(tmp_path / "whole.mkv", codec)
    clean, _ = await shown(whole)
    holed = without_pictures(whole, {3 * GOP + 8, 6 * GOP + 4}, tmp_path / "holed.mkv")
    kept, _ = await shown(holed, on_corrupt="keep")
    pictures, source = await shown(holed)
    assert damaged(kept, clean)
    assert damaged(pictures, clean) == []
    assert len(pictures) > len(clean) - 3 * GOP
    assert source.counts.gaps == 2


async def test_after_an_intra_refresh_has_passed_a_stream_without_key_frames_is_shown_again(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.mkv", "h264", **{"x264-params": "intra-refresh=1:keyint=25"})
    clean, _ = await shown(whole)
    holed = without_pictures(whole, {110}, tmp_path / "holed.mkv")
    kept, _ = await shown(holed, on_corrupt="keep")
    pictures, _ = await shown(holed)
    assert damaged(kept, clean)
    assert damaged(pictures, clean) == []
    assert len(clean) - 4 * GOP < len(pictures) < len(clean)


async def test_of_a_recording_without_key_frames_that_stand_alone_it_is_said_what_to_set(tmp_path: Path) -> None:
    refreshed = write(tmp_path / "whole.mkv", "h264", **{"x264-params": "intra-refresh=1:keyint=25"})
    joined = without_pictures(refreshed, set(range(5)), tmp_path / "joined.mkv")
    with pytest.raises(ConfigError, match="set decode: all"):
        await shown(joined, decode="keys")


async def test_a_stream_joined_in_the_middle_is_shown_from_its_first_key_frame_on(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.ts", "hevc", 4.0)
    clean, _ = await shown(whole)
    joined = without_pictures(whole, set(range(10)), tmp_path / "joined.ts")
    pictures, source = await shown(joined)
    first = next(iter(clean.values()))
    assert np.abs(next(iter(pictures.values())) - list(clean.values())[GOP]).mean() < np.abs(first).mean() / 10
    assert len(pictures) == len(clean) - GOP
    assert source.counts.corrupt == 0

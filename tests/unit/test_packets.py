"""The ring of packets: bounded, begun with a key frame, cut by stream time, broken where the stream is."""

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import av
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources.packets import PacketRing
from tests.clips import steady, write

FPS = 25


def demuxed(tmp_path, seconds=6.0, **how):
    """A connection's video stream, still open, and its packets."""
    container = av.open(str(write(tmp_path / "clip.mp4", steady(seconds), **how)))
    video = container.streams.video[0]
    return container, video, [packet for packet in container.demux(video) if packet.size]


def filled(ring, video, packets, offset_s=100.0):
    ring.connect(video, has_clock=True)
    for packet in packets:
        ring.push(packet)
        ring.place(packet.pts * float(packet.time_base), packet.pts * float(packet.time_base) + offset_s)


def decoded(mp4):
    with av.open(io.BytesIO(mp4)) as container:
        return [frame.time for frame in container.decode(video=0)]


def test_a_clip_begins_with_the_key_frame_before_its_start(tmp_path):
    container, video, packets = demuxed(tmp_path, b_frames=2)
    ring = PacketRing(60, 2**20)
    filled(ring, video, packets)
    cut = ring.cut(102.5, 104.0)
    container.close()
    assert cut.complete
    clip = cut.clip()
    assert (clip.start_s, round(clip.end_s, 2), clip.note) == (102.0, 104.0, "")
    assert len(decoded(clip.mp4)) == 2 * FPS + 1


def test_a_clip_goes_on_with_what_comes_and_ends_where_the_stream_does(tmp_path):
    container, video, packets = demuxed(tmp_path)
    ring = PacketRing(60, 2**20)
    filled(ring, video, packets[:50])
    cut = ring.cut(100.0, 103.0)
    assert not cut.complete
    for packet in packets[50:]:
        ring.push(packet)
    assert cut.complete
    assert len(decoded(cut.clip().mp4)) == 3 * FPS + 1
    filled(ring, video, packets)
    late = ring.cut(105.0, 120.0)
    ring.end()
    assert late.complete
    assert late.clip().note == "ends where the stream ended"
    container.close()


def test_a_jump_of_the_time_stamps_begins_anew(tmp_path):
    container, video, packets = demuxed(tmp_path)
    ring = PacketRing(10, 2**20)
    filled(ring, video, packets[:100])
    cut = ring.cut(100.0, 110.0)
    for packet in packets[100:]:
        packet.pts, packet.dts = packet.pts + 90_000 * 1000, packet.dts + 90_000 * 1000
        ring.push(packet)
    assert cut.complete
    assert cut.clip().note == "ends where the connection or its time broke"
    assert ring.cut(100.0, 110.0) == "no picture of this connection has been placed yet"
    container.close()


def test_what_gives_no_packets_says_why(tmp_path):
    container, video, _ = demuxed(tmp_path, seconds=1)
    ring = PacketRing(10, 2**20)
    assert ring.cut(0, 1) == "its source gives no packets"
    ring.connect(video, has_clock=False)
    assert ring.cut(0, 1) == "its packets have no times"
    ring.connect(video, has_clock=True)
    assert ring.cut(0, 1) == "no key frame has come yet"
    container.close()


@settings(max_examples=30, deadline=None)
@given(keep_s=st.floats(0.1, 5), share=st.floats(0.05, 1.5), start_s=st.floats(98, 107))
def test_the_ring_is_bounded_and_a_clip_of_it_begins_with_a_key_frame(keep_s, share, start_s):
    with TemporaryDirectory() as folder:
        container, video, packets = demuxed(Path(folder), gop=10)
        most = round(sum(packet.size for packet in packets) * share)
        ring = PacketRing(keep_s, most)
        ring.connect(video, has_clock=True)
        for packet in packets:
            media_s = packet.pts * float(packet.time_base)
            ring.push(packet)
            ring.place(media_s, media_s + 100)
            assert ring.bytes <= most
        cut = ring.cut(start_s, 200)
        container.close()
        if isinstance(cut, str):
            assert ring.bytes == 0
            return
        ring.end()
        clip = cut.clip()
        with av.open(io.BytesIO(clip.mp4)) as made:
            first = next(made.decode(video=0))
        assert first.key_frame
        assert clip.start_s >= 106 - keep_s - 2 * 10 / FPS or clip.start_s <= start_s


def test_a_cut_is_bounded(tmp_path):
    container, video, packets = demuxed(tmp_path, seconds=8)
    ring = PacketRing(60, sum(packet.size for packet in packets) // 2)
    filled(ring, video, packets[:10])
    cut = ring.cut(100.0, 200.0)
    for packet in packets[10:]:
        ring.push(packet)
    assert cut.complete
    assert cut.clip().note.startswith("ends early")
    assert len(cut.clip().mp4) < sum(packet.size for packet in packets)
    container.close()

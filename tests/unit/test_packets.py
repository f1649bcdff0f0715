"""The ring of packets: bounded, begun with a key frame, cut by stream time, broken where the stream is."""

import io
from fractions import Fraction
from types import SimpleNamespace

import av
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources.packets import PacketCut, PacketRing
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


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 4000), st.booleans()), min_size=1, max_size=200),
    keep_s=st.floats(0.1, 5),
    most=st.integers(2000, 60_000),
)
def test_the_ring_is_bounded_and_begins_with_a_key_frame(sizes, keep_s, most):
    ring = PacketRing(keep_s, most)
    ring._run = SimpleNamespace(tick_s=1 / FPS, offset_s=0.0)
    ring._renewed = lambda run: run
    for number, (size, key) in enumerate(sizes):
        packet = SimpleNamespace(pts=number, dts=number, size=size, is_keyframe=key, time_base=Fraction(1, FPS))
        ring.push(packet)
        kept = list(ring._kept)
        assert not kept or kept[0].key
        assert ring._bytes == sum(one.bytes for one in kept)
        assert ring._bytes <= most or len(kept) == 1 or sum(one.key for one in kept[1:]) == 0
        keys = [one.dts for one in kept if one.key]
        assert len(keys) < 2 or (kept[-1].dts - keys[1]) / FPS < keep_s


def test_a_cut_is_bounded(tmp_path):
    container, video, packets = demuxed(tmp_path, seconds=8)
    ring = PacketRing(60, 2**20)
    filled(ring, video, packets)
    small = PacketCut(ring._run, 100.0, 200.0, 2**12)
    for one in ring._kept:
        small.add(ring._run, one)
    assert small.complete
    assert small.clip().note.startswith("ends early")
    assert len(small.clip().mp4) < 2**14
    container.close()

"""Masks and zones: what is no polygon is refused by name, and what is masked is seen by nobody."""

import asyncio
from fractions import Fraction

import av
import numpy as np
import pytest
from av import VideoFrame
from av.video.reformatter import VideoReformatter
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from allocator_engine.encode import thumbnails
from allocator_engine.fit import Allocation, SegmentSize
from pipeline.clock import SystemClock
from pipeline.config.site import parse_site
from pipeline.errors import ConfigError
from pipeline.sources.av import AvSource
from pipeline.sources.av_picture import AvPicture
from pipeline.sources.base import Sampler
from pipeline.sources.masking import _layout, blacked_out
from pipeline.sources.regions import covered
from pipeline.sources.settings import SourceConfig
from pipeline.sources.shape import Display
from pipeline.sources.synthetic import SyntheticSource
from pipeline.types import render

SQUARE = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
TRIANGLE = ((0.1, 0.15), (0.62, 0.3), (0.33, 0.91))
FORMATS = [
    "yuv420p",
    "yuvj420p",
    "yuv422p",
    "yuv444p",
    "yuv411p",
    "yuv410p",
    "yuva420p",
    "yuv420p10le",
    "yuv422p12le",
    "yuv444p16be",
    "nv12",
    "nv21",
    "nv16",
    "nv24",
    "p010le",
    "p210le",
    "yuyv422",
    "uyvy422",
    "y210le",
    "rgb24",
    "bgr24",
    "rgba",
    "bgr0",
    "rgb48le",
    "rgb565le",
    "x2rgb10le",
    "gbrp",
    "gbrp10le",
    "gray",
    "gray10le",
    "gray16be",
    "ya8",
]
CONVERTED = ["pal8", "monob", "bayer_bggr8", "uyyvyy411"]


def site(**stream):
    return parse_site({"streams": {"gate": {"url": "synthetic:", **stream}}})


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([], "a polygon of 0 points; expected 3 to 64"),
        ([[0, 0], [1, 1]], "a polygon of 2 points; expected 3 to 64"),
        ([[i / 100, (i % 2) / 100 + i * i / 10_000] for i in range(65)], "a polygon of 65 points"),
        ([[0, 0], [1, 1], [1, 0], [0, 1]], "crosses itself: its edges 1 and 3 meet"),
        ([[0, 0], [0.5, 0.5], [1, 1]], "crosses itself|without an area"),
        ([[0, 0], [1, 0], [0.5, 0]], "crosses itself|without an area"),
        ([[0.2, 0.2], [0.8, 0.2], [0.8, 0.8], [0.2, 0.2]], "is there twice"),
        ([[0, 0], [1, 0], [1, 1], [0.5, 0], [0, 1]], "crosses itself"),
        ([[0, 0], [1e-4, 0], [0, 1e-4]], "without an area"),
        ([[0, 0], [1.5, 0], [0, 1]], r"1\.0 is 1\.5; expected 1 or less"),
        ([[0, 0], [-0.1, 0], [0, 1]], "expected 0 or more"),
        ([[0, 0], [float("nan"), 0], [0, 1]], "gate"),
        ([[0, 0], ["left", 0], [0, 1]], "expected a number"),
        ([[0, 0], [1], [0, 1]], r"gate\.\w+\.hut\.1"),
        ("all of it", "expected a list"),
        (None, "expected a list"),
    ],
)
@pytest.mark.parametrize("kind", ["zones", "masks"])
def test_what_is_no_polygon_is_refused_by_name(kind, points, words):
    with pytest.raises(ConfigError, match=words) as refused:
        site(**{kind: {"hut": points}})
    assert f"streams.gate.{kind}.hut" in str(refused.value)


def test_too_many_regions_and_names_that_are_no_slugs_are_refused():
    with pytest.raises(ConfigError, match=r"streams\.gate\.masks: 33 polygons; expected at most 32"):
        site(masks={f"m{n}": TRIANGLE for n in range(33)})
    with pytest.raises(ConfigError, match="no slug"):
        site(zones={"The Dock!": TRIANGLE})


@given(st.permutations(list(range(5))))
def test_a_pentagon_is_taken_in_the_order_of_its_corners_only(order):
    corners = [(0.5 + 0.4 * np.cos(2 * np.pi * k / 5), 0.5 + 0.4 * np.sin(2 * np.pi * k / 5)) for k in range(5)]
    steps = {(b - a) % 5 for a, b in zip(order, order[1:] + order[:1], strict=True)}
    try:
        site(zones={"dock": [list(corners[k]) for k in order]})
        taken = True
    except ConfigError:
        taken = False
    assert taken == (steps in ({1}, {4}))


coordinate = st.floats(0, 1, width=32)


@given(
    st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=6, unique=True),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_every_point_of_a_polygon_lies_in_a_covered_cell(points, rows, columns):
    try:
        polygon = site(zones={"one": points}).streams["gate"].zones["one"]
    except ConfigError:
        assume(False)
    cells = covered((polygon,), rows, columns)
    shares = np.linspace(0, 1, 23)
    for (x, y), (u, v) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        for share in shares:
            at_x, at_y = x + share * (u - x), y + share * (v - y)
            assert cells[min(int(at_y * rows), rows - 1), min(int(at_x * columns), columns - 1)]


def noise(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def as_format(rgb, name):
    """A frame in a format whose samples are made one by one, without a scaler that mixes neighbours."""
    frame = VideoFrame(rgb.shape[1], rgb.shape[0], name)
    random = np.random.default_rng(int(rgb.sum()))
    for plane in frame.planes:
        np.frombuffer(plane, np.uint8)[:] = random.integers(0, 256, plane.buffer_size, np.uint8)
    return frame


def with_other_samples_behind(frame, masks, shape=Display(), interlaced=False):
    """The frame with every sample changed that takes part in what the masks cover, whatever else it takes part in."""
    other = VideoFrame(frame.width, frame.height, frame.format.name)
    rows, columns = frame.height, frame.width
    points = tuple(tuple(map(shape.origin, one)) for one in masks)
    behind = covered(points, rows, columns)
    for plane, again, about in zip(frame.planes, other.planes, _layout(frame.format.name), strict=True):
        source = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        target = np.frombuffer(again, np.uint8).reshape(-1, again.line_size)
        target[:] = source
        for y, x in np.argwhere(behind):
            row = y // about.down
            if interlaced and about.down > 1:  # lines of one field share their chroma
                row = 2 * (y // 4) + y % 2
            first = x // about.across * about.pixel_bytes
            behind_it = slice(first, first + about.pixel_bytes)
            target[row, behind_it] = source[row, behind_it] ^ 0x5A
    return other


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [(36, 64), (37, 53), (1, 7), (3, 5)])
def test_samples_behind_a_mask_change_nothing_in_any_format(name, size):
    masks = (TRIANGLE, SQUARE)
    frame = as_format(noise(1, *size), name)
    other = with_other_samples_behind(frame, masks)
    assert any(bytes(a) != bytes(b) for a, b in zip(frame.planes, other.planes, strict=True))
    one, two = AvPicture(frame, masks=masks), AvPicture(other, masks=masks)
    for height, width in (size, (11, 9), (128, 224)):
        assert np.array_equal(one.render(height, width), two.render(height, width))


@pytest.mark.parametrize("name", [*FORMATS, *CONVERTED])
def test_behind_a_mask_there_is_black_and_elsewhere_the_picture(name):
    rgb = np.full((48, 64, 3), 200, np.uint8)
    frame = VideoFrame.from_ndarray(rgb, "rgb24")
    if name == "pal8":
        whole = VideoFrame.from_ndarray((np.full((48, 64), 7, np.uint8), np.full((256, 4), 255, np.uint8)), "pal8")
    elif name.startswith(("bayer", "uyyvyy")):
        whole = VideoFrame(64, 48, name)
        np.frombuffer(whole.planes[0], np.uint8)[:] = 200 if name.startswith("bayer") else 128
    else:
        whole = VideoReformatter().reformat(frame, format=name)
    before = AvPicture(whole).render(48, 64).astype(int)
    after = AvPicture(whole, masks=(SQUARE,)).render(48, 64).astype(int)
    assert after[16:32, 20:44].max() <= 2
    outside = np.ones((48, 64), bool)
    outside[4:44, 8:56] = False
    assert np.abs(after - before)[outside].max() <= 1


@pytest.mark.parametrize("interlaced", [False, True])
@settings(deadline=None, max_examples=40)
@given(swapped=st.booleans(), rows=st.booleans(), columns=st.booleans(), seed=st.integers(0, 99))
def test_masks_are_drawn_on_the_picture_as_it_is_shown(interlaced, swapped, rows, columns, seed):
    shape = Display(swapped, rows, columns)
    frame = as_format(noise(seed, 41, 67), "yuv420p")
    other = with_other_samples_behind(frame, (TRIANGLE,), shape, interlaced)
    hidden = [blacked_out(one, (TRIANGLE,), shape, interlaced, None) for one in (frame, other)]
    for one, two in zip(hidden[0].planes, hidden[1].planes, strict=True):
        assert np.array_equal(np.frombuffer(one, np.uint8), np.frombuffer(two, np.uint8))
    stored = hidden[0].to_ndarray(format="rgb24")
    height, width = shape.stored(*stored.shape[:2])
    inside = shape.turn(stored)[int(height * 0.45) : int(height * 0.5), int(width * 0.32) : int(width * 0.38)]
    assert inside.max() <= 2


def test_the_decoders_own_picture_is_left_alone():
    """Later pictures are built on it: what is hidden would otherwise bleed into what is shown."""

    codec = av.CodecContext.create("mpeg4", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = 64, 48, "yuv420p", Fraction(1, 25)
    codec.gop_size = 100
    coded = []
    for number in range(8):
        rgb = np.roll(noise(3, 48, 64) // 4 + 90, number, axis=1)
        coded += codec.encode(VideoFrame.from_ndarray(rgb.astype(np.uint8), "rgb24"))
    coded += codec.encode(None)

    def decoded(masks):
        decoder = av.CodecContext.create("mpeg4", "r")
        decoder.extradata = codec.extradata
        shown = []
        for packet in [*coded, None]:
            for frame in decoder.decode(packet):
                shown.append(AvPicture(frame, masks=masks).render(48, 64))
        return shown

    plain, masked = decoded(()), decoded((SQUARE,))
    assert len(plain) == len(masked) == 8
    for one, two in zip(plain, masked, strict=True):
        assert two[16:32, 20:44].max() <= 2
        assert np.array_equal(one[:6], two[:6])
        assert np.array_equal(one[42:], two[42:])


def recording(path, behind):
    """A lossless recording; `behind` is what stands behind the mask."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=4)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(8):
            planes = as_format(noise(number, 48, 64), "yuv420p")
            hidden = with_other_samples_behind(planes, (SQUARE,)) if behind else planes
            hidden.pts, hidden.time_base = number, Fraction(1, 4)
            container.mux(stream.encode(hidden))
        container.mux(stream.encode(None))


def frames_of(source):
    async def read():
        return [frame async for frame in source.frames(Sampler(4))]

    return asyncio.run(read())


def test_what_is_behind_a_mask_is_seen_by_nobody(tmp_path):
    """Thumbnails, segments and their content ids, snapshots, sizes: the same, whatever stands there."""
    config = SourceConfig(masks={"hut": SQUARE})
    seen = []
    for behind in (False, True):
        path = tmp_path / f"{behind}.mkv"
        recording(path, behind)
        seen.append(frames_of(AvSource(str(path), config, name="gate", clock=SystemClock())))
    one, two = seen
    assert len(one) == len(two) == 8
    allocation = Allocation((SegmentSize((0, 1), 32, 32, 1), SegmentSize((2,), 48, 64, 2)))
    assert np.array_equal(thumbnails([f.picture for f in one]), thumbnails([f.picture for f in two]))
    assert [s.content_id for s in render("gate", one, allocation)] == [
        s.content_id for s in render("gate", two, allocation)
    ]
    assert np.array_equal(one[5].picture.render(480, 640), two[5].picture.render(480, 640))
    unmasked = [
        frames_of(AvSource(str(tmp_path / f"{b}.mkv"), name="gate", clock=SystemClock())) for b in (False, True)
    ]
    assert not np.array_equal(unmasked[0][5].picture.render(48, 64), unmasked[1][5].picture.render(48, 64))


def test_a_generated_scene_is_masked_too():
    source = SyntheticSource(
        "synthetic:?seconds=2&width=80&height=60&fps=4", SourceConfig(masks={"hut": SQUARE}), clock=SystemClock()
    )
    for frame in frames_of(source):
        pixels = frame.picture.render(60, 80)
        assert not pixels[15:45, 20:60].any()
        assert pixels[:14].any()

"""Crops: where all watches of a stream are about zones, its MLLM is shown the box around these, and nothing else."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av import VideoFrame
from av.video.reformatter import VideoReformatter
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.cropping import LEAST_SIDE, MARGIN, MOST_AREA, crop_around, crop_of, with_crop
from pipeline.sources.av_picture import CROP_PX, AvPicture
from pipeline.sources.cropping import part_of
from pipeline.sources.synthetic import ArrayPicture
from pipeline.testing import textured
from pipeline.types import Crop, WatchQuery, Zone

FORMATS = ["yuv420p", "nv12", "yuv422p10le", "yuyv422", "rgb24", "gray"]
DOCK = Zone("dock", ((0.1, 0.2), (0.4, 0.2), (0.4, 0.7), (0.1, 0.7)))
GATE = Zone("gate", ((0.5, 0.3), (0.6, 0.3), (0.6, 0.4)))
CORNER = Zone("corner", ((0.95, 0.95), (1.0, 0.95), (1.0, 1.0)))

shares = st.floats(0, 1, allow_nan=False)


@st.composite
def zones(draw):
    points = draw(st.lists(st.tuples(shares, shares), min_size=3, max_size=6))
    return Zone("z", tuple(points))


@given(st.lists(zones(), min_size=1, max_size=4))
def test_a_crop_shows_every_zone_and_lies_in_the_picture(several):
    crop = crop_around(several)
    if crop is None:
        return
    assert crop.area <= MOST_AREA
    for first, last in ((crop.left, crop.right), (crop.top, crop.bottom)):
        assert 0 <= first < last <= 1
        assert last - first >= LEAST_SIDE - 1e-9
    for zone in several:
        left, top, right, bottom = zone.box
        assert min(left - crop.left, top - crop.top, crop.right - right, crop.bottom - bottom) >= 0
        for (x, y), (u, v) in zip(zone.polygon, crop.seen(zone).polygon, strict=True):
            assert crop.left + u * (crop.right - crop.left) == pytest.approx(x)
            assert crop.top + v * (crop.bottom - crop.top) == pytest.approx(y)


def test_one_watch_about_the_whole_picture_leaves_it_whole():
    everywhere = Zone("all", ((0.0, 0.0), (1.0, 0.0), (1.0, 0.9), (0.0, 0.9)))
    dock, gate, whole, all_of_it = (WatchQuery("w", "?", zone=zone) for zone in (DOCK, GATE, None, everywhere))
    assert crop_of(with_crop([dock, whole])) is None
    assert crop_of(with_crop([])) is None
    (one,) = with_crop([dock])
    assert one.crop == Crop(pytest.approx(0.1 - MARGIN), pytest.approx(0.2 - MARGIN), 0.4 + MARGIN, 0.7 + MARGIN)
    both = with_crop([dock, gate])
    assert {query.crop for query in both} == {Crop(0.1 - MARGIN, 0.2 - MARGIN, 0.6 + MARGIN, 0.7 + MARGIN)}
    assert crop_of(with_crop([all_of_it])) is None


def test_a_crop_changes_the_words_and_not_the_state():
    plain = WatchQuery("w", "is there a lorry?", zone=DOCK)
    (cropped,) = with_crop([plain])
    assert (cropped.key, cropped.revision, cropped.zone) == (plain.key, plain.revision, plain.zone)
    assert "from 10% to 40% of its width and from 20% to 70% of its height" in plain.asked
    assert "from 17% to 83% of its width and from 12% to 88% of its height" in cropped.asked


def test_a_small_zone_is_shown_with_what_is_around_it():
    crop = crop_around([CORNER])
    assert crop == Crop(1 - LEAST_SIDE, 1 - LEAST_SIDE, 1.0, 1.0)


@pytest.mark.parametrize("form", FORMATS)
def test_a_part_is_that_part_of_the_whole_whatever_the_pixel_format(form):
    rgb = np.random.default_rng(1).integers(0, 255, (30, 40, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    frame = VideoReformatter().reformat(VideoFrame.from_ndarray(rgb, "rgb24"), format=form)
    whole, part = AvPicture(frame), part_of(AvPicture(frame), Crop(0.2, 0.1, 0.7, 0.6))
    assert isinstance(part, AvPicture)
    shown = whole.render(whole.height, whole.width)[24:144, 64:224]
    inner = np.s_[2:-2, 2:-2]  # chroma at an edge has no neighbours beyond it
    assert np.abs(part.render(part.height, part.width).astype(int) - shown)[inner].max() <= 2


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(shares, shares, shares, shares),
    st.sampled_from([(17, 33), (240, 320), (101, 64)]),
    st.sampled_from([None, Fraction(4, 3), Fraction(9, 16)]),
)
def test_a_part_holds_the_crop_and_hardly_more(edges, size, aspect):
    left, right = sorted(edges[:2])
    top, bottom = sorted(edges[2:])
    frame = VideoReformatter().reformat(VideoFrame.from_ndarray(textured(*size), "rgb24"), format="yuv420p")
    whole = AvPicture(frame, aspect)
    part = part_of(whole, Crop(left, top, right, bottom))
    slack = 2 * CROP_PX * float(max(aspect or 1, 1 / (aspect or 1)))
    for shown, share, size_px in ((part.height, bottom - top, whole.height), (part.width, right - left, whole.width)):
        assert share * size_px - slack <= shown <= min(share * size_px + slack + 1, size_px + slack)
    assert part.render(8, 8).shape == (8, 8, 3)


@pytest.mark.parametrize("turned", [None, 90, 180, 270])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("aspect", [None, Fraction(4, 3)])
def test_a_part_lies_where_the_crop_is_on_the_picture_as_it_is_shown(tmp_path, turned, interlaced, aspect):
    frame = coded(tmp_path / "clip.mp4", slopes(240, 320), turned, interlaced)
    whole, crop = AvPicture(frame, aspect), Crop(0.2, 0.1, 0.5, 0.6)
    part = part_of(whole, crop)
    rows, columns = (slice(round(first * size), round(last * size)) for first, last, size in spans(whole, crop))
    native = whole.render(whole.height, whole.width)
    expected = ArrayPicture(np.ascontiguousarray(native[rows, columns])).render(40, 40)
    assert np.abs(part.render(40, 40).astype(int) - expected)[4:-4, 4:-4].max() <= 12
    assert abs(part.height - (rows.stop - rows.start)) <= CROP_PX
    assert abs(part.width - (columns.stop - columns.start)) <= 2 * CROP_PX


def spans(picture, crop):
    return (crop.top, crop.bottom, picture.height), (crop.left, crop.right, picture.width)


def slopes(height, width):
    """Red grows to the right, green downwards."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / width, y * 255 / height, np.full((height, width), 128)], 2).astype(np.uint8)


def coded(path, rgb, turned, interlaced):
    with av.open(str(path), "w") as out:
        options = {"x264-params": "interlaced=1:tff=1"} if interlaced else {}
        stream = out.add_stream("libx264", rate=10, options=options)
        stream.height, stream.width = rgb.shape[:2]
        if turned is not None:
            stream.set_display_rotation(turned)
        for packet in (*stream.encode(VideoFrame.from_ndarray(rgb, "rgb24")), *stream.encode(None)):
            out.mux(packet)
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


def test_a_part_of_an_untagged_picture_has_the_colours_of_the_whole():
    """Untagged pictures of 720 lines and more are BT.709: so is a part with fewer."""
    frame = VideoReformatter().reformat(VideoFrame.from_ndarray(slopes(1080, 1920), "rgb24"), format="yuv420p")
    whole = AvPicture(frame)
    part = part_of(whole, Crop(0.25, 0.25, 0.5, 0.5))
    expected = whole.render(1080, 1920)[272:540, 480:960]
    assert np.abs(part.render(268, 480).astype(int) - expected)[2:-2, 2:-2].max() <= 2


def test_a_part_of_other_pictures_is_that_part_too():
    rgb = textured(100, 200)
    part = part_of(ArrayPicture(rgb), Crop(0.25, 0.5, 0.75, 1.0))
    assert (part.height, part.width) == (50, 100)
    assert np.array_equal(part.render(50, 100), rgb[50:, 50:150])

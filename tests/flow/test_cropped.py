"""A stream whose watches are all about zones: its MLLM is shown the part of the picture in which these lie."""

from dataclasses import astuple, replace

import numpy as np
import pytest

from pipeline.allocators.motion import MotionAllocator
from pipeline.core.budget import Rate
from pipeline.core.context import ContextRules
from pipeline.core.cropping import with_crop
from pipeline.core.relook import PictureRing
from pipeline.delivery.history import EventFilter
from pipeline.evidence.bundle import ModelNote
from pipeline.evidence.explain import explain_event
from pipeline.evidence.page import page
from pipeline.evidence.replay import replay
from pipeline.loop import watch_stream
from pipeline.mllm.detector.backend import _answer
from pipeline.mllm.detector.words import DetectedObject
from pipeline.sources.synthetic import ArrayPicture
from pipeline.testing import NotedPicture, ScriptedMLLM, ScriptedSource, frame_at, textured
from pipeline.types import WatchQuery, Zone
from tests.evidence import by_pixels, recording, site, watched
from tests.flow.test_evidence import stored
from tests.flow.test_loop import CAR, RULES, build

DOCK = Zone("dock", ((0.1, 0.3), (0.4, 0.3), (0.4, 0.7), (0.1, 0.7)))
(LORRY,) = with_crop([WatchQuery("lorry", "is there a lorry?", zone=DOCK)])
assert LORRY.crop is not None


def frames(pixels, count=8, first=0):
    return [frame_at(place / 2, ArrayPicture(pixels)) for place in range(first, first + count)]


async def shown(pixels, query, rate=Rate(30, 60)):
    run, runtime = build(query, rate=rate)
    await watch_stream(run, ScriptedSource(frames(pixels)), runtime)
    return run.context.segments


async def test_for_the_same_tokens_the_zone_is_seen_larger():
    scene = textured()
    whole, part = await shown(scene, replace(LORRY, crop=None)), await shown(scene, LORRY)
    assert sum(one.tokens for one in part) <= sum(one.tokens for one in whole) * 1.1
    crop = LORRY.crop
    px_per_share = [segments[-1].size[1] / width for segments, width in ((whole, 1.0), (part, crop.right - crop.left))]
    assert px_per_share[1] > 1.4 * px_per_share[0]


async def test_what_lies_outside_of_the_crop_changes_nothing_that_the_model_sees():
    one, other = textured(), textured()
    crop, (height, width) = LORRY.crop, one.shape[:2]
    outside = np.ones((height, width), bool)
    outside[
        int(crop.top * height) : int(crop.bottom * height) + 1, int(crop.left * width) : int(crop.right * width) + 1
    ] = 0
    other[outside] = 255
    seen = [[segment.pixels for segment in await shown(pixels, LORRY)] for pixels in (one, other)]
    assert len(seen[0]) == len(seen[1]) > 0
    assert all(np.array_equal(a, b) for a, b in zip(*seen, strict=True))


async def test_another_crop_begins_a_new_context_within_the_budget():
    rate = Rate(60, 120)
    run, runtime = build(LORRY, rate=rate, context=ContextRules(1000, 500))
    run.ring = PictureRing(tokens=200)
    scene = textured()
    await watch_stream(run, ScriptedSource(frames(scene)), runtime)
    epoch, size = run.context.epoch, run.context.segments[-1].size
    runtime.watches.queries = (replace(LORRY, crop=None), CAR)
    await watch_stream(run, ScriptedSource(frames(scene, first=8)), runtime)
    assert (run.context.epoch, run.context.reason) == (epoch + 1, "crop")
    assert run.context.segments[0].pts_s[0] >= 4.0
    assert run.context.segments[-1].size[1] / run.context.segments[-1].size[0] > size[1] / size[0]
    assert all(frame.pts_s >= 4.0 for frame in run.ring.frames)
    assert sum(runtime.mllm.sent) <= run.counts.spent <= rate.tokens_per_s * 8 + rate.burst_tokens
    assert run.state.watches[LORRY.key].is_open


async def test_a_second_look_is_at_the_crop_too():
    unsure = replace(LORRY, open_at=0.9, clear_at=0.1)
    looks = []
    for beyond in (0, 255):  # what lies right of the crop
        run, runtime = build(unsure, mllm=ScriptedMLLM(lambda *_: 0.5), rate=Rate(30, 400))
        run.ring = PictureRing(tokens=200)
        scene = textured(512, 896)
        scene[:, 500:] = beyond
        await watch_stream(run, ScriptedSource(frames(scene)), runtime)
        looks.append([segment.pixels for _, aside in runtime.mllm.looks for segment in aside])
    assert len(looks[0]) == len(looks[1]) > 0
    assert all(np.array_equal(a, b) for a, b in zip(*looks, strict=True))


async def test_while_nobody_watches_the_context_stays_as_it_is():
    run, runtime = build(LORRY, context=ContextRules(1000, 500))
    await watch_stream(run, ScriptedSource(frames(textured())), runtime)
    kept = run.context
    runtime.watches.queries = ()
    await watch_stream(run, ScriptedSource(frames(textured(), first=8)), runtime)
    assert run.context == kept
    runtime.watches.queries = (LORRY,)
    await watch_stream(run, ScriptedSource(frames(textured(), first=16)), runtime)
    assert (run.context.epoch, run.context.segments[: len(kept.segments)]) == (kept.epoch, kept.segments)


async def test_motion_is_looked_for_where_the_zone_is_in_the_crop():
    still = textured()
    moved = still.copy()
    moved[80:170, 50:175] = 250  # all of the zone
    moved_beside = still.copy()
    moved_beside[80:170, 185:200] = 250  # in the crop, beside the zone
    spent = []
    for second in (moved, moved_beside):
        run, runtime = build(LORRY, allocator=MotionAllocator(RULES))
        both = [*frames(still, 2), *frames(second, 2, first=2)]
        await watch_stream(run, ScriptedSource(both), runtime)
        spent.append(sum(one.tokens for one in run.context.segments if one.pts_s[0] >= 1.0))
    assert spent[0] > 0 == spent[1]


async def test_a_detector_finds_the_zone_in_the_crop():
    """A person in the middle of the zone, which is not the middle of the same polygon laid on the crop."""
    seen = DetectedObject("person", 0.9, (0.3, 0.2, 0.5, 0.4))  # in shares of the crop
    corner = Zone("corner", ((0.0, 0.0), (0.3, 0.0), (0.3, 0.3)))
    (query,) = with_crop([WatchQuery("p", "Is there a person?", zone=corner)])
    assert _answer(query, [seen]).score == 0.9
    assert _answer(replace(query, crop=None), [seen]).score == 0.0


async def test_of_a_picture_that_is_no_video_the_part_is_cut_at_native_size():
    run, runtime = build(LORRY)
    picture = NotedPicture(textured())
    await watch_stream(run, ScriptedSource([frame_at(0, picture), frame_at(0.5, picture)]), runtime)
    assert run.context.segments
    assert set(picture.rendered) == {(256, 448)}


async def test_evidence_says_what_the_model_was_shown_and_draws_it(tmp_path, monkeypatch):
    wanted = site(tmp_path, recording(tmp_path))
    (slug,), (watch,) = wanted.streams, wanted.watches
    zoned = replace(wanted.streams[slug], zones={"bar": ((0.1, 0.1), (0.5, 0.1), (0.5, 0.9), (0.1, 0.9))})
    wanted = replace(wanted, streams={slug: zoned}, watches={watch: replace(wanted.watches[watch], zone="bar")})
    async with watched(monkeypatch, wanted, ScriptedMLLM(by_pixels)) as service:
        with stored(service) as (store, shelf):
            event = store.history.events(EventFilter(types=frozenset({"watch.opened"})))[0].event
            kept = shelf.of(event.id)
            bundle = kept.bundle
            assert bundle.zone == Zone("bar", zoned.zones["bar"])
            assert bundle.crop is not None
            assert 'Only about the zone "bar", which is the part of the picture from 14% to 86%' in bundle.prompt
            assert (bundle.snapshot.height, bundle.snapshot.width) == (180, 320)
            largest = max(note.width for note in bundle.segments)
            assert largest <= 320 * (bundle.crop.right - bundle.crop.left) + 32
            assert all(scale <= 1.1 for _, scale in bundle.frames)
            again = await replay(shelf, kept, ScriptedMLLM(by_pixels), lambda: ModelNote("null", "qwen3_vl", False))
            assert again.same
            told = explain_event(event, bundle)
            assert any("from 2% to 58% of its width" in sentence for sentence in told.sentences)
            record = store.history.answers([slug], 1)[0].record
            assert record["crop"] == [pytest.approx(edge, abs=1e-4) for edge in astuple(bundle.crop)]
            html = page(told, shelf, kept)
            assert 'class="zone"' in html
            assert "<th>rule: decided, name</th><td>confirm</td>" in html
            assert "{&#39;" not in html
            assert 'class="crop"' in html


async def test_a_replay_asks_about_the_zone_as_it_is_drawn(tmp_path, monkeypatch):
    asked = []

    class Noting(ScriptedMLLM):
        async def ask(self, context, queries, limit=None, aside=()):
            asked.append(queries[0])
            return await super().ask(context, queries, limit, aside)

    wanted = site(tmp_path, recording(tmp_path))
    (slug,), (watch,) = wanted.streams, wanted.watches
    corner = {"bar": ((0.0, 0.0), (0.5, 0.0), (0.5, 0.5))}
    wanted = replace(
        wanted,
        streams={slug: replace(wanted.streams[slug], zones=corner)},
        watches={watch: replace(wanted.watches[watch], zone="bar")},
    )
    async with watched(monkeypatch, wanted, Noting(by_pixels)) as service:
        with stored(service) as (store, shelf):
            event = store.history.events(EventFilter(types=frozenset({"watch.opened"})))[0].event
            live = asked[0]
            await replay(shelf, shelf.of(event.id), Noting(by_pixels), lambda: ModelNote("null", "qwen3_vl", False))
    assert (asked[-1].asked, asked[-1].seen_zone) == (live.asked, live.seen_zone)

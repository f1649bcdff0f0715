"""What events rest on is kept as the model saw it, named when it was changed, and costs no decision."""

import hashlib
import io
import os
import stat
from contextlib import contextmanager

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.clock import SystemClock
from pipeline.delivery.history import EventFilter, Keep
from pipeline.delivery.store import Store
from pipeline.errors import ConfigError, StoreUnavailable
from pipeline.evidence.bundle import EvidenceDamaged, EvidenceMissing, ModelNote
from pipeline.evidence.explain import explain_event
from pipeline.evidence.page import page
from pipeline.evidence.replay import replay
from pipeline.evidence.shelf import Shelf
from pipeline.testing import ScriptedMLLM
from tests.evidence import by_pixels, recording, site, watched

NULL = ModelNote("null", "qwen3_vl", False)


@contextmanager
def stored(service):
    store = Store(service.site.store, SystemClock())
    try:
        yield store, Shelf(store.database, service.evidence_files)
    finally:
        store.close()


def opened(store):
    return store.history.events(EventFilter(types=frozenset({"watch.opened"})))[0].event


def files(service):
    root = service.evidence_files.root
    return sorted(path for path in root.glob("????-??-??/*/*"))


async def test_an_opened_watch_leaves_all_that_its_answer_rested_on(tmp_path, monkeypatch):
    mllm = ScriptedMLLM(by_pixels)
    wanted = site(tmp_path, recording(tmp_path))
    async with watched(monkeypatch, wanted, mllm) as service:
        with stored(service) as (store, shelf):
            event = opened(store)
            kept = shelf.of(event.id)
            bundle = kept.bundle
            context, _ = next(
                (c, ids) for c, ids in mllm.asked if c.segments[-1].pts_s[-1] >= event.data["hop_start_s"]
            )
            assert [note.pts_s for note in bundle.segments] == [one.pts_s for one in context.segments]
            for number, segment in enumerate(context.segments):
                with Image.open(io.BytesIO(shelf.segment(kept, number))) as image:
                    pixels = np.asarray(image).reshape(segment.pixels.shape)
                assert np.array_equal(pixels, segment.pixels)
            with Image.open(io.BytesIO(shelf.snapshot(kept))) as image:
                assert (image.format, image.size) == ("JPEG", (320, 180))
            assert bundle.prompt.count("<|vision_start|>") == len(context.segments)
            assert "Question: is a bar in view?" in bundle.prompt
            assert bundle.rule["confirm"] == [2, 3]
            assert len(bundle.scores) == 2
            assert bundle.score.score == pytest.approx(event.data["score"])
            assert bundle.tokens.context == event.data["context_tokens"]


async def test_the_clip_is_the_packets_as_they_came_around_the_decision(tmp_path, monkeypatch):
    async with watched(monkeypatch, site(tmp_path, recording(tmp_path, b_frames=2))) as service:
        with stored(service) as (store, shelf):
            event = opened(store)
            kept = shelf.of(event.id)
            clip = kept.bundle.clip
            assert clip is not None, kept.bundle.clip_note
            assert clip.start_s <= max(event.data["hop_start_s"] - 2, 0)
            assert clip.end_s == pytest.approx(event.data["hop_end_s"] + 2, abs=0.2)
            with av.open(io.BytesIO(shelf.clip(kept))) as container:
                frames = list(container.decode(video=0))
                assert container.streams.video[0].codec_context.name == "h264"
            assert frames[0].key_frame
            assert len(frames) == pytest.approx((clip.end_s - clip.start_s) * 25 + 1, abs=1)


async def test_a_cleared_watch_leaves_its_hop_and_no_clip(tmp_path, monkeypatch):
    async with watched(monkeypatch, site(tmp_path, recording(tmp_path))) as service:
        with stored(service) as (store, shelf):
            (found,) = store.history.events(EventFilter(types=frozenset({"watch.cleared"})))
            kept = shelf.of(found.event.id)
            assert not kept.bundle.whole
            assert all(note.pts_s[-1] >= found.event.data["hop_start_s"] for note in kept.bundle.segments)
            assert shelf.snapshot(kept)
            with pytest.raises(EvidenceMissing, match="only an opened watch has a clip"):
                shelf.clip(kept)
            with pytest.raises(EvidenceMissing, match=r"only watch\.opened can be replayed"):
                await replay(shelf, kept, ScriptedMLLM(by_pixels), lambda: NULL)


async def test_a_replay_sees_the_same_pixels_and_says_the_same(tmp_path, monkeypatch):
    async with watched(monkeypatch, site(tmp_path, recording(tmp_path))) as service:
        with stored(service) as (store, shelf):
            kept = shelf.of(opened(store).id)
            again = await replay(shelf, kept, ScriptedMLLM(by_pixels), lambda: NULL)
            assert (again.same, again.identical, again.same_model) == (True, True, True)
            assert again.tokens == kept.bundle.tokens.context
            other = await replay(shelf, kept, ScriptedMLLM(lambda *_: 0.1), lambda: ModelNote("b", "f", True, "ff"))
            assert (other.same, other.same_model) == (False, False)
            assert other.notes


async def test_files_are_private_named_by_their_content_and_shared(tmp_path, monkeypatch):
    both = {name: {"question": f"is a {name} in view?"} for name in ("bar", "bus")}
    async with watched(monkeypatch, site(tmp_path, recording(tmp_path), watches=both)) as service:
        found = files(service)
        assert found
        for path in found:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem
        assert stat.S_IMODE(service.evidence_files.root.stat().st_mode) == 0o700
        with stored(service) as (store, shelf):
            named = [one for event in store.history.events() if (one := shelf.find(event.event.id))]
            assert sum(len(one.manifest.files) for one in named) > len(found) == len(shelf.manifests.paths())


async def test_what_was_changed_or_is_gone_is_named(tmp_path, monkeypatch):
    async with watched(monkeypatch, site(tmp_path, recording(tmp_path))) as service:
        with stored(service) as (store, shelf):
            event = opened(store)
            kept = shelf.of(event.id)
            root = service.evidence_files.root
            (root / kept.manifest.files["snapshot"].path).write_bytes(b"another picture")
            (root / kept.manifest.files["segment-0"].path).unlink()
            with pytest.raises(EvidenceDamaged, match=r"the snapshot .* was changed: .*\.jpg has the SHA-256"):
                shelf.snapshot(kept)
            with pytest.raises(EvidenceDamaged, match="the segment-0 of this evidence is gone"):
                shelf.segment(kept, 0)
            with pytest.raises(EvidenceDamaged, match="segment-0"):
                await replay(shelf, kept, ScriptedMLLM(by_pixels), lambda: NULL)
            with pytest.raises(EvidenceMissing, match="there is no segment 99"):
                shelf.segment(kept, 99)
            text = page(explain_event(event, kept.bundle), shelf, kept)
            assert "the snapshot of this evidence was changed" in text
            assert "the segment-0 of this evidence is gone" in text


async def test_a_manifest_that_names_another_file_of_the_machine_is_refused(tmp_path, monkeypatch):
    from dataclasses import replace

    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    async with watched(monkeypatch, site(tmp_path, recording(tmp_path))) as service:
        with stored(service) as (store, shelf):
            kept = shelf.of(opened(store).id)
            for path in ("../secret", str(secret), "2026-01-01/aa/../../../secret", "resadapt-store"):
                file = replace(kept.manifest.files["snapshot"], path=path)
                with pytest.raises(EvidenceDamaged, match="which is no file of the evidence"):
                    service.evidence_files.read(file, "snapshot")


async def test_evidence_goes_with_its_event_and_a_hold_keeps_both(tmp_path, monkeypatch):
    async with watched(monkeypatch, site(tmp_path, recording(tmp_path))) as service:
        with stored(service) as (store, shelf):
            event = opened(store)
            shelf.manifests.hold(event.id, "ann")
            store.prune(Keep(events_bytes=0))
            assert [one.event.id for one in store.history.events()] == [event.id]
            gone = shelf.manifests.remove_orphans()
            service.evidence_files.remove(gone)
            kept = shelf.of(event.id)
            assert len(files(service)) == len(kept.manifest.files)
            assert shelf.snapshot(kept)
            shelf.manifests.hold(event.id, None)
            store.prune(Keep(events_bytes=0))
            service.evidence_files.remove(shelf.manifests.remove_orphans())
            assert files(service) == []
            assert list(service.evidence_files.root.glob("????-*")) == []
            with pytest.raises(EvidenceMissing, match="no evidence is kept"):
                shelf.of(event.id)


@pytest.mark.parametrize("limit", [{"per_watch": 1}, {"max_age_days": 1e-9}])
async def test_evidence_is_bounded_by_watch_and_age(tmp_path, monkeypatch, limit):
    async with watched(monkeypatch, site(tmp_path, recording(tmp_path), evidence=limit)) as service:
        from pipeline.evidence.writer import Writer

        with stored(service) as (store, shelf):
            writer = Writer(
                service.evidence_files,
                shelf.manifests,
                service.site.evidence,
                SystemClock(),
                lambda: pytest.fail("no"),
            )
            writer.prune()
            events = [one.event for one in store.history.events() if one.event.watch_id]
            kept = [event.type for event in events if shelf.find(event.id)]
            assert len(events) == 2
            assert kept == (["watch.cleared"] if "per_watch" in limit else [])
            assert len(files(service)) == len(shelf.manifests.paths())


async def test_a_disk_without_room_costs_evidence_and_no_decision(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.evidence.folder.Folder.free_bytes", lambda self: 0)
    wanted = site(tmp_path, recording(tmp_path), evidence={"min_free_mib": 1})
    async with watched(monkeypatch, wanted) as service:
        with stored(service) as (store, shelf):
            events = [one.event.type for one in store.history.events() if one.event.watch_id]
            assert events == ["watch.cleared", "watch.opened"]
            assert files(service) == []
            assert shelf.find(opened(store).id) is None
        assert service.metrics.value("evidence_lost", reason="room") == 2
        assert service.metrics.value("evidence_written") == 0


async def test_a_write_that_fails_leaves_nothing_half_written(tmp_path, monkeypatch):
    real, count = os.open, 0

    def full(path, flags, mode=0o777, **more):
        nonlocal count
        if str(path).endswith(".part"):
            count += 1
            if count > 3:
                raise OSError(28, "No space left on device")
        return real(path, flags, mode, **more)

    monkeypatch.setattr("pipeline.evidence.folder.os.open", full)
    async with watched(monkeypatch, site(tmp_path, recording(tmp_path))) as service:
        monkeypatch.setattr("pipeline.evidence.folder.os.open", real)
        with stored(service) as (store, _):
            assert len([one for one in store.history.events() if one.event.watch_id]) == 2
        assert files(service) == []
        assert [one.name for one in service.evidence_files.root.rglob("*.part")] == []
        assert service.metrics.value("evidence_lost", reason="disk") == 2


async def test_a_store_that_refuses_the_manifest_leaves_no_file(tmp_path, monkeypatch):
    def refuse(*_):
        raise StoreUnavailable("the disk of the store is full")

    monkeypatch.setattr("pipeline.delivery.manifests.Manifests.write", refuse)
    async with watched(monkeypatch, site(tmp_path, recording(tmp_path))) as service:
        with stored(service) as (store, _):
            assert len([one for one in store.history.events() if one.event.watch_id]) == 2
        assert files(service) == []
        assert service.metrics.value("evidence_lost", reason="store") == 2


async def test_a_files_of_another_store_is_refused(tmp_path, monkeypatch):
    url = recording(tmp_path)
    shared = {"dir": str(tmp_path / "shared")}
    async with watched(monkeypatch, site(tmp_path, url, evidence=shared)):
        pass
    other = site(tmp_path, url, evidence=shared, store=f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(ConfigError, match="holds the evidence of another store"):
        async with watched(monkeypatch, other):
            pass


async def test_what_a_killed_process_left_is_swept_and_said(tmp_path, monkeypatch):
    from dataclasses import replace

    from pipeline.evidence.bundle import CLIP_PENDING

    wanted = site(tmp_path, recording(tmp_path))
    async with watched(monkeypatch, wanted) as service:
        root = service.evidence_files.root
        with stored(service) as (store, shelf):
            kept = shelf.of(opened(store).id)
            pending = replace(kept.bundle, clip=None, clip_note=CLIP_PENDING)
            shelf.manifests.write(replace(kept.manifest, data=pending.to_json()))
        stray = root / "2026-01-01" / "ab" / f"{'ab' * 32}.png"
        half = root / "2026-01-01" / "ab" / f".{'cd' * 32}.part"
        other = root / "2026-01-01" / "ab" / "notes.txt"
        stray.parent.mkdir(parents=True)
        for path in (stray, half, other):
            path.write_bytes(b"left")
    async with watched(monkeypatch, wanted) as service:
        assert (stray.exists(), half.exists(), other.exists()) == (False, False, True)
        with stored(service) as (store, shelf):
            assert shelf.of(kept.bundle.event_id).bundle.clip_note == "the process ended before its clip was cut"


async def test_without_evidence_nothing_is_written_and_the_explanation_says_so(tmp_path, monkeypatch):
    async with watched(monkeypatch, site(tmp_path, recording(tmp_path), evidence={"enabled": False})) as service:
        assert not service.evidence_files.root.exists()
        with stored(service) as (store, _):
            words = explain_event(opened(store), None, missing="No evidence of it is kept.")
            assert "No evidence of it is kept." in words.sentences


async def test_a_stream_with_masks_has_no_clip(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.service.service.clip_refusal", lambda stream: "the stream has masks")
    async with watched(monkeypatch, site(tmp_path, recording(tmp_path))) as service:
        with stored(service) as (store, shelf):
            bundle = shelf.of(opened(store).id).bundle
            assert (bundle.clip, bundle.clip_note) == (None, "the stream has masks")
        assert not list(service.evidence_files.root.rglob("*.mp4"))


async def test_a_source_without_packets_says_that_there_is_no_clip(tmp_path, monkeypatch):
    url = "synthetic:?seconds=10&width=160&height=96&fps=4"
    async with watched(monkeypatch, site(tmp_path, url)) as service:
        with stored(service) as (store, shelf):
            assert shelf.of(opened(store).id).bundle.clip_note == "its source gives no packets"


async def test_the_page_stands_alone_and_is_small(tmp_path, monkeypatch):
    async with watched(monkeypatch, site(tmp_path, recording(tmp_path, size=(1080, 1920)))) as service:
        with stored(service) as (store, shelf):
            kept = shelf.of(opened(store).id)
            text = page(explain_event(opened(store), kept.bundle, "true"), shelf, kept, "clip.mp4")
    assert len(text.encode()) < 1_000_000
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert "http://" not in text
    assert "https://" not in text
    assert "<script" not in text
    assert text.count("data:image/jpeg;base64,") == len(kept.bundle.segments) + 1
    assert 'href="clip.mp4"' in text


async def test_what_people_wrote_stays_text_in_the_page(tmp_path, monkeypatch):
    hostile = '<script>alert(1)</script> "is & it" there?'
    watch = {"bar": {"question": hostile, "streams": ["gate"]}}
    async with watched(monkeypatch, site(tmp_path, recording(tmp_path), watches=watch)) as service:
        with stored(service) as (store, shelf):
            kept = shelf.of(opened(store).id)
            text = page(explain_event(opened(store), kept.bundle, '<img src=x onerror="x">'), shelf, kept)
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;alert(1)" in text


async def test_decisions_do_not_wait_for_evidence(tmp_path, monkeypatch):
    """Writing that never ends loses evidence beyond the queue, and no hop."""
    from threading import Event as Gate

    gate = Gate()
    monkeypatch.setattr("pipeline.evidence.writer.Writer.write", lambda *_: gate.wait(20))
    monkeypatch.setattr("pipeline.evidence.keeper.CLOSE_S", 0.01)
    flapping = ScriptedMLLM(lambda context, query: 0.9 if int(context.segments[-1].pts_s[-1]) % 2 else 0.1)
    watch = {"bar": {"question": "is a bar in view?"}}
    wanted = site(tmp_path, recording(tmp_path), watches=watch, evidence={"queue": 2})
    try:
        async with watched(monkeypatch, wanted, flapping) as service:
            gate.set()
            with stored(service) as (store, _):
                assert len(store.history.answers()) == 12
                events = len([one for one in store.history.events() if one.event.watch_id])
            lost = service.metrics.value("evidence_lost", reason="queue")
            assert events == 11
            assert lost >= events - 2 - 1
    finally:
        gate.set()


async def test_run_keeps_evidence_only_where_it_is_asked(tmp_path):
    from pipeline.service.evidence import wants_evidence

    assert wants_evidence(site(tmp_path, "x.mp4"), insist=True)
    assert not wants_evidence(site(tmp_path, "x.mp4"), insist=False)
    assert wants_evidence(site(tmp_path, "x.mp4", evidence={"dir": "there"}), insist=False)

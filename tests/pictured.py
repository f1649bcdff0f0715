"""Events with a picture as evidence, in any store, and an MLLM that sees how red a picture is."""

from datetime import UTC, datetime, timedelta

import numpy as np

from allocator_engine.grid import GRIDS
from pipeline.core.outcome import Decision
from pipeline.delivery.manifests import Manifests, StoredManifest
from pipeline.evidence.bundle import SNAPSHOT, Bundle, ModelNote, Score, Sizing, SnapshotNote, Tokens
from pipeline.evidence.folder import Folder
from pipeline.evidence.pictures import full_size
from pipeline.mllm.base import MLLMInfo
from pipeline.sources.synthetic import ArrayPicture
from pipeline.testing import ScriptedMLLM
from pipeline.types import Event

TIME = datetime(2026, 1, 1, tzinfo=UTC)


def happened(n, question="is a van at the dock?", stream="gate", watch="van", kind="watch.opened", **data):
    """The `n`-th event, `n` minutes after TIME."""
    about = {"question": question, **data} if watch else data
    return Event(f"event-{n}", kind, stream, TIME + timedelta(minutes=n), about, watch)


def committed(store, *events):
    for event in events:
        store.commit([Decision(event.stream_id, "{}", (event,), 1.0)])


def red(share, height=96, width=160):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = round(255 * share)
    return pixels


def pictured(store, folder: Folder, event, pixels):
    """Keep a snapshot as evidence of an event; returns the file."""
    manifests = Manifests(store.database)
    folder.open(manifests.identity())
    file, _ = folder.put(full_size(ArrayPicture(pixels)), "jpg", event.time)
    bundle = Bundle(
        event.id, event.type, event.stream_id, event.watch_id or "", event.time.isoformat(), "a question?", "a prompt",
        Score(0.0, 1.0, 1.0, 1.0), {}, ModelNote("m", "qwen3_vl", True), Sizing("fixed"),
        Tokens(1, 1, 1, 1, 1, 0, 1, False), 0.0, 0, False, (),
        snapshot=SnapshotNote(1.0, event.time.isoformat(), "file", *pixels.shape[:2]),
    )  # fmt: skip
    manifests.write(
        StoredManifest(
            event.id, event.stream_id, event.watch_id or "", event.type, event.time, bundle.to_json(), {SNAPSHOT: file}
        )
    )
    return folder.path(file)


def redness(context, _query):
    """P(yes): how red the only segment is."""
    (segment,) = context.segments
    return float(segment.pixels[..., 0].mean()) / 255


def seeing(opinion=redness):
    mllm = ScriptedMLLM(opinion)
    mllm.info = MLLMInfo("seeing", "qwen3_vl", GRIDS["qwen3_vl"])
    return mllm

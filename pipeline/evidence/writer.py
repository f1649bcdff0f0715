"""Writes bundles: files first, then the manifest that names them, then what has to go for them."""

import importlib.metadata
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from pipeline.clock import Clock
from pipeline.config.evidence import EvidenceConfig
from pipeline.delivery.manifests import Manifests, StoredFile, StoredManifest
from pipeline.errors import ResadaptError
from pipeline.evidence.bundle import (
    CLIP,
    CLIP_PENDING,
    SNAPSHOT,
    Bundle,
    ClipNote,
    ModelNote,
    SegmentNote,
    Sizing,
    SnapshotNote,
    Tokens,
    rule_of,
)
from pipeline.evidence.capture import Capture
from pipeline.evidence.files import EvidenceFiles, Kind
from pipeline.evidence.pictures import full_size, segment_png
from pipeline.mllm.prompt import FAMILIES, looks, markup, prefix, suffix
from pipeline.redact import scrub
from pipeline.sources.packets import PacketClip, PacketCut
from pipeline.types import Segment

log = structlog.get_logger()

CUT_SHORT = "the process ended before its clip was cut"
REMEMBERED = 1024
"""Segments of which it is known where their picture lies: one context is in the evidence of many events."""
SHARED_SWEEP_S = 600.0
"""How old a file of a folder that several processes share has to be before it is removed for being named nowhere: one
of them may be about to name it."""
_MIB = 2**20


class NoRoom(ResadaptError):
    """Evidence does not fit its bounds; nothing of it is written."""


@dataclass(frozen=True, slots=True)
class About:
    """The model that answers, and the allocator that sizes the frames."""

    model: ModelNote
    sizing: Sizing


class Writer:
    """Writes and prunes, one call at a time. Raises NoRoom, OSError and StoreUnavailable; then nothing new is named,
    and no half file stays. `bytes` is what all files had when it last looked."""

    def __init__(
        self,
        files: EvidenceFiles,
        manifests: Manifests,
        config: EvidenceConfig,
        clock: Clock,
        about: Callable[[], About],
        shared: bool = False,
    ) -> None:
        self.bytes = 0
        self._files = files
        self._manifests = manifests
        self._config = config
        self._clock = clock
        self._about = about
        self._shared = shared
        self._known: About | None = None
        self._lying: OrderedDict[str, StoredFile] = OrderedDict()

    def recover(self) -> None:
        """Cleans up after an earlier process: notes that its pending clips will not come, and removes files that no
        manifest names."""
        self._files.open(self._manifests.identity())
        for one in () if self._shared else self._manifests.unfinished(CLIP_PENDING):
            bundle = replace(Bundle.from_json(one.data), clip_note=CUT_SHORT)
            self._manifests.write(replace(one, data=bundle.to_json()))
        written_before = self._clock.now() - timedelta(seconds=SHARED_SWEEP_S) if self._shared else None
        if stray := self._files.sweep(self._manifests.paths(), written_before):
            log.info("evidence_swept", files=stray)
        self.bytes = self._manifests.total_bytes()

    def write(self, taken: Capture, clip_note: str) -> None:
        """Write what was captured."""
        self._known = about = self._known or self._about()
        day = taken.event.time
        self._remove(self._manifests.remove_beyond(taken.event.stream_id, taken.query.id, self._config.per_watch - 1))
        new: dict[str, tuple[bytes, Kind]] = {SNAPSHOT: (full_size(taken.frame.picture), "jpg")}
        files: dict[str, StoredFile] = {}
        parts = len(_named_segments(taken)) + 1
        while len(files) + len(new) < parts or not all(map(self._files.has, files.values())):
            self._sort(taken, new, files)
            # What has to go for it may take along what it shares with others: then there is more to write.
            self._make_room(sum(len(data) for data, _ in new.values()))
        bundle = _bundle(taken, about, clip_note)
        written, fresh = self._put(new, day)
        files |= written
        self._save(_manifest(bundle, day, files), fresh)
        for name, segment in _named_segments(taken):
            self._lying[segment.content_id] = files[name]
        while len(self._lying) > REMEMBERED:
            self._lying.popitem(last=False)

    def _sort(self, taken: Capture, new: dict[str, tuple[bytes, Kind]], files: dict[str, StoredFile]) -> None:
        """Put each segment's picture among the `files` that lie there already, or among what is `new`."""
        for name, segment in _named_segments(taken):
            if name in new:
                continue
            lies = self._lying.get(segment.content_id)
            if lies is not None and lies.path.startswith(f"{taken.event.time:%Y-%m-%d}") and self._files.has(lies):
                files[name] = lies
            else:
                files.pop(name, None)
                new[name] = segment_png(segment.pixels), "png"

    def add_clip(self, event_id: str, cut: PacketCut) -> None:
        """Write the clip of a bundle, or why there is none."""
        present = self._manifests.find(event_id)
        if present is None:
            return
        bundle, files, fresh = Bundle.from_json(present.data), dict(present.files), list[str]()
        clip = cut.clip()
        try:
            if isinstance(clip, PacketClip):
                self._make_room(len(clip.mp4))
                written, fresh = self._put({CLIP: (clip.mp4, "mp4")}, present.time)
                files |= written
                note = ClipNote(round(clip.start_s, 3), round(clip.end_s, 3), clip.note)
                bundle = replace(bundle, clip=note, clip_note=clip.note)
            else:
                bundle = replace(bundle, clip_note=clip)
        except (NoRoom, OSError) as error:
            bundle = replace(bundle, clip_note=f"there was no room for the clip: {error}")
            self._save(replace(present, data=bundle.to_json()))
            raise
        if self._manifests.find(event_id) is not None:  # it may have had to go for its own clip
            self._save(replace(present, data=bundle.to_json(), files=files), fresh)
        else:
            self._files.remove(fresh)

    def prune(self) -> None:
        """Remove what is too old, what belongs to events that are gone, and what is too much."""
        oldest = self._clock.now() - timedelta(days=self._config.max_age_days)
        self._remove(self._manifests.remove_older(oldest))
        self._remove(self._manifests.remove_orphans())
        self.bytes = self._manifests.total_bytes()
        while self.bytes > self._config.max_mib * _MIB and self._drop_oldest():
            pass

    def _make_room(self, more: int) -> None:
        """Remove the oldest until `more` bytes fit. Raises NoRoom where they cannot."""
        most, floor = self._config.max_mib * _MIB, self._config.min_free_mib * _MIB
        self.bytes = self._manifests.total_bytes()
        before = self.bytes
        if more > most:
            raise NoRoom(
                f"one event's evidence of {more // 1024} KiB is more than max_mib allows: {self._config.max_mib} MiB"
            )
        while self.bytes + more > most:
            if not self._drop_oldest():
                raise NoRoom(f"evidence has reached max_mib, {self._config.max_mib} MiB, and all of it is held")
        while self._files.free_bytes() - more < floor and before - self.bytes < more:
            if not self._drop_oldest():
                raise NoRoom(
                    f"the disk of {self._files.place} has {self._files.free_bytes() // _MIB} MiB free; expected"
                    f" {self._config.min_free_mib} MiB (min_free_mib) beside the evidence"
                )

    def _drop_oldest(self) -> bool:
        gone = self._manifests.remove_oldest(1)
        if gone is None:
            return False
        self._remove(gone)
        self.bytes = self._manifests.total_bytes()
        return True

    def _put(self, new: dict[str, tuple[bytes, Kind]], day: datetime) -> tuple[dict[str, StoredFile], list[str]]:
        """Write files, all or none. Returns them, and the paths of those that were not there before."""
        fresh: list[str] = []
        files: dict[str, StoredFile] = {}
        try:
            for name, (data, kind) in new.items():
                files[name], is_new = self._files.put(data, kind, day)
                if is_new:
                    fresh.append(files[name].path)
        except OSError:
            self._files.remove(fresh)
            raise
        return files, fresh

    def _save(self, manifest: StoredManifest, fresh: Sequence[str] = ()) -> None:
        """Name files; where the store cannot, those that are `fresh` go again."""
        try:
            gone = self._manifests.write(manifest)
        except ResadaptError:
            self._files.remove(fresh)
            raise
        self._remove(gone)
        self.bytes = self._manifests.total_bytes()

    def _remove(self, paths: Sequence[str]) -> None:
        self._files.remove(paths)


def _named_segments(taken: Capture) -> list[tuple[str, Segment]]:
    seen = [(f"segment-{n}", one) for n, one in enumerate(taken.segments)]
    return seen + [(f"aside-{n}", one) for n, one in enumerate(taken.aside)]


def _notes(kind: str, segments: Sequence[Segment]) -> tuple[SegmentNote, ...]:
    return tuple(
        SegmentNote(f"{kind}-{n}", one.pts_s, *one.size, one.tokens, one.content_id) for n, one in enumerate(segments)
    )


def prompt_of(taken: Capture, family: str) -> str:
    """The text of the prompt, each picture as its markup. Families whose markup is not known have the question."""
    if family not in FAMILIES:
        return taken.query.asked
    parts = (
        *prefix(taken.seen.context, family),
        *looks(taken.aside, taken.seen.context.anchor_s),
        suffix(taken.query.asked, family),
    )
    return markup(parts, expanded=False)


def _bundle(taken: Capture, about: About, clip_note: str) -> Bundle:
    event, query, frame, outcome = taken.event, taken.query, taken.frame, taken.outcome
    usage = outcome.reply.answers.usage
    allocator = str(event.data.get("allocator", about.sizing.allocator))
    engine = about.sizing.engine_sha256 if allocator == about.sizing.allocator else None
    tokens = Tokens(
        outcome.grant, outcome.allocation.tokens, outcome.reply.spent, usage.encoded_tokens, usage.prefilled_tokens,
        usage.cached_tokens, taken.seen.context.tokens, outcome.fell_back,
    )  # fmt: skip
    return Bundle(
        event_id=event.id,
        type=event.type,
        stream=event.stream_id,
        watch=query.id,
        time=event.time.isoformat(),
        question=scrub(query.question),
        prompt=scrub(prompt_of(taken, about.model.family)),
        score=taken.score,
        rule=rule_of(event, query.open_at, query.clear_at, query.confirm, query.cooldown_s),
        model=about.model,
        sizing=Sizing(allocator, engine),
        tokens=tokens,
        anchor_s=taken.seen.context.anchor_s,
        epoch=taken.seen.context.epoch,
        whole=taken.whole,
        segments=_notes("segment", taken.segments),
        aside=_notes("aside", taken.aside),
        frames=tuple((round(pts_s, 3), round(scale, 4)) for pts_s, scale in outcome.scales),
        scores=taken.scores,
        snapshot=SnapshotNote(frame.pts_s, frame.captured_at.isoformat(), frame.clock, *frame.size),
        clip_note=clip_note,
        count=query.rules.count,
        choice=query.rules.choice,
        value=taken.value,
        zone=query.zone,
        crop=query.crop,
        version=importlib.metadata.version("resadapt-stream"),
    )


def _manifest(bundle: Bundle, time: datetime, files: dict[str, StoredFile]) -> StoredManifest:
    return StoredManifest(bundle.event_id, bundle.stream, bundle.watch, bundle.type, time, bundle.to_json(), files)

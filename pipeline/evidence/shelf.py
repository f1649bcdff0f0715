"""Evidence as it is read: by event, every byte checked against its manifest."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.delivery.database import Database
from pipeline.delivery.manifests import Manifests, StoredManifest
from pipeline.evidence.bundle import CLIP, SNAPSHOT, Bundle, EvidenceMissing
from pipeline.evidence.files import EvidenceFiles
from pipeline.evidence.folder import Folder


@dataclass(frozen=True, slots=True)
class KeptEvidence:
    """A bundle with the manifest that it stands in."""

    bundle: Bundle
    manifest: StoredManifest


class Shelf:
    """The evidence of a store. Methods block; they raise EvidenceMissing, EvidenceDamaged and StoreUnavailable."""

    def __init__(self, database: Database, files: EvidenceFiles) -> None:
        self.manifests = Manifests(database)
        self._files = files

    def find(self, event_id: str) -> KeptEvidence | None:
        """The kept evidence of an event, or None."""
        manifest = self.manifests.find(event_id)
        return None if manifest is None else KeptEvidence(Bundle.from_json(manifest.data), manifest)

    def of(self, event_id: str) -> KeptEvidence:
        """The kept evidence of an event; raises EvidenceMissing if there is none."""
        if found := self.find(event_id):
            return found
        raise EvidenceMissing(
            f"no evidence is kept of the event {event_id[:80]!r}: it is of no watch's answer, was written without"
            " evidence, or its evidence has gone by age or room (evidence in the site file)"
        )

    def around(self, stream: str, at: datetime, within_s: float) -> list[KeptEvidence]:
        """The kept evidence of a stream's events decided within so many seconds of a time (UTC)."""
        found = self.manifests.around(stream, at, within_s)
        return [KeptEvidence(Bundle.from_json(one.data), one) for one in found]

    def snapshot(self, kept: KeptEvidence) -> bytes:
        """The snapshot as JPEG."""
        return self.file(kept, SNAPSHOT)

    def clip(self, kept: KeptEvidence) -> bytes:
        """The clip as MP4."""
        return self.file(kept, CLIP)

    def clip_path(self, kept: KeptEvidence) -> Path | None:
        """The path of the clip, after checking it; None where it is no file of this machine."""
        self.clip(kept)
        return self._files.path(kept.manifest.files[CLIP]) if isinstance(self._files, Folder) else None

    def segment(self, kept: KeptEvidence, number: int) -> bytes:
        """A segment as the model saw it, as PNG; those beside the context come behind it."""
        notes = (*kept.bundle.segments, *kept.bundle.aside)
        if not 0 <= number < len(notes):
            raise EvidenceMissing(f"there is no segment {number}; the evidence has {len(notes)}, from 0")
        return self.file(kept, notes[number].file)

    def file(self, kept: KeptEvidence, name: str) -> bytes:
        """A file of the evidence by its name."""
        file = kept.manifest.files.get(name)
        if file is None:
            why = f": {kept.bundle.clip_note}" if name == CLIP and kept.bundle.clip_note else ""
            raise EvidenceMissing(f"this evidence has no {name}{why}")
        return self._files.read(file, name)

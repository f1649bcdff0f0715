"""The kept evidence of one event: the manifest, as values and as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue, TypeAdapter, ValidationError

from pipeline.errors import ResadaptError
from pipeline.rules import Count
from pipeline.types import Answer, Crop, Event, Zone

FORMAT = "resadapt evidence"
SNAPSHOT, CLIP = "snapshot", "clip"
"""Names of files in a bundle; pictures of segments are `segment-N` and `aside-N`."""
CLIP_PENDING = "the clip is still being recorded"
"""Why there is no clip yet. A process that ends before it is cut says so at its next start."""


class EvidenceMissing(ResadaptError):
    """The evidence of an event was never kept, or is no longer kept."""


class EvidenceDamaged(ResadaptError):
    """A file of the evidence is gone, or is not what was written."""


@dataclass(frozen=True, slots=True)
class Score:
    """One answer of a watch: seconds of its hop, score and mass as in Answer, and whether it was relooked."""

    start_s: float
    end_s: float
    score: float
    mass: float
    relooked: bool = False

    @property
    def unknown(self) -> bool:
        """True if the score is neither yes nor no."""
        return Answer("", self.score, self.mass).verdict == "unknown"


@dataclass(frozen=True, slots=True)
class SegmentNote:
    """A segment as the model saw it: `frames` of `height` x `width` px, one above the other in the picture `file`."""

    file: str
    pts_s: tuple[float, ...]
    height: int
    width: int
    tokens: int
    content_id: str


@dataclass(frozen=True, slots=True)
class SnapshotNote:
    """The newest frame of the decision at its native size: stream seconds, UTC and where that comes from."""

    pts_s: float
    captured_at: str
    clock: str
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class ClipNote:
    """Stream seconds of the clip's first and last picture, and what is less than was asked."""

    start_s: float
    end_s: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class ModelNote:
    """The model that answered: its name as configured, its family, a SHA-256 that identifies its weights if they are in
    a local folder, and the files that it was taken of; `meaningful` is false for a model that answers without
    looking."""

    name: str
    family: str
    meaningful: bool
    sha256: str | None = None
    hashed: str = ""


@dataclass(frozen=True, slots=True)
class Sizing:
    """The allocator that sized the frames, and the SHA-256 of its engine's manifest, for `learned` only."""

    allocator: str
    engine_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """Vision tokens of the hop: granted, allocated to its frames, spent in all; of its prompt: encoded, prefilled,
    cached; and resident in the context. `step` of the overload ladder; `fell_back` as in Outcome."""

    granted: int
    allocated: int
    spent: int
    encoded: int
    prefilled: int
    cached: int
    context: int
    fell_back: bool


@dataclass(frozen=True, slots=True)
class Bundle:
    """The evidence of one event of a watch.

    `prompt` is the text that was sent, in which `<|vision_start|>...<|vision_end|>` stands for a picture. `whole`: all
    that the model saw is in `segments` and `aside`, so that it can be asked again; else the hop's own alone. `rule` is
    what decided, `scores` are the watch's answers before, at and behind the decision. `clip_note` says why there is no
    clip, or less of it. Of a watch about a number or one of some values, `count` or `choice` is what was asked, and
    `value` the answer. It is about a `zone`, if that is not None, and was asked about `crop` of the picture, all of it
    if that is None.
    """

    event_id: str
    type: str
    stream: str
    watch: str
    time: str
    question: str
    prompt: str
    score: Score
    rule: dict[str, JsonValue]
    model: ModelNote
    sizing: Sizing
    tokens: Tokens
    anchor_s: float
    epoch: int
    whole: bool
    segments: tuple[SegmentNote, ...]
    aside: tuple[SegmentNote, ...] = ()
    frames: tuple[tuple[float, float], ...] = ()
    scores: tuple[Score, ...] = ()
    snapshot: SnapshotNote | None = None
    clip: ClipNote | None = None
    clip_note: str = ""
    notes: tuple[str, ...] = ()
    count: Count | None = None
    choice: tuple[str, ...] = ()
    value: str | None = None
    zone: Zone | None = None
    crop: Crop | None = None
    version: str = ""
    format: str = FORMAT

    def to_json(self) -> str:
        """As text for the store."""
        return _BUNDLE.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> "Bundle":
        """Back from the store. Raises EvidenceDamaged for text that is none."""
        try:
            return _BUNDLE.validate_json(text)
        except ValidationError as error:
            raise EvidenceDamaged(
                f"the manifest of this evidence cannot be read: {error.error_count()} faults"
            ) from error


_BUNDLE = TypeAdapter(Bundle)
_RULING = TypeAdapter(JsonValue)


def rule_of(
    event: Event, open_at: float, clear_at: float, confirm: tuple[int, int], cooldown_s: float
) -> dict[str, JsonValue]:
    """The rule that decided: a watch's thresholds, and what its event says of the ruling."""
    since = event.data.get("onset_s", event.data.get("cleared_s"))
    since_s = float(since) if isinstance(since, int | float) else None
    ruling = event.data.get("rule")
    decided = {str(name): value for name, value in ruling.items()} if isinstance(ruling, Mapping) else {}
    return {
        "kind": "choice" if decided.get("name") == "choice" else "yes_no",
        "decided": _RULING.validate_python(decided) if decided else None,
        "open_at": open_at,
        "clear_at": clear_at,
        "confirm": list(confirm),
        "cooldown_s": cooldown_s,
        "since_s": since_s,
    }

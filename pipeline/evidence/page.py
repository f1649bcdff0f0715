"""An explanation as one HTML page that stands alone: no network, no script, small enough to mail."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from pipeline.evidence.bundle import Bundle, EvidenceDamaged, EvidenceMissing, Score
from pipeline.evidence.explain import Explanation
from pipeline.evidence.pictures import smaller
from pipeline.evidence.shelf import KeptEvidence, Shelf
from pipeline.types import Json

MOST_BYTES = 900_000
"""Of the page's pictures as text. What does not fit is left out, the oldest segments first, and the page says so."""
SNAPSHOT_PX, SEGMENT_PX = 1280, 320
_QUALITIES = (80, 60, 40)
_LEFT, _TOP, _WIDTH, _HEIGHT = 30, 10, 600, 140


@dataclass(frozen=True, slots=True)
class PagePicture:
    """A picture as a data URI, and what is written below it."""

    uri: str
    text: str


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("pipeline.evidence", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html.j2")


def page(it: Explanation, shelf: Shelf | None = None, kept: KeptEvidence | None = None, clip: str = "") -> str:
    """The page of an explanation, with the pictures of its evidence where there are some; `clip` is where the clip can
    be had. Damaged pictures are left out, and the page says which."""
    pictures, faults = _pictures(shelf, kept) if shelf is not None and kept is not None else (_PagePictures(), [])
    bundle = kept.bundle if kept else None
    return _template().render(
        it=it,
        snapshot=pictures.snapshot,
        outlines=_outlines(bundle),
        segments=pictures.segments,
        segments_text=_segments_text(bundle, pictures),
        clip=clip if bundle and bundle.clip else "",
        chart=_chart(it),
        facts=[*_facts(it, bundle), *(("damaged", fault) for fault in faults)],
        prompt=bundle.prompt if bundle else "",
    )


@dataclass(frozen=True, slots=True)
class _PagePictures:
    snapshot: PagePicture | None = None
    segments: tuple[PagePicture, ...] = ()


def _pictures(shelf: Shelf, kept: KeptEvidence) -> tuple[_PagePictures, list[str]]:
    faults: list[str] = []
    bundle, left, snapshot = kept.bundle, MOST_BYTES, None
    if bundle.snapshot is not None:
        note = bundle.snapshot
        text = f"{note.pts_s:g} s, {note.captured_at} ({note.clock}), {note.width}x{note.height} px"
        snapshot = _fitted(shelf, kept, "snapshot", SNAPSHOT_PX, left // 2, text, faults)
        left -= len(snapshot.uri) if snapshot else 0
    notes = (*bundle.segments, *bundle.aside)
    shown: list[PagePicture] = []
    for note_ in reversed(notes):
        beside = " (second look)" if note_.file.startswith("aside") else ""
        times = " and ".join(f"{pts_s:g}" for pts_s in note_.pts_s)
        text = f"{times} s, {note_.width}x{note_.height} px, {note_.tokens} tokens{beside}"
        one = _fitted(shelf, kept, note_.file, SEGMENT_PX, max(left // 4, 20_000), text, faults)
        if one is None:
            continue
        if len(one.uri) > left:
            break
        left -= len(one.uri)
        shown.append(one)
    return _PagePictures(snapshot, tuple(reversed(shown))), faults


def _fitted(
    shelf: Shelf, kept: KeptEvidence, name: str, width: int, most: int, text: str, faults: list[str]
) -> PagePicture | None:
    """A picture of the evidence, coarser where it would be more than `most` bytes."""
    try:
        data = shelf.file(kept, name)
        for quality in _QUALITIES:
            uri = "data:image/jpeg;base64," + base64.b64encode(smaller(data, width, quality)).decode()
            if len(uri) <= most:
                break
    except (EvidenceDamaged, EvidenceMissing) as error:
        faults.append(str(error))
        return None
    return PagePicture(uri, text)


def _outlines(bundle: Bundle | None) -> list[dict[str, str]]:
    """The outlines on the snapshot, in hundredths of its width and height: of the watch's zone, and of the part that
    the model was shown."""
    found = []
    if bundle and bundle.zone:
        found.append(("zone", f"the zone {bundle.zone.name}", bundle.zone.polygon))
    if bundle and bundle.crop:
        found.append(("crop", "dashed: the part that the model was shown", bundle.crop.corners))
    return [
        {"kind": kind, "what": what, "points": " ".join(f"{100 * x:g},{100 * y:g}" for x, y in points)}
        for kind, what, points in found
    ]


def _segments_text(bundle: Bundle | None, pictures: _PagePictures) -> str:
    if bundle is None or not pictures.segments:
        return ""
    count, shown = len(bundle.segments) + len(bundle.aside), len(pictures.segments)
    left = f" The oldest {count - shown} are left out of this page." if shown < count else ""
    sized = (
        "Each picture is a segment as it was sent, made smaller for this page where it is larger; two frames stand one"
        " above the other."
    )
    return sized + left


def _facts(it: Explanation, bundle: Bundle | None) -> list[tuple[str, str]]:
    facts = [row for name, value in it.rule.items() for row in _rows(f"rule: {name}", value)]
    if bundle is None:
        return facts
    spent = asdict(bundle.tokens)
    failed = ("allocator failed, one scale in its place", _plain(spent.pop("fell_back")))
    tokens = [*((f"tokens {name}", _plain(value)) for name, value in spent.items()), failed]
    model = f"{bundle.model.name} ({bundle.model.family})"
    hashes = [("weights, SHA-256", f"{bundle.model.sha256} of {bundle.model.hashed}")] if bundle.model.sha256 else []
    if bundle.sizing.engine_sha256:
        hashes.append(("engine.json, SHA-256", bundle.sizing.engine_sha256))
    made = [("resadapt-stream", bundle.version), ("label", it.label or "none")]
    return [*facts, *tokens, ("model", model), ("allocator", bundle.sizing.allocator), *hashes, *made]


def _rows(name: str, value: Json) -> list[tuple[str, str]]:
    """The rows of a table for a value: none where it is not set, and of values by name one for each."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [row for part, one in value.items() for row in _rows(f"{name}, {part}", one)]
    return [(name, _plain(value))]


def _plain(value: Json) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _chart(it: Explanation) -> dict[str, object] | None:
    """The scores as a line of 640 x 180 units."""
    scores: Sequence[Score] = it.scores
    if len(scores) < 2:
        return None
    first, last = scores[0].start_s, scores[-1].start_s
    span = max(last - first, 1e-6)

    def x(one: Score) -> float:
        return round(_LEFT + _WIDTH * (one.start_s - first) / span, 1)

    def y(score: float) -> float:
        return round(_TOP + _HEIGHT * (1 - min(max(score, 0.0), 1.0)), 1)

    dots = [
        {
            "x": x(one), "y": y(one.score), "unknown": one.unknown, "now": one is scores[-1] and it.fired,
            "text": f"{one.score:.2f} at {one.start_s:g} s",
        }
        for one in scores
    ]  # fmt: skip
    limits = [
        {"y": y(float(value)), "text": f"{name.replace('_', ' ')} {value:g}"}
        for name in ("open_at", "clear_at")
        if isinstance(value := it.rule.get(name), int | float)
    ]
    points = " ".join(f"{x(one)},{y(one.score)}" for one in scores if not one.unknown)
    return {"dots": dots, "limits": limits, "points": points, "first": f"{first:g}", "last": f"{last:g}"}

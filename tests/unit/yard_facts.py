"""Hypothesis strategies for facts of the yard, and small builders for scripted ones."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import get_args

from hypothesis import strategies as st

from samples.yard.world.facts import COLOURS, GLYPHS, KINDS, LIGHTS, PLACES, VEHICLES, FrameFacts, Kind, Thing

_HEIGHTS: dict[Kind, tuple[float, float]] = {
    "car": (8.0, 120.0),
    "van": (8.0, 130.0),
    "truck": (8.0, 140.0),
    "person": (12.0, 105.0),
    "dog": (6.0, 26.0),
    "bag": (6.0, 16.0),
    "smoke": (8.0, 80.0),
}
assert set(_HEIGHTS) == set(get_args(Kind))

plates = st.text(alphabet=GLYPHS, min_size=2, max_size=3)


def thing(kind: Kind, id: int = 1, **facts) -> Thing:
    """An object that is plainly seen: 60 px tall (14 px for a bag, 20 px for a dog), in the middle of the picture."""
    height_px = facts.pop("height_px", {"bag": 14.0, "dog": 20.0}.get(kind, 60.0))
    known = {
        "box": (200, 100, 40, int(height_px)),
        "fraction": 1.0,
        "contrast": 40.0,
        "place": "road",
        "head_px": 0.15 * height_px if kind == "person" else 0.0,
    }
    if kind == "person":
        known |= {"helmet": True, "vest": False, "bag": False}
    if kind in VEHICLES:
        known |= {"colour": "red", "plate": "A7K", "plate_px": 0.0}
    return Thing(id=id, kind=kind, height_px=height_px, **(known | facts))


def frame(time_s: float = 0.0, *things: Thing, gate_open: bool | None = False, barrier_up: bool | None = False):
    """A dry frame by day."""
    return FrameFacts(time_s, "day", False, gate_open, barrier_up, things)


def clip(count: int, change: Callable[[int], Iterable[Thing]], **facts) -> list[FrameFacts]:
    """`count` frames at 2 fps; `change` gives the objects of each."""
    return [replace(frame(0.5 * index, *change(index)), **facts) for index in range(count)]


@st.composite
def things(draw, id: int = 1) -> Thing:
    """Any object: plain ones, hidden ones and borderline ones."""
    kind = draw(st.sampled_from(KINDS))
    height_px = draw(st.floats(*_HEIGHTS[kind]))
    person, vehicle = kind == "person", kind in VEHICLES
    top = draw(st.integers(0, 200))
    return Thing(
        id=id,
        kind=kind,
        box=(draw(st.integers(0, 400)), top, 20, min(int(height_px), 256 - top)),
        height_px=height_px,
        fraction=draw(st.sampled_from([0.0, 0.2, 0.45, 0.7, 1.0])),
        contrast=draw(st.sampled_from([2.0, 12.0, 30.0, 80.0])),
        place=draw(st.sampled_from(PLACES)),
        colour=draw(st.sampled_from(COLOURS)) if vehicle else None,
        helmet=draw(st.booleans()) if person else None,
        vest=draw(st.booleans()) if person else None,
        bag=draw(st.booleans()) if person else None,
        head_px=0.15 * height_px if person else 0.0,
        plate=draw(plates) if vehicle else None,
        plate_px=draw(st.sampled_from([0.0, 5.0, 9.0, 13.0])) if vehicle else 0.0,
    )


@st.composite
def episodes(draw, min_frames: int = 1, max_frames: int = 24) -> list[FrameFacts]:
    """Frames at 2 fps, some dropped: objects come and go, gate and barrier move."""
    count = draw(st.integers(min_frames, max_frames))
    cast = [draw(things(id=index + 1)) for index in range(draw(st.integers(0, 4)))]
    stays = [sorted(draw(st.tuples(*[st.integers(0, count)] * 2))) for _ in cast]
    state = st.sampled_from([False, False, True, True, None])
    light, rain = draw(st.sampled_from(LIGHTS)), draw(st.booleans())
    gate, barrier = (draw(st.lists(state, min_size=count // 4 + 1, max_size=count // 4 + 1)) for _ in range(2))
    dropped = draw(st.sets(st.integers(0, count - 1), max_size=count - 1))
    return [
        FrameFacts(
            time_s=0.5 * index,
            light=light,
            rain=rain,
            gate_open=gate[index // 4],
            barrier_up=barrier[index // 4],
            things=tuple(each for each, (start, end) in zip(cast, stays, strict=True) if start <= index < end),
        )
        for index in range(count)
        if index not in dropped
    ]

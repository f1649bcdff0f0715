"""The facts of one frame of the yard: values that the renderer gives and that all questions are about.

Sizes are in px of the native picture, 448 x 256; at twice that size the same scene has the same facts.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

HEIGHT, WIDTH = 256, 448
"""Native size in px: 8 x 14 cells of 32 px."""

FPS = 25

Vehicle: TypeAlias = Literal["car", "van", "truck"]
Kind: TypeAlias = Literal["car", "van", "truck", "person", "dog", "bag", "smoke"]
Colour: TypeAlias = Literal["red", "blue", "white", "black", "yellow", "green"]
Place: TypeAlias = Literal["gate", "dock", "bays", "road", "fence"]
Light: TypeAlias = Literal["day", "dusk", "night"]

VEHICLES: tuple[Vehicle, ...] = ("car", "van", "truck")
KINDS: tuple[Kind, ...] = ("car", "van", "truck", "person", "dog", "bag", "smoke")
COLOURS: tuple[Colour, ...] = ("red", "blue", "white", "black", "yellow", "green")
PLACES: tuple[Place, ...] = ("gate", "dock", "bays", "road", "fence")
LIGHTS: tuple[Light, ...] = ("day", "dusk", "night")

GLYPHS = "ACEFHKLMNPRTUXY0123456789"
"""Characters of a plate. Left out: those that a few px cannot tell from others (B, D, G, I, J, O, Q, S, V, W, Z)."""

VISIBLE_FRACTION = 0.5
"""Least part of an object that must lie inside the picture and uncovered."""

VISIBLE_CONTRAST = 14.0
"""Least mean difference, in levels of 0 to 255, between an object and what it hides."""

VISIBLE_PX = {"car": 12, "van": 12, "truck": 12, "person": 18, "dog": 9, "bag": 9, "smoke": 16}
"""Least height in px of what can be recognised at native size."""

FAR_PERSON_PX = 36
"""A person below this height is far: visible at native size only."""

HEAD_PX = 6
"""Least height of a head in px at which a helmet can be told."""

GLYPH_PX = 9
"""Least height of a plate's characters in px at which they can be read."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One object in one frame. `id` stays the same over the episode and is its value in the frame's id picture.

    `box` is (left, top, width, height) of what is visible of it, in px; `height_px` its full height, hidden parts
    included; `fraction` the part of it inside the picture and uncovered; `contrast` its mean difference to what it
    hides, in levels. `colour` is a vehicle's; `helmet`, `vest` and `bag` (carried) a person's; `plate` a vehicle's
    text, and `plate_px` the height of its characters, 0 where the plate is covered, turned away or too dark.
    """

    id: int
    kind: Kind
    box: tuple[int, int, int, int]
    height_px: float
    fraction: float
    contrast: float
    place: Place
    colour: Colour | None = None
    helmet: bool | None = None
    vest: bool | None = None
    bag: bool | None = None
    head_px: float = 0.0
    plate: str | None = None
    plate_px: float = 0.0

    @property
    def visible(self) -> bool:
        """True if it can be recognised in the native picture."""
        return (
            self.fraction >= VISIBLE_FRACTION
            and self.contrast >= VISIBLE_CONTRAST
            and self.height_px >= VISIBLE_PX[self.kind]
        )

    @property
    def far(self) -> bool:
        """True if it is a person so far away that only the native picture shows it."""
        return self.kind == "person" and self.height_px < FAR_PERSON_PX

    @property
    def bare(self) -> bool | None:
        """True if a visible person wears no helmet; None where that cannot be told."""
        return None if self.helmet is None or not self.visible or self.head_px < HEAD_PX else not self.helmet

    @property
    def legible(self) -> str | None:
        """The plate, where it can be read."""
        return self.plate if self.visible and self.plate_px >= GLYPH_PX else None


@dataclass(frozen=True, slots=True)
class FrameFacts:
    """Everything that one frame shows, at `time_s` seconds of the episode.

    `gate_open` and `barrier_up` are None while they move between a quarter and three quarters of their way, or while
    something covers them. `things` holds every object with at least one pixel in the picture, nearest last.
    """

    time_s: float
    light: Light
    rain: bool
    gate_open: bool | None
    barrier_up: bool | None
    things: tuple[Thing, ...] = ()

    @property
    def visible(self) -> tuple[Thing, ...]:
        """The objects that can be recognised."""
        return tuple(thing for thing in self.things if thing.visible)

"""The cast of an episode: vehicles and people with random kinds, colours and clothes."""

from dataclasses import dataclass

import numpy as np

from samples.yard.world.draw import Rgb
from samples.yard.world.facts import COLOURS, GLYPHS, VEHICLES, Colour, Light, Vehicle
from samples.yard.world.script import Interval, PersonRole, Side, Track, VehicleRole

_HUES: dict[Colour, tuple[Rgb, ...]] = {
    "red": ((196, 30, 34), (214, 44, 36), (172, 24, 36)),
    "blue": ((28, 64, 180), (40, 92, 206), (30, 50, 146)),
    "white": ((232, 234, 232), (244, 242, 236), (220, 224, 228)),
    "black": ((22, 22, 26), (34, 34, 36), (16, 18, 24)),
    "yellow": ((238, 196, 28), (226, 180, 20), (246, 212, 56)),
    "green": ((26, 128, 56), (40, 148, 72), (22, 106, 52)),
}
_JACKETS: tuple[Rgb, ...] = (
    (44, 52, 70),
    (90, 40, 40),
    (130, 130, 128),
    (36, 36, 38),
    (70, 90, 120),
    (176, 168, 150),
    (62, 84, 60),
    (120, 84, 58),
)
_TROUSERS: tuple[Rgb, ...] = ((34, 36, 44), (60, 64, 84), (84, 76, 62), (40, 50, 66), (26, 26, 28))
_SKINS: tuple[Rgb, ...] = ((222, 178, 148), (196, 146, 112), (140, 96, 70), (98, 66, 48))
_HAIRS: tuple[Rgb, ...] = ((36, 28, 24), (70, 48, 32), (22, 22, 24), (110, 84, 54), (98, 98, 98))
_HELMETS: tuple[Rgb, ...] = ((248, 208, 30), (244, 244, 240), (246, 122, 26), (40, 104, 224))
_VESTS: tuple[Rgb, ...] = ((250, 120, 24), (186, 236, 40))
BAGS: tuple[Rgb, ...] = ((34, 30, 30), (84, 54, 32), (32, 50, 108), (60, 30, 46))


@dataclass(slots=True)
class Casting:
    """Makes roles from one stream of random numbers; ids count up from 1 and start again after 255."""

    rng: np.random.Generator
    light: Light
    made: int = 0

    def some(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def new_id(self) -> int:
        self.made += 1
        return 1 + (self.made - 1) % 255

    def of(self, colours: tuple[Rgb, ...], spread: float = 6.0) -> Rgb:
        base = np.array(colours[int(self.rng.integers(len(colours)))], float)
        red, green, blue = (int(value) for value in np.clip(base + self.rng.normal(0, spread, 3), 6, 250))
        return red, green, blue

    def kind(self, weights: tuple[float, float, float] = (0.5, 0.26, 0.24)) -> Vehicle:
        return VEHICLES[int(self.rng.choice(3, p=weights))]

    def vehicle(
        self, kind: Vehicle, side: Side, track: Track, *, parked: bool = False, plate: bool = False, facing: int = 1
    ) -> VehicleRole:
        """A vehicle of random colour; its text is drawn in any case, and shown where `plate` says so."""
        colour = COLOURS[int(self.rng.integers(len(COLOURS)))]
        length = 2 if self.rng.random() < 0.4 else 3
        text = "".join(GLYPHS[int(index)] for index in self.rng.integers(0, len(GLYPHS), length))
        return VehicleRole(
            id=self.new_id(),
            kind=kind,
            colour=colour,
            paint=self.of(_HUES[colour], 5.0),
            side=side,
            track=track,
            plate=text if plate else None,
            facing=facing,
            lights=not parked and (self.light != "day" or self.rng.random() < 0.25),
            parked=parked,
            style=int(self.rng.integers(1 << 16)),
        )

    def person(self, track: Track) -> PersonRole:
        """Somebody in random clothes: about half with a helmet, some of whom take it off for a moment."""
        vest = self.of(_VESTS, 8.0) if self.rng.random() < 0.45 else None
        helmet = self.of(_HELMETS, 6.0) if self.rng.random() < 0.56 else None
        bare: tuple[Interval, ...] = ()
        if helmet is not None and self.rng.random() < 0.3:
            start = self.some(track.start + 0.5, max(track.start + 0.6, track.end - 1.5))
            bare = ((start, start + self.some(0.7, 2.5)),)
        bags: tuple[Interval, ...] = ((-1e9, 1e9),) if self.rng.random() < 0.3 else ()
        return PersonRole(
            id=self.new_id(),
            track=track,
            jacket=self.of(_JACKETS, 10.0),
            trousers=self.of(_TROUSERS, 8.0),
            skin=self.of(_SKINS, 5.0),
            hair=self.of(_HAIRS, 5.0),
            helmet=helmet,
            bare=bare,
            vest=vest,
            bags=bags,
            bag_colour=self.of(BAGS, 6.0),
        )

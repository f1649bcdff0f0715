"""The writer of scripts: about one happening every few seconds, with quiet stretches between them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from samples.yard.world.casting import BAGS, Casting
from samples.yard.world.draw import Rgb
from samples.yard.world.facts import WIDTH, Vehicle
from samples.yard.world.layout import BANDS, LONG_M, METRE_PX, PERSON_PX, Band, Layout, below_horizon
from samples.yard.world.script import (
    BagRole,
    DogRole,
    Flyer,
    Interval,
    PersonRole,
    Role,
    Script,
    Side,
    SmokeRole,
    Track,
)

_LEFT, _RIGHT = -26.0, WIDTH + 26.0
_STEP_S = 0.5  # an exposure step is over within this time


def make_script(seed: int, seconds: float, layout: Layout) -> Script:
    """Write the episode of a seed."""
    rng = np.random.default_rng((seed, 23))
    writer = _ScriptWriter(rng, Casting(rng, layout.light), layout)
    writer.park()
    gap = writer.rng.choice((3.2, 4.4, 5.4, 7.0, 14.0), p=(0.16, 0.3, 0.27, 0.19, 0.08))
    time = float(writer.rng.uniform(-4.0, gap * 0.6))
    while time < seconds:
        writer.something(time)
        time += float(gap * writer.rng.uniform(0.35, 1.65))
    writer.distract(seconds)
    return Script(
        tuple(writer.roles), tuple(writer.gate), tuple(writer.barrier), tuple(writer.flyers), tuple(writer.gains)
    )


def quiet_before(script: Script, seed: int, seconds: float, layout: Layout) -> Script:
    """The script of an episode behind `seconds`, at times below 0, in which birds, plastic and exposure steps come as
    in any episode, and nothing else happens. The episode itself looks as it did."""
    rng = np.random.default_rng((seed, 29))
    writer = _ScriptWriter(rng, Casting(rng, layout.light), layout)
    writer.distract(seconds)
    flyers = [_earlier(one, seconds) for one in writer.flyers if one.end <= seconds]
    steps = [(start - seconds, gain) for start, gain in writer.gains[1:] if start <= seconds - 2 * _STEP_S]
    first, *later = script.gains
    gains = (first, *steps, (-_STEP_S, first[1]), *later) if steps else script.gains
    return replace(script, flyers=(*flyers, *script.flyers), gains=gains)


def _earlier(one: Flyer, seconds: float) -> Flyer:
    keys = tuple((time - seconds, x, y) for time, x, y in one.track.keys)
    return replace(one, start=one.start - seconds, end=one.end - seconds, track=Track(keys))


@dataclass(slots=True)
class _ScriptWriter:
    """Collects roles; `busy` holds until when each stage of the yard is taken."""

    rng: np.random.Generator
    cast: Casting
    layout: Layout
    roles: list[Role] = field(default_factory=list)
    gate: list[Interval] = field(default_factory=list)
    barrier: list[Interval] = field(default_factory=list)
    flyers: list[Flyer] = field(default_factory=list)
    gains: list[tuple[float, float]] = field(default_factory=lambda: [(-1e9, 1.0)])
    busy: dict[str, float] = field(default_factory=dict)

    def something(self, time: float) -> None:
        """Let one thing happen from `time` on, if its stage is free."""
        choices: tuple[tuple[float, str, Callable[[float], float]], ...] = (
            (2.6, "road", self._approach),
            (1.5, "road", self._depart),
            (1.1, "road", self._gate_alone),
            (0.9, "road", self._barrier_alone),
            (1.9, "lane", self._cross),
            (0.8, "lane", self._dock),
            (2.2, "near", lambda at: self._walk(at, "near")),
            (1.9, "middle", lambda at: self._walk(at, "middle")),
            (2.3, "far", lambda at: self._walk(at, "far")),
            (1.8, "middle", self._leave_bag),
            (1.3, "smoke", self._smoke),
            (1.0, "near", lambda at: self._dog(at, "near")),
            (0.6, "middle", lambda at: self._dog(at, "middle")),
        )
        weights = np.array([choice[0] for choice in choices])
        for _ in range(4):
            _, stage, happen = choices[int(self.rng.choice(len(choices), p=weights / weights.sum()))]
            if self.busy.get(stage, -1e9) <= time:
                self.busy[stage] = happen(time)
                return

    def park(self) -> None:
        """Put vehicles into some of the bays for the whole episode."""
        for x, y in self.layout.bays:
            if self.rng.random() < 0.3:
                kind: Vehicle = "van" if self.rng.random() < 0.25 else "car"
                side: Side = "front" if self.rng.random() < 0.5 else "rear"
                self._drive(kind, side, Track(((0.0, x, y), (1.0, x, y))), parked=True)

    def distract(self, seconds: float) -> None:
        """Add birds, plastic and exposure steps."""
        time = self.cast.some(0, 20)
        while time < seconds:
            bird = bool(self.rng.random() < 0.6)
            span = self.cast.some(1.5, 4.0)
            y = self.cast.some(10, 60) if bird else self.cast.some(170, 235)
            ends = (-8.0, WIDTH + 8.0) if self.rng.random() < 0.5 else (WIDTH + 8.0, -8.0)
            track = Track(((time, ends[0], y), (time + span, ends[1], y + self.cast.some(-5, 4))))
            colour = (40, 42, 46) if bird else (214, 218, 222)
            self.flyers.append(Flyer(time, time + span, track, colour, self.cast.some(2.5, 4.5), bird))
            time += self.cast.some(6, 30)
        time = self.cast.some(0, 30)
        while time < seconds:
            self.gains.append((time, self.cast.some(0.84, 1.16)))
            time += self.cast.some(8, 40)

    def _drive(
        self, kind: Vehicle, side: Side, track: Track, *, parked: bool = False, plate: bool = False, facing: int = 1
    ) -> None:
        self.roles.append(self.cast.vehicle(kind, side, track, parked=parked, plate=plate, facing=facing))

    def _approach(self, time: float) -> float:
        """Through the gate, along the road to the barrier, and out at the bottom."""
        road = self.layout.road_x
        kind = self.cast.kind()
        side_step = self.cast.some(-5, 5)
        stop = self.layout.barrier_y - self.cast.some(6, 12)
        pace = self.cast.some(0.85, 1.3)
        gate_at = time + self.cast.some(0.2, 0.7)
        through = gate_at + 0.9 * pace
        arrive = through + 1.9 * pace
        keys = [(time, road(74.0), 74.0), (through, road(104.0), 104.0)]
        if self.rng.random() < 0.28:
            rise, leave = through - 0.1, arrive
            keys.append((arrive, road(stop) + side_step, stop))
        else:
            wait = self.cast.some(1.0, 3.0)
            keys += [(arrive, road(stop) + side_step, stop), (arrive + wait, road(stop) + side_step, stop)]
            rise, leave = arrive + wait - self.cast.some(0.2, 0.8), arrive + wait
        gone = leave + self.cast.some(1.3, 1.9)
        keys.append((gone, road(400.0) + side_step, 400.0))
        self._drive(kind, "front", Track(tuple(keys), eased=True), plate=True)
        self.gate.append((gate_at - 0.3, through + self.cast.some(0.4, 3.0)))
        self.barrier.append((rise, gone + self.cast.some(-0.2, 1.2)))
        return max(gone, self.gate[-1][1], self.barrier[-1][1]) + 1.2

    def _depart(self, time: float) -> float:
        """From the bottom to the barrier, and out through the gate."""
        road = self.layout.road_x
        stop = self.layout.barrier_y + self.cast.some(50, 60)
        arrive = time + self.cast.some(0.7, 1.0)
        wait = self.cast.some(0.8, 2.4)
        leave = arrive + wait
        through = leave + self.cast.some(2.0, 2.9)
        gone = through + 1.1
        keys = (
            (time, road(430.0), 430.0),
            (arrive, road(stop), stop),
            (leave, road(stop), stop),
            (through, road(100.0), 100.0),
            (gone, road(72.0), 72.0),
        )
        self._drive(self.cast.kind((0.6, 0.24, 0.16)), "rear", Track(keys, eased=True), plate=True)
        self.barrier.append((leave - self.cast.some(0.3, 0.8), leave + self.cast.some(1.2, 2.2)))
        self.gate.append((through - self.cast.some(0.9, 1.8), through + self.cast.some(0.5, 1.5)))
        return gone + 1.5

    def _gate_alone(self, time: float) -> float:
        self.gate.append((time, time + 0.6 + self.cast.some(1.0, 5.0)))
        return self.gate[-1][1] + 1.5

    def _barrier_alone(self, time: float) -> float:
        self.barrier.append((time, time + 0.7 + self.cast.some(1.0, 4.0)))
        return self.barrier[-1][1] + 1.5

    def _cross(self, time: float) -> float:
        """From one edge to the other, so fast that it is half visible for a moment only; some stop on the way."""
        kind = self.cast.kind((0.46, 0.28, 0.26))
        y = self.layout.lane_y + self.cast.some(-2, 2)
        half = LONG_M[kind] * METRE_PX * below_horizon(y) / 2 + 14
        ends = (-half, WIDTH + half)
        facing = 1 if self.rng.random() < 0.5 else -1
        first, last = ends if facing > 0 else ends[::-1]
        span = (ends[1] - ends[0]) / (self.cast.some(1.0, 1.3) * (150 + half))
        keys = [(time, first, y), (time + span, last, y)]
        if self.rng.random() < 0.3:
            rest_x, stay = self.cast.some(120, 330), self.cast.some(0.8, 2.0)
            there = time + span * abs(rest_x - first) / (ends[1] - ends[0])
            keys = [
                (time, first, y),
                (there, rest_x, y),
                (there + stay, rest_x, y),
                (there + stay + span * 0.6, last, y),
            ]
        self._drive(kind, "side", Track(tuple(keys), eased=True), facing=facing)
        return keys[-1][0] + 0.3

    def _dock(self, time: float) -> float:
        """Past the dock, back to it, stay, and off again."""
        kind: Vehicle = "truck" if self.rng.random() < 0.6 else "van"
        y = 116.0
        half = LONG_M[kind] * METRE_PX * below_horizon(y) / 2
        docked = self.layout.dock_x - half + 4
        turn = docked - self.cast.some(24, 44)
        first, last = WIDTH + half + 14, -half - 14
        come, back, stay = time + self.cast.some(1.3, 1.8), self.cast.some(0.9, 1.4), self.cast.some(1.5, 6.0)
        leave = come + 0.3 + back + stay
        keys = (
            (time, first, y),
            (come, turn, y),
            (come + 0.3, turn, y),
            (come + 0.3 + back, docked, y),
            (leave, docked, y),
            (leave + self.cast.some(1.3, 1.7), last, y),
        )
        self._drive(kind, "side", Track(keys, eased=True), facing=-1)
        return keys[-1][0] + 0.3

    def _pace(self, y: float) -> float:
        """Walking speed in plan px per second: brisk in front, hurried in the distance, where paths look long."""
        tall = PERSON_PX * below_horizon(y)
        return tall * self.cast.some(0.85, 1.2) + (26 if tall < 40 else 12)

    def _walk(self, time: float, band: Band) -> float:
        """In from an edge or from behind something, often a stop, and off again."""
        y = self.cast.some(*BANDS[band])
        pace = self._pace(y)
        start, goal = self._ends(band)
        keys = [(time, start, y)]
        if self.rng.random() < (0.5 if band == "near" else 0.65):
            share = self.cast.some(0.25, 0.75) if band == "near" else self.cast.some(0.15, 0.5)
            turn = start + (goal - start) * share
            there = time + abs(turn - start) / pace
            stay = self.cast.some(0.5, 2.2)
            keys += [(there, turn, y), (there + stay, turn, y)]
            if self.rng.random() < 0.5:
                goal = start
        last_t, last_x, _ = keys[-1]
        keys.append((last_t + abs(goal - last_x) / pace, goal, y))
        self.roles.append(self.cast.person(Track(tuple(keys))))
        return keys[-1][0] + 0.3

    def _ends(self, band: Band) -> tuple[float, float]:
        """Two different places where a person of this band can appear and disappear."""
        by_kind = {prop.kind: prop for prop in self.layout.props}
        spots = [_LEFT, _RIGHT]
        if band == "middle":
            spots = [_LEFT, _RIGHT, by_kind["booth"].x]
        if band == "far":
            spots = [_LEFT, _RIGHT, *(prop.x for prop in self.layout.props if 105 < prop.y < 113)]
        first, second = self.rng.choice(len(spots), 2, replace=False)
        return spots[int(first)], spots[int(second)]

    def _leave_bag(self, time: float) -> float:
        """Somebody puts a bag down and walks off; some bags are fetched later."""
        y = self.cast.some(*BANDS["middle"])
        pace = self._pace(y) * 1.1
        start, goal = self._ends("middle")
        drop_x = self._drop_x()
        there = time + abs(drop_x - start) / pace
        off = there + self.cast.some(0.5, 0.9)
        put = (there + off) / 2
        keys = ((time, start, y), (there, drop_x, y), (off, drop_x, y), (off + abs(goal - drop_x) / pace, goal, y))
        fetched = self.rng.random() < 0.55
        stays = self.cast.some(3.0, 12.0) if fetched else self.cast.some(24.0, 60.0)
        tall = 0.235 * PERSON_PX * below_horizon(y)
        colour = self.cast.of(BAGS, 6.0)
        person = self.cast.person(Track(keys))
        self.roles.append(_with_bag(person, ((-1e9, put),), colour))
        facing = 1 if drop_x > start else -1
        end = put + stays
        self.roles.append(
            BagRole(
                self.cast.new_id(),
                drop_x + facing * 0.2 * below_horizon(y) * PERSON_PX,
                y + 1.5,
                put,
                end,
                tall,
                colour,
            )
        )
        gone = self._fetch_bag(end, drop_x, y, pace, colour)
        return gone if fetched else keys[-1][0] + self.cast.some(8, 20)

    def _drop_x(self) -> float:
        """A place for a bag: never behind the booth, seldom behind the boom."""
        booth = next(prop for prop in self.layout.props if prop.kind == "booth")
        pivot = self.layout.barrier_pivot[0]
        while True:
            x = self.cast.some(56, 400)
            behind_boom = pivot - 34 < x < pivot + self.layout.barrier_length + 20
            if abs(x - booth.x) > booth.width / 2 + 24 and (not behind_boom or self.rng.random() < 0.3):
                return x

    def _fetch_bag(self, end: float, drop_x: float, y: float, pace: float, colour: Rgb) -> float:
        start = _LEFT if drop_x < WIDTH / 2 else _RIGHT
        walk = abs(drop_x - start) / pace
        keys = (
            (end - walk - 0.3, start, y),
            (end - 0.3, drop_x, y),
            (end + 0.3, drop_x, y),
            (end + 0.3 + walk, start, y),
        )
        self.roles.append(_with_bag(self.cast.person(Track(keys)), ((end, 1e9),), colour))
        return keys[-1][0] + 0.3

    def _smoke(self, time: float) -> float:
        container = next(prop for prop in reversed(self.layout.props) if prop.x > 150 and prop.y < 120)
        spots = ((container.x, 114.0), (self.layout.dock_x - 16, 114.0), (372.0, 160.0), (284.0, 138.0))
        x, y = spots[int(self.rng.integers(len(spots)))]
        span = self.cast.some(3.0, 8.0)
        size, tone = (
            self.cast.some(52, 94),
            int(self.cast.some(*((34, 62), (186, 236), (70, 180))[int(self.rng.choice(3, p=(0.42, 0.42, 0.16)))])),
        )
        self.roles.append(
            SmokeRole(self.cast.new_id(), x, y, time, time + span, size, tone, int(self.rng.integers(1 << 30)))
        )
        return time + span + 4.0

    def _dog(self, time: float, band: Band) -> float:
        y = self.cast.some(*BANDS[band])
        tall = self.cast.some(19, 26) if band == "near" else self.cast.some(14, 18)
        start, goal = (_LEFT, _RIGHT) if self.rng.random() < 0.5 else (_RIGHT, _LEFT)
        span = (_RIGHT - _LEFT) / self.cast.some(90, 170)
        coat = self.cast.of(((70, 48, 30), (30, 28, 26), (170, 130, 84), (196, 188, 176)), 8.0)
        self.roles.append(DogRole(self.cast.new_id(), Track(((time, start, y), (time + span, goal, y))), coat, tall))
        return time + span + 0.3


def _with_bag(person: PersonRole, bags: tuple[Interval, ...], colour: Rgb) -> PersonRole:
    return replace(person, bags=bags, bag_colour=colour)

"""Light and air: ambient light and lamps, cloud shadows, rain, sensor noise, shake."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from samples.yard.world.backdrop import clouds
from samples.yard.world.draw import Bytes, Point, Rgb, as_bytes, overlap
from samples.yard.world.facts import HEIGHT, WIDTH
from samples.yard.world.layout import Layout, below_horizon

Floats = NDArray[np.float32]
_STEP = 4
"""The light is computed on a map this many times smaller than the picture."""

_LENS_PX = 0.45
"""How far the lens spreads a point, in native px."""


@dataclass(frozen=True, slots=True)
class Weather:
    """The light and air of one episode.

    `light` is the fixed light, [64, 112, 3] (1.0 leaves colours as they are); `sun` the direction and strength of
    shadows; `noise` tiles hold sensor noise in levels; `streaks` rain.
    """

    light: Floats
    cloud: Floats | None
    cloud_speed: Point
    sun: tuple[float, float]
    noise: NDArray[np.int8]
    streaks: Bytes | None
    shake_px: float
    seed: int


def make_weather(seed: int, layout: Layout, scale: int) -> Weather:
    """Draw the weather of a seed for pictures of `scale` times the native size."""
    rng = np.random.default_rng((seed, 37))
    moving = layout.light == "day" and not layout.rain and rng.random() < 0.4
    cloud = np.clip(clouds(rng, 96, 160, 3), -0.6, 0.6) * np.float32(0.32) if moving else None
    speed = float(rng.uniform(1.5, 4)), float(rng.uniform(-1, 1))
    sunny = layout.light == "day" and not layout.rain and layout.clouds < 0.6
    sun = (float(rng.uniform(-1, 1)), 0.42 if sunny else 0.3 if layout.light == "day" else 0.24)
    sigma = {"day": rng.uniform(1.2, 2.6), "dusk": rng.uniform(2.0, 3.6), "night": rng.uniform(3.2, 5.5)}[layout.light]
    shake = float(rng.uniform(0.2, 0.6)) if rng.random() < 0.45 else 0.0
    light = _fixed_light(layout, rng)
    tall, wide = HEIGHT * scale + 64, WIDTH * scale + 64
    noise = rng.normal(0, 1, (tall, wide)).astype(np.float32)[..., None] * 0.8 + rng.normal(0, 0.6, (tall, wide, 3))
    streaks = _streaks(rng, tall, wide, scale) if layout.rain else None
    return Weather(
        light=light,
        cloud=cloud,
        cloud_speed=speed,
        sun=sun,
        noise=np.round(noise * sigma).astype(np.int8),
        streaks=streaks,
        shake_px=shake,
        seed=seed,
    )


def _fixed_light(layout: Layout, rng: np.random.Generator) -> Floats:
    high, wide = HEIGHT // _STEP, WIDTH // _STEP
    ambient = {
        "day": np.array((1.0, 0.99, 0.96)) * rng.uniform(0.98, 1.26),
        "dusk": np.array((0.65, 0.58, 0.57)) * rng.uniform(0.8, 1.1),
        "night": np.array((0.22, 0.24, 0.29)) * rng.uniform(0.75, 1.15),
    }[layout.light]
    if layout.rain:
        ambient = ambient * 0.82
    light = np.broadcast_to(ambient.astype(np.float32), (high, wide, 3)).copy()
    if layout.light != "day":
        lamp = np.array((1.0, 0.86, 0.62)) if rng.random() < 0.6 else np.array((0.88, 0.95, 1.0))
        power = 0.3 if layout.light == "dusk" else float(rng.uniform(0.6, 0.85))
        spots = (*layout.lamps, (layout.dock_x + 20, 126.0), (layout.road_x(200.0), 205.0))
        for x, y in spots:
            add_pool(light, layout.view.at(x, y - 4), 0.85 * below_horizon(y) + 26, power, lamp.astype(np.float32))
    rows = np.linspace(-1, 1, high, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, wide, dtype=np.float32)[None]
    return light * (1 - float(rng.uniform(0.1, 0.2)) * (rows**2 + columns**2))[..., None]


def add_pool(light: Floats, centre: Point, radius: float, power: float, colour: Floats) -> None:
    """Add a soft pool of light to a light map; centre and radius in native px."""
    rows = (np.arange(light.shape[0], dtype=np.float32) * _STEP + _STEP / 2 - centre[1]) / (0.62 * radius)
    columns = (np.arange(light.shape[1], dtype=np.float32) * _STEP + _STEP / 2 - centre[0]) / radius
    spread = np.exp(-(columns**2))[None] * np.exp(-(rows**2))[:, None]
    light += (power * spread)[..., None] * colour


def light_at(weather: Weather, time_s: float, gain: float, pools: list[tuple[Point, float, float, Rgb]]) -> Floats:
    """The light map of one moment: [64, 112, 3]."""
    light = weather.light.copy()
    for centre, radius, power, colour in pools:
        add_pool(light, centre, radius, power, np.asarray(colour, np.float32) / np.float32(255))
    if weather.cloud is not None:
        high, wide = light.shape[:2]
        x = 24 + 20 * np.sin(time_s * weather.cloud_speed[0] / 20)
        y = 16 + 12 * np.sin(1 + time_s * weather.cloud_speed[1] / 12)
        part = cv2.getRectSubPix(weather.cloud, (wide, high), (float(x + wide / 2), float(y + high / 2)))
        light *= (1 + part)[..., None]
    light *= np.float32(gain)
    return light


def add_glow(picture: Bytes, centre: Point, radius: float, colour: Rgb, strength: float, blob: Floats) -> None:
    """Add a soft shine, as a lamp in view makes."""
    size = max(3, round(2 * radius))
    left, top = round(centre[0] - size / 2), round(centre[1] - size / 2)
    box = overlap((left, top, size, size), (0, 0, picture.shape[1], picture.shape[0]))
    if box is None:
        return
    spot = cv2.resize(blob, (size, size), interpolation=cv2.INTER_LINEAR)
    spot = spot[box[1] - top : box[1] - top + box[3], box[0] - left : box[0] - left + box[2]]
    shine = (spot[..., None] * (np.array(colour, np.float32) * strength)).astype(np.uint8)
    target = picture[box[1] : box[1] + box[3], box[0] : box[0] + box[2]]
    target[:] = cv2.add(target, shine)


def _streaks(rng: np.random.Generator, tall: int, wide: int, scale: int) -> Bytes:
    tile = np.zeros((tall, wide), np.uint8)
    lean = float(rng.uniform(-0.25, 0.25))
    for x, y, long, level in zip(
        rng.uniform(0, wide, 420),
        rng.uniform(0, tall, 420),
        rng.uniform(4, 13, 420),
        rng.uniform(14, 52, 420),
        strict=True,
    ):
        end = (round((x + lean * long * scale) * 16), round((y + long * scale) * 16))
        cv2.line(tile, (round(x * 16), round(y * 16)), end, float(level), scale, cv2.LINE_AA, 4)
    return as_bytes(cv2.cvtColor(cv2.GaussianBlur(tile, (3, 3), 0), cv2.COLOR_GRAY2RGB))


def through_the_air(picture: Bytes, weather: Weather, time_s: float, scale: int) -> Bytes:
    """Rain, sensor noise and shake of one moment; the same moment gives the same bytes."""
    rng = np.random.default_rng((weather.seed, 41, round(time_s * 1000) + 1_000_000))
    high, wide = picture.shape[:2]
    picture = as_bytes(cv2.GaussianBlur(picture, (3, 3), _LENS_PX * scale))
    if weather.shake_px > 0:
        phase = 2 * np.pi * np.array((1.7, 2.3, 0.6)) * time_s + weather.seed
        dx = weather.shake_px * scale * float(np.sin(phase[0]) + 0.5 * np.sin(phase[2])) / 1.5
        dy = weather.shake_px * scale * float(np.sin(phase[1])) * 0.7
        middle = ((wide - 1) / 2 - dx, (high - 1) / 2 - dy)
        picture = as_bytes(cv2.getRectSubPix(picture, (wide, high), middle))
    if weather.streaks is not None:
        left, top = (int(value) for value in rng.integers(0, 64, 2))
        picture = as_bytes(cv2.add(picture, weather.streaks[top : top + high, left : left + wide]))
    left, top = (int(value) for value in rng.integers(0, 64, 2))
    return as_bytes(cv2.add(picture, weather.noise[top : top + high, left : left + wide], dtype=cv2.CV_8U))

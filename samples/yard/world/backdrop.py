"""The yard with nobody in it: ground, sky, buildings, fence. Painted once per episode and size."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from samples.yard.world.draw import Bytes, Point, Rgb, Sprite, as_bytes, paint, shade, soft_blob, soften
from samples.yard.world.facts import HEIGHT, WIDTH
from samples.yard.world.layout import FENCE_PX, FENCE_Y, HORIZON_Y, CameraView, Layout, below_horizon
from samples.yard.world.props import draw_prop

Floats = NDArray[np.float32]
_MIDDLE = WIDTH / 2


@dataclass(frozen=True, slots=True)
class Backdrop:
    """`picture` is everything fixed, RGB; `covers` are the fixed things that may hide others, by y, far to near."""

    picture: Bytes
    covers: tuple[tuple[float, Sprite], ...]


def make_backdrop(layout: Layout, scale: int) -> Backdrop:
    """Paint the fixed part of the picture at `scale` times the native size."""
    view = layout.view.scaled(scale)
    rng = np.random.default_rng(layout.texture_seed)
    picture = _ground(layout, view, rng)
    _paintwork(picture, layout, view, rng)
    _sky(picture, layout, view, rng)
    covers = [(FENCE_Y, _fence(layout, view, rng)), (112.0, _warehouse(layout, view, rng))]
    covers += [(prop.y, draw_prop(prop, view)) for prop in layout.props]
    covers.sort(key=lambda cover: cover[0])
    blob = soft_blob()
    for prop in layout.props:
        if prop.kind != "tree":
            foot = view.at(prop.x, prop.y)
            soften(
                picture,
                foot,
                (view.length(prop.width * 0.75 + 2), view.length(prop.width * 0.2 + 2)),
                0.5,
                blob,
                (20, 20, 22),
            )
    for _, sprite in covers:
        paint(picture, sprite)
    grain = cv2.resize(rng.normal(0, 1.6, (HEIGHT, WIDTH, 1)).astype(np.float32), (picture.shape[1], picture.shape[0]))
    noisy = cv2.add(picture, cv2.cvtColor(grain, cv2.COLOR_GRAY2RGB), dtype=cv2.CV_8U)
    return Backdrop(as_bytes(noisy), tuple(covers))


def clouds(rng: np.random.Generator, high: int, wide: int, octaves: int = 4) -> Floats:
    """Smooth noise, [high, wide], about -1 to 1."""
    total = np.zeros((high, wide), np.float32)
    for octave in range(octaves):
        cells = 4 << octave
        grid = rng.normal(0, 1, (cells, cells)).astype(np.float32)
        total += np.asarray(cv2.resize(grid, (wide, high), interpolation=cv2.INTER_CUBIC), np.float32) / 1.6**octave
    return np.asarray(np.clip(total / 2.2, -1.5, 1.5), np.float32)


def _plan_grid(view: CameraView) -> tuple[Floats, Floats]:
    """Plan x and y of every pixel."""
    rows = (np.arange(HEIGHT * view.scale, dtype=np.float32) + 0.5) / view.scale
    columns = (np.arange(WIDTH * view.scale, dtype=np.float32) + 0.5) / view.scale
    y = (rows - HEIGHT / 2 - view.shift[1]) / view.zoom + HEIGHT / 2
    x = (columns - WIDTH / 2 - view.shift[0]) / view.zoom * (-1 if view.flip else 1) + WIDTH / 2
    return np.broadcast_to(x[None], (len(rows), len(columns))), np.broadcast_to(y[:, None], (len(rows), len(columns)))


def _ground(layout: Layout, view: CameraView, rng: np.random.Generator) -> Bytes:
    """Asphalt in perspective with grain and stains, grass and fields beyond the fence."""
    x, y = _plan_grid(view)
    distance = np.maximum(y - HORIZON_Y, 2.0)
    tile = rng.normal(0, 1, (512, 512)).astype(np.float32)
    tile = 0.6 * tile + 2.2 * cv2.GaussianBlur(tile, (0, 0), 2) + 7.0 * cv2.GaussianBlur(tile, (0, 0), 9)
    across = ((x - _MIDDLE) / distance * 170.0).astype(np.float32)
    along = (21000.0 / distance).astype(np.float32)
    grain = cv2.remap(tile, np.mod(across, 511), np.mod(along, 511), cv2.INTER_LINEAR)
    grain *= np.clip(distance / 120.0, 0.25, 1.0)
    stains = cv2.remap(clouds(rng, 256, 256), np.mod(across / 5, 255), np.mod(along / 5, 255), cv2.INTER_LINEAR)
    tone = float(rng.uniform(92, 132))
    base = np.array((tone, tone + rng.uniform(-4, 3), tone + rng.uniform(-8, 6)), np.float32)
    ground = base + (grain * rng.uniform(3.5, 6.5) + stains * rng.uniform(4, 10))[..., None]
    field = np.array((96, 108, 66), np.float32) * rng.uniform(0.85, 1.15) + (6 * grain + 9 * stains)[..., None]
    ground = np.where((y < FENCE_Y - 1)[..., None], field, ground)
    ground += ((y - 150) * 0.10)[..., None]
    return as_bytes(np.clip(ground, 0, 255).astype(np.uint8))


def _quad(picture: Bytes, view: CameraView, points: tuple[Point, ...], colour: Rgb, strength: float) -> None:
    """Blend a polygon of plan points into the picture."""
    corners = np.array([view.at(*point) for point in points])
    cover = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(cover, [np.round((corners - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    rows = np.nonzero(cover.any(axis=1))[0]
    if len(rows) == 0:
        return
    part = slice(int(rows[0]), int(rows[-1]) + 1)
    weight = cover[part].astype(np.float32)[..., None] * (strength / 255)
    picture[part] = (picture[part] * (1 - weight) + np.array(colour, np.float32) * weight).astype(np.uint8)


def _paintwork(picture: Bytes, layout: Layout, view: CameraView, rng: np.random.Generator) -> None:
    """Road, lane, bays, cracks and oil."""
    road = layout.road_x
    worn = float(rng.uniform(0.25, 0.5))
    half = 0.44

    def edge(y: float, side: float) -> Point:
        return road(y) + side * below_horizon(y), y

    tarmac: Rgb = (74, 75, 80) if rng.random() < 0.6 else (134, 130, 124)
    outline = tuple(edge(y, -half) for y in (66.0, 90.0, 150.0, 330.0)) + tuple(
        edge(y, half) for y in (330.0, 150.0, 90.0, 66.0)
    )
    _quad(picture, view, outline, tarmac, worn)
    lane = layout.lane_y
    _quad(picture, view, ((-60, lane - 9), (510, lane - 9), (510, lane + 5), (-60, lane + 5)), tarmac, worn * 0.8)
    line: Rgb = (214, 212, 200)
    fade = float(rng.uniform(0.35, 0.7))
    for side in (-half, half):
        _quad(
            picture,
            view,
            (edge(92, side - 0.01), edge(92, side + 0.01), edge(330, side + 0.01), edge(330, side - 0.01)),
            line,
            fade,
        )
    for step in range(9):
        near, far = 54 + 38 * 1.27**step, 54 + 38 * 1.27 ** (step + 0.5)
        _quad(
            picture,
            view,
            (edge(near, -0.012), edge(near, 0.012), edge(far, 0.012), edge(far, -0.012)),
            line,
            fade * 0.8,
        )
    stop = layout.barrier_y - 2
    _quad(picture, view, (edge(stop, -half), edge(stop, half), edge(stop + 4, half), edge(stop + 4, -half)), line, fade)
    _bay_lines(picture, layout, view, line, fade)
    _wear(picture, view, rng)


def _bay_lines(picture: Bytes, layout: Layout, view: CameraView, line: Rgb, fade: float) -> None:
    """The painted sides of the parking bays."""
    for x, y in layout.bays:
        for offset in (-39.0, 39.0):
            lean = (x + offset - _MIDDLE) / below_horizon(y)
            ends = ((x + offset - lean * 18, y - 18), (x + offset + lean * 6, y + 6))
            _quad(
                picture,
                view,
                (ends[0], (ends[0][0] + 2, ends[0][1]), (ends[1][0] + 3, ends[1][1]), ends[1]),
                line,
                fade,
            )


def _wear(picture: Bytes, view: CameraView, rng: np.random.Generator) -> None:
    """Cracks, oil and damp patches."""
    blob = soft_blob()
    for _ in range(int(rng.integers(3, 9))):
        x, y = float(rng.uniform(0, 448)), float(rng.uniform(110, 250))
        size = float(rng.uniform(0.06, 0.24)) * below_horizon(y)
        tone: Rgb = (44, 42, 42) if rng.random() < 0.75 else (150, 148, 142)
        soften(
            picture,
            view.at(x, y),
            (view.length(size), view.length(size * 0.32)),
            float(rng.uniform(0.25, 0.7)),
            blob,
            tone,
        )
    for _ in range(int(rng.integers(3, 7))):
        x, y = float(rng.uniform(0, 448)), float(rng.uniform(120, 240))
        points = [(x, y)]
        for _ in range(9):
            last_x, last_y = points[-1]
            spread = 0.08 * below_horizon(last_y)
            points.append((last_x + float(rng.normal(0.3, 1)) * spread, last_y + float(rng.normal(0, 0.3)) * spread))
        corners = np.round(np.array([view.at(*point) for point in points]) * 16).astype(np.int32)
        cv2.polylines(picture, [corners], False, (58, 58, 60), view.scale, cv2.LINE_AA, 4)


def _sky(picture: Bytes, layout: Layout, view: CameraView, rng: np.random.Generator) -> None:
    """Gradient, clouds, and a dark line of trees and roofs on the horizon."""
    bottom = int(view.at(0, HORIZON_Y + 2)[1])
    share = np.linspace(0, 1, max(2, bottom), dtype=np.float32)[:, None, None]
    high: Rgb = {"day": (96, 142, 202), "dusk": (92, 86, 130), "night": (60, 66, 92)}[layout.light]
    low: Rgb = {"day": (202, 214, 222), "dusk": (226, 160, 120), "night": (96, 96, 110)}[layout.light]
    grey = 0.85 if layout.rain else 0.75 * layout.clouds
    sky = np.array(high, np.float32) * (1 - share) + np.array(low, np.float32) * share
    sky = sky * (1 - grey) + np.float32(np.mean(high) * 0.4 + np.mean(low) * 0.6) * grey
    sky = np.broadcast_to(sky, (sky.shape[0], picture.shape[1], 3)).copy()
    puffs = np.clip(clouds(rng, sky.shape[0], picture.shape[1], 5) + layout.clouds - 0.4, 0, 1)[..., None]
    sky = sky + puffs * (np.float32(44) - sky * 0.1)
    picture[: sky.shape[0]] = np.clip(sky, 0, 255).astype(np.uint8)
    for tone, rise, wave in (((112, 126, 120), 9.0, 5.0), ((70, 86, 62), 5.0, 4.0)):
        profile = clouds(rng, 8, 120, 5)[3]
        crest = [(x * 4.0 - 16, HORIZON_Y + 3 - rise - wave * float(value)) for x, value in enumerate(profile)]
        _quad(
            picture,
            view,
            ((-16.0, HORIZON_Y + 6), *crest, (460.0, HORIZON_Y + 6)),
            shade(tone, float(rng.uniform(0.8, 1.1))),
            0.95,
        )


def _fence(layout: Layout, view: CameraView, rng: np.random.Generator) -> Sprite:
    """Posts, rails and wire with a gap for the gate."""
    sprite = Sprite(view.at(_MIDDLE, FENCE_Y), view.length(1), (300, 300, 2, 40), forward=view.forward(1))
    metal = shade((150, 154, 154), float(rng.uniform(0.6, 1.05)))
    rows, columns = np.indices(sprite.patch.shape[:2])
    mesh = 4 * view.scale
    wire = ((rows + columns) % mesh < view.scale) | ((rows - columns) % mesh < view.scale)
    weight = np.where(wire, 120, 26).astype(np.uint8)
    spans = ((-40.0, layout.gate_x), (layout.gate_x + layout.gate_width, layout.dock_x + 40))
    area = Sprite(view.at(_MIDDLE, FENCE_Y), view.length(1), (300, 300, 2, 40), forward=view.forward(1))
    for left, right in spans:
        area.bar(left - _MIDDLE, 0, right - _MIDDLE, FENCE_PX - 3, (255, 255, 255))
    weight = np.where(area.alpha > 127, weight, 0).astype(np.uint8)
    for channel, value in enumerate(metal):
        sprite.patch[..., channel] = (weight.astype(np.float32) * value / 255).astype(np.uint8)
    sprite.patch[..., 3] = weight
    for left, right in spans:
        sprite.bar(left - _MIDDLE, FENCE_PX - 4, right - _MIDDLE, FENCE_PX - 2.6, metal)
        for x in np.linspace(left, right, max(2, round((right - left) / 26)) + 1):
            sprite.bar(x - _MIDDLE - 0.9, -0.5, x - _MIDDLE + 0.9, FENCE_PX, shade(metal, 0.8))
    for x in (layout.gate_x, layout.gate_x + layout.gate_width):
        sprite.bar(x - _MIDDLE - 2.2, -1.5, x - _MIDDLE + 2.2, FENCE_PX + 7, shade(metal, 0.55))
    return sprite


def _warehouse(layout: Layout, view: CameraView, rng: np.random.Generator) -> Sprite:
    """The warehouse at the right: its side wall with the dock door, its front with a small door and windows."""
    foot = view.at(layout.dock_x, 112.0)
    sprite = Sprite(foot, view.length(1), (40, 150, 3, 92), forward=view.forward(1))
    wall = layout.wall_colour
    sprite.poly(((-32, 16), (0, 0), (0, 84), (-32, 66)), shade(wall, 0.72))
    sprite.bar(0, 0, 150, 84, wall)
    for x in range(4, 150, 5):
        sprite.bar(x, 2, x + 0.8, 80, shade(wall, 0.9))
    sprite.poly(((-34, 65), (-34, 69), (0, 89), (150, 89), (150, 82), (0, 82)), shade(wall, 0.5))
    sprite.poly(((-27, 15), (-4, 3.5), (-4, 48), (-27, 46)), (34, 36, 40))
    sprite.poly(((-28, 46), (-3, 48), (-3, 52), (-28, 49)), (214, 178, 40))
    sprite.poly(((-27, 15), (-4, 3.5), (-4, 9), (-27, 19)), (60, 58, 56))
    sprite.bar(24, 0, 42, 38, shade((90, 98, 108), float(rng.uniform(0.7, 1.2))))
    for x in (58, 84, 110):
        sprite.bar(x, 44, x + 18, 60, (62, 74, 86))
        sprite.bar(x + 8.5, 44, x + 9.5, 60, shade(wall, 0.8))
    sprite.bar(0, 0, 150, 3, shade(wall, 0.6))
    return sprite

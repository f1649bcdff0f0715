"""Regions of a picture: polygons in shares of its width and height, as it is shown. Pure geometry."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import Annotated, Final, TypeAlias

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

MOST_POINTS: Final = 64
"""Points of one polygon; one with more is refused."""

MOST_REGIONS: Final = 32
"""Zones, or masks, of one stream; more are refused."""

LEAST_AREA: Final = 1e-5
"""Share of the picture that a polygon has to cover at least: a smaller one is a slip of the hand."""

_KEPT_COVERS = 256

Coordinate: TypeAlias = Annotated[float, Ge(0), Le(1)]
Point: TypeAlias = tuple[Coordinate, Coordinate]
"""x from the left and y from the top, 0 to 1."""


def simple(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """`points`, if they are the corners of a simple polygon in order. Raises PydanticCustomError naming what they are
    instead."""
    if not 3 <= len(points) <= MOST_POINTS:
        raise PydanticCustomError(
            "polygon", f"a polygon of {len(points)} points; expected 3 to {MOST_POINTS}, each as [x, y] from 0 to 1"
        )
    if (repeated := _repeated(points)) is not None:
        raise PydanticCustomError("polygon", f"its point {list(repeated)} is there twice; leave one of them out")
    if (crossing := _crossing(points)) is not None:
        one, other = crossing
        raise PydanticCustomError(
            "polygon",
            f"a polygon that crosses itself: its edges {one + 1} and {other + 1} meet; give its corners in order",
        )
    if area(points) < LEAST_AREA:
        raise PydanticCustomError("polygon", "a polygon without an area; expected corners that are not on one line")
    return points


def few(regions: dict[str, "Polygon"]) -> dict[str, "Polygon"]:
    """`regions`, if they are not too many. Raises PydanticCustomError."""
    if len(regions) > MOST_REGIONS:
        raise PydanticCustomError("regions", f"{len(regions)} polygons; expected at most {MOST_REGIONS}")
    return regions


Polygon: TypeAlias = Annotated[tuple[Point, ...], AfterValidator(simple)]
"""The corners in order; the last is joined to the first. It crosses itself nowhere."""


def area(points: Sequence[Point]) -> float:
    """Share of the picture that a polygon covers."""
    following = (*points[1:], points[0])
    return abs(sum(x * v - u * y for (x, y), (u, v) in zip(points, following, strict=True))) / 2


@lru_cache(_KEPT_COVERS)
def covered(polygons: tuple[tuple[Point, ...], ...], rows: int, columns: int) -> NDArray[np.bool_]:
    """The cells of a grid over the picture that any of the polygons touches: read-only bool `[rows, columns]`.

    A cell that is met by an edge counts, however little of it lies inside.
    """
    cells = np.zeros((rows, columns), np.bool_)
    for points in polygons:
        corners = np.array(points, np.float64) * (columns, rows)
        _fill(cells, corners)
        for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            _touch(cells, start, end)
    cells.flags.writeable = False
    return cells


def _fill(cells: NDArray[np.bool_], corners: NDArray[np.float64]) -> None:
    """Add the cells whose centre lies inside."""
    rows, columns = cells.shape
    x, y = np.arange(columns) + 0.5, np.arange(rows) + 0.5
    inside = np.zeros(cells.shape, np.bool_)
    for (from_x, from_y), (to_x, to_y) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if from_y == to_y:
            continue
        crossed = (from_y > y) != (to_y > y)
        at_x = from_x + (y - from_y) * (to_x - from_x) / (to_y - from_y)
        inside ^= crossed[:, None] & (x[None, :] < at_x[:, None])
    cells |= inside


def _touch(cells: NDArray[np.bool_], start: NDArray[np.float64], end: NDArray[np.float64]) -> None:
    """Add the cells that an edge meets, their borders included."""
    rows, columns = cells.shape
    (left, top), (right, bottom) = (start, end) if start[1] <= end[1] else (end, start)
    slack = 1e-9 * max(rows, columns)
    first, last = max(int(np.floor(top - slack)), 0), min(int(np.floor(bottom + slack)), rows - 1)
    for row in range(first, last + 1):
        begin, finish = np.clip((row, row + 1), top, bottom)
        slope = (right - left) / (bottom - top) if bottom > top else 0.0
        ends = (left, right) if bottom == top else (left + (begin - top) * slope, left + (finish - top) * slope)
        from_column = max(int(np.floor(min(ends) - slack)), 0)
        cells[row, from_column : min(int(np.floor(max(ends) + slack)), columns - 1) + 1] = True


def _repeated(points: Sequence[Point]) -> Point | None:
    return next((one for one, other in combinations(points, 2) if one == other), None)


def _crossing(points: Sequence[Point]) -> tuple[int, int] | None:
    """Two edges that meet where none may: neighbours share their corner, and no more."""
    count = len(points)
    edges = [(points[i], points[(i + 1) % count]) for i in range(count)]
    for one, other in combinations(range(count), 2):
        if other - one in (1, count - 1):
            if _folded(edges[one], edges[other]):
                return one, other
        elif _meet(*edges[one], *edges[other]):
            return one, other
    return None


def _folded(one: tuple[Point, Point], other: tuple[Point, Point]) -> bool:
    """True if two edges with a common corner run back over each other."""
    shared = one[1] if one[1] in other else one[0]
    far = one[0] if shared == one[1] else one[1]
    near = other[0] if shared == other[1] else other[1]
    along = (far[0] - shared[0]) * (near[0] - shared[0]) + (far[1] - shared[1]) * (near[1] - shared[1])
    return _side(shared, far, near) == 0 and along > 0


def _side(a: Point, b: Point, c: Point) -> int:
    """On which side of the line from a to b the point c lies: 1, -1, or 0 on it."""
    cross = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    return 0 if abs(cross) < 1e-12 else (1 if cross > 0 else -1)


def _meet(a: Point, b: Point, c: Point, d: Point) -> bool:
    sides = _side(a, b, c), _side(a, b, d), _side(c, d, a), _side(c, d, b)
    if sides[0] != sides[1] and sides[2] != sides[3]:
        return True
    within = ((a, b, c), (a, b, d), (c, d, a), (c, d, b))
    return any(side == 0 and _between(*three) for side, three in zip(sides, within, strict=True))


def _between(a: Point, b: Point, c: Point) -> bool:
    return min(a[0], b[0]) <= c[0] <= max(a[0], b[0]) and min(a[1], b[1]) <= c[1] <= max(a[1], b[1])

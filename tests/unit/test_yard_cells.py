import numpy as np
import pytest

from samples.yard.episodes.cells import SLOTS, cells
from samples.yard.shape import COLUMNS, ROWS
from samples.yard.world.facts import COLOURS, HEIGHT, KINDS, WIDTH
from samples.yard.world.scene import Scene

SEED = 800_003


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(SEED, 12.0)


def test_a_cell_shows_what_the_frame_has_there_and_nothing_else(scene):
    looks = [scene.look(time_s) for time_s in (2.0, 6.0, 10.0)]
    found = cells(scene, looks)
    assert found.shape == (3, ROWS * COLUMNS, SLOTS)
    assert set(np.unique(found)) <= {-1, 0, 1}
    for frame, look in zip(found, looks, strict=True):
        visible = {thing.kind for thing in look.facts.things if thing.visible}
        assert {kind for place, kind in enumerate(KINDS) if (frame[:, place] == 1).any()} == visible
        for thing in look.facts.visible:
            left, top, wide, high = thing.box
            row, column = int((top + high / 2) * ROWS / HEIGHT), int((left + wide / 2) * COLUMNS / WIDTH)
            if (look.ids == thing.id)[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32].mean() > 0.5:
                assert frame[row * COLUMNS + column, KINDS.index(thing.kind)] == 1


def test_a_colour_is_told_of_the_cells_of_painted_things_alone(scene):
    look = scene.look(6.0)
    (frame,) = cells(scene, [look])
    painted = frame[:, len(KINDS) : len(KINDS) + len(COLOURS)]
    told = (painted >= 0).all(axis=1)
    assert ((painted == 1).sum(axis=1)[told] == 1).all()
    assert (painted[~told] == -1).all()
    assert {COLOURS[i] for i in np.flatnonzero((painted == 1).any(axis=0))} == {
        thing.colour for thing in look.facts.things if thing.visible and thing.colour
    }

"""Are a chip's factors those that its map is made with, and is a chip that is moved the same one, only weaker there?"""

import numpy as np
import pytest

from sram import random
from sram.geometry import Geometry
from sram.memory import Chip, Factors, Memory
from sram.structure import Structure

GEOMETRY = Geometry(banks=3, rows=64, columns=32, word_bits=32)
SHARED = Structure(die=0.1, bank=0.15, column=0.4)
MEMORY = Memory(GEOMETRY, structure=SHARED)
FLOOR = 0.78


def nothing() -> Factors:
    return Factors(0.0, np.zeros(3), np.zeros((3, 32)))


def latents(made):
    """{cell: the latent at which it fails}."""
    return dict(zip(made.cell.tolist(), -made.curve.z(made.critical_voltage.astype(float)), strict=True))


def test_moved_by_nothing_is_the_chip_itself():
    for memory in (MEMORY, Memory(GEOMETRY), Memory(GEOMETRY, structure="column_runs")):
        plain, moved = (Chip(7).fault_map(memory, FLOOR, moved=m) for m in (None, nothing()))
        assert len(plain) > 100
        for name in ("cell", "critical_voltage", "kind"):
            assert (getattr(plain, name) == getattr(moved, name)).all()


@pytest.mark.parametrize("what", ["die", "bank", "column"])
def test_cells_are_weaker_by_the_share_of_what_was_moved(what):
    """A cell's latent rises by sqrt(share) x 0.8, that of no other cell changes; float32 and the table: 2e-4."""
    by, weakest = nothing(), int(Chip(7).factors(MEMORY).column[1].argmax())
    if what == "die":
        by = Factors(0.8, by.bank, by.column)
    elif what == "bank":
        by.bank[1] = 0.8
    else:
        by.column[1, weakest] = 0.8
    plain, moved = (latents(Chip(7).fault_map(MEMORY, FLOOR, moved=m)) for m in (None, by))
    cells = np.arange(GEOMETRY.cells)
    bank, column = cells // GEOMETRY.cells_per_bank, cells % GEOMETRY.columns
    own = {"die": bank >= 0, "bank": bank == 1, "column": (bank == 1) & (column == weakest)}[what]
    rise = 0.8 * getattr(SHARED, what) ** 0.5
    both = plain.keys() & moved.keys()
    assert plain.keys() <= moved.keys()
    assert len(moved) > len(plain)
    assert all(own[cell] for cell in moved.keys() - plain.keys())
    off = [moved[cell] - plain[cell] - (rise if own[cell] else 0.0) for cell in both]
    assert np.abs(off).max() < 2e-4
    assert sum(own[cell] for cell in both) > 3


def test_factors_are_standard_normal_and_the_banks_are_those_of_the_die():
    """640 chips of 96 columns each: mean and variance within 4 standard errors (false alarm: 1 in 8,000 of each)."""
    found = [Chip(number).factors(MEMORY) for number in range(640)]
    z = np.concatenate([f.column.ravel() for f in found])
    assert abs(z.mean()) < 4 / len(z) ** 0.5
    assert abs(z.var() - 1) < 4 * (2 / len(z)) ** 0.5
    dies = np.array([f.die for f in found])
    assert abs(dies.mean()) < 4 / len(dies) ** 0.5
    behind = Memory(Geometry(1, 64, 32, 32), structure=SHARED, first_bank=2)
    assert (Chip(7).factors(behind).column[2] == Chip(7).factors(MEMORY).column[2]).all()


def test_a_map_moved_by_the_difference_of_two_chips_has_the_factors_of_the_other():
    """Columns say how many cells of theirs fail: as many as on a chip whose own factors are these, on average."""
    one, other = Chip(7).factors(MEMORY), Chip(8).factors(MEMORY)
    by = Factors(other.die - one.die, other.bank - one.bank, other.column - one.column)
    assert (one + by).die == pytest.approx(other.die)

    def weak(chip, moved=None):
        made = Chip(chip).fault_map(MEMORY, FLOOR, moved=moved)
        column = made.cell // GEOMETRY.cells_per_bank * GEOMETRY.columns + made.cell % GEOMETRY.columns
        return np.bincount(column, minlength=96)

    assert np.corrcoef(weak(7, by), weak(8))[0, 1] > 0.9
    assert np.corrcoef(weak(7), weak(8))[0, 1] < 0.5


def test_the_random_numbers_of_factors_are_those_of_their_streams():
    key = {"chip": 7, "seed": 0}
    found = Chip(7).factors(MEMORY)
    assert found.die == random.normals(1, random.Stream.DIE, **key)[0]
    assert found.bank[2] == random.normals(1, random.Stream.BANK, bank=2, **key)[0]

"""What every protection has to keep to, as a function that the author of one calls in a test."""

import dataclasses
import math

import numpy as np

from sram import mapfile
from sram.faultmap import generate
from sram.geometry import Geometry
from sram.protection.base import Protection
from sram.protection.spec import parse
from sram.protection.words import word_faults
from sram.weakcells import FaultMap

CURVE, FLOOR = "ibm14", 0.79  # one cell in forty is weak there
SUPPLIES = (0.84, 0.82, 0.80)


def check_protection(protection: Protection, geometry: Geometry | None = None) -> None:
    """Raise AssertionError, with the rule in words, where a protection breaks the contract that studies build on.

    On maps of several kinds of chips of this geometry (8 banks of 512 x 64 cells, 64-bit words): the protected map is
    a map of its geometry, sorted and therefore nested in voltage, the same each time, intermittent where the chip's
    is, and the given one stays as it was. Cells that are added are counted in the overhead, whose figures have a
    source. Fault-free words are read as stored. `sram.protection.parse` takes the text `spec`.

    >>> from sram.protection import Secded, parse
    >>> check_protection(parse("boost:0.04+spare_rows:1"))
    >>> class Forgetful(Secded):
    ...     def overhead(self, fault_map):
    ...         return dataclasses.replace(super().overhead(fault_map), storage=1.0)
    >>> check_protection(Forgetful())
    Traceback (most recent call last):
    ...
    AssertionError: secded72: the cells that `map` adds are counted in the overhead's storage
    """
    cells = geometry or Geometry(banks=8)
    _require(parse(protection.spec).spec == protection.spec, protection, "`parse` takes the text `spec`")
    for options in (
        {"structure": "column"},
        {"structure": "iid", "mode": "flip"},
        {"structure": "column", "noise": 0.1},
    ):
        chip = generate(3, cells, CURVE, voltage_floor=FLOOR, **options)
        _check_map(protection, chip)
        _check_overhead(protection, chip)
    _check_map(protection, generate(3, cells, CURVE, voltage_floor=1.19))  # no weak cell at all
    _check_words(protection, generate(3, cells, CURVE, "column", voltage_floor=FLOOR))


def _check_map(protection: Protection, chip: FaultMap) -> None:
    before = chip.cell.copy(), chip.critical_voltage.copy(), chip.kind.copy()
    found, again = protection.map(chip), protection.apply(chip)[0]
    mapfile.check(found, protection.spec)  # sorted, each cell once and inside the geometry, above the floor
    counts = [found.count(v) for v in SUPPLIES if v >= found.voltage_floor]
    _require(counts == sorted(counts), protection, "a lower voltage has all the faults of a higher one")
    same = all(
        np.array_equal(getattr(found, name), getattr(again, name)) for name in ("cell", "critical_voltage", "kind")
    )
    _require(same, protection, "`map` and `apply` give the same map, each time")
    kept = all(map(np.array_equal, before, (chip.cell, chip.critical_voltage, chip.kind)))
    _require(kept, protection, "the map that is given stays as it is")
    _require((found.noise is None) == (chip.noise is None), protection, "intermittent cells stay intermittent")
    _require((found.chip, found.seed) == (chip.chip, chip.seed), protection, "the map stays that of its chip")
    if protection.words_as_stored:
        _require(found.geometry == chip.geometry, protection, "where words are read as stored, the geometry stays")


def _check_overhead(protection: Protection, chip: FaultMap) -> None:
    cost = protection.overhead(chip)
    numbers = [value for value in vars(cost).values() if isinstance(value, int | float)]
    _require(all(map(math.isfinite, numbers)), protection, "the figures of the overhead are finite")
    _require(
        min(cost.storage, cost.energy, cost.access_width) > 0, protection, "the factors of the overhead are positive"
    )
    _require(cost == protection.apply(chip)[1], protection, "`overhead` and `apply` give the same costs")
    shares = (cost.nominal_reads, cost.nominal_writes, cost.nominal_cells)
    _require(all(0 <= share <= 1 for share in shares), protection, "shares at nominal voltage are from 0 to 1")
    _require(cost.access_cycles >= 0, protection, "an access takes no negative time")
    added = protection.map(chip).geometry.cells / chip.geometry.cells
    _require(
        cost.storage > added * (1 - 1e-12),
        protection,
        "the cells that `map` adds are counted in the overhead's storage",
    )
    free = dataclasses.replace(cost, source="") == type(cost)()
    _require(free or bool(cost.source), protection, "an overhead names its source")


def _check_words(protection: Protection, chip: FaultMap) -> None:
    protected = protection.map(chip)
    bits = min(chip.geometry.word_bits, 64)
    faults = word_faults(protected.geometry, protected.at(max(SUPPLIES[-1], protected.voltage_floor)))
    stored = np.random.default_rng(0).integers(2**bits, size=len(faults.word), dtype=np.uint64, endpoint=False)
    given = stored.copy()
    seen = protection.read(stored, faults, data_bits=bits)
    _require(np.array_equal(stored, given), protection, "what is stored stays as it is")
    _require(
        np.array_equal(seen, protection.read(stored, faults, data_bits=bits)),
        protection,
        "a word reads alike each time",
    )
    _require(
        not (seen >> np.uint64(bits - 1) >> np.uint64(1)).any(), protection, "no bit beyond those of the data is read"
    )
    none = faults._replace(start=np.zeros_like(faults.start), bit=faults.bit[:0], kind=faults.kind[:0])
    _require(
        np.array_equal(protection.read(stored, none, data_bits=bits), stored),
        protection,
        "words without a fault are read as stored",
    )


def _require(holds: bool, protection: Protection, rule: str) -> None:
    if not holds:
        raise AssertionError(f"{protection.spec}: {rule}")

"""Are the paper-compatible maps the ones that the published code makes?"""

import csv
import hashlib

import numpy as np
import pytest

from sram import paper
from sram.errors import InputError
from tests.conftest import DATA

TABLE = DATA / "paper_fault_map_hashes.csv"
ROWS = list(csv.DictReader(TABLE.open()))


def packed_hash(fault_map, voltage, kind):
    """First 16 digits of the SHA-256 over the cells stuck at `kind`, eight to a byte, least significant bit first."""
    faults = fault_map.at(voltage)
    bits = np.zeros(paper.GEOMETRY.cells, np.uint8)
    bits[faults.cell[faults.kind == kind]] = 1
    return hashlib.sha256(np.packbits(bits, bitorder="little").tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['ber']}-{row['seed']}")
def test_hashes_of_the_published_code(row):
    m = paper.fault_map(int(row["seed"]), float(row["ber"]))
    assert m.cell_fault_rate(m.voltage_floor) == float(row["faulty_cell_fraction"])
    assert packed_hash(m, m.voltage_floor, 1) == row["sha256_16_packed_flip0_uint8_8192x16_little"]
    assert packed_hash(m, m.voltage_floor, 0) == row["sha256_16_packed_flip1"]


def test_one_map_serves_all_rates():
    m = paper.fault_map(1, 0.015)
    for row in ROWS:
        if row["seed"] == "1":
            assert m.cell_fault_rate(float(m.curve.voltage(float(row["ber"])))) == float(row["faulty_cell_fraction"])


@pytest.mark.parametrize("wrong", [(0, 0.0), (0, 1.0), (-1, 0.01)])
def test_wrong_inputs_are_refused(wrong):
    with pytest.raises(InputError, match="paper's fault map"):
        paper.fault_map(*wrong)

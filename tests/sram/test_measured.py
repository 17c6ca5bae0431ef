"""Do measured maps come in as they were measured, and go out and in again unchanged?"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sram import failure, faultmap, measured
from sram.errors import InputError
from sram.geometry import Geometry
from sram.structure import Structure

GEOMETRY = Geometry(banks=2, rows=4, columns=8, word_bits=8)
FIRST = """bank,row,column,voltage,polarity
0,0,0,0.60,1
1,3,7,0.55,0
0,2,5,0.55,2
"""


def write(path, text):
    path.write_text(text)
    return path


@settings(max_examples=12, deadline=None)
@given(
    chip=st.integers(0, 2**32 - 1),
    floor=st.floats(0.7, 1.0),
    noise=st.sampled_from([0.0, 0.12]),
    curve=st.sampled_from(failure.curve_names()),
    mode=st.sampled_from(["stuck", "flip"]),
)
def test_export_and_import_is_the_identity(chip, floor, noise, curve, mode, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trip")
    structure = Structure(column=0.3, die=0.1, column_tail=0.02)
    m = faultmap.generate(
        chip, Geometry(3, 32, 16, 8), curve, structure, voltage_floor=floor * 0.6, mode=mode, noise=noise
    )
    back = measured.read(measured.export(m, folder / "m.csv")).fault_map
    for name in ("geometry", "curve", "structure", "chip", "seed", "voltage_floor"):
        assert getattr(back, name) == getattr(m, name)
    for name in ("cell", "critical_voltage", "kind"):
        assert np.array_equal(getattr(back, name), getattr(m, name))
    assert (back.noise is None) == (m.noise is None)
    assert m.noise is None or np.array_equal(back.noise, m.noise)
    again = measured.export(back, folder / "again.csv")
    assert again.read_bytes() == (folder / "m.csv").read_bytes()


def test_first_failures_hand_worked(tmp_path):
    m = measured.read(write(tmp_path / "m.csv", FIRST), geometry=GEOMETRY, curve="kc705b").fault_map
    assert m.voltage_floor == 0.55
    assert m.cell.tolist() == [0, 2 * 8 + 5, (1 * 4 + 3) * 8 + 7]
    assert m.kind.tolist() == [1, 2, 0]
    # A cell fails at the voltage at which it was seen to fail, and not above.
    assert [m.count(v) for v in (0.55, 0.5501, 0.6, 0.6001)] == [3, 1, 1, 0]


def test_a_lower_floor_can_be_claimed_where_nothing_new_failed(tmp_path):
    path = write(tmp_path / "m.csv", FIRST)
    m = measured.read(path, geometry=GEOMETRY, curve="kc705b", voltage_floor=0.5).fault_map
    assert m.count(0.5) == 3
    with pytest.raises(InputError, match="voltage_floor"):
        measured.read(path, geometry=GEOMETRY, curve="kc705b", voltage_floor=0.56)


def test_readbacks_become_a_map_and_say_how_well_they_nest(tmp_path):
    # Two cells at 0.60, of which one is missing at 0.58 but back at 0.56, and one new at 0.58.
    text = "# a comment\nvoltage,bank,row,column\n0.6,0,0,0\n0.6,0,0,1\n0.58,0,0,0\n0.58,0,0,2\n"
    text += "0.56,0,0,0\n0.56,0,0,1\n0.56,0,0,2\n"
    path = write(tmp_path / "r.csv", text)
    got = measured.read(path, geometry=GEOMETRY, readbacks=True)
    assert [(s.voltage, s.failing, s.still_failing) for s in got.steps] == [(0.6, 2, 1), (0.58, 2, 2)]
    assert got.inclusion == 3 / 4
    m = got.fault_map
    assert (m.count(0.6), m.count(0.58), m.count(0.56)) == (2, 3, 3)
    assert set(m.kind) == {2}  # polarity unknown: reads the opposite
    with pytest.raises(InputError, match="read-backs"):
        measured.read(path, geometry=GEOMETRY)


def test_a_map_without_a_curve_gets_its_own(tmp_path):
    truth = faultmap.generate(5, Geometry(64), "kc705b", voltage_floor=0.45)
    steps = np.arange(0.45, 0.56, 0.01)
    bank, row, column = truth.geometry.bank_row_column(truth.cell)
    seen = steps[np.searchsorted(steps, truth.critical_voltage, side="left") - 1]  # highest tested voltage below Vc
    lines = [f"{b},{r},{c},{v!r}" for b, r, c, v in zip(bank, row, column, seen.tolist(), strict=True)]
    path = write(tmp_path / "m.csv", "bank,row,column,voltage\n" + "\n".join(lines) + "\n")
    m = measured.read(path, geometry=truth.geometry).fault_map
    for v in steps[:-2].tolist():
        assert m.count(v) == truth.count(v)
        assert m.curve.probability(v) == pytest.approx(m.cell_fault_rate(v), rel=1e-9)


def test_rates_become_a_curve_through_them(tmp_path):
    path = write(tmp_path / "r.csv", "voltage,cell_fault_rate\n0.6,0\n0.55,1e-5\n0.5,1e-3\n")
    curve = measured.read_rates(path)
    assert curve.probability([0.55, 0.5]) == pytest.approx([1e-5, 1e-3])
    with pytest.raises(InputError, match="cell_fault_rate"):
        measured.read_rates(write(tmp_path / "m.csv", FIRST))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "columns"),
        ("bank,row,voltage\n0,0,0.6\n", "columns"),
        ("bank,row,column,voltage,colour\n0,0,0,0.6,1\n", "columns"),
        ("bank,row,column,voltage\n", "faults"),
        ("bank,row,column,voltage\n0,0,0,x\n", "table"),
        ("bank,row,column,voltage\n0,0,0\n", "table"),
        ("bank,row,column,voltage\n0,0,0,0.6,1\n", "table"),
        ("bank,row,column,voltage\n2,0,0,0.6\n", "bank, entry 1"),
        ("bank,row,column,voltage\n0,0,0,0.6\n0,4,0,0.6\n", "row, entry 2"),
        ("bank,row,column,voltage\n0,0,0.5,0.6\n", "column, entry 1"),
        ("bank,row,column,voltage\n0,0,0,-0.6\n", "voltage, entry 1"),
        ("bank,row,column,voltage\n0,0,0,nan\n", "voltage, entry 1"),
        ("bank,row,column,voltage,polarity\n0,0,0,0.6,3\n", "polarity, entry 1"),
        ("bank,row,column,voltage\n0,0,0,0.6\n0,0,0,0.6\n", "twice"),
        ("bank,row,column,voltage\n0,0,0,0.6\n0,0,1,0.6\n", "voltages"),
        ('# {"geometry": {"banks": 2}}\nbank,row,column,voltage\n0,0,0,0.6\n', "format"),
        ('# {"geometry": {"banks": 2, "colour": 1}}\nbank,row,column,voltage\n0,0,0,0.6\n', "geometry"),
        ('# {"geometry": {"banks": "x"}}\nbank,row,column,voltage\n0,0,0,0.6\n', "geometry banks"),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path, text, match):
    path = write(tmp_path / "wrong.csv", text)
    with pytest.raises(InputError, match=match) as refusal:
        measured.read(path, geometry=GEOMETRY)
    assert "wrong" in str(refusal.value)


def test_binary_missing_and_unknown_geometry_are_refused(tmp_path):
    (tmp_path / "b.csv").write_bytes(bytes(range(256)))
    for path, says in ((tmp_path / "b.csv", "decode"), (tmp_path / "none.csv", "No such"), (tmp_path, "directory")):
        with pytest.raises(InputError, match=says):
            measured.read(path, geometry=GEOMETRY)
    with pytest.raises(InputError, match="geometry"):
        measured.read(write(tmp_path / "m.csv", FIRST))


@pytest.mark.parametrize(
    "text",
    [
        "Bank,Row,Col,Voltage,Polarity\n0,0,0,0.60,1\n1,3,7,0.55,0\n0,2,5,0.55,2\n",
        "\ufeffbank,row,column,voltage,polarity\n0,0,0,0.60,1\n1,3,7,0.55,0\n0,2,5,0.55,2\n",
        "bank;row;column;voltage;polarity\n0;0;0;0,60;1\n1;3;7;0,55;0\n0;2;5;0,55;2\n",
        "bank,row,col,Voltage (mV),polarity\n0,0,0,600,1\n1,3,7,550,0\n0,2,5,550,2\n",
    ],
)
def test_others_spellings_are_the_same_map(text, tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(text, encoding="utf-8")
    found = measured.read(path, geometry=GEOMETRY, curve="kc705b").fault_map
    same = measured.read(write(tmp_path / "same.csv", FIRST), geometry=GEOMETRY, curve="kc705b").fault_map
    for name in ("cell", "critical_voltage", "kind"):
        assert np.array_equal(getattr(found, name), getattr(same, name))
    assert found.voltage_floor == same.voltage_floor


def test_millivolts_that_do_not_say_so_are_asked_about(tmp_path):
    with pytest.raises(InputError, match=r"voltage, entry 1 = 600.0 .* millivolts in a column voltage_mv"):
        measured.read(write(tmp_path / "m.csv", "bank,row,column,voltage\n0,0,0,600\n"), geometry=GEOMETRY)


def test_a_memory_of_which_every_cell_fails_has_no_curve(tmp_path):
    every = [f"0,0,{column},{0.6 if column else 0.5}" for column in range(4)]
    path = write(tmp_path / "m.csv", "\n".join(["bank,row,column,voltage", *every]))
    small = Geometry(banks=1, rows=1, columns=4, word_bits=4)
    with pytest.raises(InputError, match=r"m.csv: voltage = 0.5 .* some cells do not fail, or a curve given"):
        measured.read(path, geometry=small)
    assert measured.read(path, geometry=small, curve="kc705b").fault_map.count(0.5) == 4
    with pytest.raises(InputError, match=r"r.csv: cell_fault_rate, entry 2 = 1.0 .* not every cell failed"):
        measured.read_rates(write(tmp_path / "r.csv", "voltage,cell_fault_rate\n0.6,0.1\n0.5,1\n"))


def test_cells_of_unknown_polarity_may_be_stuck_by_chance(tmp_path):
    truth = faultmap.generate(5, Geometry(64), "kc705b", voltage_floor=0.45)
    bank, row, column = truth.geometry.bank_row_column(truth.cell)
    lines = [f"{b},{r},{c},{0.45 + i % 3 / 100}" for i, (b, r, c) in enumerate(zip(bank, row, column, strict=True))]
    path = write(tmp_path / "m.csv", "bank,row,column,voltage\n" + "\n".join(lines) + "\n")
    got = measured.read(path, geometry=truth.geometry, chip=5)
    assert not got.polarity_known
    stuck = measured.stuck_by_chance(got.fault_map)
    assert stuck.flip_rate(0.45) == got.fault_map.flip_rate(0.45) / 2
    assert set(stuck.kind) == {0, 1}
    drawn = dict(
        zip(truth.cell.tolist(), truth.kind.tolist(), strict=True)
    )  # as a generated chip of this number has it
    assert [drawn[cell] for cell in stuck.cell.tolist()] == stuck.kind.tolist()
    assert measured.read(write(tmp_path / "f.csv", FIRST), geometry=GEOMETRY, curve="kc705b").polarity_known

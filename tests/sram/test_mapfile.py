"""Does a saved map come back as it was, and is every other file refused?"""

import dataclasses
import io
import json
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sram import failure, faultmap, mapfile
from sram.errors import InputError
from sram.geometry import Geometry
from sram.structure import Structure
from tests.conftest import Trap

FIELDS = ("geometry", "curve", "structure", "chip", "seed", "voltage_floor")
ARRAYS = ("cell", "critical_voltage", "kind")


@pytest.fixture(scope="module")
def example():
    return faultmap.generate(3, Geometry(2, 64, 64), "ibm14", "column", voltage_floor=0.8, noise=0.1)


@pytest.fixture(scope="module")
def saved(example, tmp_path_factory):
    return faultmap.save(example, tmp_path_factory.mktemp("maps") / "map.npz")


def identical(a, b):
    if any(getattr(a, f) != getattr(b, f) for f in FIELDS) or (a.noise is None) != (b.noise is None):
        return False
    arrays = ARRAYS if a.noise is None else (*ARRAYS, "noise")
    return all(np.array_equal(getattr(a, f), getattr(b, f)) for f in arrays)


@settings(max_examples=20, deadline=None)
@given(
    chip=st.integers(0, 2**32 - 1),
    seed=st.integers(0, 2**32 - 1),
    floor=st.floats(0.7, 1.1),
    noise=st.sampled_from([0.0, 0.1]),
    curve=st.sampled_from(["ibm14", "kc705b"]),
)
def test_round_trip_is_the_identity(chip, seed, floor, noise, curve, tmp_path_factory):
    structure = Structure(column=0.3, row=0.1, column_tail=0.01)
    m = faultmap.generate(
        chip, Geometry(2, 32, 64), curve, structure, voltage_floor=floor, seed=seed, noise=noise, mode="flip"
    )
    path = faultmap.save(m, tmp_path_factory.mktemp("trip") / "m.npz")
    assert identical(faultmap.load(path), m)
    again = faultmap.save(faultmap.load(path), path.with_name("again.npz"))
    assert again.read_bytes() == path.read_bytes()


BENT = failure.through("bent", [0.53, 0.55, 0.57, 0.60, 0.65], [1.2e-3, 2e-4, 2e-5, 1e-6, 1e-9])


@pytest.mark.parametrize("chip", [34, *range(5)])
@pytest.mark.parametrize("floor", [0.54, 0.56, 0.58, 0.61])
def test_intermittent_maps_on_a_bent_curve_come_back(chip, floor, tmp_path):
    """Where the curve flattens below the floor, noise reaches further down in volts than above it."""
    m = faultmap.generate(chip, Geometry(8), BENT, voltage_floor=floor, noise=0.1)
    assert identical(faultmap.load(faultmap.save(m, tmp_path / "m.npz")), m)


def test_cells_far_below_the_floor_are_refused(tmp_path):
    m = faultmap.generate(34, Geometry(8), BENT, voltage_floor=0.58, noise=0.1)
    deeper = faultmap.generate(34, Geometry(8), BENT, voltage_floor=0.56, noise=0.1)
    assert len(deeper) > len(m) > 0
    path = faultmap.save(dataclasses.replace(deeper, voltage_floor=0.58), tmp_path / "m.npz")
    with pytest.raises(InputError, match="where the map ends"):
        faultmap.load(path)


def test_an_empty_map_can_be_saved(tmp_path):
    m = faultmap.generate(0, Geometry(1), "ibm14", voltage_floor=1.3)
    assert len(m) == 0
    assert identical(faultmap.load(faultmap.save(m, tmp_path / "m.npz")), m)


def test_every_truncation_is_refused(saved, tmp_path):
    content = saved.read_bytes()
    for size in [0, 1, 50, *range(100, len(content), len(content) // 40), len(content) - 1]:
        cut = tmp_path / "cut.npz"
        cut.write_bytes(content[:size])
        with pytest.raises(InputError, match=r"cut\.npz"):
            faultmap.load(cut)


def test_no_damaged_byte_gives_another_map(saved, example, tmp_path):
    content = bytearray(saved.read_bytes())
    rng = np.random.default_rng(0)
    refused = 0
    for position in rng.integers(0, len(content), 300):
        damaged = content.copy()
        damaged[position] ^= 1 << int(rng.integers(8))
        path = tmp_path / "damaged.npz"
        path.write_bytes(damaged)
        try:
            assert identical(faultmap.load(path), example)  # a byte of the archive that says nothing, such as a date
        except InputError:
            refused += 1
    assert refused > 200


def test_every_inverted_byte_of_an_npy_header_is_refused(saved, example, tmp_path):
    """All 128 bytes of the header of each array inverted whole: what numpy parses as Python is then hardly Python."""
    content = saved.read_bytes()
    starts = [match.start() for match in re.finditer(b"\x93NUMPY", content)]
    assert len(starts) == 5
    path = tmp_path / "damaged.npz"
    for position in (start + i for start in starts for i in range(128)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 255]) + content[position + 1 :])
        with pytest.raises(InputError, match=r"damaged\.npz"):
            faultmap.load(path)


def test_damage_in_a_compressed_archive_is_refused(saved, tmp_path):
    header, arrays = parts(saved)
    path = tmp_path / "damaged.npz"
    np.savez_compressed(path, header=packed(header), **arrays)
    content = path.read_bytes()
    for position in range(100, len(content), len(content) // 60):
        path.write_bytes(content[:position] + bytes([content[position] ^ 255]) + content[position + 1 :])
        try:
            faultmap.load(path)  # a byte that says nothing
        except InputError as refusal:
            assert "damaged.npz" in str(refusal)  # noqa: PT017  either outcome is right


def archive(path, **arrays):
    with open(path, "wb") as file:
        np.savez(file, **arrays)
    return path


def parts(saved):
    with np.load(saved) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(arrays.pop("header").tobytes()), arrays


def packed(header):
    return np.frombuffer(json.dumps(header).encode(), np.uint8)


def test_foreign_files_are_refused(saved, tmp_path):
    header, arrays = parts(saved)
    foreign = {
        "text.npz": b"bank,row,column,voltage\n0,0,0,0.8\n",
        "pickle.npz": pickle.dumps({"cell": [1, 2, 3]}),
    }
    for name, content in foreign.items():
        (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "array.npy", arrays["cell"])
    objects = io.BytesIO()
    np.savez(objects, header=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "objects.npz").write_bytes(objects.getvalue())
    archive(tmp_path / "no_header.npz", **arrays)
    archive(tmp_path / "other_format.npz", header=packed(header | {"format": "weights"}), **arrays)
    archive(tmp_path / "list.npz", header=packed([1, 2]), **arrays)
    archive(tmp_path / "extra.npz", header=packed(header), **arrays, extra=np.zeros(3))
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 8
    for path in [*paths, tmp_path / "missing.npz", tmp_path]:
        with pytest.raises(InputError, match=path.name):
            faultmap.load(path)


def test_nothing_in_an_archive_is_unpickled(tmp_path):
    sprung = tmp_path / "sprung"
    np.savez(tmp_path / "evil.npz", header=np.array([Trap(sprung)], dtype=object))
    with pytest.raises(InputError, match="evil"):
        faultmap.load(tmp_path / "evil.npz")
    assert not sprung.exists()
    np.load(tmp_path / "evil.npz", allow_pickle=True)["header"]  # it would have
    assert sprung.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", 99),
        ("chip", -1),
        ("seed", 1.5),
        ("first_bank", -1),
        ("first_bank", "0"),
        ("voltage_floor", "low"),
        ("voltage_floor", 0.9),
        ("geometry", {"banks": 1, "rows": 8, "columns": 64, "word_bits": 64}),
        ("structure", {"column": 2.0}),
        ("structure", {"colour": 0.1}),
        ("curve", {"name": "x"}),
        ("curve", "ibm14"),
        ("curve", None),
        ("structure", [0.1]),
        ("geometry", "ibm14"),
        ("geometry", {"banks": 2, "colour": 1}),
        ("colour", "red"),
    ],
)
def test_headers_that_do_not_fit_are_refused(saved, tmp_path, key, value):
    header, arrays = parts(saved)
    path = archive(tmp_path / "wrong.npz", header=packed(header | {key: value}), **arrays)
    with pytest.raises(InputError, match=r"wrong\.npz"):
        faultmap.load(path)


def test_arrays_that_are_no_map_are_refused(saved, tmp_path):
    header, arrays = parts(saved)
    cell, critical, kind = (arrays[name] for name in ARRAYS)
    wrong = [
        {"cell": cell.astype(np.int32)},
        {"cell": np.where(np.arange(len(cell)) == 5, cell[6], cell)},
        {"cell": np.where(np.arange(len(cell)) == 5, -1, cell)},
        {"critical_voltage": critical[::-1].copy()},
        {"critical_voltage": critical[:-1]},
        {"critical_voltage": np.where(np.arange(len(cell)) == 5, np.float32("nan"), critical)},
        {"kind": np.full_like(kind, 3)},
        {"noise": -arrays["noise"]},
        {"cell": np.int64(5)},
    ]
    for change in wrong:
        path = archive(tmp_path / "wrong.npz", header=packed(header), **(arrays | change))
        with pytest.raises(InputError, match=next(iter(change))):
            faultmap.load(path)


def test_a_map_with_runs_comes_back_and_one_without_is_the_file_it_was_before_there_were_runs(tmp_path):
    with_runs = faultmap.generate(1, Geometry(2), "ibm14", "column_runs", voltage_floor=0.8)
    assert faultmap.load(faultmap.save(with_runs, tmp_path / "runs.npz")).structure == with_runs.structure
    assert mapfile.header(with_runs)["structure"]["run"] == 0.16
    without = faultmap.generate(1, Geometry(2), "ibm14", "column", voltage_floor=0.8)
    assert set(mapfile.header(without)["structure"]) == {"die", "bank", "smooth", "column", "row", "column_tail"}

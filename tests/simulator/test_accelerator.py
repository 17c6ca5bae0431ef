"""Do presets and user files give the machine they describe, and mistakes a message?"""

import re
from dataclasses import replace

import pytest

from simulator.accelerator import (
    MOST_ELEMENTS,
    MOST_LATENCY_CYCLES,
    Accelerator,
    Buffer,
    accelerator,
    accelerator_names,
)
from simulator.array.cycles import simulate
from simulator.energy import energy
from simulator.figures import energy_table
from simulator.operating_point import weights_at
from simulator.workload import Workload, conv
from sram.errors import InputError
from sram.geometry import Geometry
from tests.conftest import ROOT

BASE = """
array_rows: 8
array_cols: 4
dataflow: ws
ifmap_buffer: {capacity_bytes: 16384}
weight_buffer: {capacity_bytes: 8192, double: false}
ofmap_buffer: {capacity_bytes: 16384}
dram_bytes_per_cycle: 4
dram_latency_cycles: 10
clock_hz: 1.0e+8
node_nm: 45
"""


@pytest.mark.parametrize("name", accelerator_names())
def test_every_preset_runs_and_has_all_its_energies(name):
    machine = accelerator(name)
    counts = simulate(Workload("one", (conv("c", 16, 16, 8, 16, kernel=3),)), machine)
    found = energy(counts)
    assert 0 < found.weight_sram_pj < found.sram_pj < found.system_pj
    for buffer in (machine.ifmap_buffer, machine.weight_buffer, machine.ofmap_buffer):
        geometry = Geometry.of_capacity(buffer.capacity_bytes, buffer.bank_rows, buffer.bank_columns, buffer.word_bits)
        assert geometry.capacity_bytes == pytest.approx(buffer.capacity_bytes, rel=0.05)


def test_the_papers_machine():
    machine = accelerator("paper")
    assert (machine.array_rows, machine.array_cols, machine.dataflow) == (32, 32, "os")
    buffer = machine.weight_buffer
    assert (buffer.capacity_bytes, buffer.bank_rows, buffer.bank_columns, buffer.word_bits) == (262144, 512, 64, 64)


def test_user_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(BASE)
    machine = accelerator(path)
    assert machine == Accelerator(
        "mine", 8, 4, "ws", Buffer(16384), Buffer(8192, double=False), Buffer(16384), 4.0, 10, 1e8, 45.0
    )
    assert machine.weight_buffer.usable_bytes == 8192
    assert machine.ifmap_buffer.usable_bytes == 8192


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("array_rows: 8", "array_rows: 0", "array_rows = 0"),
        ("array_rows: 8", "array_rows: eight", "array_rows = 'eight'"),
        ("array_rows: 8\n", "", "array_rows"),
        ("array_rows: 8", "array_rowz: 8", "array_rowz = 8 is not allowed; allowed: name, array_rows"),
        ("dataflow: ws", "dataflow: xs", "dataflow = 'xs'"),
        (
            "dataflow: ws",
            "dataflow: rs",
            "scratchpads = None is not allowed; allowed: the words of an element's memories",
        ),
        ("double: false", "ports: 2", "weight_buffer.ports = 2 is not allowed; allowed: capacity_bytes"),
        ("8192, double", "-1, double", "weight_buffer.capacity_bytes = -1"),
        ("clock_hz: 1.0e+8", "clock_hz: 0", "clock_hz = 0"),
        ("node_nm: 45", "node_nm: 45\nrails: {sram: 0.9}", "rails.logic = None"),
        ("double: false", "rail: vmem", "rails.vmem = None"),
        ("dataflow: ws", "dataflow: [", "valid YAML"),
        pytest.param("dataflow: ws", "dataflow: " + "[" * 5000, "valid YAML", id="5000 brackets"),
        ("array_rows: 8", "array_rows: 99999999999999999999", "allowed: a number below 2^63"),
        pytest.param("array_rows: 8", "array_rows: " + "9" * 5000, "allowed: a finite number", id="5000 digits"),
        ("array_cols: 4", "array_cols: 65537", "array_cols = 65537 is not allowed; allowed: 1 to 65536"),
        ("array_cols: 4", "array_cols: 4\nbatch: 9999999999", "batch = 9999999999"),
        ("array_cols: 4", "array_cols: 4\nvector_lanes: 9999999999", "vector_lanes = 9999999999"),
        ("array_cols: 4", "array_cols: 4\nweight_bits: 9999999999", "weight_bits = 9999999999"),
        ("cycles: 10", "cycles: 99999999999999999999", "dram_latency_cycles (line 9) = '9999"),
        ("cycles: 10", "cycles: -1", "dram_latency_cycles = -1"),
        ("16384", "99999999999999999999", "ifmap_buffer.capacity_bytes (line 5) = '9999"),
        ("double: false", "macros: 99999999999999999999", "weight_buffer.macros (line 6) = '9999"),
        ("clock_hz: 1.0e+8", "clock_hz: .inf", "clock_hz (line"),
        ("node_nm: 45", "node_nm: .inf", "node_nm (line"),
        ("node_nm: 45", "node_nm: .nan", "node_nm (line"),
        ("node_nm: 45", "node_nm: 45\nrails: {sram: 0.9, logic: .inf}", "rails.logic (line"),
    ],
)
def test_a_mistake_names_file_key_value_and_what_is_allowed(tmp_path, old, new, message):
    path = tmp_path / "mine.yaml"
    assert old in BASE
    path.write_text(BASE.replace(old, new))
    with pytest.raises(InputError) as error:
        accelerator(path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(f"{BASE}note: 45 \xb5m\n".encode("latin-1"))
    with pytest.raises(InputError) as error:
        accelerator(path)
    assert str(error.value) == f"{path}: content = 'bytes that are not UTF-8' is not allowed; allowed: valid YAML"


@pytest.mark.parametrize("key", ["array_rows", "array_cols", "dram_latency_cycles", "batch", "vector_lanes"])
def test_the_largest_machine_still_counts(key):
    most = {"dram_latency_cycles": MOST_LATENCY_CYCLES}.get(key, MOST_ELEMENTS)
    counts = simulate(
        Workload("one", (conv("c", 16, 16, 8, 16, kernel=3),)), replace(accelerator("paper"), **{key: most})
    )
    assert (counts.layers["cycles"] > 0).all()
    assert energy(counts).system_pj > 0


def test_the_examples_in_the_documentation_run(tmp_path):
    text = (ROOT / "docs" / "tutorials" / "accelerator.md").read_text(encoding="utf-8")
    machine_text, energies_text, _ = re.findall(r"```yaml\n(.*?)```", text, flags=re.S)
    machine, energies = tmp_path / "machine.yaml", tmp_path / "energies.yaml"
    machine.write_text(machine_text)
    energies.write_text(energies_text)
    counts = simulate(Workload("one", (conv("c", 16, 16, 8, 16, kernel=3),)), accelerator(machine))
    assert energy(
        counts, weights_at(counts.accelerator, 0.4), table=energy_table(energies)
    ).weight_sram_pj == pytest.approx(float(counts.weight_word_reads().sum()) * 9.3 / 4)


def test_an_unknown_name_lists_the_presets():
    with pytest.raises(InputError, match="edge, eyeriss, gap9-like, ndp120-like, paper, tpu"):
        accelerator("cray")

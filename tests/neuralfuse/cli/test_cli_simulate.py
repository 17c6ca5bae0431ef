"""Does `neuralfuse simulate` do what its contract says, and end with one line and status 2 on a user's mistake?"""

import csv

import pytest

from neuralfuse.cli import main
from simulator.compat.scalesim import COLUMNS

TOPOLOGY = "Layer, IH, IW, FH, FW, C, N, S,\nConv1, 34, 34, 3, 3, 3, 64, 1,\nFC, 1, 1, 1, 1, 64, 10, 1,\n"


@pytest.fixture
def topology(tmp_path):
    path = tmp_path / "net.csv"
    path.write_text(TOPOLOGY)
    return str(path)


def run(*arguments: str) -> str | int | None:
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *arguments])
    return ended.value.code


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_counts_and_energies_of_a_network_with_totals(tmp_path, capsys):
    out = tmp_path / "out.csv"
    assert run("--network", "resnet8", "--input", "3x32x32", "--accelerator", "edge", "--out", str(out)) == 0
    rows = rows_of(out)
    assert rows[-1]["layer"] == "total"
    assert int(rows[-1]["macs"]) == sum(int(row["macs"]) for row in rows[:-1]) == 12501632
    for column in ("cycles", "scope_system_pj", "mac_pj"):
        assert float(rows[-1][column]) == pytest.approx(sum(float(row[column]) for row in rows[:-1]))
    assert "total" in capsys.readouterr().out


def test_voltage_lowers_the_weight_rail_alone_in_volts_or_in_multiples_of_vmin(tmp_path, topology, capsys):
    energy, other = {}, set()
    for voltage in ("0.8V", "0.4", "0.5Vmin"):  # the paper preset's rails are at 0.8 V
        out = tmp_path / "out.csv"
        assert run("--topology", topology, "--voltage", voltage, "--out", str(out)) == 0
        assert f"rail weights at {voltage}" in capsys.readouterr().out
        energy[voltage] = float(rows_of(out)[-1]["scope_weight_sram_pj"])
        other.add(rows_of(out)[-1]["activation_sram_pj"])
    assert len(other) == 1
    assert energy["0.4"] == pytest.approx(energy["0.5Vmin"])
    assert energy["0.8V"] == pytest.approx(4 * energy["0.4"])


def test_scalesim_mode_writes_exactly_its_columns(tmp_path, topology):
    out = tmp_path / "out.csv"
    assert run("--topology", topology, "--compat", "scalesim", "--out", str(out)) == 0
    rows = rows_of(out)
    assert tuple(rows[0]) == COLUMNS
    # os, 32 x 32: 32 x 2 folds of 32 + 32 + 27 - 2 cycles, less one
    assert [row["layer"] for row in rows] == ["Conv1", "FC"]
    assert rows[0]["total_cycles"] == str(64 * 89 - 1)


def test_where_prints_bank_row_and_columns(topology, capsys):
    assert run("--topology", topology, "--where", "Conv1:27", "--schedule", "resident") == 0
    lines = capsys.readouterr().out.splitlines()
    # os order: tap 0 of filters 0 to 31 first; weight 27 is tap 0 of filter 1, the second byte of word 0
    assert lines[-1] == "residency 0: bank 0, row 0, columns 8, 9, 10, 11, 12, 13, 14, 15"


def test_plots(tmp_path, topology):
    assert run("--topology", topology, "--plots", str(tmp_path / "plots")) == 0
    written = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"energy_per_layer.svg", "cycles_per_layer.png", "roofline.svg"} <= written


def test_unknown_operators_are_said(tmp_path, capsys):
    import torch

    class Unusual(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.svdvals(x)

    path = tmp_path / "unusual.pt2"
    torch.export.save(torch.export.export(Unusual(), (torch.zeros(1, 4, 4),)), path)
    assert run("--model", str(path)) == 0
    assert "not counted:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--network", "nothing", "--input", "3x32x32"],
        ["--network", "resnet8"],
        ["--network", "resnet8", "--input", "3by32"],
        ["--network", "resnet8", "--input", "3"],
        ["--model", "missing.onnx"],
        ["--model", "net.txt"],
        ["--topology", "missing.csv"],
        ["--accelerator", "paper"],
        ["--topology", "TOPOLOGY", "--network", "resnet8"],
        ["--topology", "TOPOLOGY", "--accelerator", "nothing"],
        ["--topology", "TOPOLOGY", "--accelerator", "paper", "--scalesim-config", "a.cfg"],
        ["--topology", "TOPOLOGY", "--compat", "timeloop"],
        ["--topology", "TOPOLOGY", "--voltage", "low"],
        ["--topology", "TOPOLOGY", "--voltage", "-1V"],
        ["--topology", "TOPOLOGY", "--energy-table", "nothing"],
        ["--topology", "TOPOLOGY", "--where", "Conv9:0"],
        ["--topology", "TOPOLOGY", "--where", "Conv1:1728"],
        ["--topology", "TOPOLOGY", "--batch", "0"],
        ["--network", "resnet8", "--input", "3x32x32", "--batch", "10000000"],  # transfers with DRAM
        ["--network", "resnet8", "--input", "3x32x32", "--batch", "100000000000000000000"],  # operations
    ],
)
def test_mistakes_end_with_status_2_and_one_message(arguments, topology, capsys):
    assert run(*[topology if part == "TOPOLOGY" else part for part in arguments]) == 2
    error = capsys.readouterr().err
    assert error
    assert "Traceback" not in error

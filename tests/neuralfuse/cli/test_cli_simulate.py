"""Does `neuralfuse simulate` do what its contract says, and end with one line and status 2 on a user's mistake?"""

import csv

import pytest

from neuralfuse.cli import main
from simulator.accelerator import PRESETS
from simulator.compat.scalesim import COLUMNS

TOPOLOGY = "Layer, IH, IW, FH, FW, C, N, S,\nConv1, 34, 34, 3, 3, 3, 64, 1,\nFC, 1, 1, 1, 1, 64, 10, 1,\n"


@pytest.fixture
def topology(tmp_path):
    path = tmp_path / "net.csv"
    path.write_text(TOPOLOGY)
    return str(path)


def run(*arguments: str, command: str = "simulate") -> str | int | None:
    with pytest.raises(SystemExit) as ended:
        main([command, *arguments])
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


LOW = ("--rail", "weights=0.83Vmin", "--rail", "logic=0.72V", "--clock", "follow")


def test_rails_are_lowered_and_the_clock_follows(tmp_path, topology, capsys):
    """Edge: all rails at 0.8 V, 500 MHz; at nine tenths the logic's path takes 1.445 times as long."""
    out, arguments = (
        tmp_path / "out.csv",
        ("--topology", topology, "--accelerator", "edge", "--out", str(tmp_path / "out.csv")),
    )
    assert run(*arguments) == 0
    nominal = rows_of(out)[-1]
    assert run(*arguments, *LOW) == 0
    low, shown = rows_of(out)[-1], capsys.readouterr().out
    assert "rail weights at 0.83Vmin, rail logic at 0.72V" in shown
    assert "at 346 MHz" in shown

    def ratio(column):
        return float(low[column]) / float(nominal[column])

    assert ratio("weight_sram_reads_pj") == pytest.approx(0.83**2)
    assert ratio("mac_pj") == pytest.approx(0.81)
    assert ratio("activation_sram_pj") == 1
    assert ratio("seconds") == pytest.approx(1.445, abs=0.0005)
    assert float(low["energy_delay_chip_pj_s"]) == pytest.approx(float(low["scope_chip_pj"]) * float(low["seconds"]))
    assert "guess" not in shown
    assert run(*arguments, "--rail", "logic=0.5", "--clock", "follow") == 0
    assert "the clock is a guess" in capsys.readouterr().out


def test_voltage_is_short_for_the_rail_of_the_weights(tmp_path, topology):
    for name, given in (("a", ["--voltage", "0.7"]), ("b", ["--rail", "weights=0.7V"])):
        assert run("--topology", topology, *given, "--out", str(tmp_path / name)) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_leaks_between_inferences_is_printed_with_the_supply_that_holds(tmp_path, topology, capsys):
    from simulator.accelerator import PRESETS

    mine = tmp_path / "mine.yaml"
    mine.write_text((PRESETS / "paper.yaml").read_text() + "\nretention_v: 0.5\n")
    for machine, said in (("paper", "(no rail lowered)"), (str(mine), "(logic off, buffers at 0.5 V)")):
        assert run("--topology", topology, "--accelerator", machine, "--rate", "10") == 0
        assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--rail", "io=0.7"], "rail = 'io' is not allowed; allowed: of paper: sram, logic, weights, activations"),
        (["--rail", "weights=0.83"], "weights = '0.83' is not allowed; allowed: at most 0.8V, nominal on paper"),
        (["--rail", "weights=1.1Vmin"], "allowed: at most 1Vmin, nominal on paper"),
        (["--voltage", "0.9V"], "allowed: at most 0.8V"),
        (["--rail", "weights=0.9Vmin", "--rail", "activations=0.7"], "allowed: memories in one unit, V or Vmin"),
        (["--rail", "logic=0.9Vmin"], "allowed: volts: Vmin is that of a memory"),
        (["--rail", "logic=0.7", "--clock", "5e8"], "clock_hz = 500000000.0 is not allowed; allowed: at most"),
        (["--rail", "logic=0.4", "--clock", "follow"], "above the threshold of 0.4564 V"),
        (["--clock", "fast"], "--clock = 'fast' is not allowed; allowed: follow, or a number of Hz"),
        (["--clock", "-1"], "clock_hz = -1.0"),
        (["--rail", "weights"], "--rail = 'weights' is not allowed; allowed: RAIL=SUPPLY"),
        (["--rail", "logic=0.7", "--rail", "logic=0.6"], "each rail once"),
        (["--voltage", "0.7", "--rail", "weights=0.6"], "only one of it and --rail weights"),
        (["--rate", "1e9"], "rate = 1000000000.0 is not allowed; allowed: more than 0, and at most"),
        (["--compat", "scalesim", "--rail", "weights=0.7"], "--rail"),
    ],
)
def test_a_point_that_cannot_be_is_refused_in_one_line(given, message, topology, capsys):
    assert run("--topology", topology, *given) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_scalesim_mode_writes_exactly_its_columns(tmp_path, topology):
    out = tmp_path / "out.csv"
    assert run("--topology", topology, "--compat", "scalesim", "--out", str(out)) == 0
    rows = rows_of(out)
    assert tuple(rows[0]) == COLUMNS
    # os, 32 x 32: 32 x 2 folds of 32 + 32 + 27 - 2 cycles, less one
    assert [row["layer"] for row in rows] == ["Conv1", "FC"]
    assert rows[0]["total_cycles"] == str(64 * 89 - 1)


def test_place_prints_bank_row_and_columns(topology, capsys):
    assert run("Conv1:27", "--topology", topology, "--schedule", "resident", command="place") == 0
    lines = capsys.readouterr().out.splitlines()
    # os order: tap 0 of filters 0 to 31 first; weight 27 is tap 0 of filter 1, the second byte of word 0
    assert lines[-1] == "residency 0: bank 0, row 0, columns 8, 9, 10, 11, 12, 13, 14, 15"


def test_place_says_which_core(topology, tmp_path, capsys):
    machine = tmp_path / "two.yaml"
    edge = (PRESETS / "edge.yaml").read_text().replace("keep_on_chip: true", "keep_on_chip: false")
    machine.write_text(edge + "cores: 2\n")
    given = ("--topology", topology, "--accelerator", str(machine))
    # ws: tap 0 enters last of a fold of 16 rows of 2 words; filter 63 is in the second core's second column of folds
    for weight, where in ((0, "core 0, bank 0, row 30"), (63 * 27, "core 1, bank 16, row 85")):
        assert run(f"Conv1:{weight}", *given, command="place") == 0
        assert capsys.readouterr().out.splitlines()[-1].startswith(f"residency 0: {where}")
    assert run("Conv1", str(tmp_path / "t.csv"), *given, command="trace") == 0
    assert {row["core"] for row in rows_of(tmp_path / "t.csv")} == {"0", "1"}


def test_trace_writes_the_layer_that_is_named(topology, tmp_path, capsys):
    file = tmp_path / "fc.csv"
    assert run("FC", str(file), "--topology", topology, command="trace") == 0
    assert capsys.readouterr().out == f"{len(rows_of(file))} events in {file}\n"
    assert {"ifmap_read", "filter_read", "ofmap_write"} == {row["operand"] for row in rows_of(file)}


def test_old_spellings_do_the_same_and_say_so(topology, tmp_path, capsys):
    run("Conv1:27", "--topology", topology, command="place")
    new = capsys.readouterr().out
    assert run("--topology", topology, "--where", "Conv1:27") == 0
    old = capsys.readouterr()
    assert (old.out, old.err.count("\n"), "neuralfuse place" in old.err) == (new, 1, True)
    for file in ("new.csv", "old.csv"):
        given = ["FC", str(tmp_path / file)] if file == "new.csv" else ["--trace", f"FC:{tmp_path / file}"]
        assert run(*given, "--topology", topology, command="trace" if file == "new.csv" else "simulate") == 0
    assert (tmp_path / "old.csv").read_bytes() == (tmp_path / "new.csv").read_bytes()


def test_top_prints_the_layers_of_most_energy_and_the_total_and_writes_all(topology, tmp_path, capsys):
    assert run("--topology", topology, "--top", "1", "--out", str(tmp_path / "out.csv")) == 0
    out = capsys.readouterr().out
    assert "Conv1" in out
    assert "FC" not in out
    assert "total" in out
    assert [row["layer"] for row in rows_of(tmp_path / "out.csv")] == ["Conv1", "FC", "total"]


def test_tables_are_not_cut_where_the_output_is_redirected(topology, capsys):
    assert run("--topology", topology, "--compat", "scalesim") == 0
    head = next(line for line in capsys.readouterr().out.splitlines() if "layer" in line)
    assert all(name.replace("_", " ") in head for name in COLUMNS)


def test_plots(tmp_path, topology, capsys):
    assert run("--topology", topology, "--plots", str(tmp_path / "plots")) == 0
    written = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"energy_per_layer.svg", "cycles_per_layer.png", "roofline.svg"} <= written
    assert {str(tmp_path / "plots" / name) for name in written} <= set(capsys.readouterr().out.splitlines())


def exported(module, path, *inputs):
    import torch

    torch.export.save(torch.export.export(module.eval(), inputs), path)
    return str(path)


def test_totals_over_what_is_not_counted_are_partial(tmp_path, capsys):
    import torch

    class Unusual(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.svdvals(x.relu())

    path, out = exported(Unusual(), tmp_path / "unusual.pt2", torch.zeros(1, 4, 4)), tmp_path / "out.csv"
    assert run("--model", path, "--out", str(out)) == 3
    shown = capsys.readouterr()
    assert "not counted:" in shown.err
    assert "total (partial)" in shown.out
    assert rows_of(out)[-1]["layer"] == "total (partial)"
    assert run("--model", path, "--allow-partial") == 0
    assert run("--model", exported(torch.nn.Conv3d(1, 2, 3), tmp_path / "c.pt2", torch.zeros(1, 1, 4, 4, 4))) == 2


def tokens(num_classes, in_channels):
    import torch

    return torch.nn.Sequential(torch.nn.Embedding(in_channels, 8), torch.nn.Linear(8, num_classes))


def test_whole_numbers_as_input(tmp_path):
    out = tmp_path / "out.csv"
    assert run("--network", f"{__name__}:tokens", "--input", "12:int", "--out", str(out)) == 0
    assert int(rows_of(out)[-1]["macs"]) == 12 * 8 * 10


def test_a_shape_that_is_not_used_is_refused(tmp_path, topology, capsys):
    import torch

    path = exported(torch.nn.Linear(4, 4), tmp_path / "l.pt2", torch.zeros(1, 4))
    assert run("--model", path, "--input", "4") == 0
    for arguments in (["--model", path, "--input", "5"], ["--topology", topology, "--input", "3x8x8"]):
        assert run(*arguments) == 2
        assert "input shape" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--network", "nothing", "--input", "3x32x32"],
        ["--network", "resnet8"],
        ["--network", "resnet8", "--input", "3by32"],
        ["--network", "resnet8", "--input", "3"],
        ["--network", "resnet8", "--input", "3x-1x32"],
        ["--network", "resnet8", "--input", "3x32x32,3"],
        ["--model", "missing.onnx"],
        ["--model", "net.txt"],
        ["--topology", "missing.csv"],
        ["--accelerator", "paper"],
        ["--topology", "TOPOLOGY", "--network", "resnet8"],
        ["--topology", "TOPOLOGY", "--accelerator", "nothing"],
        ["--topology", "TOPOLOGY", "--accelerator", "paper", "--scalesim-config", "a.cfg"],
        ["--topology", "TOPOLOGY", "--compat", "timeloop"],
        ["--topology", "TOPOLOGY", "--compat", "scalesim", "--voltage", "0.8Vmin"],
        ["--topology", "TOPOLOGY", "--compat", "scalesim", "--plots", "plots"],
        ["--topology", "TOPOLOGY", "--where", "Conv1:0", "--out", "o.csv"],
        ["--topology", "TOPOLOGY", "--trace", "Conv1:t.csv", "--voltage", "0.8Vmin"],
        ["--topology", "TOPOLOGY", "--schedule", "resident"],
        ["--topology", "TOPOLOGY", "--voltage", "low"],
        ["--topology", "TOPOLOGY", "--voltage", "-1V"],
        ["--topology", "TOPOLOGY", "--energy-table", "nothing"],
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


@pytest.mark.parametrize(
    ("command", "given"),
    [
        ("place", ["Conv9:0"]),
        ("place", ["Conv1:1728"]),
        ("place", ["Conv1:0", "--schedule", "nothing"]),
        ("trace", ["Conv9", "a.csv"]),
        ("trace", ["Conv1", "a.txt"]),
    ],
)
def test_mistakes_of_place_and_trace(command, given, topology, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*given, "--topology", topology, command=command) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "net.csv"]


@pytest.mark.parametrize("option", ["--batch", "--top"])
def test_bounds_of_options_hold_in_commands_that_may_import(option, topology, capsys):
    assert run("--topology", topology, option, "0") == 2
    assert option in capsys.readouterr().err


def test_a_schedule_is_searched_saved_and_given_back(tmp_path, capsys):
    network = ("--network", "resnet8", "--input", "3x32x32", "--accelerator", "edge")
    plan, found, again, untiled = (tmp_path / name for name in ("plan.yaml", "a.csv", "b.csv", "c.csv"))
    assert run(*network, "--save-schedule", str(plan), "--out", str(found)) == 0
    assert "1: " in capsys.readouterr().out
    assert run(*network, "--schedule", str(plan), "--out", str(again)) == 0
    assert again.read_text() == found.read_text()
    assert run(*network, "--schedule", "fixed", "--out", str(untiled)) == 0
    assert float(rows_of(found)[-1]["scope_system_pj"]) <= float(rows_of(untiled)[-1]["scope_system_pj"])
    assert run("stem.0:3", *network, "--tiles", str(plan), command="place") == 0
    assert run("head", str(tmp_path / "t.csv"), *network, "--tiles", "fixed", command="trace") == 0
    capsys.readouterr()
    assert run(*network, "--schedule", "quick") == 2
    assert "schedule = 'quick' is not allowed; allowed: search, fixed, or a YAML file" in capsys.readouterr().err
    plan.write_text("samples: 1\nlayers: {stem.0: {dataflow: rs, samples: 1, m: 1, k: 1, n: 1}}\n")
    assert run(*network, "--schedule", str(plan)) == 2
    assert "plan.yaml" in capsys.readouterr().err

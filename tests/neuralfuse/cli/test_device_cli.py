"""`neuralfuse device`: what a user types, and what comes of it."""

import csv
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from neuralfuse.cli import main
from sram import faultmap
from sram.curvefit import read_counts
from sram.geometry import Geometry
from tests.conftest import ROOT

SECRET = "correct horse battery"


@pytest.fixture
def hidden(tmp_path):
    fault_map = faultmap.generate(4, Geometry(2), "ibm14", voltage_floor=0.75)
    faultmap.save(fault_map, tmp_path / "hidden.npz")
    return fault_map


def call(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code


def same(recovered, hidden):
    n = hidden.count(recovered.voltage_floor)
    return set(zip(recovered.cell, recovered.kind, strict=True)) == set(
        zip(hidden.cell[:n], hidden.kind[:n], strict=True)
    )


def test_characterize_leaves_map_rates_and_page(tmp_path, hidden, capsys):
    out = tmp_path / "out"
    arguments = ("device", "characterize", f"simulated:{tmp_path / 'hidden.npz'}", "--out", out, "--repeats", 2)
    assert call(*arguments, "--stop", 0.02) == 0
    assert "weak cells of 65,536" in capsys.readouterr().out
    assert same(faultmap.load(out / "map.npz"), hidden)
    rows = list(csv.DictReader((out / "rates.csv").open()))
    assert [int(row["faulty_cells"]) for row in rows] == [hidden.count(float(row["voltage"])) for row in rows]
    assert read_counts(out / "rates.csv").faulty.max() == int(rows[-1]["faulty_cells"])  # what `curve fit` reads
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 3
    assert not re.search(r"(src|href)=.?(http|//)", page)
    before = (out / "map.npz").read_bytes()
    assert call(*arguments, "--stop", 0.02) == 0  # again: all of it from what is stored
    assert (out / "map.npz").read_bytes() == before


def test_serve_and_characterize_across_a_port(tmp_path, hidden, monkeypatch):
    command = [sys.executable, "-m", "neuralfuse", "device", "serve", f"simulated:{tmp_path / 'hidden.npz'}"]
    command += ["--port", "0", "--host", "0.0.0.0"]
    env = {**os.environ, "NEURALFUSE_SECRET": SECRET}
    monkeypatch.setenv("NEURALFUSE_SECRET", SECRET)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as server:
        port = server.stdout.readline().rpartition(":")[2].strip()
        spec, out = f"tcp:127.0.0.1:{port}", tmp_path / "out"
        assert call("device", "characterize", spec, "--out", out, "--voltages", "0.86,0.84,0.82", "--repeats", 1) == 0
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    recovered = faultmap.load(out / "map.npz")
    assert same(recovered, hidden)


def test_a_served_chip_is_characterised_memory_by_memory(tmp_path, hidden):
    buffer = faultmap.generate(4, Geometry(1, rows=256, columns=32, word_bits=32), "ibm14", voltage_floor=0.75, seed=9)
    faultmap.save(buffer, tmp_path / "buffer.npz")
    spec = f"simulated:{tmp_path / 'hidden.npz'},activations={tmp_path / 'buffer.npz'}"
    command = [sys.executable, "-m", "neuralfuse", "device", "serve", spec, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        spec = f"tcp:127.0.0.1:{server.stdout.readline().rpartition(':')[2].strip()}"
        how = ("--voltages", "0.86,0.84,0.82", "--repeats", 1)
        for memory, chip in (("activations", buffer), ("weights", hidden)):
            arguments = ("device", "characterize", spec, "--memory", memory, "--out", tmp_path / memory, *how)
            assert call(*arguments) == 0
            recovered = faultmap.load(tmp_path / memory / "map.npz")
            assert same(recovered, chip)
            assert recovered.geometry == chip.geometry
            assert recovered.curve.source == f"characterized: simulated chip 4, {memory}"
            assert f"Memory of {memory}" in (tmp_path / memory / "report.html").read_text()
        assert call("device", "characterize", spec, "--out", tmp_path / "activations", *how) == 2  # another memory's
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("characterize", "simulated:missing.npz", "--out", "x"), 2, "missing.npz"),
        (("characterize", "vhdl:x", "--out", "x"), 2, "driver:MODULE:CLASS"),
        (("characterize", "tcp:127.0.0.1:1", "--out", "x"), 1, "refused"),
        (("characterize", "HIDDEN", "--out", "x", "--voltages", "0.8,low"), 2, "commas"),
        (("characterize", "HIDDEN", "--out", "x", "--voltages", "0.2"), 2, "Vmin"),
        (("characterize", "HIDDEN", "--out", "x", "--stop", "2"), 2, "stop_rate"),
        (("characterize", "HIDDEN", "--out", "x", "--memory", "activations"), 2, "allowed: weights"),
        (("characterize", "HIDDEN", "--out", "x", "--accelerator", "none"), 2, "paper"),
        (("serve", "HIDDEN", "--host", "0.0.0.0"), 2, "secret"),
        (("serve", "driver:no.such:Board"), 2, "no.such"),
    ],
)
def test_mistakes_are_one_line(tmp_path, hidden, monkeypatch, capsys, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEURALFUSE_SECRET", raising=False)
    spec = f"simulated:{tmp_path / 'hidden.npz'}"
    assert call("device", *(spec if a == "HIDDEN" else a for a in arguments)) == status
    error = capsys.readouterr().err
    assert message in error.strip().splitlines()[-1]
    assert "Traceback" not in error
    assert not (tmp_path / "x" / "map.npz").exists()


def test_a_device_that_fails_half_way_is_one_line_too(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert call("device", "characterize", "driver:tests.device_boards:Lossy", "--out", out) == 1
    error = capsys.readouterr().err
    assert "link was cut" in error
    assert "Traceback" not in error
    assert len(list((out / "readings").glob("*.npz"))) == 2  # what was read is kept


def test_sigterm_leaves_a_board_at_nominal_voltage(tmp_path):
    command = [sys.executable, "-m", "neuralfuse", "device", "characterize", "driver:tests.device_boards:Slow"]
    env = {**os.environ, "SLOW_S": "0.2", "PLAIN_LOG": str(tmp_path / "log"), "PYTHONPATH": str(ROOT)}
    command += ["--voltages", "0.5", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as running:
        while not (tmp_path / "out" / "readings" / "settings.json").exists():
            assert running.poll() is None
            time.sleep(0.02)
        time.sleep(0.3)  # in the middle of a read
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 128 + signal.SIGTERM
        assert "Traceback" not in running.stderr.read()
    assert (tmp_path / "log").read_text() == "released at 0.9 and 0.9"

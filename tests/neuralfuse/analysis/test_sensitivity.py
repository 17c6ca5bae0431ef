"""Do faults in one layer or one bit position hurt where they must, and do the parts make up the whole?"""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from neuralfuse import networks
from neuralfuse.analysis.sensitivity import parts, read_chip, summarise
from neuralfuse.quantized import evaluate
from neuralfuse.quantized.faulty import FaultyNetwork
from tests.conftest import TINY, run


def drawn(model, rate, seed):
    """Every stored bit is flipped with this probability."""
    weight, bit = np.nonzero(np.random.default_rng(seed).random((model.words.size, model.bits)) < rate)
    return weight, bit.astype(np.uint8), np.full(len(bit), 2, np.uint8)


def test_layers_and_bits_each_make_up_all_faults():
    model = FaultyNetwork(networks.build("resnet8", in_channels=1, width=4), bits=6)
    faults = drawn(model, 0.01, seed=0)
    found = list(parts(faults, model))
    assert [part for part, *_ in found] == ["all"] + ["layer"] * len(model.layer_table) + ["bit"] * 6
    for kind in ("layer", "bit"):
        columns = [np.concatenate([f[i] for part, _, _, f in found if part == kind]) for i in range(3)]
        assert sorted(zip(*columns, strict=True)) == sorted(zip(*faults, strict=True))
        assert sum(bits for part, _, bits, _ in found if part == kind) == found[0][2] == 6 * model.words.size


def test_readings_of_disjoint_parts_add_up_to_the_flips_of_all():
    model = FaultyNetwork(networks.build("resnet8", in_channels=1, width=4))
    weight, bit, _ = drawn(model, 0.02, seed=1)
    stuck = np.random.default_rng(2).integers(0, 2, len(weight)).astype(np.uint8)  # half of them hide behind the data
    images, labels = torch.rand(8, 1, 16, 16), torch.zeros(8, dtype=torch.int64)
    readings = read_chip(model, (weight, bit, stuck), 0, 0.0, lambda: evaluate.correct(model, images, labels) / 8)
    flips = {kind: sum(r.flipped_bits for r in readings if r.part == kind) for kind in ("all", "layer", "bit")}
    assert flips["all"] == flips["layer"] == flips["bit"] > 0
    assert np.array_equal(model.words, model.clean_words)


class Heads(nn.Module):
    """Names the largest of four inputs; a second layer whose output does not count, and one of ones."""

    def __init__(self):
        super().__init__()
        self.copy, self.ignored = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        nn.init.eye_(self.copy.weight)
        nn.init.ones_(self.ignored.weight)

    def forward(self, x):
        return self.copy(x) + 0 * self.ignored(x)


def test_the_layer_that_decides_is_found():
    """All sign bits flip: 1 is stored as 127 and reads -1, 0 reads -128 / 127: the largest input is never named."""
    model = FaultyNetwork(Heads())
    everywhere = np.arange(model.words.size)
    faults = everywhere, np.full(everywhere.size, 7, np.uint8), np.full(everywhere.size, 2, np.uint8)
    x = torch.eye(4).repeat(5, 1)
    y = torch.arange(4).repeat(5)

    def share_right():
        return evaluate.correct(model, x, y) / 20

    lost = {(r.part, r.name): r.lost for r in read_chip(model, faults, 0, 1.0, share_right)}
    assert lost["layer", "ignored"] == 0
    assert lost["bit", "6"] == 0  # no fault there
    # logits of the right class 1 - 128 / 127 < 0 and 0 - 128 / 127 of the others: 127 -> -1, 0 -> -128
    assert lost["layer", "copy"] == lost["all", ""] == lost["bit", "7"] == 0
    kept = everywhere[everywhere % 5 == 0][:4]  # the diagonal of `copy` alone
    one = kept, np.full(4, 7, np.uint8), np.full(4, 2, np.uint8)
    lost = {(r.part, r.name): r.lost for r in read_chip(model, one, 0, 1.0, share_right)}
    assert lost["layer", "copy"] == lost["all", ""] == lost["bit", "7"] == 1
    assert lost["layer", "ignored"] == lost["bit", "0"] == 0


def test_higher_bits_hurt_more():
    """60 chips of a matched filter; a bit flip moves a weight by 2^bit steps. For each pair the paired difference of
    losses lies 5 standard errors above 0: equal bits would pass with a probability below 1e-5 (Student, 59 degrees)."""
    random = torch.Generator().manual_seed(0)
    filters = nn.functional.normalize(torch.randn(10, 64, generator=random), dim=1)
    labels = torch.arange(10).repeat(30)
    images = filters[labels] + 0.3 * torch.randn(300, 64, generator=random)
    network = nn.Sequential(nn.Linear(64, 10, bias=False))
    network[0].weight.data = filters.clone()
    model = FaultyNetwork(network)

    def share_right():
        return evaluate.correct(model, images, labels) / 300

    clean = share_right()
    readings = [r for c in range(60) for r in read_chip(model, drawn(model, 0.3, c), c, clean, share_right)]
    lost = {b: np.array([r.lost for r in readings if r.part == "bit" and r.name == str(b)]) for b in range(8)}
    for low, high in ((3, 4), (4, 5), (5, 6), (6, 7)):
        difference = lost[high] - lost[low]
        assert difference.mean() > 5 * difference.std(ddof=1) / 60**0.5, (low, high)
    table = summarise(readings).set_index(["part", "name"])
    assert (table.chips == 60).all()
    assert table.loc[("bit", "7"), "flip_rate"] == pytest.approx(0.3, abs=0.007)  # 3 sigma of 38,400 draws


def test_command_writes_table_and_figures(tiny_copy, capsys):
    study = (tiny_copy / "study.yaml").read_bytes()
    assert run("sensitivity", TINY, "--out", tiny_copy, "--voltage", "0.76", "--workers", 1) == 0
    assert (tiny_copy / "study.yaml").read_bytes() == study
    table = pd.read_csv(tiny_copy / "sensitivity.csv", keep_default_na=False)
    rows = pd.read_csv(tiny_copy / "results.csv").query("voltage == 0.76 and structure == 'column'")
    rows = rows[rows.protection == "none"]
    everything = table[table.part == "all"].iloc[0]
    lost = 100 * (rows.correct_clean - rows.correct) / rows.total
    assert everything.lost_points == pytest.approx(lost.mean(), abs=1e-9)  # the very chips of the sweep
    assert everything.flip_rate == pytest.approx(rows.flip_rate.mean(), rel=1e-9)
    assert everything.lost_points_low < everything.lost_points < everything.lost_points_high
    assert set(table[table.part == "bit"].name.astype(str)) == set("01234567")
    counts = pd.read_csv(tiny_copy / "layers.csv").query("network == 'resnet8' and accelerator == 'paper'")
    words = counts.set_index("layer").weight_sram_reads_64bit_words
    shares = table[table.part == "layer"].set_index("name").reads_share
    assert shares.to_dict() == pytest.approx((words[shares.index] / words["total"]).to_dict())
    assert shares.sum() == pytest.approx(1)
    assert everything.reads_share == table[table.part == "bit"].reads_share.sum() == 1
    assert {p.suffix for p in (tiny_copy / "plots").glob("sensitivity-resnet8.*")} == {".png", ".svg", ".pdf"}
    assert str(tiny_copy / "sensitivity.csv") in capsys.readouterr().out


def test_a_killed_run_measures_only_the_chips_that_are_missing(tiny_copy, monkeypatch):
    command = "sensitivity", TINY, "--out", tiny_copy, "--voltage", "0.76", "--workers", 1
    assert run(*command) == 0
    table, kept = (tiny_copy / "sensitivity.csv").read_bytes(), sorted((tiny_copy / "sensitivity").iterdir())
    assert len(kept) == pd.read_csv(tiny_copy / "results.csv").chip.nunique()
    kept[0].unlink()
    (tiny_copy / "sensitivity.csv").unlink()
    measured = []

    def counted(*arguments):
        measured.append(arguments[2])
        return read_chip(*arguments)

    monkeypatch.setattr("neuralfuse.analysis.sensitivity.read_chip", counted)
    assert run(*command) == 0
    assert len(measured) == 1
    assert (tiny_copy / "sensitivity.csv").read_bytes() == table
    assert run(*command[:4], "--voltage", "0.8", "--workers", 1) == 0  # another supply, other readings
    assert len(measured) == 1 + len(kept)


def test_a_voltage_below_the_study_is_refused_and_nothing_is_written(tmp_path, capsys):
    assert run("sensitivity", TINY, "--out", tmp_path / "new", "--voltage", "0.5") == 2
    message = capsys.readouterr().err.strip()
    assert len(message.splitlines()) == 1
    assert "voltage = 0.5" in message
    assert not (tmp_path / "new").exists()

"""Do the tests tell one that paints the class from one that repairs, and are the chips those of the sweep?"""

import pandas as pd
import pytest
import torch
from torch import nn

from neuralfuse.analysis.explain import paint, read_chip
from tests.conftest import TINY, run

CLASSES, SIDE = 4, 8


def images(n, seed, shade=0.0):
    """A bright quarter tells the class; all is noisy, and `shade` lies over all of it."""
    random = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % CLASSES
    x = 0.3 * torch.randn(n, 1, SIDE, SIDE, generator=random) + shade
    return (x + 0.4 * quarters()[y]).clamp(-1, 1), y


def quarters():
    half, found = SIDE // 2, torch.zeros(CLASSES, 1, SIDE, SIDE)
    for k in range(CLASSES):
        found[k, 0, half * (k // 2) : half * (k // 2 + 1), half * (k % 2) : half * (k % 2 + 1)] = 1
    return found


def read(transform, answers, shade=0.0):
    test, train = images(400, 1, shade), images(400, 2, shade)
    painted = paint(transform, test, train)
    return read_chip(answers, painted, *test, chip=0), painted


def brightest(x):
    """A network that works: the brightest quarter."""
    return (x * quarters()[:, 0]).sum((2, 3)).argmax(1) if x.shape[1] == CLASSES else by_quarter(x).argmax(1)


def by_quarter(x):
    return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


def test_who_paints_is_found_out():
    """The painter darkens the quarter that tells the class and brightens the next; the network reads one further back:
    without it all answers are wrong, behind it nearly all right, and what it says follows the paint alone."""

    def painter(x):
        seen = by_quarter(x).argmax(1)
        return (x + 1.5 * quarters()[(seen + 1) % CLASSES] - 0.5).clamp(-1, 1)

    reading, painted = read(painter, lambda x: (by_quarter(x).argmax(1) - 1) % CLASSES)
    assert reading.bare < 0.05
    assert min(reading.protected, reading.swap, reading.mean, painted.probe_painted, reading.agrees) > 0.9
    assert reading.one_for_all < 0.5


def test_who_repairs_the_same_for_all_images_is_no_painter():
    """A shade drowns all but the darkest pixels: taken away it is repaired, and no class is in what is taken away."""

    def broken(x):
        return torch.where(x.mean((1, 2, 3)) > 0.35, torch.zeros(len(x), dtype=torch.int64), by_quarter(x).argmax(1))

    reading, painted = read(lambda x: x - 0.5, broken, shade=0.5)
    assert reading.bare < 0.5
    assert reading.protected > 0.95
    assert reading.one_for_all > 0.95  # all of it
    assert reading.swap < 0.05
    assert reading.mean < 0.05
    assert painted.probe_painted < 0.5  # chance is 0.25
    assert painted.probe_image > 0.9


def test_command_explains_the_very_chips_of_the_sweep(tiny_copy, capsys):
    study = (tiny_copy / "study.yaml").read_bytes()
    assert run("explain", TINY, "--out", tiny_copy, "--workers", 1) == 0
    assert (tiny_copy / "study.yaml").read_bytes() == study
    (row,) = pd.read_csv(tiny_copy / "explain.csv").to_dict("records")
    rows = pd.read_csv(tiny_copy / "results.csv").query("voltage == 0.76 and structure == 'column'")
    accuracy = 100 * rows.groupby("protection").accuracy.mean()
    assert row["bare"] == pytest.approx(accuracy["none"])
    assert row["protected"] == pytest.approx(accuracy["fuse"])
    assert row["gain"] == pytest.approx(accuracy["fuse"] - accuracy["none"])
    assert row["clean"] == pytest.approx(100 * rows.clean_accuracy.iloc[0])
    assert row["gain_low"] <= row["gain"] <= row["gain_high"]
    assert (row["protection"], row["chips"], row["images"], row["voltage"]) == ("fuse", 3, 120, 0.76)
    assert {p.suffix for p in (tiny_copy / "plots").glob("explain-resnet8.*")} == {".png", ".svg", ".pdf"}
    chips = pd.read_csv(tiny_copy / "explain_chips.csv")
    unprotected = rows[rows.protection == "none"].set_index("chip").accuracy
    assert chips.set_index("chip").bare.to_dict() == pytest.approx(unprotected.to_dict())
    told = capsys.readouterr().out
    assert str(tiny_copy / "explain.csv") in told
    assert f"{row['swap']:.1f} [" in told


def test_a_supply_that_the_study_has_not_and_a_study_without_generators_are_refused(tmp_path, capsys):
    bare = tmp_path / "bare.yaml"
    bare.write_text("name: x\nnetworks: [resnet8]\nvoltages: [1.0, 0.8]\nprotections: [none, calibrated(affine)]\n")
    for command, message in (((TINY, "--voltage", "0.7"), "voltage = 0.7"), ((bare,), "one generator at least")):
        assert run("explain", *command, "--out", tmp_path / "new") == 2
        told = capsys.readouterr().err.strip()
        assert len(told.splitlines()) == 1
        assert message in told
        assert not (tmp_path / "new").exists()

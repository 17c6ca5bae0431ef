"""Is every printed accuracy of the paper a row that one of the study files gives?"""

import sys

import pandas as pd
import pytest

from benchmarks.paper import __main__ as runner
from benchmarks.paper.anchors import Anchor, anchors, efficiency, million_parameters
from benchmarks.paper.energy import read
from neuralfuse.study.files import dump_study, load_studies
from sram import failure


@pytest.fixture(scope="module")
def studies():
    return {name: load_studies(runner.HERE / f"{name}.yaml") for name in runner.STUDIES}


def test_every_printed_figure_has_its_row(studies):
    found = anchors()
    # relaxed 240 and the 40 unprotected; transfer 132 x 2; reduced 42 x 3; lambda 10; universal 10
    assert len(found) == 280 + 264 + 126 + 10 + 10
    for anchor in found:
        study = studies[anchor.study][anchor.variant]
        assert anchor.network in [network.name for network in study.networks], anchor
        assert anchor.protection in [protection.name for protection in study.protections], anchor
        assert round(float(failure.curve("ibm14").voltage(anchor.rate)), 6) in study.voltages, anchor
        assert 0 < anchor.mean <= 100


def test_generators_are_trained_at_the_rate_in_their_name(studies):
    curve = failure.curve("ibm14")
    for variants in studies.values():
        for study in variants.values():
            for protection in study.protections:
                if protection.neuralfuse and "%" in protection.name:
                    rate = float(protection.name.split()[1].rstrip("%")) / 100
                    assert float(curve.probability(protection.neuralfuse.train_voltages[0])) == pytest.approx(
                        rate, rel=1e-3
                    )


def test_table_3_follows_from_table_12():
    """Printed points won back over parameters; one printed figure is a slip (85.8 follows from its own table)."""
    printed = {
        (row["base"].lower(), row["generator"], float(row["ber_pct"]) / 100): float(row["RP"])
        for row in read("paper_relaxed_access.csv")
        if row["dataset"] == "CIFAR-10"
    }
    slips = []
    for network, generator, rate, paper in efficiency():
        size = million_parameters(generator)
        if printed[network, generator, rate] / size != pytest.approx(paper, abs=0.05 / size + 0.051):
            slips.append((network, generator, paper))
    assert slips == [("vgg11", "UNetL", 92.0)]


def test_the_tables_say_what_was_run_and_what_was_not(studies, tmp_path, capsys):
    study = studies["lambda"]["cifar10"]
    supply = round(float(failure.curve("ibm14").voltage(0.01)), 6)
    rows = [("resnet18", "ConvL lambda 5", supply, accuracy) for accuracy in (0.80, 0.90, 0.94)]
    folder = tmp_path / "lambda" / "cifar10"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(dump_study(study))
    pd.DataFrame(rows, columns=["network", "protection", "voltage", "accuracy"]).to_csv(folder / "results.csv")
    runner.print_tables(tmp_path)
    out = capsys.readouterr().out
    assert "  87.8  ±1.7    88.0  ±7.2" in out
    assert "1 of 1 in the paper's band or better; 9 of the printed figures not run" in out
    assert "transfer/gtsrb (76 figures)" in out.partition("Not run:")[2]


def test_fewer_networks_generators_and_steps(studies):
    parser = type("given", (), {})()
    parser.device, parser.root, parser.networks, parser.generators = "cpu", "here", "vgg19", "UNetL"
    parser.steps, parser.epochs = 7, 3
    study = runner.reduced(studies["transfer"]["cifar10"], parser)
    assert [network.name for network in study.networks] == ["vgg19"]
    assert {p.name for p in study.protections} == {"none", "UNetL 1.5% on vgg19", "UNetL 1% on vgg19"}
    assert study.dataset.root == "here"
    assert study.protections[1].neuralfuse.training.steps == 7


@pytest.mark.parametrize("arguments", [["hope"], ["lambda/mnist"], ["lambda", "--root", "x"]])
def test_mistakes_end_with_one_line(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["paper", "--out", str(tmp_path), "--workers", "1", "--run", *arguments])
    with pytest.raises(SystemExit) as end:
        runner.main()
    assert end.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_unprotected_anchors_are_not_doubled():
    assert Anchor("relaxed_access", "cifar10", "resnet18", "none", 0.01, 38.9, 12.4) in anchors()
    assert len(set(anchors())) == len(anchors())

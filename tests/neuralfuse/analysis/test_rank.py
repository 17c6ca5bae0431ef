"""Is a chip's score what its wrong words say, and its place, and the agreement with what was measured?"""

import numpy as np
import pytest
from scipy.stats import spearmanr

from neuralfuse.analysis.fisher import IMAGES, sensitivities
from neuralfuse.analysis.rank import rank_chips, spearman
from neuralfuse.results.tables import read_results, read_table
from neuralfuse.study.files import Study, dump_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.lowered import Die
from neuralfuse.sweep.bench import Bench
from neuralfuse.sweep.executors import choose
from neuralfuse.sweep.run import run_study
from sram.errors import InputError
from sram.progress import silent
from tests.conftest import run

CHIPS = 8
NETWORK = {"name": "resnet8", "options": {"width": 4}, "training": {"epochs": 2, "flip": False, "shift": 0}}


def study_of(**keys):
    common = {
        "dataset": {"name": "digits", "test_images": 60},
        "networks": [
            {"name": "resnet8", "options": {"width": 4}, "training": {"epochs": 2, "flip": False, "shift": 0}}
        ],
        "sram": {"structures": ["column"]},
        "voltages": (0.9, 0.84),
        "chips": {"evaluation": CHIPS},
        "protections": ["none", "hardened_msb:1", "calibrated(affine)"],
    }
    return Study("rank", **common | keys)


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """(folder, what was found before the sweep, and after it)."""
    folder = StudyFolder(tmp_path_factory.mktemp("rank") / "out", study_of(protections=["none", "hardened_msb:1"]))
    before = rank_chips(folder, silent)
    run_study(folder, choose(workers=1), silent)
    return folder, before, rank_chips(folder, silent)


def test_scores_are_half_of_sensitivity_times_change_squared(ranked):
    folder, found, _ = ranked
    bench = Bench(folder)
    model = bench.network("resnet8")
    sensitivity = sensitivities(model, bench.data.train_x[:IMAGES], folder.study.seed)
    written = model.values.numpy().copy()
    for row in found.chips[found.chips.protection == "none"].to_dict("records"):
        stored = bench.chip("resnet8", Die("paper", "column", row["chip"]), ())
        model.set_faults(*stored.faults(row["voltage"]))
        change = model.values.numpy().astype(float) - written
        assert row["score_nats"] == pytest.approx((sensitivity * change**2).sum() / 2, rel=1e-9)
        model.restore()


def test_places_count_from_the_worst(ranked):
    _, found, _ = ranked
    assert len(found.chips) == 2 * 2 * CHIPS
    for (shield, voltage), part in found.chips.groupby(["protection", "voltage"]):
        assert part.score_nats.is_monotonic_decreasing, (shield, voltage)
        assert sorted(part.place) == part.place.tolist()
        assert part.place.iloc[0] == 1
    bare = found.chips[found.chips.protection == "none"].set_index(["voltage", "chip"]).score_nats
    assert (
        bare[0.84].sort_index() >= bare[0.9].sort_index()
    ).mean() > 0.8  # more weak cells; a second wrong bit may mend a word


def test_what_was_measured_stands_beside_it(ranked):
    folder, before, after = ranked
    assert before.chips.accuracy.isna().all()
    assert "no measured accuracy" in before.lines[0]
    rows = read_results(folder.path).set_index(["protection", "voltage", "chip"]).accuracy
    for row in after.chips.to_dict("records"):
        assert row["accuracy"] == rows[row["protection"], row["voltage"], row["chip"]]
    settings = [(shield, voltage) for shield in ("none", "hardened_msb:1") for voltage in ("0.9", "0.84")]
    assert [line.split(": ")[0].split(", ")[3:] for line in after.lines] == [list(setting) for setting in settings]
    kept = read_table(folder.path / "rank.csv")
    assert kept.chip.tolist() == after.chips.chip.tolist()


def test_rank_correlation_is_scipys_and_its_interval_covers():
    """Of 400 lots of 30 pairs with a normal correlation of 0.6, whose rank correlation is 0.58: 95% of intervals hold
    it; fewer than 365 or more than 395 in less than one run in 1,000."""
    rng, held = np.random.default_rng(3), 0
    truth = 6 / np.pi * np.arcsin(0.3)
    for _ in range(400):
        x = rng.normal(size=30)
        y = 0.6 * x + 0.8 * rng.normal(size=30)
        r, low, high = spearman(x, y)
        assert r == pytest.approx(spearmanr(x, y).statistic)
        held += low <= truth <= high
    assert 365 <= held <= 395
    assert np.isnan(spearman(np.ones(9), np.arange(9))).all()


def test_the_command_says_what_it_leaves_out(tmp_path, capsys):
    (tmp_path / "study.yaml").write_text(dump_study(study_of()))
    assert run("rank", tmp_path / "study.yaml", "--out", tmp_path / "out", "--top", "1", "-q") == 0
    said = capsys.readouterr().out
    assert "not scored, for they change more than the memory: calibrated(affine)" in said
    assert "rank.csv" in said


def test_nothing_to_rank_is_one_message(tmp_path):
    folder = StudyFolder(tmp_path / "out", study_of(protections=["calibrated(affine)"]))
    with pytest.raises(InputError, match="none, or a protection of the weight memory"):
        rank_chips(folder, silent)

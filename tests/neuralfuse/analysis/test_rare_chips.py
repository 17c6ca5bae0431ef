"""Are chips that rare failures are looked for among those of the lot, and what moves them and how they score right?"""

import numpy as np
import pytest

from neuralfuse.analysis.rare_chips import Chips
from neuralfuse.results.tables import read_results
from neuralfuse.study.files import Study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.sweep.bench import Bench
from neuralfuse.sweep.executors import choose
from neuralfuse.sweep.run import run_study
from sram.errors import InputError
from sram.memory import Factors
from sram.progress import silent

LOW, CHIPS, IMAGES = 0.84, 6, 100


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    study = Study(
        "rare",
        dataset={"name": "digits", "test_images": IMAGES},
        networks=[{"name": "resnet8", "options": {"width": 4}, "training": {"epochs": 4, "flip": False, "shift": 0}}],
        sram={"structures": ["column", "iid"]},
        voltages=[LOW],
        chips={"evaluation": CHIPS},
        protections=["none", "secded72"],
    )
    folder = StudyFolder(tmp_path_factory.mktemp("rare") / "out", study)
    run_study(folder, choose(workers=1), silent)
    return Bench(folder), read_results(folder.path)


@pytest.mark.parametrize("sram", ["none", "secded72"])
def test_a_chip_loses_what_the_sweep_says(swept, sram):
    bench, rows = swept
    rows = rows[(rows.structure == "column") & (rows.protection == sram)].sort_values("chip")
    lost = (rows.correct_clean - rows.correct).tolist()
    assert len(set(lost)) > 1 or sram == "secded72"
    for points in (1, 20):
        chips = Chips(bench, "resnet8", "column", LOW, points, sram)
        assert [chips.lost(chip) for chip in range(CHIPS)] == lost
        assert [chips.fails(chip) for chip in range(CHIPS)] == [loss > points * IMAGES / 100 for loss in lost]


def test_not_moved_it_is_the_chip_and_moved_it_fails_more(swept):
    chips = Chips(swept[0], "resnet8", "column", LOW, 5)
    own = chips.factors(0)
    still = Factors(0.0, 0 * own.bank, 0 * own.column)
    assert chips.score(0, still) == chips.score(0)
    assert chips.lost(0, still) == chips.lost(0)
    mode = chips.modes[0]
    every = np.zeros(1 + own.bank.size + own.column.size)
    scores = []
    for shift in (0.0, 1.0, 2.0, 3.0):
        every[mode.index(own)] = shift
        banks = own.bank.size
        moved = Factors(every[0], every[1 : 1 + banks], every[1 + banks :].reshape(own.column.shape))
        scores.append(chips.score(0, moved))
    assert scores == sorted(scores)  # cells that fail go on failing, and further ones do
    assert scores[-1] > scores[0]


def test_expected_scores_are_those_of_the_lot(swept):
    """A column at its average, of a lot: the mean score of chips is the mean that the mode says over its own normal
    variate. 200 chips; within 5 standard errors (false alarm: 1 in 1,000,000)."""
    chips = Chips(swept[0], "resnet8", "column", LOW, 5)
    z = np.random.default_rng(0).normal(size=400)
    found = np.array([chips.score(chip) for chip in range(200)])
    expected = np.mean([chips.modes[0].expected(each) for each in z])
    assert abs(found.mean() - expected) < 5 * found.std(ddof=1) / 200**0.5


def test_cells_without_a_factor_are_refused(swept):
    with pytest.raises(InputError, match="die, bank or column"):
        _ = Chips(swept[0], "resnet8", "iid", LOW, 5).modes

"""Tables of generators for every voltage: are chips compared with themselves, and at savings that all ways reach?"""

import pandas as pd
import pytest
from matplotlib.figure import Figure

from benchmarks.every_voltage import SUPPLIES, VOLTAGES, at_equal_saving, differences, plot, summary
from neuralfuse.report import plots

SAVING = {0.85: 0.2, 0.825: 0.25, 0.8: 0.3}  # of the bare network; the generator takes 0.03 of it, at low voltage 0.02
COST = {"none": 0, "low voltage, untrained": 0.02, "low voltage, trained": 0.02}
LEVEL = {"none": 0.0, "range": 0.1, "film": 0.12, "each": 0.08, "each, all steps": 0.09}
LEVEL |= {"low voltage, untrained": 0.04, "low voltage, trained": 0.02}


def rows() -> pd.DataFrame:
    """Four chips of two seeds whose accuracy falls by 0.1 a supply; a protection adds its level to each."""
    return pd.DataFrame(
        {
            **{"variant": f"seed-{seed}", "chip": chip, "pair": f"seed-{seed}/{chip}", "structure": "iid"},
            **{"voltage": voltage, "rate": rate, "protection": name},
            "saving_weight_sram": saving - COST.get(name, 0.03),
            "accuracy": 0.8 - 0.1 * step + 0.03 * chip + 0.01 * seed + LEVEL[name],
        }
        for seed in (0, 1)
        for chip in range(4)
        for step, ((voltage, saving), rate) in enumerate(zip(SAVING.items(), (0.005, 0.015, 0.04), strict=True))
        for name in LEVEL
        if not (seed and name == "each, all steps")
    )


def test_savings_are_the_largest_steps_of_2_5_percent_that_all_reach():
    found = at_equal_saving(rows())
    assert found.saving.unique() == pytest.approx([0.175, 0.2, 0.225, 0.25])  # `range` reaches 27%
    assert set(found.protection) == set(SUPPLIES)


def test_each_chip_is_interpolated_between_its_own_supplies():
    found = at_equal_saving(rows()).set_index(["protection", "saving"])
    mean = 0.8 + 0.03 * 1.5 + 0.005  # at the first supply, without a protection
    for name in SUPPLIES:
        at = found.loc[(name, found.index.levels[1][-1])]
        gone = (0.25 + COST.get(name, 0.03) - 0.2) / 0.05 * 0.1  # 0.1 for each 5% of saving
        assert at.accuracy == pytest.approx(mean - gone + LEVEL[name])
        assert at.against_range == pytest.approx((0.03 - COST.get(name, 0.03)) * 2 + LEVEL[name] - LEVEL["range"])
        assert at.against_low == pytest.approx(at.against_high)  # chips differ, their differences do not


def test_differences_are_paired_by_chip_and_shown_for_each_seed():
    found = differences(rows()).set_index(["voltage", "treated", "control"])
    film = found.loc[(0.825, "film", "range")]
    assert [film.chips, film.difference, film.difference_seed_1] == pytest.approx([8, 0.02, 0.02])
    one_seed = found.loc[(0.825, "each, all steps", "range")]
    assert one_seed.chips == 4
    assert pd.isna(one_seed.difference_seed_1)


def test_the_plot_has_a_row_for_each_structure(monkeypatch, tmp_path):
    seen: list[Figure] = []
    monkeypatch.setattr(plots, "save", lambda figure, folder, name: seen.append(figure))
    plot(summary(rows()), tmp_path)
    left, right = seen[0].axes
    assert [line.get_label() for line in left.lines] == list(VOLTAGES)
    assert [line.get_label() for line in right.lines] == list(SUPPLIES)
    high, low = left.get_xlim()
    assert high > 0.85
    assert low < 0.8

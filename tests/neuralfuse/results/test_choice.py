"""Is the point that is chosen the cheapest of those that keep accuracy, counted to the last image?"""

import pandas as pd
import pytest

from neuralfuse.results import pareto
from neuralfuse.results.choice import choices

TOTAL = 100


def rows_of(*points, clean=37):
    """Rows of points (name of rails, energy, right answers of each chip)."""
    common = {"network": "n", "dataset": "d", "accelerator": "a", "curve": "ibm14", "structure": "iid"}
    common |= {"protection": "none", "voltage": 0.8, "correct_clean": clean, "total": TOTAL}
    common |= {"correct_both": 0, "test_images": TOTAL, "clean_accuracy": clean / TOTAL}
    common |= dict.fromkeys(pareto.MEANS, 1.0)
    return pd.DataFrame(
        common | {"rails": rails, "chip": chip, "correct": right, "accuracy": right / TOTAL, "energy_chip_pj": energy}
        for rails, energy, chips in points
        for chip, right in enumerate(chips)
    )


@pytest.mark.parametrize("clean", [7, 10, 13, 37])  # floats have (clean - 1) / 100 below clean / 100 - 0.01
def test_a_point_at_the_very_margin_is_within_it(clean):
    at, below = [clean - 1] * 3, [clean - 1, clean - 1, clean - 2]
    table = pareto.summarise(rows_of(("dear", 3.0, [clean] * 3), ("at", 2.0, at), ("below", 1.0, below), clean=clean))
    chosen = choices(table, points=(0.5, 1.0, 2.0)).set_index("points").rails
    assert chosen.to_dict() == {0.5: "dear", 1.0: "at", 2.0: "below"}


def test_chips_on_either_side_of_the_margin_are_counted_together():
    table = pareto.summarise(rows_of(("mixed", 1.0, [37, 35]), ("worse", 0.5, [37, 34])))
    assert choices(table, points=(1.0,)).rails.tolist() == ["mixed"]
    assert table[["correct", "correct_clean", "total"]].to_numpy().tolist() == [[72, 74, 200], [71, 74, 200]]


def test_a_chip_at_the_very_margin_is_in_the_yield():
    table = pareto.summarise(rows_of(("one", 1.0, [37, 36, 35])), points=1.0)
    assert table["yield"].tolist() == [pytest.approx(2 / 3)]

"""Are the two networks of benchmarks/filter_scales compared chip by chip, at the same supply and protection?"""

import pandas as pd

from benchmarks.filter_scales import FILTER, TENSOR, plot, table
from neuralfuse.results.statistics import paired_difference


def rows(accuracy: dict[str, list[float]], rate: float = 0.01, protection: str = "none") -> list[dict]:
    same = {"structure": "iid", "rate": rate, "protection": protection, "saving_weight_sram": 0.304}
    return [
        {"network": name, "chip": chip, "accuracy": one} | same
        for name, values in accuracy.items()
        for chip, one in reversed(list(enumerate(values)))
    ]


def test_differences_are_paired_by_chip():
    tensor, own = [40.0, 50.0, 60.0, 10.0], [60.0, 75.0, 78.0, 5.0]
    lines = table(pd.DataFrame(rows({TENSOR: tensor, FILTER: own}))).splitlines()
    expected = paired_difference(pd.Series(own).to_numpy(), pd.Series(tensor).to_numpy())
    assert len(lines) == 3
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells[:3] == ["iid", "1", "none"]
    assert cells[5] == f"{expected.mean:+.1f} [{expected.low:+.1f}, {expected.high:+.1f}]"
    assert cells[6:] == ["3 of 4", "30.4"]


def test_one_network_alone_is_compared_with_nothing():
    cells = [cell.strip() for cell in table(pd.DataFrame(rows({FILTER: [60.0, 70.0]}))).splitlines()[2].split("|")]
    assert cells[4:8] == ["", "65.0 [1.5, 128.5]", "", ""]


def test_the_plot_has_a_line_for_each_network_and_protection_below_the_nominal_supply():
    both = {TENSOR: [40.0, 50.0], FILTER: [60.0, 75.0]}
    table = rows(both, 0.0) + rows(both) + rows(both, 0.0, "secded72") + rows(both, protection="secded72")
    left, right = plot(pd.DataFrame(table), "resnet14").axes
    assert len(left.containers) == len(right.containers) == 4
    assert all(list(line.lines[0].get_xdata()) == [1.0] for line in left.containers)
    assert all(list(line.lines[0].get_xdata()) == [30.4] for line in right.containers)

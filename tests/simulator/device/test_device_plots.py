"""Do the pictures of a characterised chip show its counts?"""

import numpy as np
import pytest

from simulator.device import plots
from tests.simulator.device.test_device_characterize import GEOMETRY, VOLTAGES, hidden, read


@pytest.fixture(scope="module")
def found():
    return read(hidden(structure="column"))


def counted(chip, voltage):
    """Cells of each column, banks down, that fail at a voltage."""
    bank, _, column = GEOMETRY.bank_row_column(chip.at(voltage).cell)
    counts = np.zeros((GEOMETRY.banks, GEOMETRY.columns), int)
    np.add.at(counts, (bank, column), 1)
    return counts


@pytest.fixture(scope="module")
def of_columns():
    return counted(hidden(structure="column"), VOLTAGES[-1])


def test_rates_have_their_intervals_and_none_is_a_limit(found):
    axes = plots.rate_figure(found).axes[0]
    rate, (low, high) = found.faulty / GEOMETRY.cells, found.interval()
    some = rate > 0
    assert 3 < some.sum() < len(VOLTAGES)
    (bars,) = axes.containers
    assert np.allclose(bars.lines[0].get_data(), [found.voltages[some], rate[some]])
    ends = [segment[:, 1] for segment in bars.lines[2][0].get_segments()]
    assert np.allclose(ends, np.transpose([low[some], high[some]]))
    limits, fit = (line for line in axes.get_lines() if line is not bars.lines[0])
    assert np.allclose(limits.get_data(), [found.voltages[~some], high[~some]])
    assert np.allclose(fit.get_ydata(), found.fit().curve.probability(fit.get_xdata()))
    assert axes.get_ylim()[0] < rate[some].min()


def test_columns_are_counted_and_compared_with_independent_cells():
    axes = plots.column_figure(read(hidden())).axes[0]
    drawn = {round(bar.get_x() + bar.get_width() / 2): round(bar.get_height()) for bar in axes.patches}
    of_columns = counted(hidden(), VOLTAGES[-1])
    values, columns = np.unique(of_columns, return_counts=True)
    assert {k: n for k, n in drawn.items() if n} == dict(zip(values.tolist(), columns.tolist(), strict=True))
    k, expected = axes.get_lines()[0].get_data()
    assert expected.sum() == pytest.approx(of_columns.size, rel=1e-3)
    assert (k * expected).sum() / expected.sum() == pytest.approx(of_columns.mean(), rel=1e-2)


def test_many_counts_share_a_bar_and_what_is_expected_is_of_its_width(found, of_columns):
    axes = plots.column_figure(found).axes[0]
    bars = [bar.get_height() for bar in axes.patches]
    assert of_columns.max() > 80 == len(bars)
    assert sum(bars) == of_columns.size
    expected = axes.get_lines()[0].get_ydata().sum()
    assert expected == pytest.approx(of_columns.size * axes.patches[0].get_width(), rel=1e-3)


def test_the_map_has_every_column_of_every_bank(found, of_columns):
    (image,) = plots.map_figure(found).axes[0].get_images()
    assert np.array_equal(image.get_array(), of_columns)

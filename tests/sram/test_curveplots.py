"""Do the figures of `sram` show the curves, counts and squares that they are given?"""

import numpy as np
import pytest

from sram import curvefit, curveplots
from sram.cell.butterfly import butterfly
from sram.errors import InputError
from sram.failure import curve, through

MEASURED = through("measured", [0.5, 0.6, 0.7], [1e-1, 1e-3, 1e-6])


def test_a_curve_is_dotted_where_it_does_not_rest_on_data():
    figure = curveplots.curves([MEASURED])
    dotted, solid = figure.axes[0].get_lines()
    assert dotted.get_linestyle() == ":"
    assert solid.get_label() == "measured"
    low, *_, high = dotted.get_xdata()
    assert MEASURED.probability([low, high]) == pytest.approx([0.3, 1e-9], rel=1e-6)
    resting = [v for v in dotted.get_xdata() if 0.5 <= v <= 0.7]
    assert solid.get_xdata().tolist() == resting
    for line in (dotted, solid):
        assert line.get_ydata() == pytest.approx(MEASURED.probability(line.get_xdata()))


def test_counts_are_shown_with_the_band_of_their_fit():
    """Of 1000 cells 200, 20 and 1 fail, and none at 0.8 V, which a logarithmic axis cannot show."""
    fit = curvefit.fit("chip", curvefit.counts([0.5, 0.6, 0.7, 0.8], [200, 20, 1, 0], 1000))
    axis = curveplots.curves([fit.curve], fit).axes[0]
    dots = axis.get_lines()[-1]
    assert dots.get_xdata().tolist() == [0.5, 0.6, 0.7]
    assert dots.get_ydata().tolist() == [0.2, 0.02, 0.001]
    (band,) = axis.collections
    corners = band.get_paths()[0].vertices
    at = corners[np.isclose(corners[:, 0], axis.get_lines()[0].get_xdata()[100]), 1]
    low, high = fit.band(axis.get_lines()[0].get_xdata()[100:101])
    assert (at.min(), at.max()) == pytest.approx((low[0], high[0]))
    with pytest.raises(InputError, match="one unit"):
        curveplots.curves([fit.curve, curve("ibm14")])


def test_a_butterfly_shows_the_square_of_each_lobe():
    found = butterfly(28, 0.9)
    axis = curveplots.butterfly(found).axes[0]
    drawn = [(*patch.get_xy(), patch.get_width()) for patch in axis.patches]
    assert np.array(drawn) == pytest.approx(np.array(found.squares))
    assert not any(patch.get_fill() for patch in axis.patches)  # they lie over the curves
    assert f"noise margin {1000 * found.noise_margin_v:.0f} mV" in axis.get_title()
    right, left = axis.get_lines()
    assert np.array_equal(right.get_ydata(), found.right)
    assert np.array_equal(left.get_xdata(), found.left)

"""Do tables say of an error what they say of the accuracy that is one less it?"""

import numpy as np
import pandas as pd
import pytest

from neuralfuse.report import wording
from neuralfuse.results import pareto
from neuralfuse.results.choice import choices
from neuralfuse.results.scale import ACCURACY, Scale
from tests.neuralfuse.results.test_pareto import results as _results

ERROR = Scale(name="error", unit="Hz", higher_is_better=False, margins=(0.01, 0.02, 0.05))
results = _results  # a fixture


@pytest.fixture
def errors(results):
    """The same chips, of which each wrong answer counts -1 and each right one 0."""
    lower = {name: results[name] - results.total for name in ("correct", "correct_clean", "correct_both")}
    lower |= {name: results[name] - 1 for name in ("accuracy", "clean_accuracy")}
    return results.assign(metric="mine:error", **lower)


def test_margins_and_yields_are_those_of_the_accuracy(results, errors):
    for table in (pareto.headline, pareto.yields):
        shares, found = table(results), table(errors, scale=ERROR)
        assert (found.points * 100).round(9).tolist() == shares.points.tolist()
        numbers = [name for name in ("voltage", "voltage_low", "voltage_high") if name in shares]
        np.testing.assert_allclose(found[numbers], shares[numbers], atol=1e-9)
    shares, found = pareto.summarise(results), pareto.summarise(errors, scale=ERROR)
    np.testing.assert_allclose(found["yield"], shares["yield"])
    np.testing.assert_allclose(found.accuracy_mean, shares.accuracy_mean - 1, atol=1e-12)
    np.testing.assert_allclose(found.gain_mean.dropna(), shares.gain_mean.dropna(), atol=1e-12)
    assert pareto.front(found, "sram").index.tolist() == pareto.front(shares, "sram").index.tolist()


def test_equal_accuracy_and_choice_are_those_of_the_accuracy(results, errors):
    shares, found = pareto.at_equal(results), pareto.at_equal(errors, ERROR)
    np.testing.assert_allclose(found.gain, shares.gain, atol=1e-9)
    accurate, close = choices(pareto.summarise(results)), choices(pareto.summarise(errors, scale=ERROR), scale=ERROR)
    columns = ["protection", "voltage", "energy_pj"]
    pd.testing.assert_frame_equal(close[columns], accurate[columns])
    assert not close.empty


def test_sentences_have_the_unit_and_the_error_itself(errors):
    table = pareto.headline(errors, scale=ERROR).assign(volts=1.0)
    assert "within 0.01 Hz of clean error" in wording.verdicts(table, "V", ERROR)[0]
    summary = pareto.summarise(errors, scale=ERROR).assign(volts=lambda rows: rows.voltage)
    assert " Hz unprotected, paired gain " in wording.gain_lines(summary, "V", ERROR)[0]
    assert "-" not in wording.gain_lines(summary, "V", ERROR)[0].split("paired")[0].split("at ", 1)[1]


def test_bounds_of_shares_end_and_those_of_errors_do_not():
    assert ACCURACY.bounds == (0, 1)
    assert ERROR.bounds == (-np.inf, np.inf)
    assert ERROR.text(-0.125, -0.25, -0.1) == "0.125 Hz [0.1, 0.25]"

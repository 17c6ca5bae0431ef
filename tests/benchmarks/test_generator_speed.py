"""Does the clock stop at the gain that is asked for, and at the limit?"""

import argparse
import math

import numpy as np
import pytest

from benchmarks.speed.generator import Case, accuracies, seconds
from neuralfuse.chips.sources import IndependentCells
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.training.settings import GeneratorSettings
from tests.neuralfuse.training.test_training import tiny_data, tiny_network


@pytest.mark.parametrize(("points", "limit", "there"), [(-100, 1e9, True), (100, 0, False)])
@pytest.mark.parametrize("stages", [{}, {"class_steps": 2, "pattern_steps": 2, "paint_steps": 2}])
def test_the_clock_stops_at_the_gain_or_the_limit(points, limit, there, stages):
    faulty = FaultyNetwork(tiny_network())
    case = Case(tiny_data(), faulty, IndependentCells(faulty.words.size, (0.02,)), "ConvS", 2, stages, flip=False)
    bare = accuracies(case, None, chips=2, images=16)
    assert bare.shape == (2,)
    assert np.array_equal(bare, accuracies(case, None, chips=2, images=16))
    given = argparse.Namespace(points=points, limit=limit, every=1, chips=2, images=16)
    settings = GeneratorSettings(10, batch=16, maps=1, shift=0, flip=False, **stages)
    took, best = seconds(case, settings, bare, given)
    assert (took < math.inf) == there
    assert took > 0
    assert best == -math.inf if stages and not there else -100 <= best <= 100  # the classes alone are not looked at
    assert np.array_equal(faulty.words, faulty.clean_words)

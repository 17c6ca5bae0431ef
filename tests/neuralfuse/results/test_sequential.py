"""Are the bounds of one chip exact, and is the answer wrong no more often than it says?"""

import numpy as np
import pytest
from scipy.stats import hypergeom

from neuralfuse.results.sequential import Seen, WithinPoints, _bounds
from neuralfuse.results.statistics import keeps


@pytest.mark.parametrize(("every", "sampled", "found"), [(30, 12, 4), (30, 12, 0), (30, 12, 12), (450, 64, 3)])
@pytest.mark.parametrize("tail", [0.2, 1e-4])
def test_bounds_are_those_of_the_hypergeometric_distribution(every, sampled, found, tail):
    """Of all that there may be, the fewest and the most of which a sample like this is no rarer than `tail`."""
    marked = np.arange(found, every - (sampled - found) + 1)
    more, fewer = hypergeom.sf(found - 1, every, marked, sampled), hypergeom.cdf(found, every, marked, sampled)
    assert _bounds(every, sampled, found, tail) == (marked[more > tail].min(), marked[fewer > tail].max())


def test_nothing_sampled_says_nothing_and_all_sampled_says_it():
    assert _bounds(30, 0, 0, 0.1) == (0, 30)
    assert _bounds(30, 30, 7, 0.1) == (7, 7)


@pytest.mark.parametrize("points", [0.5, 1.0, 1.7, 5.0])
@pytest.mark.parametrize("images", [37, 100, 450])
def test_what_may_be_lost_is_what_keeps_says(points, images):
    lost = np.arange(images)
    kept = keeps(images - lost, np.array(images), np.array(images), points)
    assert WithinPoints(images - 3, 3, points).most == lost[kept].max()


def looked_at(rng, right, wrong, lost, gained, points, error):
    """What is said of a chip, and after how many images: they come in twice as many at a time."""
    rule = WithinPoints(right, wrong, points)
    kind = np.repeat([0, 1, 2, 3], [lost, right - lost, gained, wrong - gained])
    order = rng.permutation(kind)
    seen = 32
    while True:
        a, b, c, d = np.bincount(order[:seen], minlength=4)
        kept = rule.kept(Seen(int(a + b), int(a), int(c + d), int(c)), error)
        if kept is not None:
            return kept, seen
        seen = min(2 * seen, len(order))


@pytest.mark.parametrize("beyond", [0, 1])
@pytest.mark.parametrize("gained", [0, 12])
def test_errors_are_no_more_than_stated_at_the_very_margin(beyond, gained):
    """Chips that lose just as much as they may, or one image more, where errors are likeliest: 3 early looks of 4% each
    in 1,500 orders. Bound + 4 standard errors (false alarm: 1 in 30,000 of a chip that errs in 12%)."""
    rng, images, error = np.random.default_rng(1), 300, 0.04
    rule = WithinPoints(260, 40, 5.0)
    lost = rule.most + gained + beyond
    said = [looked_at(rng, 260, 40, lost, gained, 5.0, error) for _ in range(1500)]
    wrong = np.mean([kept != (beyond == 0) for kept, _ in said])
    stated = 3 * error
    assert wrong < stated + 4 * (stated * (1 - stated) / 1500) ** 0.5
    assert min(seen for _, seen in said) < images  # some stop early, so that there is something to err in
    assert wrong > 0 or not beyond


def test_chips_far_from_the_margin_take_few_images_and_those_at_it_all():
    rng = np.random.default_rng(2)
    far = looked_at(rng, 9_500, 500, 4_000, 50, 1.0, 1e-5)
    fine = looked_at(rng, 9_500, 500, 2, 2, 1.0, 1e-5)
    near = looked_at(rng, 9_500, 500, 101, 1, 1.0, 1e-5)
    assert far == (False, 32)
    assert fine[0]
    assert fine[1] <= 2048
    assert near == (True, 10_000)

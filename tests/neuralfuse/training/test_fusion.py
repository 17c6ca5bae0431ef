"""Are joined outputs those of the distributions, and is the weight the one of least loss?"""

import math

import numpy as np
import pytest
import torch

from neuralfuse.training.fusion import WEIGHTS, fit_weight, fused, unsure


def test_known_distributions_are_multiplied():
    """log p + 0.5 log q of (0.5, 0.3, 0.2) and (0.1, 0.1, 0.8), whatever constant the logits carry."""
    p, q = torch.tensor([[[0.5, 0.3, 0.2]], [[0.1, 0.1, 0.8]]], dtype=torch.float64)
    found = fused(p.log() + 3, q.log() - 7, 0.5)
    expected = [math.log(0.5 * 0.1**0.5), math.log(0.3 * 0.1**0.5), math.log(0.2 * 0.8**0.5)]
    assert found[0].tolist() == pytest.approx(expected, rel=1e-12)
    assert int(found.argmax()) == 2


def test_a_temperature_would_be_the_weight_again():
    """log-softmax(z / T) at weight w answers, and loses, as log-softmax(z) at w / T."""
    generator = torch.Generator().manual_seed(0)
    small, big = torch.randn(2, 200, 10, generator=generator, dtype=torch.float64)
    labels = torch.randint(10, (200,), generator=generator)
    for temperature in (0.5, 3.0):
        with_it, without = fused(small, big / temperature, 0.8), fused(small, big, 0.8 / temperature)
        assert with_it.argmax(1).equal(without.argmax(1))
        losses = [torch.nn.functional.cross_entropy(scores, labels).item() for scores in (with_it, without)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_the_weight_is_that_of_least_loss_over_all_chips():
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(4, (300,), generator=generator)
    truth = torch.nn.functional.one_hot(labels, 4).double()
    small, *chips = (truth + spread * torch.randn(300, 4, generator=generator).double() for spread in (1.0, 0.7, 1.5))

    def loss(weight):
        total = 0.0
        for chip in chips:
            score = small.log_softmax(1).numpy() + weight * chip.log_softmax(1).numpy()
            total += float((np.log(np.exp(score).sum(1)) - score[np.arange(300), labels.numpy()]).mean())
        return total

    found = fit_weight(small, chips, labels)
    assert found == min(WEIGHTS, key=loss)
    assert 0 < found < max(WEIGHTS)
    assert fit_weight(small, [torch.zeros_like(chips[0]) - 9 * truth], labels) == 0


def test_unsure_is_below_the_threshold_and_not_at_it():
    logits = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    assert unsure(logits, 0.8).tolist() == [True, False]
    assert unsure(logits, 0.0).tolist() == [False, False]
    assert unsure(torch.zeros(1, 2), 0.5).tolist() == [False]

"""Two networks' outputs joined, and the one weight that is fitted: how much the less reliable one counts.

The answer is the largest of log-softmax(s) + w log-softmax(z), s and z the logits of the reliable and of the faulty
network: a product of experts (Hinton, Neural Computation, 2002). A temperature of the faulty network would be no second
thing to fit: log-softmax(z / T) is z / T less a number that all classes share, so the answers follow w / T alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# 0 and 24 steps of half an octave: the loss is flat around its minimum, and a grid gives the same weight everywhere.
WEIGHTS = (0.0, *(2.0 ** (k / 2) for k in range(-14, 10)))


def fused(reliable: Tensor, faulty: Tensor, weight: float) -> Tensor:
    """Joined scores (n, classes) of the logits of two networks.

    >>> one, other = torch.tensor([[2.0, 1.0]]), torch.tensor([[0.0, 3.0]])
    >>> [int(fused(one, other, weight).argmax()) for weight in (0.0, 0.5)]
    [0, 1]
    """
    return reliable.log_softmax(1) + weight * faulty.log_softmax(1)


def fit_weight(reliable: Tensor, faulty: Sequence[Tensor], labels: Tensor) -> float:
    """Of WEIGHTS the one of least cross-entropy, mean over the images (n,) and the chips, each of which has its logits
    in `faulty`.

    >>> faulty, labels = torch.eye(2)[[0, 1, 0, 1, 0]], torch.tensor([0, 1, 0, 1, 1])  # four of five are right
    >>> fit_weight(torch.zeros(5, 2), [faulty], labels), fit_weight(torch.zeros(5, 2), [-faulty], labels)
    (1.4142135623730951, 0.0)
    """

    def loss(weight: float) -> float:
        scores = torch.cat([fused(reliable.double(), one.double(), weight) for one in faulty])
        return float(torch.nn.functional.cross_entropy(scores, labels.repeat(len(faulty))))

    return min(WEIGHTS, key=loss)


def unsure(reliable: Tensor, threshold: float) -> Tensor:
    """For which images the largest softmax probability is below the threshold: bools (n,).

    >>> unsure(torch.tensor([[0.0, 0.0], [3.0, 0.0]]), 0.9).tolist()
    [True, False]
    """
    return reliable.softmax(1).amax(1) < threshold

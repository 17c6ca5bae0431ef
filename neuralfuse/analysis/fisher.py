"""How much a chip's faults should hurt, without an image: the change of each weight, squared, times how sensitive the
network's answers are to it.

Sensitivities are the diagonal of the Fisher information at the weights as written: half the sum is then, to the second
order, the Kullback-Leibler divergence of the faulty network's answers from its own (Martens, J. Mach. Learn. Res. 21,
2020, section 5). They are made once; a chip's score takes as long as its map.
"""

import numpy as np
import torch
from torch import Tensor

from neuralfuse.quantized.faulty import FaultyBits, FaultyNetwork

IMAGES = 256  # of the training set; each is one backward pass


def sensitivities(model: FaultyNetwork, images: Tensor, seed: int = 0) -> np.ndarray:
    """Diagonal Fisher information float64[words] of a network without a fault, over images [n, ...]; the class of each
    is drawn from the network's own answer, which is what makes it the Fisher information."""
    model.restore()
    generator, network = torch.Generator().manual_seed(seed), model.network
    weights = [dict(network.named_parameters())[layer.name] for layer in model.layer_table]
    found = np.zeros(len(model.words))
    for weight in weights:
        weight.requires_grad_(True)
    try:
        for number in range(len(images)):
            log_p = torch.log_softmax(model(images[number : number + 1]), dim=1)[0]
            drawn = torch.multinomial(log_p.detach().exp().cpu(), 1, generator=generator).item()
            grads = torch.autograd.grad(log_p[int(drawn)], weights)
            for layer, grad in zip(model.layer_table, grads, strict=True):
                part = slice(layer.offset, layer.offset + layer.size)
                found[part] += grad.detach().reshape(-1).cpu().numpy().astype(float) ** 2
    finally:
        for weight in weights:
            weight.requires_grad_(False)
    return found / len(images)


def score(model: FaultyNetwork, faults: FaultyBits, sensitivity: np.ndarray) -> float:
    """Half the sum over words of sensitivity x change^2, in nats; the faults stay set.

    >>> from torch import nn
    >>> model = FaultyNetwork(nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False)))
    >>> with torch.no_grad():
    ...     _ = model.network[1].weight.copy_(torch.tensor([[1.0, -0.5]]))
    >>> model = FaultyNetwork(model.network)
    >>> one = np.array([0]), np.array([6], np.uint8), np.array([0], np.uint8)  # 127 is read as 63
    >>> round(score(model, one, np.array([2.0, 1.0])), 3)
    0.254
    """
    model.restore()
    written = model.values.cpu().numpy().copy()
    model.set_faults(*faults)
    change = model.values.cpu().numpy().astype(float) - written
    return float(0.5 * (sensitivity * change**2).sum())

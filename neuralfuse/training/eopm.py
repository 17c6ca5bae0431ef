"""EOPM, expectation over perturbed models: the objective that trains a generator G before a frozen network.

    L(G) = CE(M0(F(x)), y) + lambda / N * sum_i CE(Mp_i(F(x)), y)

with M0 the clean quantised network and Mp_i the same network under the i-th fault map (Sun et al., arXiv 2306.16869,
eq. 3). All terms depend on G through F(x) alone, so their gradients are summed at F(x) first: one generator forward
and backward whatever N is, and only input gradients of the frozen network.
"""

from collections.abc import Callable, Iterable

import torch.nn.functional as F
from torch import Tensor

from neuralfuse.quantized.integer import Faults, Frozen


def eopm_backward(
    faulty: Frozen,
    transform: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    maps: Iterable[Faults],
    n: int,
    weight: float = 5.0,
) -> tuple[float, float]:
    """Add the EOPM gradient to the parameters of `transform`; return the clean loss and the mean faulty loss.

    `maps` yields the n fault maps; `weight` is lambda. The network is left without faults.
    """
    protected = transform(x)
    at = protected.detach().requires_grad_()
    clean = F.cross_entropy(faulty(at), y)
    clean.backward()
    total = clean.new_zeros(())
    try:
        for faults in maps:
            faulty.set_faults(*faults)
            loss = F.cross_entropy(faulty(at), y)
            (loss * (weight / n)).backward()
            total += loss.detach()
    finally:
        faulty.restore()
    protected.backward(at.grad)
    return clean.item(), total.item() / n

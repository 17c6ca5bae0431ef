"""BatchNorm's statistics taken anew on a faulty chip."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.training.loop import batch_indices
from sram.errors import InputError


@contextmanager
def own_statistics(
    faulty: FaultyNetwork, images: Tensor, batches: int = 8, batch: int = 128, seed: int = 0
) -> Iterator[None]:
    """Inside the block the network normalises by its own means and variances on `images`, with the faults that are set
    now; after it, as it was trained.

    Statistics are means over `batches` batches of training images float[n, ...]; each layer sees those of the layers
    before it, normalised by the batch at hand. InputError where no BatchNorm is left, as where it was folded into the
    weights.
    """
    layers = [m for m in faulty.network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        raise InputError("batchnorm", "network", type(faulty.network).__name__, "one with BatchNorm that is not folded")
    kept = [({name: tensor.clone() for name, tensor in m.state_dict().items()}, m.momentum) for m in layers]
    try:
        for m in layers:
            m.reset_running_stats()
            m.momentum = None  # the mean over batches
            m.train()
        with torch.no_grad():
            for step in range(batches):  # not the first images: a folder may be sorted by class
                faulty(images[batch_indices(len(images), batch, seed, step)].to(faulty.device))
        for m in layers:
            m.eval()
        yield
    finally:
        for m, (state, momentum) in zip(layers, kept, strict=True):
            m.load_state_dict(state)
            m.momentum = momentum
            m.eval()

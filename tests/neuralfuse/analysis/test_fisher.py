"""Are sensitivities the Fisher information?"""

import numpy as np
import torch
from torch import nn

from neuralfuse.analysis.fisher import sensitivities
from neuralfuse.quantized.faulty import FaultyNetwork


def test_of_a_linear_network_they_are_what_the_formula_says():
    """x_i^2 p_k (1 - p_k) of a softmax of W x; 4,000 drawn classes, 4 standard errors (false alarm: 1 in 4,000)."""
    torch.manual_seed(0)
    model = FaultyNetwork(nn.Sequential(nn.Flatten(), nn.Linear(3, 4, bias=False)))
    image = torch.tensor([[0.5, -1.0, 2.0]])
    found = sensitivities(model, image.repeat(4000, 1, 1)).reshape(4, 3)
    share = torch.softmax(model(image[None])[0], dim=0).detach().numpy().astype(float)
    expected = np.outer(share * (1 - share), image[0].numpy() ** 2)
    error = np.outer(np.sqrt(share * (1 - share) / 4000) * np.abs(1 - 2 * share), image[0].numpy() ** 2)
    assert (np.abs(found - expected) < 4 * error + 1e-6).all()
    assert not any(parameter.requires_grad for parameter in model.network.parameters())

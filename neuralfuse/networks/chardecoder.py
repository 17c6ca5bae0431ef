"""A small decoder-only transformer over characters (Radford et al., 2019: normalisation before each part, GELU), with
fixed sine positions (Vaswani et al., 2017)."""

import torch
from torch import Tensor, nn

from neuralfuse.networks.vit import Block


def positions(length: int, dim: int) -> Tensor:
    """float32[length, dim]: sines, then cosines, of the position."""
    angle = torch.arange(length)[:, None] / 10_000 ** (torch.arange(dim // 2) / (dim // 2))
    return torch.cat([angle.sin(), angle.cos()], 1)


class CharDecoder(nn.Module):
    """Numbers of characters int64[n, t] -> logits of the next one at each position (n, t, num_classes), which sees no
    later ones.

    The table of characters is a linear layer over one-hot characters: its words are stored, and read wrong, as those of
    all other layers are. A multiplication by each of its rows is what an array then spends on it; a table that is
    looked up would read one row.
    """

    def __init__(self, num_classes: int, in_channels: int, dim: int = 64, depth: int = 2, heads: int = 4):
        super().__init__()
        self.characters, self.dim = in_channels, dim
        self.embed = nn.Linear(in_channels, dim, bias=False)
        self.blocks = nn.Sequential(*(Block(dim, heads, causal=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        one_hot = x[..., None] == torch.arange(self.characters, device=x.device)
        embedded = self.embed(one_hot.to(self.embed.weight.dtype))
        return self.head(self.norm(self.blocks(embedded + positions(x.shape[1], self.dim).to(embedded))))

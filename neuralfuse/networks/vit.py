"""A small vision transformer in the plain form of Beyer et al. (2022, arXiv 2205.01580): fixed sine-cosine positions,
mean over tokens, no class token. It takes any image size that its patches divide."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralfuse.networks.kept import Kept


def positions(rows: int, columns: int, dim: int) -> Tensor:
    """float32[rows * columns, dim]: sines and cosines of the row and of the column, a quarter of the axes each."""
    frequency = 1 / 10_000 ** (torch.arange(dim // 4) / max(1, dim // 4 - 1))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angle = [axis.flatten()[:, None] * frequency for axis in (row, column)]
    return torch.cat([wave(part) for part in angle for wave in (torch.sin, torch.cos)], 1)


class Block(nn.Module):
    """Attention and a two-layer perceptron, each after a LayerNorm and added to its input. `causal`: a token sees
    itself and those before it alone."""

    def __init__(self, dim: int, heads: int, causal: bool = False):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm_attention, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.keys, self.values = Kept(), Kept()
        self.qkv, self.project = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, dim = x.shape
        q, k, v = self.qkv(self.norm_attention(x)).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, self.keys(k), self.values(v), is_causal=self.causal)
        x = x + self.project(attended.transpose(1, 2).reshape(n, tokens, dim))
        return x + self.mlp(self.norm_mlp(x))


class ViT(nn.Module):
    """Patches, positions, `depth` blocks of attention, mean over the patches, linear."""

    def __init__(
        self, num_classes: int, in_channels: int, patch: int = 4, dim: int = 192, depth: int = 6, heads: int = 3
    ):
        super().__init__()
        self.dim = dim
        self.embed = nn.Conv2d(in_channels, dim, patch, patch)
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.embed(x)
        where = positions(patches.shape[2], patches.shape[3], self.dim).to(patches)
        return self.head(self.norm(self.blocks(patches.flatten(2).transpose(1, 2) + where)).mean(1))

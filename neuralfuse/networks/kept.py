"""What a network keeps of the tokens that it has seen."""

from collections.abc import Callable

from torch import Tensor, nn


class Kept(nn.Module):
    """Keys, or values, [n, heads, tokens, width] as an attention layer reads them back from where they are kept.

    They come back as they are, until `through` says what their memory makes of them
    (`neuralfuse.quantized.cache.FaultyCache`). A network of one's own calls one for its keys and one for its values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.through: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """As they are read."""
        return x if self.through is None else self.through(x)

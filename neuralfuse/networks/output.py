"""A network that answers with several tensors, of which one counts."""

from typing import Any

from torch import Tensor, nn

from sram.errors import InputError


def selected(network: nn.Module, output: int | str, name: str = "") -> nn.Module:
    """The network, made to answer with one of the tensors that it returns in a tuple, a list or a dict. Its parameters
    keep their names: it is the same module, with a step behind its own. `name`: what a study calls it.

    >>> from torch import ones
    >>> selected(nn.LSTM(2, 3), 0)(ones(5, 2)).shape
    torch.Size([5, 3])
    """
    kind: Any = type(network)

    class Selected(kind):
        def forward(self, *inputs: Tensor) -> Tensor:
            found = super().forward(*inputs)
            try:
                return found[output]
            except (KeyError, IndexError, TypeError):
                known = ", ".join(map(str, found)) if isinstance(found, dict) else f"0 to {len(found) - 1}"
                key = ".".join(filter(None, ("networks", name, "output")))
                raise InputError("study", key, output, f"one that it returns: {known}") from None

    Selected.__name__ = Selected.__qualname__ = kind.__name__
    network.__class__ = Selected
    return network

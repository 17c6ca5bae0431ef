"""Several input tensors of each item, carried where one tensor is, and the network that takes them apart."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sram.errors import InputError


class Inputs:
    """Tensors [n, ...] by name, of the same n items. What is done with a tensor of images is done with each of them:
    items are taken, moved to a device, counted; only the network that they are for takes them apart.

    >>> pair = Inputs({"image": torch.zeros(3, 1, 2, 2), "age": torch.tensor([[7], [8], [9]])})
    >>> len(pair), pair[1:].parts["age"].tolist(), pair.shape
    (3, [[8], [9]], {'image': [3, 1, 2, 2], 'age': [3, 1]})
    """

    def __init__(self, parts: Mapping[str, Tensor]):
        self.parts = dict(parts)

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def __getitem__(self, index: slice | Tensor) -> "Inputs":
        return Inputs({name: part[index] for name, part in self.parts.items()})

    def to(self, device: str | torch.device, **_: object) -> "Inputs":
        """On a device. A memory format is for images alone."""
        return Inputs({name: part.to(device) for name, part in self.parts.items()})

    def clone(self) -> "Inputs":
        """A copy."""
        return Inputs({name: part.clone() for name, part in self.parts.items()})

    @property
    def nbytes(self) -> int:
        """Of all of them."""
        return sum(part.nbytes for part in self.parts.values())

    @property
    def shape(self) -> dict[str, list[int]]:
        """Of each."""
        return {name: list(part.shape) for name, part in self.parts.items()}


def content(x: Tensor | Inputs) -> bytes:
    """What inputs are hashed by: their bytes, after the name and shape of each where there are several.

    >>> content(torch.zeros(1)) == bytes(4)
    True
    """
    if isinstance(x, Tensor):
        return x.numpy().tobytes()
    return b"".join(f"{name} {list(x.shape)}".encode() + content(x) for name, x in x.parts.items())


def fed(
    network: nn.Module, names: Sequence[str], arguments: Mapping[str, str] | None = None, name: str = ""
) -> nn.Module:
    """The network, made to take `Inputs`, or the tensors of these names in their order: `arguments` says which of them
    each argument of its `forward` gets; all in their order, if None. Its parameters keep their names: it is the same
    module, with a step before its own. `name`: what a study calls it. InputError where it has no such arguments.

    >>> table = fed(nn.Embedding(5, 2), ["age", "word"], {"input": "word"})
    >>> table(Inputs({"age": torch.ones(3, 1), "word": torch.ones(3).long()})).shape
    torch.Size([3, 2])
    """
    if arguments is not None:
        try:
            inspect.signature(network.forward).bind(**arguments)
        except TypeError as error:
            key = ".".join(filter(None, ("networks", name, "inputs")))
            raise InputError("study", key, dict(arguments), f"its arguments ({error})") from None
    kind: Any = type(network)

    class Fed(kind):
        def forward(self, *given: Inputs | Tensor) -> Any:
            first = given[0]
            parts = first.parts if isinstance(first, Inputs) else dict(zip(names, given, strict=True))
            if arguments is None:
                return super().forward(*parts.values())
            return super().forward(**{argument: parts[part] for argument, part in arguments.items()})

    Fed.__name__ = Fed.__qualname__ = kind.__name__
    network.__class__ = Fed
    return network

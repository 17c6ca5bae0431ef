"""A run of a module, written down as a torch.fx graph."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from simulator.readers.collector import Value


class Recorder(TorchDispatchMode):
    """Writes the aten operators of a run into a torch.fx graph, in the form in which torch.export would."""

    def __init__(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]):
        super().__init__()
        self.graph = torch.fx.Graph()
        self.nodes: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.bound: list[Value] = []
        self.path: list[str] = [""]
        for key, tensor in (*module.named_parameters(), *module.named_buffers()):
            self._placeholder(tensor, Value(tuple(tensor.shape), parameters=(key,)))
        for tensor in inputs:
            self._placeholder(tensor, Value(tuple(tensor.shape), (-1,)))
        self.handles = []
        for path, part in module.named_modules():
            self.handles.append(part.register_forward_pre_hook(lambda *_, path=path: self.path.append(path)))
            self.handles.append(part.register_forward_hook(self._leave))

    def _leave(self, *_: object) -> None:
        self.path.pop()

    def remove(self) -> None:
        """Take the hooks off the modules again."""
        for handle in self.handles:
            handle.remove()

    def graph_module(self, result: object) -> torch.fx.GraphModule:
        """The graph of the run that gave `result`."""
        self.graph.output(tuple(self._node(leaf) for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)))
        return torch.fx.GraphModule({}, self.graph)

    def _placeholder(self, tensor: torch.Tensor, value: Value) -> None:
        node = self.graph.placeholder(f"input_{len(self.bound)}")
        node.meta["val"] = _shadow(tensor)
        self.nodes[tensor] = node
        self.bound.append(value)

    def _node(self, tensor: torch.Tensor) -> torch.fx.Node:
        if tensor not in self.nodes:  # made before or outside of the run: a constant
            node = self.graph.call_function(torch.ops.aten.empty.memory_format, (list(tensor.shape),))
            node.meta["val"] = _shadow(tensor)
            self.nodes[tensor] = node
        return self.nodes[tensor]

    def __torch_dispatch__(self, func: Any, types: Sequence[type], args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        link = lambda leaf: self._node(leaf) if isinstance(leaf, torch.Tensor) else leaf  # noqa: E731
        linked_args, linked_kwargs = tree_map(link, (args, kwargs))
        node = self.graph.call_function(func, tuple(linked_args), linked_kwargs)
        node.meta["val"] = tree_map(lambda leaf: _shadow(leaf) if isinstance(leaf, torch.Tensor) else leaf, result)
        node.meta["nn_module_stack"] = {"last": (self.path[-1], "")}
        if isinstance(result, torch.Tensor):
            self.nodes[result] = node
        elif isinstance(result, (tuple, list)):
            for position, part in enumerate(result):
                if isinstance(part, torch.Tensor):
                    item = self.graph.call_function(operator.getitem, (node, position))
                    item.meta["val"] = _shadow(part)
                    self.nodes[part] = item
        return result


def _shadow(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of the same shape, strides and offset without storage."""
    extent = tensor.storage_offset() + 1
    extent += sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size)
    base = torch.empty(extent, device="meta", dtype=tensor.dtype)
    return base.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

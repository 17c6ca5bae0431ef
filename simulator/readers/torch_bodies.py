"""Higher-order operators of torch, by name: how often each runs its body, and on what.

Another one (cond, while_loop: which body runs, and how often, hangs on values) is not counted, and listed as such.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils._pytree import tree_leaves

V = TypeVar("V")  # what a reader knows of a value
ReadBody = Callable[[torch.fx.GraphModule, list[V], str], list[V]]

# They set a mode, or mark a region, around a body that runs once on what follows it among the arguments.
ONCE = frozenset(
    """wrap wrap_with_set_grad_enabled wrap_with_autocast wrap_activation_checkpoint tag_activation_checkpoint
    invoke_subgraph hints_wrapper strict_mode""".split()
)
MOST_NODES = 1 << 17  # of unrolled bodies: each may be a layer


def read(
    read_body: ReadBody[V],
    blank: V,
    owner: torch.fx.GraphModule,
    node: torch.fx.Node,
    values: dict[torch.fx.Node, V],
    path: str,
) -> list[V] | None:
    """Read the body of a higher-order operator as often as it runs; its outputs, or None if that is not known.

    `blank` stands for an argument that is no tensor.
    """
    name = node.target.name() if isinstance(node.target, torch._ops.HigherOrderOperator) else ""
    at = next((i for i, part in enumerate(node.args) if isinstance(_body(owner, part), torch.fx.GraphModule)), None)
    if at is None or node.kwargs:
        return None
    body, arguments = _body(owner, node.args[at]), node.args[at + 1 :]
    if name in ONCE:
        return _once(read_body, blank, body, arguments, values, path)
    if name == "map_impl" and len(arguments) == 2:
        state, slices, rest = _leaves(()), *map(_leaves, arguments)
    elif name == "scan" and len(arguments) == 3:
        state, slices, rest = map(_leaves, arguments)
    else:
        return None
    steps = int(slices[0].meta["val"].shape[0])  # torch brings the axis to the front
    if steps * len(body.graph.nodes) > MOST_NODES:
        return None
    carried, outputs = [values[leaf] for leaf in state], []
    for _ in range(steps):
        results = read_body(body, [*carried, *(values[leaf] for leaf in (*slices, *rest))], path)
        carried = results[: len(carried)]
        outputs += results[len(carried) :]
    return carried + outputs


def _once(
    read_body: ReadBody[V],
    blank: V,
    body: torch.fx.GraphModule,
    arguments: Any,
    values: dict[torch.fx.Node, V],
    path: str,
) -> list[V] | None:
    """Constants among the arguments may be bound, or written into the body."""
    placeholders = sum(part.op == "placeholder" for part in body.graph.nodes)
    leaves = [leaf for leaf in tree_leaves(list(arguments)) if not isinstance(leaf, str)]
    for bound in (leaves, [leaf for leaf in leaves if isinstance(leaf, torch.fx.Node)]):
        if len(bound) == placeholders:
            parts = [values[leaf] if isinstance(leaf, torch.fx.Node) else blank for leaf in bound]
            return read_body(body, parts, path)
    return None


def _body(owner: torch.fx.GraphModule, part: object) -> Any:
    return getattr(owner, str(part.target), None) if isinstance(part, torch.fx.Node) and part.op == "get_attr" else None


def _leaves(part: Any) -> list[torch.fx.Node]:
    return [leaf for leaf in tree_leaves(list(part)) if isinstance(leaf, torch.fx.Node)]

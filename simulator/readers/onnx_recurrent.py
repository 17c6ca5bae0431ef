"""LSTM, GRU and RNN of an ONNX model: the layers that torch's own layer of the same sizes is made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from simulator.workload import Layer, Workload

KINDS = {"LSTM": 4, "GRU": 3, "RNN": 1}  # gates
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
MOST_STEPS, MOST_WEIGHTS = 4096, 2**28  # each step is layers of its own
DIRECTIONS = {b"forward": 1, b"reverse": 1, b"bidirectional": 2}
# What changes no count; any other attribute, or input, is refused.
READ = {
    "direction",
    "layout",
    "hidden_size",
    "activations",
    "activation_alpha",
    "activation_beta",
    "linear_before_reset",
}


def layers(
    kind: str,
    x: tuple[int, ...],
    sizes: tuple[tuple[int, ...], tuple[int, ...]],
    inputs: list[str],
    attributes: dict[str, Any],
    weights: list[str],
    batch: int,
) -> Workload:
    """The layers of one node, read from torch's module; ValueError names what this does not read.

    `x`: [steps, batch, features], or [batch, steps, features] in layout 1; `sizes`, of W and R:
    [directions, gates * hidden, features] and [directions, gates * hidden, hidden].
    `weights`: the stored names of W and R, in which the second direction lies behind the first.
    """
    import torch

    from simulator.readers import torch_trace

    given = dict(zip(INPUTS, inputs, strict=False))
    unread = [key for key in ("sequence_lens", "P") if given.get(key)] + sorted(
        key for key, value in attributes.items() if key not in READ and value
    )
    steps = x[1] if attributes.get("layout") else x[0]
    if unread or steps > MOST_STEPS:
        raise ValueError(", ".join(unread) or f"{steps} steps, at most {MOST_STEPS}")
    w, hidden = sizes[0], sizes[1][-1]
    directions, features = DIRECTIONS.get(attributes.get("direction", b"forward"), 0), x[-1]
    rows = KINDS[kind] * hidden
    if sizes != ((directions, rows, features), (directions, rows, hidden)) or attributes.get("hidden_size") != hidden:
        raise ValueError(f"direction, hidden_size or an input {x} that are not those of the weights {sizes}")
    if directions * rows * (features + hidden) > MOST_WEIGHTS:
        raise ValueError(f"more than {MOST_WEIGHTS} weights")
    options = dict(bidirectional=directions == 2, batch_first=bool(attributes.get("layout")), bias=bool(given.get("B")))
    with torch.device("meta"):  # without values, and so without the time to draw them
        module = getattr(torch.nn, kind)(features, hidden, **options)
    module.to_empty(device="cpu")  # where torch takes the input of all steps at once
    found = torch_trace.trace(module, (torch.zeros(x),), kind, batch)
    stored = {}
    for direction, suffix in enumerate(("", "_reverse")[:directions]):
        stored[f"weight_ih_l0{suffix}"] = weights[0], direction * w[1] * features
        stored[f"weight_hh_l0{suffix}"] = weights[1], direction * w[1] * hidden
    named = []
    for layer in found.layers:
        name, first = stored.get(layer.weight_name or "", (None, 0))
        named.append(replace(layer, weight_name=name, weight_offset=layer.weight_offset + first))
    return replace(found, layers=tuple(named))


def placed(layer: Layer, before: int, outer: tuple[int, ...]) -> Layer:
    """The layer behind `before` others, with `outer` as the sources of its network's input."""

    def moved(sources: tuple[int, ...]) -> tuple[int, ...]:
        inner = {source + before for source in sources if source >= 0}
        return tuple(sorted({*inner, *outer} if -1 in sources else inner))

    operands = tuple((moved(sources), count) for sources, count in layer.operands)
    return replace(layer, sources=moved(layer.sources), operands=operands)

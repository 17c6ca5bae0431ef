"""LSTM, GRU and RNN of ONNX as torch's own layers, so that their weights are words and their steps are counted.

Only the order of the gates differs: ONNX has LSTM i, o, f, c and GRU z, r, h; torch i, f, c, o and r, z, n.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sram.errors import InputError

GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}  # torch's in the order of ONNX's
ACTIVATIONS = {"LSTM": (("Sigmoid", "Tanh", "Tanh"),), "GRU": (("Sigmoid", "Tanh"),), "RNN": (("Tanh",), ("Relu",))}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
# Of the inputs, by position; 4, sequence_lens, and 7, peepholes, are not read.
WEIGHT, RECURRENT, BIAS, LENGTHS, STATE, CELL, PEEPHOLES = range(1, 8)


class Recurrent(nn.Module):
    """One node: `layer` is torch's; inputs X [steps, batch, features] and initial states, if any."""

    def __init__(self, layer: nn.RNNBase, backwards: bool):
        super().__init__()
        self.layer, self.backwards = layer, backwards

    def forward(self, x: Tensor, h: Tensor | None, c: Tensor | None) -> tuple[Tensor, ...]:
        """Y [steps, directions, batch, hidden], the last h and, of an LSTM, the last c [directions, batch, hidden]."""
        x = x.flip(0) if self.backwards else x
        directions, hidden = 1 + self.layer.bidirectional, self.layer.hidden_size
        zeros = x.new_zeros(directions, x.shape[1], hidden)
        h, c = (zeros if state is None else state.to(x) for state in (h, c))
        if isinstance(self.layer, nn.LSTM):
            y, last = self.layer(x, (h, c))
        else:
            y, only = self.layer(x, h)
            last = (only,)
        y = y.unflatten(2, (directions, hidden)).transpose(1, 2)
        return (y.flip(0) if self.backwards else y, *last)


def run(i: list[Any]) -> tuple[Tensor, ...]:
    """What the node makes of X, its module and the initial states."""
    states = (i[at] if len(i) > at and i[at].numel() else None for at in (2, 3))
    return i[1](i[0], *states)


@torch.no_grad()
def module(node: Any, constants: list[Tensor | None], where: Path) -> Recurrent:
    """The module of a node; `constants`, by position, are its inputs that are known.

    InputError names the attribute or input that torch's layers do not have.
    """
    import onnx

    kind = node.op_type
    plain = {"direction": b"forward", "layout": 0, "input_forget": 0, "linear_before_reset": 0, "output_sequence": 0}
    given = plain | {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}

    def refuse(attribute: str, value: object, allowed: str) -> None:
        raise InputError(where, f"{kind}: {attribute}", value, allowed)

    direction = given.pop("direction").decode()
    if direction not in DIRECTIONS:
        refuse("direction", direction, ", ".join(DIRECTIONS))
    directions = DIRECTIONS[direction]
    names = [name.decode() for name in given.pop("activations", [])] or list(ACTIVATIONS[kind][0]) * directions
    allowed = [list(names_of) * directions for names_of in ACTIVATIONS[kind]]
    if names not in allowed:
        refuse("activations", names, f"one of {allowed}")
    if not given.pop("linear_before_reset") and kind == "GRU":
        refuse("linear_before_reset", 0, "1, as torch computes and exports")
    given.pop("hidden_size", None)
    for name, value in given.items():
        if value:
            refuse(name, value, "0 or none")
    for at, name in ((LENGTHS, "sequence_lens"), (PEEPHOLES, "P")):
        if len(node.input) > at and node.input[at]:
            refuse(name, node.input[at], "none: all sequences are as long")
    w, r = constants[WEIGHT], constants[RECURRENT]
    biased = len(node.input) > BIAS and bool(node.input[BIAS])
    b = constants[BIAS] if biased else None
    if w is None or r is None or (biased and b is None):
        raise InputError(where, f"{kind}: weights", "computed", "initialisers that no other recurrent node reads")
    options: dict[str, Any] = {"nonlinearity": names[0].lower()} if kind == "RNN" else {}
    hidden, gates = r.shape[2], len(GATES[kind])
    if len(w) != directions or w.shape[:2] != r.shape[:2] or r.shape[1] != gates * hidden:
        refuse("weights", [list(w.shape), list(r.shape)], f"{directions} directions of {gates} gates")
    with torch.device("meta"):
        layer = getattr(nn, kind)(w.shape[2], hidden, bias=biased, bidirectional=directions == 2, **options)
    _fill(layer.to_empty(device="cpu").requires_grad_(False), w, r, b, GATES[kind])
    return Recurrent(layer, direction == "reverse")


def _fill(layer: nn.RNNBase, w: Tensor, r: Tensor, b: Tensor | None, order: tuple[int, ...]) -> None:
    for at in range(len(w)):
        parts = {"weight_ih": w[at], "weight_hh": r[at]}
        if b is not None:
            parts |= dict(zip(("bias_ih", "bias_hh"), b[at].chunk(2), strict=True))
        for name, value in parts.items():
            sorted_gates = torch.cat([value.chunk(len(order))[gate] for gate in order])
            getattr(layer, f"{name}_l0" + ("", "_reverse")[at]).copy_(sorted_gates)

"""LSTM, GRU and RNN of an ONNX model, step by step, with the gates and weights in the order of ONNX.

What has no default meaning here is refused: other activations, `sequence_lens`, peepholes, `layout` 1, clipping.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from sram.errors import InputError

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS = {"LSTM": [["Sigmoid", "Tanh", "Tanh"]], "GRU": [["Sigmoid", "Tanh"]], "RNN": [["Tanh"], ["Relu"]]}
UNREAD = {4: "sequence_lens", 7: "P"}
Step = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]  # input's part, state -> state


def recurrent(
    i: list[Tensor],
    *,
    kind: str,
    hidden_size: int | None = None,
    direction: str = "forward",
    activations: Sequence[bytes] = (),
    linear_before_reset: int = 0,
) -> tuple[Tensor, ...]:
    """One node: x [steps, batch, features] -> [steps, directions, batch, hidden], and the last states
    [directions, batch, hidden]. W and R may have directions and gates on one axis."""
    directions = 2 if direction == "bidirectional" else 1
    for at, name in UNREAD.items():
        if len(i) > at and i[at].numel():
            raise InputError("ONNX", f"{kind}: {name}", list(i[at].shape), "none")
    named = [name.decode() for name in activations]
    # the default of an RNN names one for each of two directions, also where there is one
    known = next((own for own in ACTIVATIONS[kind] if named in ([], own * directions, own * 2)), None)
    if known is None:
        raise InputError("ONNX", f"{kind}: activations", named, " or ".join(map(str, ACTIVATIONS[kind])))
    hidden = i[2].shape[-1]
    w, r = (part.reshape(directions, GATES[kind] * hidden, -1) for part in i[1:3])
    zero = torch.zeros(directions, i[0].shape[1], hidden, device=i[0].device)
    none = torch.zeros(directions, 2 * GATES[kind] * hidden, device=i[0].device)
    bias = i[3] if len(i) > 3 and i[3].numel() else none
    starts = [i[at] if len(i) > at and i[at].numel() else zero for at in ((5, 6) if kind == "LSTM" else (5,))]
    outputs, ends = [], []
    for d in range(directions):
        b, rb = bias[d].chunk(2)
        again = partial(F.linear, weight=r[d], bias=rb)
        step: Step
        if kind == "LSTM":
            step = partial(_lstm, again)
        elif kind == "RNN":
            step = partial(_rnn, again, torch.tanh if known == ["Tanh"] else torch.relu)
        else:
            step = partial(_gru, again, r[d], rb, bool(linear_before_reset))
        state = tuple(start[d] for start in starts)
        backwards = direction == "reverse" or d == 1
        steps = list(F.linear(i[0], w[d], b).unbind())
        found = []
        for part in reversed(steps) if backwards else steps:
            state = step(part, state)
            found.append(state[0])
        outputs.append(torch.stack(found[::-1] if backwards else found))
        ends.append(state)
    return torch.stack(outputs, 1), *(torch.stack(parts) for parts in zip(*ends, strict=True))


def _lstm(again: Callable[[Tensor], Tensor], part: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    keep_in, out, forget, new = (part + again(state[0])).chunk(4, -1)
    cell = torch.sigmoid(forget) * state[1] + torch.sigmoid(keep_in) * torch.tanh(new)
    return torch.sigmoid(out) * torch.tanh(cell), cell


def _rnn(
    again: Callable[[Tensor], Tensor],
    activation: Callable[[Tensor], Tensor],
    part: Tensor,
    state: tuple[Tensor, ...],
) -> tuple[Tensor, ...]:
    return (activation(part + again(state[0])),)


def _gru(
    again: Callable[[Tensor], Tensor],
    r: Tensor,
    rb: Tensor,
    linear_before_reset: bool,
    part: Tensor,
    state: tuple[Tensor, ...],
) -> tuple[Tensor, ...]:
    (h,) = state
    size = 2 * h.shape[-1]
    if linear_before_reset:
        own = again(h)
        gates = torch.sigmoid(part[:, :size] + own[:, :size])
        update, reset = gates.chunk(2, -1)
        new = torch.tanh(part[:, size:] + reset * own[:, size:])
    else:
        update, reset = torch.sigmoid(part[:, :size] + F.linear(h, r[:size], rb[:size])).chunk(2, -1)
        new = torch.tanh(part[:, size:] + F.linear(reset * h, r[size:], rb[size:]))
    return ((1 - update) * new + update * h,)

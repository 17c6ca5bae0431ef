"""A torch network as a device runs it: integer convolutions on the words in its memory, the rest beside the array.

The words are those of `FaultyNetwork`: word i of the network lies in byte i of the device's memory. Normalisation
and biases become a scale and an offset a filter. Activations are rounded to 8 bits, in units that calibration images
give.
"""

import operator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from neuralfuse.quantized.faulty import FaultyNetwork
from simulator.device.program import Add, Conv, Flatten, Pair, Pool, Program, Shape, Step
from sram.errors import InputError
from sram.faultmap import FaultMap

ALLOWED = (
    "Conv2d, Linear of one row, BatchNorm after one of these, ReLU after one or after a sum, sums, "
    "mean and max pooling without overlap, flatten"
)
ACTIVATION_LEVEL = 127  # symmetric 8 bits


def compile_network(faulty: FaultyNetwork, images: Tensor, stored: bool = False) -> Program:
    """The Program that computes what `faulty` does; activations are scaled to the largest values on images[n, c, h, w],
    or [n, c].

    `stored`: its tensors lie in an activation memory between the layers, as words (`Program.units`).

    InputError for operators, and settings of them, that a device has not, and for words of other than 8 bits.
    """
    if faulty.bits != 8:
        raise InputError("device network", "bits", faulty.bits, "8, the width of the array's operands")
    form, allowed = faulty.format, "integers with a scale for a tensor or each filter"
    if form.name != "int":
        raise InputError("device network", "format", form.name, allowed)
    if form.group is not None:
        raise InputError("device network", "group", form.group, allowed)
    faulty.restore()
    try:
        graph = fx.symbolic_trace(faulty.network)
    except Exception as error:  # tracing fails in as many ways as there are networks
        raise InputError("device network", "network", str(error)[:80], "one without control flow on tensors") from None
    seen = _Seen(graph)
    with torch.no_grad():
        seen.run(images.to(faulty.device))
    return _Compiler(faulty, graph, seen).program(stored)


def device_faults(fault_map: FaultMap, voltage: float, words: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faults (weight int64[k], bit uint8[k], kind uint8[k]) of a network of so many words in the device's memory.

    Word i is in byte i, as `DeviceNetwork` writes it; an accelerator's schedule puts words elsewhere
    (`neuralfuse.chips.stored.in_accelerator`). What `FaultyNetwork.set_faults` takes. InputError below the map's floor,
    and for a memory that is too small for the words.

    >>> from sram import faultmap, geometry
    >>> chip = faultmap.generate(0, geometry.Geometry(1), "ibm14", voltage_floor=0.8)
    >>> weight, bit, kind = device_faults(chip, 0.8, words=100)
    >>> int(weight.max()) < 100, int(bit.max()) < 8
    (True, True)
    """
    faults = fault_map.at(voltage)
    if words > fault_map.geometry.capacity_bytes:
        allowed = f"at most {fault_map.geometry.capacity_bytes:,}, the bytes of the map's memory"
        raise InputError("device network", "words", words, allowed)
    word, bit = fault_map.geometry.word_bit(faults.cell)
    weight = word * (fault_map.geometry.word_bits // 8) + bit // 8
    inside = weight < words
    return weight[inside], (bit[inside] % 8).astype(np.uint8), faults.kind[inside]


class _Seen(fx.Interpreter):
    """Remembers the largest magnitude of each tensor, and the shape of an image's."""

    def __init__(self, graph: fx.GraphModule):
        super().__init__(graph)
        self.largest: dict[str, float] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        made = super().run_node(n)
        if isinstance(made, Tensor):
            self.largest[n.name] = float(made.abs().max())
            self.shapes[n.name] = tuple(made.shape[1:])
        return made


class _Compiler:
    def __init__(self, faulty: FaultyNetwork, graph: fx.GraphModule, seen: _Seen):
        self.graph, self.seen = graph, seen
        self.modules = dict(graph.named_modules())
        # by the tensor, not its name: a weight that two layers share is stored once, under one of its names
        tensors = dict(faulty.network.named_parameters(remove_duplicate=False))
        self.stored = {id(tensors[layer.name]): layer for layer in faulty.layer_table}
        self.words = faulty.clean_words
        self.steps: list[Step] = []
        self.tensor: dict[fx.Node, int] = {}

    def program(self, stored: bool) -> Program:
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                shape = self.shape(node)
                self.tensor[node] = 0
            elif node.op == "output":
                if self.tensor.get(node.args[0]) != len(self.steps):
                    raise self.refuse(node)
            else:
                self.tensor[node] = self.place(node)
        program = Program(shape, tuple(self.steps))
        for node, tensor in self.tensor.items():
            if self.shape(node) != program.shapes[tensor]:  # a flatten or a mean of other axes
                raise self.refuse(node)
        if not stored:
            return program
        unit = {tensor: self.unit(node) for node, tensor in self.tensor.items()}  # of the last node, ReLU included
        units = (unit[tensor] if tensor in program.stored else None for tensor in range(len(self.steps) + 1))
        return replace(program, units=tuple(units))

    def unit(self, node: fx.Node) -> float:
        """What a word of a node's value stands for."""
        return max(self.seen.largest[node.name], 1e-12) / ACTIVATION_LEVEL

    def shape(self, node: fx.Node) -> Shape:
        """Of a node's value: (channels, rows, columns), or (channels, 1, 1)."""
        shape = self.seen.shapes[node.name]
        return (*shape, *(1,) * (3 - len(shape)))  # type: ignore[return-value]

    def refuse(self, node: fx.Node, setting: str = "", value: Any = None, allowed: str = ALLOWED) -> InputError:
        """`setting`: what the operator has that no device has; none: it is the operator."""
        if setting:
            return InputError("device network", f"{setting} of {node.name}", value, allowed)
        module = self.modules.get(str(node.target))
        name = type(module).__name__ if node.op == "call_module" else getattr(node.target, "__name__", str(node.target))
        return InputError("device network", f"operator {node.name}", name, ALLOWED)

    def place(self, node: fx.Node) -> int:
        """The tensor that the node's value is, after the step that makes it, if it needs one."""
        inputs = [self.tensor[argument] for argument in node.args if isinstance(argument, fx.Node)]
        if node.op == "get_attr" or not inputs:
            raise self.refuse(node)
        does = self.modules[str(node.target)] if node.op == "call_module" else node.target
        kind = type(does) if isinstance(does, nn.Module) else does
        if isinstance(does, nn.Conv2d | nn.Linear):
            return self.add(self.convolution(node, does, inputs[0]))
        if isinstance(does, _BatchNorm):
            return self.normalise(node, does)
        if kind in (nn.ReLU, torch.relu, F.relu, "relu"):
            return self.rectify(node)
        if kind in (operator.add, torch.add, operator.iadd) and len(inputs) == 2 and not node.kwargs:
            return self.add(Add(inputs[0], inputs[1], relu=False))
        if kind in (nn.Identity, nn.Dropout):
            return inputs[0]
        if kind in (nn.Flatten, torch.flatten, "flatten") and (kind is nn.Flatten or node.args[1:] == (1,)):
            return self.add(Flatten(inputs[0]))
        if isinstance(does, nn.AdaptiveAvgPool2d) and does.output_size in (1, (1, 1)):
            return self.add(Pool(inputs[0], "mean", 0))
        if kind == "mean" and node.args[1:] and tuple(node.args[1]) in ((2, 3), (-2, -1)):  # type: ignore[arg-type]
            return self.add(Pool(inputs[0], "mean", 0))
        if isinstance(does, nn.AvgPool2d | nn.MaxPool2d):
            size = _one(does.kernel_size)
            plain = _one(getattr(does, "dilation", 1)) == 1 and getattr(does, "divisor_override", None) is None
            if plain and size and _one(does.stride) == size and _one(does.padding) == 0 and not does.ceil_mode:
                return self.add(Pool(inputs[0], "max" if isinstance(does, nn.MaxPool2d) else "mean", size))
        raise self.refuse(node)

    def add(self, step: Step) -> int:
        self.steps.append(step)
        return len(self.steps)

    def convolution(self, node: fx.Node, layer: nn.Conv2d | nn.Linear, source: int) -> Conv:
        stored = self.stored[id(layer.weight)]
        weight = layer.weight.detach().cpu().double().reshape(len(layer.weight), -1)
        words = torch.from_numpy(self.words[stored.offset : stored.offset + stored.size].astype(np.float64))
        words = words.reshape(weight.shape)
        # A weight is its word times the filter's scale; the largest word gives it with the least rounding.
        top = words.abs().argmax(1, keepdim=True)
        scale = torch.nan_to_num(weight.gather(1, top) / words.gather(1, top)).flatten()
        offset = torch.zeros_like(scale) if layer.bias is None else layer.bias.detach().cpu().double()
        assert isinstance(node.args[0], fx.Node)
        unit = self.unit(node.args[0])
        shape: dict[str, int] = {"channels": weight.shape[1], "kernel_h": 1, "kernel_w": 1, "groups": 1}
        stride: Pair = (1, 1)
        padding: Pair = (0, 0)
        if isinstance(layer, nn.Conv2d):
            stride, padding = layer.stride, self.padding(node, layer)  # type: ignore[assignment]
            high, wide = layer.kernel_size
            shape = {"channels": layer.in_channels, "kernel_h": high, "kernel_w": wide, "groups": layer.groups}
        elif len(row := self.seen.shapes[node.args[0].name]) != 1:
            raise self.refuse(node, "input", list(row), "Linear of one row of numbers an image")
        return Conv(
            source=source,
            address=stored.offset,
            filters=len(weight),
            stride=stride,
            padding=padding,
            input_scale=unit,
            scale=tuple((scale * unit).tolist()),
            offset=tuple(offset.tolist()),
            relu=False,
            **shape,
        )

    def padding(self, node: fx.Node, layer: nn.Conv2d) -> Pair:
        """Of rows and of columns, the same on both sides. InputError where there is none, or none of zeros."""
        if layer.padding_mode != "zeros":
            raise self.refuse(node, "padding_mode", layer.padding_mode, "convolutions padded with zeros")
        if layer.dilation != (1, 1):
            raise self.refuse(node, "dilation", layer.dilation, "convolutions without dilation")
        if not isinstance(layer.padding, str):
            return layer.padding  # type: ignore[return-value]
        around = tuple(size - 1 if layer.padding == "same" else 0 for size in layer.kernel_size)
        if any(each % 2 for each in around):
            allowed = "convolutions with as much padding before as behind"
            raise self.refuse(node, "padding", f"same for {layer.kernel_size}", allowed)
        return around[0] // 2, around[1] // 2

    def made_by(self, node: fx.Node, kinds: tuple[type, ...]) -> tuple[int, Any]:
        """The step that makes the node's input, which nobody else may read."""
        source = node.args[0]
        assert isinstance(source, fx.Node)
        place = self.tensor[source]
        step = self.steps[place - 1] if place else None
        readers = {user for made, tensor in self.tensor.items() if tensor == place for user in made.users} - {node}
        shared = any(self.tensor.get(reader) != place for reader in readers)
        if shared or not isinstance(step, kinds) or getattr(step, "relu", False):
            raise self.refuse(node)
        return place, step

    def normalise(self, node: fx.Node, norm: _BatchNorm) -> int:
        place, step = self.made_by(node, (Conv,))
        if norm.running_mean is None or norm.running_var is None:
            raise self.refuse(node, "track_running_stats", False, "BatchNorm with statistics of its training")
        gain = (norm.running_var.detach().cpu().double() + norm.eps).rsqrt()
        if norm.affine:
            gain = gain * norm.weight.detach().cpu().double()
        shift = norm.bias.detach().cpu().double() if norm.affine else torch.zeros_like(gain)
        scale = torch.tensor(step.scale, dtype=torch.float64) * gain
        offset = (torch.tensor(step.offset, dtype=torch.float64) - norm.running_mean.cpu().double()) * gain + shift
        self.steps[place - 1] = replace(step, scale=tuple(scale.tolist()), offset=tuple(offset.tolist()))
        return place

    def rectify(self, node: fx.Node) -> int:
        place, step = self.made_by(node, (Conv, Add))
        self.steps[place - 1] = replace(step, relu=True)
        return place


def _one(size: int | tuple[int, ...]) -> int | None:
    """The one number of a size that is the same in both directions."""
    sizes = {size} if isinstance(size, int) else set(size)
    return sizes.pop() if len(sizes) == 1 else None

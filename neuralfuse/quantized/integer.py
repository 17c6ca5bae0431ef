"""A device's program on torch's integer convolutions: its answers to the last bit, in less time than floats take.

Activations behind a ReLU are 0 to 127, words -128 to 127. Two such products fit into 16 bits, so a processor that adds
them there before it goes on in 32 (AVX2 has no other way) never saturates, and sums are exact on all.

**Gradients** flow to the input, straight through whatever rounds (Bengio et al., arXiv 1308.3432): the value is the
chip's, the slope that of the sums in real numbers, and 0 where a number is beyond the largest word. They also flow
straight through faults. A stuck or flipped bit moves a word, or a partial sum, by a constant as long as no bit at or
above it changes, so in between the slope is 1; steps are left out, as those of rounding are.
"""

import functools
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input

from neuralfuse.quantized import integer_kernels as kernels
from neuralfuse.quantized.faulty import FaultyBits, FaultyNetwork
from simulator.device.activations import NOTHING_FAULTY, Reading
from simulator.device.array_faults import ArrayFaults, Convolved
from simulator.device.program import Add, Conv, Flatten, Pool, Program, Step

LEVEL = 127
CHANNELS = 8  # the integer convolutions are for channels in such multiples
EXACT = 2**24  # a float32 is every whole number up to here


@functools.cache
def integers_are_exact() -> bool:
    """Whether torch has integer convolutions here, and the largest products come out right."""
    image = torch.full((1, CHANNELS, 3, 3), LEVEL, dtype=torch.int8).contiguous(memory_format=torch.channels_last)
    try:
        for word in (-128, 127):
            window = 3, 3, (1, 1), (0, 0)
            one = Conv(0, 0, CHANNELS, CHANNELS, *window, 1, 1.0, (1.0,) * CHANNELS, (0.0,) * CHANNELS, False)
            layer = _Convolution(one, integers=True, device=torch.device("cpu"))
            layer.load(np.full(one.weights, word, np.int8))
            if not bool((layer.sums(image) == LEVEL * word * CHANNELS * 9).all()):
                return False
    except (AttributeError, RuntimeError):  # another build of torch, another processor
        return False
    return True


class _Convolution:
    """One convolution of words by words."""

    def __init__(self, step: Conv, integers: bool, device: torch.device):
        """`integers`: in integers where no activation is negative."""
        self.step, self.device = step, device
        self.integers = integers and step.groups == 1 and step.channels % CHANNELS == step.filters % CHANNELS == 0
        self.scale, self.offset = np.array(step.scale), np.array(step.offset)
        self.one, self.zero = torch.ones(step.filters), torch.zeros(step.filters, dtype=torch.int32)
        self.geometry = list(step.stride), list(step.padding), [1, 1], step.groups

    def load(self, words: np.ndarray) -> None:
        step = self.step
        weight = words.reshape(step.filters, step.channels // step.groups, step.kernel_h, step.kernel_w)
        self.largest = int(np.abs(words.reshape(step.filters, -1).astype(np.int64)).sum(1).max()) * (LEVEL + 1)
        self.weight = torch.from_numpy(weight).to(self.device, torch.float32)
        if self.integers:
            self.packed = torch.ops.onednn.qconv_prepack(torch.from_numpy(weight), self.one, 1.0, 0, *self.geometry)
            self.taps = np.ascontiguousarray(weight.transpose(2, 3, 1, 0), np.float32)

    def __call__(self, words: Tensor) -> Tensor:
        """Numbers float32[n, filters, h, w] of words int8[n, c, h, w], channels innermost."""
        return self.numbers(self.sums(words))

    def sums(self, words: Tensor) -> Tensor:
        """Whole numbers [n, filters, h, w]: float32, or float64 where float32 may not have them all."""
        found = self._in_integers(words) if self.integers else None
        if found is None:
            kind, step = torch.float32 if self.largest < EXACT else torch.float64, self.step
            weight = self.weight.to(kind)
            found = F.conv2d(words.to(kind), weight, None, step.stride, step.padding, 1, step.groups)
        return found.contiguous(memory_format=torch.channels_last)

    def _in_integers(self, words: Tensor) -> Tensor | None:
        """A convolution of the low seven bits, and what the sign bits of a few words add to it; None where a sum may be
        beyond what float32 counts."""
        step, negative = self.step, np.flatnonzero(_flat(words) < 0)
        low = words & LEVEL if len(negative) else words
        given = low.view(torch.uint8), 1.0, 0, self.packed, self.one, self.zero, None, *self.geometry
        sums = torch.ops.onednn.qconv2d_pointwise(*given, 1.0, 0, torch.float32, "none", [], "")
        if self.largest >= EXACT and (len(negative) or kernels.largest(_flat(sums)) >= EXACT):
            return None
        if len(negative):
            sums = sums.contiguous(memory_format=torch.channels_last)
            kernels.add_signs(
                sums.permute(0, 2, 3, 1).numpy(), negative, tuple(words.shape[2:]), self.taps, step.stride, step.padding
            )
        return sums

    def numbers(self, sums: Tensor) -> Tensor:
        """What sums stand for: scaled and moved in float64, then rounded to float32, as a device does it."""
        if sums.device.type == "cpu" and sums.dtype != torch.float64:
            numbers = sums.view(torch.float32)  # in the same memory
            rows = (_flat(each).reshape(-1, self.step.filters) for each in (sums, numbers))
            kernels.scale(*rows, self.scale, self.offset, self.step.relu)
            return numbers
        scale, offset = (torch.from_numpy(each).to(sums.device)[:, None, None] for each in (self.scale, self.offset))
        numbers = (sums.double() * scale + offset).float()
        return numbers.relu_() if self.step.relu else numbers


class IntegerNetwork:
    """A program on the words that a network reads, whatever its faults: `simulator.device.program.execute` in torch,
    bit for bit.

    Convolutions of what a ReLU has made positive are integer ones on a CPU that has them; all others add up the same
    integers as floats. Words that change between calls are noticed. `activations`: what the stored tensors of a program
    with `units` read back. `in_array`: what sums become inside the array, one after the other, where the first of a
    call's images has the number `first_image`. Where a frozen network is trained or fitted before, it stands in for its
    `FaultyNetwork`.

    >>> faulty = FaultyNetwork(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1, bias=False)))
    >>> half = Conv(0, 0, 1, 1, 1, 1, (1, 1), (0, 0), 1, input_scale=0.5, scale=(0.5 / 127,), offset=(1.0,), relu=False)
    >>> faulty.words[:] = 127
    >>> IntegerNetwork(faulty, Program((1, 1, 1), (half,)))(torch.tensor([[[[0.7]]], [[[99.0]]]])).tolist()
    [[1.5], [64.5]]
    """

    def __init__(self, faulty: FaultyNetwork, program: Program, integers: bool | None = None):
        """`integers`: whether integer convolutions may be used; None: where they are exact."""
        self.faulty, self.program = faulty, program
        self.activations: Reading = NOTHING_FAULTY
        self.in_array: tuple[ArrayFaults, ...] = ()
        self.first_image = 0
        if integers is None:
            integers = faulty.device.type == "cpu" and integers_are_exact()
        positive = _positive(program)
        self.layers = {
            place: _Convolution(step, integers and positive[step.source], faulty.device)
            for place, step in enumerate(program.steps, start=1)
            if isinstance(step, Conv)
        }
        self.last_read = {tensor: place for place, step in enumerate(program.steps, start=1) for tensor in _read(step)}
        self.loaded: dict[int, np.ndarray] = {}  # the words of each convolution, as its layer has them

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.faulty.device

    @property
    def words(self) -> np.ndarray:
        """Its weights, as they are read."""
        return self.faulty.words

    def set_faults(
        self,
        weight: np.ndarray,
        bit: np.ndarray,
        kind: np.ndarray,
        activations: Reading = NOTHING_FAULTY,
        in_array: tuple[ArrayFaults, ...] = (),
    ) -> None:
        """Make these the only faults: of weights as `FaultyNetwork` has it, of activations, and of sums in the array.
        The next image has the number 0."""
        self.faulty.set_faults(weight, bit, kind)
        self.activations, self.in_array, self.first_image = activations, in_array, 0

    def restore(self) -> None:
        """Back to what is without faults."""
        self.faulty.restore()
        self.activations, self.in_array, self.first_image = NOTHING_FAULTY, (), 0

    def __call__(self, x: Tensor) -> Tensor:
        """Logits float32[n, classes] of x float32[n, c, h, w], or [n, c]."""
        with torch.autocast(self.device.type, enabled=False):  # sums are whole numbers
            return self._answers(x.float())

    def _answers(self, x: Tensor) -> Tensor:
        self._load()
        tensors = [self._kept(0, x[(..., *(None,) * (4 - x.dim()))])]
        for place, step in enumerate(self.program.steps, start=1):
            if isinstance(step, Conv):
                source, unit = tensors[step.source], step.input_scale
                exact = bool(self.program.units) and self.program.units[step.source] == unit  # words already
                made = _Convolved.apply(source.numbers, source.words(unit), self, place, exact)
                tensors.append(self._kept(place, made))
            elif isinstance(step, Flatten) and not self._unit(place):
                tensors.append(tensors[step.source].flattened())
            else:
                made = _beside(step, [tensors[each].numbers for each in _read(step)])
                tensors.append(self._kept(place, made))
            for tensor in _read(step):
                if self.last_read[tensor] == place:
                    tensors[tensor] = _GONE
        self.first_image += len(x)
        return tensors[-1].numbers.flatten(1)

    def convolved(self, place: int, words: Tensor) -> Tensor:
        """Tensor `place`, float32[n, filters, h, w], of the words int8[n, c, h, w] that its convolution reads."""
        layer = self.layers[place]
        if not self.in_array:
            return layer(words)
        sums = _integers(layer.sums(words))
        found = sums.permute(0, 2, 3, 1).reshape(len(sums), -1, layer.step.filters).numpy()
        read = words.permute(0, 2, 3, 1).cpu().numpy()
        made = Convolved(place, layer.step, self.loaded[place], read, found, self.first_image)
        for faults in self.in_array:
            faults.apply(made)
        return layer.numbers(sums.to(words.device))

    def _kept(self, place: int, numbers: Tensor) -> "_Tensor":
        """A tensor as later steps read it: through its cells, if it lies in the activation memory."""
        unit = self._unit(place)
        if unit is None:
            return _Tensor(numbers)
        read, words = _ReadBack.apply(numbers, unit, place, self.activations)
        return _Tensor(read, {unit: words})

    def _unit(self, place: int) -> float | None:
        return self.program.units[place] if self.program.units else None

    def _load(self) -> None:
        """Give each convolution its words, if they are not what it has."""
        for place, layer in self.layers.items():
            now = self.faulty.words[layer.step.address : layer.step.address + layer.step.weights]
            if place not in self.loaded or not np.array_equal(self.loaded[place], now):
                self.loaded[place] = now.copy()
                layer.load(self.loaded[place])


class _Convolved(torch.autograd.Function):
    """A convolution of words as the array does it, and its slope against the numbers that were rounded to them."""

    @staticmethod
    def forward(ctx: Any, numbers: Tensor, words: Tensor, network: IntegerNetwork, place: int, exact: bool) -> Tensor:
        made = network.convolved(place, words)
        if ctx.needs_input_grad[0]:
            layer = network.layers[place]
            ctx.layer, ctx.weight, ctx.shape = layer, layer.weight, numbers.shape  # those of this call
            ctx.save_for_backward(made, None if exact else _inside(numbers, layer.step.input_scale))
        return made

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None, None]:
        (made, inside), layer = ctx.saved_tensors, ctx.layer
        gain = torch.from_numpy(layer.scale / layer.step.input_scale).to(slope)
        if layer.step.relu:
            slope = torch.ops.aten.threshold_backward(slope, made, 0)
        back = conv2d_input(ctx.shape, ctx.weight * gain[:, None, None, None], slope, *layer.geometry)
        return back if inside is None else back * inside, None, None, None, None


class _ReadBack(torch.autograd.Function):
    """A tensor as it reads back from the activation memory: numbers, and words of a unit."""

    @staticmethod
    def forward(ctx: Any, numbers: Tensor, unit: float, place: int, memory: Reading) -> tuple[Tensor, Tensor]:
        words = _rounded(numbers, unit)
        memory.read_back(place, _flat(words).reshape(len(words), -1), channels_last=True)
        one = torch.tensor(unit, dtype=torch.float32)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(_inside(numbers, unit))
        ctx.mark_non_differentiable(words)
        return words.to(torch.float32) * one, words

    @staticmethod
    def backward(ctx: Any, slope: Tensor, _: None) -> tuple[Tensor, None, None, None]:
        return slope * ctx.saved_tensors[0], None, None, None


def _inside(numbers: Tensor, unit: float) -> Tensor:
    """Which numbers are not beyond the largest word."""
    return numbers.abs() <= (LEVEL + 0.5) * torch.tensor(unit, dtype=torch.float32)


class DieFaults(NamedTuple):
    """Faults of a die at an operating point, as `IntegerNetwork.set_faults` takes them."""

    weight: np.ndarray
    bit: np.ndarray
    kind: np.ndarray
    activations: Reading = NOTHING_FAULTY
    in_array: tuple[ArrayFaults, ...] = ()


Faults = FaultyBits | DieFaults


class Frozen(Protocol):
    """A network that a transform is trained or fitted before: a `FaultyNetwork`, which computes in floats and whose
    faults are `FaultyBits`, or an `IntegerNetwork`, which takes `DieFaults` too."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def words(self) -> np.ndarray:
        """Its weights, as they are read."""

    def __call__(self, x: Tensor) -> Tensor:
        """Logits, with gradients to the images."""

    def set_faults(self, *args: Any, **kwargs: Any) -> None:
        """Make these the only faults."""

    def restore(self) -> None:
        """Back to what is without faults."""


@dataclass
class _Tensor:
    """Numbers float32[n, c, h, w], and the words that they were rounded to, by unit."""

    numbers: Tensor
    rounded: dict[float, Tensor] = field(default_factory=dict)

    def words(self, unit: float) -> Tensor:
        if unit not in self.rounded:
            self.rounded[unit] = _rounded(self.numbers, unit)
        return self.rounded[unit]

    def flattened(self) -> "_Tensor":
        """One row of the same numbers, and of the same words: -128, which a fault has made, is none of a number's."""
        rows = {unit: _row(words) for unit, words in self.rounded.items()}
        return _Tensor(_row(self.numbers), rows)


_GONE = _Tensor(torch.empty(0))  # frees memory: only what is still to be read is kept


def _read(step: Step) -> list[int]:
    return [step.source, step.other] if isinstance(step, Add) else [step.source]


def _positive(program: Program) -> list[bool]:
    """Of each tensor, whether it has no negative number as it is made."""
    known = [False]
    for step in program.steps:
        inherited = not isinstance(step, Conv) and all(known[tensor] for tensor in _read(step))
        known.append(inherited or getattr(step, "relu", False))
    return known


def _flat(x: Tensor) -> np.ndarray:
    """The memory of a tensor [n, c, h, w] whose channels are innermost."""
    return x.permute(0, 2, 3, 1).reshape(-1).numpy()


def _integers(sums: Tensor) -> Tensor:
    """int32 on the CPU; of float32 there in the same memory."""
    if sums.device.type != "cpu" or sums.dtype != torch.float32:
        return sums.to("cpu", torch.int32)
    integers = sums.view(torch.int32)
    kernels.to_integers(_flat(sums), _flat(integers))
    return integers


def _rounded(x: Tensor, unit: float) -> Tensor:
    """Words int8[n, c, h, w], channels innermost."""
    x = x.detach().contiguous(memory_format=torch.channels_last)
    if x.device.type != "cpu":
        return (x / torch.tensor(unit, dtype=torch.float32)).round_().clamp_(-LEVEL, LEVEL).to(torch.int8)
    words = torch.empty_like(x, dtype=torch.int8)
    kernels.round_to_words(_flat(x), _flat(words), unit)
    return words


def _beside(step: Step, read: list[Tensor]) -> Tensor:
    """A step that is not on the array."""
    x = read[0]
    if isinstance(step, Add):
        total = x + read[1]
        return total.relu_() if step.relu else total
    if isinstance(step, Pool):
        size = step.size or x.shape[2:]
        return F.avg_pool2d(x.double(), size).float() if step.kind == "mean" else F.max_pool2d(x, size)
    return _row(x)


def _row(x: Tensor) -> Tensor:
    """[n, c, h, w] as [n, c * h * w, 1, 1]."""
    return x.flatten(1)[:, :, None, None]

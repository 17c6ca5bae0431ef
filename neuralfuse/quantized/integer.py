"""A device's program on torch's integer convolutions: its answers in less time than a network's own floats take.

Activations behind a ReLU are 0 to 127, words -128 to 127. Two such products fit into 16 bits, so a processor that adds
them there before it goes on in 32 (AVX2 has no other way) never saturates, and sums are exact on all.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from neuralfuse.quantized import kernels
from neuralfuse.quantized.faulty import FaultyNetwork
from simulator.device.program import Add, Conv, Flatten, Pool, Program, Step

LEVEL = 127
CHANNELS = 8  # the integer convolutions are for channels in such multiples


@functools.cache
def integers_are_exact() -> bool:
    """Whether torch has integer convolutions here, and the largest products come out right."""
    ones = torch.ones(CHANNELS, dtype=torch.int8)
    image = torch.full((1, CHANNELS, 3, 3), LEVEL, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    try:
        for word in (-128, 127):
            weight = (ones * word)[:, None, None, None].repeat(1, CHANNELS, 3, 3)
            one = Conv(0, 0, CHANNELS, CHANNELS, 3, 3, 1, 0, 1, 1.0, (1.0,) * CHANNELS, (0.0,) * CHANNELS, False)
            layer = _Integers(one, None, False)
            layer.load(weight.numpy().ravel())
            if not bool((layer(image) == LEVEL * word * CHANNELS * 9).all()):
                return False
    except (AttributeError, RuntimeError):  # another build of torch, another processor
        return False
    return True


class _Integers:
    """One convolution of words by words."""

    def __init__(self, step: Conv, unit: float | None, relu: bool):
        """The output is words of `unit`, or numbers (None)."""
        self.step, self.unit, self.relu = step, unit, relu
        self.scale, self.offset = torch.tensor(step.scale), torch.tensor(step.offset)
        self.zero = torch.zeros(step.filters, dtype=torch.int32)
        self.geometry = [step.stride] * 2, [step.padding] * 2, [1, 1], step.groups

    def load(self, words: np.ndarray) -> None:
        shape = self.step.filters, self.step.channels, self.step.kernel_h, self.step.kernel_w
        weight = torch.from_numpy(words.reshape(shape))
        self.weight = torch.ops.onednn.qconv_prepack(weight, self.scale, 1.0, 0, *self.geometry)

    def __call__(self, words: Tensor, added: Tensor | None = None) -> Tensor:
        """Of words uint8[n, c, h, w]; `added` is overwritten by its sum with the convolution, which is returned."""
        given = words, 1.0, 0, self.weight, self.scale, self.zero
        relu = "relu" if self.relu else "none"
        if added is not None:
            added = added.contiguous(memory_format=torch.channels_last)
            numbers = 1.0, 0, torch.float32, 1.0, 0
            torch.ops.onednn.qconv2d_pointwise.binary(
                *given, added, self.offset, *self.geometry, *numbers, "sum", 1.0, relu, [], ""
            )
            return added
        made = (1.0, 0, torch.float32) if self.unit is None else (self.unit, 0, torch.uint8)
        out = torch.ops.onednn.qconv2d_pointwise(*given, self.offset, *self.geometry, *made, relu, [], "")
        return out if self.unit is None else out.clamp_(max=LEVEL)


class _Floats:
    """One convolution that takes numbers, rounds them to words of both signs, and multiplies these as floats."""

    def __init__(self, step: Conv, device: torch.device):
        self.step, self.device = step, device
        self.scale = torch.tensor(step.scale, device=device)[:, None, None]
        self.offset = torch.tensor(step.offset, device=device)[:, None, None]

    def load(self, words: np.ndarray) -> None:
        step = self.step
        shape = step.filters, step.channels // step.groups, step.kernel_h, step.kernel_w
        self.weight = torch.from_numpy(words.reshape(shape)).to(self.device, torch.float32)

    def __call__(self, x: Tensor) -> Tensor:
        step = self.step
        words = (x / step.input_scale).round_().clamp_(-LEVEL, LEVEL).contiguous()
        out = F.conv2d(words, self.weight, None, step.stride, step.padding, 1, step.groups)
        out = out.contiguous(memory_format=torch.channels_last)  # as the integer convolutions want it
        out = out.mul_(self.scale).add_(self.offset)
        return out.relu_() if step.relu else out


@dataclass(frozen=True)
class _Plan:
    """What is known of a step before it runs."""

    layer: _Integers | _Floats | None  # of a convolution
    sum: int | None  # the step that adds another tensor to the output, done here
    done: tuple[int, ...]  # tensors that no later step reads


class IntegerNetwork:
    """A program on the words that a network reads, whatever its faults: `simulator.device.program.execute` in torch.

    The same operations up to float32's rounding of what a sum stands for, which now and then makes of an activation the
    word beside it. Convolutions of what a ReLU has made positive are integer ones on a CPU that has them; all others
    add up the same integers as floats, exactly below 2^24. Words that change between calls are noticed.

    >>> faulty = FaultyNetwork(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1, bias=False)))
    >>> half = Conv(0, 0, 1, 1, 1, 1, 1, 0, 1, input_scale=0.5, scale=(0.5 / 127,), offset=(1.0,), relu=False)
    >>> faulty.words[:] = 127
    >>> IntegerNetwork(faulty, Program((1, 1, 1), (half,)))(torch.tensor([[[[0.7]]], [[[99.0]]]])).tolist()
    [[1.5], [64.5]]
    """

    def __init__(self, faulty: FaultyNetwork, program: Program, integers: bool | None = None):
        """`integers`: whether integer convolutions may be used; None: where they are exact."""
        self.faulty, self.program = faulty, program
        if integers is None:
            integers = faulty.device.type == "cpu" and integers_are_exact()
        self.plans = _plans(program, integers, faulty.device)
        self.loaded: dict[int, np.ndarray] = {}  # the words of each convolution, as its layer has them

    def __call__(self, x: Tensor) -> Tensor:
        """Logits float32[n, classes] of x float32[n, c, h, w]."""
        self._load()
        numbers: dict[int, Tensor] = {0: x}
        words: dict[tuple[int, float], Tensor] = {}
        for place, (step, plan) in enumerate(zip(self.program.steps, self.plans, strict=True), start=1):
            if isinstance(step, Conv) and isinstance(plan.layer, _Integers):
                key = step.source, step.input_scale
                if key not in words:
                    words[key] = _rounded(numbers[step.source], step.input_scale)
                if plan.layer.unit is not None:
                    words[place, plan.layer.unit] = plan.layer(words[key])
                elif plan.sum is not None:
                    other = _other(self.program.steps[plan.sum - 1], place)
                    numbers[plan.sum] = plan.layer(words[key], numbers[other])
                else:
                    numbers[place] = plan.layer(words[key])
            elif plan.layer is not None:
                numbers[place] = plan.layer(numbers[step.source])
            elif place not in numbers:
                numbers[place] = _beside(step, numbers)
            for tensor in plan.done:
                numbers.pop(tensor, None)
                words = {key: each for key, each in words.items() if key[0] != tensor}
        return numbers[len(self.plans)].flatten(1)

    def _load(self) -> None:
        """Give each convolution its words, if they are not what it has."""
        for place, (step, plan) in enumerate(zip(self.program.steps, self.plans, strict=True)):
            if isinstance(step, Conv) and plan.layer is not None:
                now = self.faulty.words[step.address : step.address + step.weights]
                if place not in self.loaded or not np.array_equal(self.loaded[place], now):
                    self.loaded[place] = now.copy()
                    plan.layer.load(self.loaded[place])


def _plans(program: Program, integers: bool, device: torch.device) -> list[_Plan]:
    """How each step is done. An integer convolution leaves words where all readers want them in the same unit, and adds
    itself to the other operand of a residual sum where nothing else reads either."""
    steps = program.steps
    positive = _positive(program)
    readers: list[list[int]] = [[] for _ in range(len(steps) + 1)]
    for place, step in enumerate(steps, start=1):
        for tensor in _read(step):
            readers[tensor].append(place)

    def as_words(step: Step) -> bool:
        if not integers or not isinstance(step, Conv) or step.groups > 1 or not positive[step.source]:
            return False
        return step.channels % CHANNELS == 0 and step.filters % CHANNELS == 0

    plans = []
    for place, step in enumerate(steps, start=1):
        done = tuple(tensor for tensor in _read(step) if readers[tensor][-1] == place)
        if not isinstance(step, Conv):
            plans.append(_Plan(None, None, done))
        elif not as_words(step):
            plans.append(_Plan(_Floats(step, device), None, done))
        else:
            after = [steps[reader - 1] for reader in readers[place]]
            units = {reader.input_scale if isinstance(reader, Conv) and as_words(reader) else None for reader in after}
            total = readers[place][0] if len(after) == 1 and isinstance(after[0], Add) and not step.relu else None
            if total is not None:
                other = _other(steps[total - 1], place)
                if not 0 < other < place or readers[other][-1] != total:
                    total = None
            relu = step.relu if total is None else after[0].relu  # type: ignore[union-attr]
            unit = next(iter(units)) if len(units) == 1 and step.relu else None
            plans.append(_Plan(_Integers(step, unit, relu), total, done))
    return plans


def _read(step: Step) -> list[int]:
    return [step.source, step.other] if isinstance(step, Add) else [step.source]


def _other(step: Step, place: int) -> int:
    """What a sum adds to the output of step `place`."""
    assert isinstance(step, Add)
    return step.other if step.source == place else step.source


def _positive(program: Program) -> list[bool]:
    """Of each tensor, whether it can have no negative number."""
    known = [False]
    for step in program.steps:
        inherited = not isinstance(step, Conv) and all(known[tensor] for tensor in _read(step))
        known.append(inherited or getattr(step, "relu", False))
    return known


def _rounded(x: Tensor, unit: float) -> Tensor:
    """Words uint8[n, c, h, w], channels innermost, of positive numbers."""
    x = x.contiguous(memory_format=torch.channels_last)
    words = torch.empty_like(x, dtype=torch.uint8)
    flat, out = (each.permute(0, 2, 3, 1).reshape(-1).numpy() for each in (x, words))
    kernels.round_to_words(flat, out, unit)
    return words


def _beside(step: Step, numbers: dict[int, Tensor]) -> Tensor:
    """A step that is not on the array."""
    x = numbers[step.source]
    if isinstance(step, Add):
        total = x + numbers[step.other]
        return total.relu_() if step.relu else total
    if isinstance(step, Pool):
        if not step.size:
            return x.mean((2, 3), keepdim=True) if step.kind == "mean" else x.amax((2, 3), keepdim=True)
        return F.avg_pool2d(x, step.size) if step.kind == "mean" else F.max_pool2d(x, step.size)
    assert isinstance(step, Flatten)
    return x.flatten(1)[:, :, None, None]

"""What the NeuralFuse paper counts, slip for slip: Sun et al., NeurIPS 2024, arXiv 2306.16869.

Its energy is weight-memory accesses times (V / Vmin)^2, for a 32 x 32 output-stationary array with 64-bit memory words,
counted by SCALE-Sim; beside it a saving by MACs, counted by ptflops. Both counters have habits that are kept here and
nowhere else:

accesses  outputs of ceil((in + padding - kernel + stride) / stride), one more than there are where a stride does not
          divide; a transposed convolution as a stride-1 convolution of its own kernel on a map of twice the size with
          padding 1; in the generators also the 1 x 1 output convolution with padding 1.
MACs      a bias or ReLU counts one and BatchNorm two for each element, max-pooling its inputs, nearest upsampling its
          outputs; a transposed convolution kernel * channels for each *output*, of stride times the input's size; ReLU
          of the residual networks' stem and average pooling are functions in the paper's code and are not seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from simulator.workload import Layer, Workload
from sram.energy import dynamic_scale


@dataclass(frozen=True)
class Saving:
    """Energy saved, in percent of the base network at Vmin, when it runs lower and a generator at Vmin is added."""

    voltage_pct: float
    overhead_pct: float

    @property
    def pct(self) -> float:
        """What is left of the saving when the generator is paid for."""
        return self.voltage_pct - self.overhead_pct


def saving(base: float, generator: float, voltage: float) -> Saving:
    """Saving of a base network of `base` accesses (or MACs) at `voltage`, in multiples of Vmin, with a generator.

    >>> round(saving(2755968, 320256, voltage=20 / 24).pct, 1)  # ResNet18 with ConvL
    18.9
    """
    return Saving(100 * (1 - float(dynamic_scale(voltage, 1.0))), 100 * generator / base)


def weight_accesses(workload: Workload, generator: bool = False, array_rows: int = 32, word_bytes: int = 8) -> float:
    """Reads of `word_bytes`-byte words from the weight memory for one inference with 8-bit weights.

    `generator`: the workload is one of the paper's generators, whose every convolution is counted with padding 1.

    >>> from simulator.workload import conv
    >>> net = Workload("one", (conv("a", 32, 32, 3, 64, kernel=3, padding=1),))
    >>> weight_accesses(net) == 27 * 64 * (32 * 32 // 32) / 8
    True
    """
    reads = 0
    for layer in workload.array_layers:
        pixels, k, n = _view(layer, generator)
        reads += k * n * math.ceil(pixels / array_rows)
    return reads / word_bytes


def _view(layer: Layer, generator: bool) -> tuple[int, int, int]:
    """Output pixels, taps and filters as the paper sees them."""
    if layer.kind != "conv":
        return layer.m, layer.k, layer.n
    k = layer.kernel_h * layer.kernel_w * layer.in_channels // layer.groups
    if layer.transposed:
        in_h, in_w, padding, stride_h, stride_w = 2 * layer.in_h, 2 * layer.in_w, (2, 2), 1, 1
    else:
        padding = (layer.padding_top + layer.padding_bottom, layer.padding_left + layer.padding_right)
        in_h, in_w, stride_h, stride_w = layer.in_h, layer.in_w, layer.stride_h, layer.stride_w
        padding = (2, 2) if generator else padding
    out_h = math.ceil((in_h + padding[0] - layer.kernel_h + stride_h) / stride_h)
    out_w = math.ceil((in_w + padding[1] - layer.kernel_w + stride_w) / stride_w)
    return out_h * out_w, k, layer.out_channels


def macs(workload: Workload) -> int:
    """MACs of one inference by the paper's counter.

    >>> from simulator.workload import conv
    >>> macs(Workload("one", (conv("up", 4, 4, 2, 3, kernel=2, stride=2, transposed=True, bias=True),))) // 64
    27
    """
    total = 0
    for layer in workload.layers:
        total += layer.batch * layer.folded
        relu = layer.kind == "activation" and "relu" in layer.operator and not layer.name.startswith("stem")
        if layer.transposed:
            outputs = layer.in_h * layer.stride_h * layer.in_w * layer.stride_w
            taps = layer.kernel_h * layer.kernel_w * layer.in_channels // layer.groups
            total += outputs * layer.out_channels * (taps + layer.bias)
        elif layer.on_array:
            total += layer.macs + layer.bias * layer.batch * layer.ofmap_elements
        elif layer.kind == "norm" or relu:
            total += layer.batch * layer.operations
        elif layer.kind == "pool" and "max_pool" in layer.operator:
            total += layer.batch * layer.elements_read
        elif layer.kind == "resize":
            total += layer.batch * layer.elements_written
    return total

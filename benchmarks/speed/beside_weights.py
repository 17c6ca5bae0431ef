"""Faults beside those of weights, in networks whose activations are 8-bit words: what they add to a forward pass.

    python -m benchmarks.speed.beside_weights

Late sums at 1e-3 of the MACs; activations in buffers of which 1% of the cells are weak, the output buffer and the input
buffer of `edge`; partial sums in that output buffer. One thread, processor time of a forward pass of 128 images
without and with each, in turns, median of both. Weights as drawn, for they do not change it.
"""

import statistics
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.speed.int8 import SHAPES, timed
from benchmarks.speed.report_speed import processor
from neuralfuse import networks
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.integer import IntegerNetwork
from neuralfuse.quantized.program import compile_network
from neuralfuse.training.loop import threads
from simulator.accelerator import accelerator
from simulator.activation_placement import place_activations, place_partial_sums, taps_between_spills
from simulator.device.activations import NOTHING_FAULTY, InTurn, activation_memory
from simulator.device.array_faults import TimingFaults, partial_sum_faults
from simulator.mac_errors import errors_at
from simulator.placement import Placement
from simulator.readers.read import trace
from sram.geometry import Geometry

SHARE = 0.01  # of the cells


def speed(name: str, repeats: int = 5) -> None:
    channels, size = SHAPES[name]
    built, machine = networks.build(name, 10, channels), accelerator("edge")
    workload = trace(built, (channels, size, size))
    faulty = FaultyNetwork(built, fold=True)
    x = torch.rand(128, channels, size, size) * 2 - 1
    program = compile_network(faulty, x[:32], stored=True)
    network, random = IntegerNetwork(faulty, program), np.random.default_rng(0)

    def weak(placed: Placement) -> tuple:
        cells = np.flatnonzero(random.random(placed.geometry.cells) < SHARE)
        return placed.faults(cells, random.integers(0, 2, len(cells)).astype(np.uint8))

    inputs, outputs = (Geometry.of_capacity(b.capacity_bytes) for b in (machine.ifmap_buffer, machine.ofmap_buffer))
    passing = (
        place_activations(workload, machine, outputs, bits=8, buffer="ofmap_buffer"),
        place_activations(workload, machine, inputs, bits=8),
    )
    stored = InTurn(tuple(activation_memory(program, placed, weak(placed)) for placed in passing))
    waiting = place_partial_sums(workload, machine, outputs, bits=32)
    sums = partial_sum_faults(program, waiting, taps_between_spills(workload, machine), weak(waiting))

    def forward(activations=NOTHING_FAULTY, in_array=()) -> Callable[[int], None]:
        def work(i: int) -> None:
            network.activations, network.in_array = activations, in_array
            network(x)

        return work

    sides = [
        forward(),
        forward(in_array=(TimingFaults(errors_at(1e-3)),)),
        forward(activations=stored),
        forward(in_array=(sums,)),
    ]
    seconds = zip(*([timed(side, 1)[0] for side in sides] for _ in range(repeats)), strict=True)
    clean, *others = (1e3 * statistics.median(side) for side in seconds)
    print(f"{name:10}{clean:10.1f}" + "".join(f"{ms:14.1f} ({ms / clean:.2f})" for ms in others), flush=True)


def main() -> None:
    print(f"{processor()}; 128 images, ms (times as long as none)")
    print("                none           late sums         activations        partial sums")
    with threads(1):
        for name in SHAPES:
            speed(name)


if __name__ == "__main__":
    main()

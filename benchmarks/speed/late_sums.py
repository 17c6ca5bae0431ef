"""Sums that are late for the clock at 1e-3 of the MACs, in networks whose activations are 8-bit words: what they cost.

    python -m benchmarks.speed.late_sums

One thread, processor time of a forward pass of 128 images without them and with them, in turns, median. Weights as
drawn, for they do not change it.
"""

import statistics

import torch

from benchmarks.speed.int8 import SHAPES, timed
from neuralfuse import networks
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.integer import IntegerNetwork
from neuralfuse.quantized.program import compile_network
from simulator.device.array_faults import TimingFaults
from simulator.mac_errors import errors_at


def speed(name: str, repeats: int = 5) -> None:
    channels, size = SHAPES[name]
    faulty = FaultyNetwork(networks.build(name, 10, channels), fold=True)
    x = torch.rand(128, channels, size, size) * 2 - 1
    network, timing = IntegerNetwork(faulty, compile_network(faulty, x[:32])), TimingFaults(errors_at(1e-3))

    def forward(*faults):
        def work(i: int) -> None:
            network.in_array = faults
            network(x)

        return work

    pairs = [(timed(forward(), 1)[0], timed(forward(timing), 1)[0]) for _ in range(repeats)]
    clean, late = (1e3 * statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"{name:10}{clean:10.1f}{late:10.1f}{late / clean:8.2f}", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    print("128 images, ms:   none      late   ratio")
    for name in SHAPES:
        speed(name)


if __name__ == "__main__":
    main()

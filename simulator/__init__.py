"""What the accelerator does: workloads, cycles, memory accesses, energy per layer, placement of weights in the SRAM.

>>> import simulator
>>> net = simulator.Workload("one", (simulator.conv("stem", 32, 32, 3, 64, kernel=3, padding=1),))
>>> machine = simulator.accelerator("paper")
>>> counts = simulator.simulate(net, machine)
>>> full = simulator.energy(counts)
>>> low = simulator.energy(counts, simulator.weights_at(machine, 0.64))  # volts, on a rail of nominally 0.8 V
>>> round(low.weight_sram_pj / full.weight_sram_pj, 4)
0.64

`dir(simulator)` lists the public names; each is loaded when it is first used. `simulator.accelerator` and
`simulator.energy` are modules as well as functions: both `simulator.energy(counts)` and
`from simulator.energy import energy` work.
"""

from sram.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

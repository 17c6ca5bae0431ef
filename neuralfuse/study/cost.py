"""What an inference of a protected network costs: cycles, and energy at the three scopes.

The base network's weight buffer runs at the swept supply; everything else stays at nominal: its activation buffers (no
faults are injected there, so their supply may not fall), the logic, and the generator with its own weight reads, as in
the NeuralFuse paper. Only a generator with `own_faults` has its weights read at the swept supply, too. A saving is
always against the unprotected network at nominal supply, at the same scope.
"""

from dataclasses import dataclass

from neuralfuse.chips.cost import scopes
from simulator.array.cycles import Counts
from simulator.operating_point import OperatingPoint
from sram.protection import Overhead


@dataclass(frozen=True)
class Cost:
    """Of one inference, as the columns of results are called. Savings are shares of the unprotected network's energy at
    nominal supply."""

    energy_weight_sram_pj: float
    energy_sram_pj: float
    energy_system_pj: float
    saving_weight_sram: float
    saving_sram: float
    saving_system: float
    cycles: int


def cost_of(
    network: Counts,
    generator: Counts | None,
    at: OperatingPoint,
    overhead: Overhead | None = None,
    generator_at_nominal: bool = True,
) -> Cost:
    """Cost of one inference at an operating point; `overhead` is that of the protection's SRAM part."""
    reference = scopes(network)
    total = scopes(network, at, overhead)
    cycles = network.cycles
    if generator is not None:
        total = total + (scopes(generator) if generator_at_nominal else scopes(generator, at, overhead))
        cycles += generator.cycles
    return Cost(
        total.weight_sram,
        total.sram,
        total.system,
        1 - total.weight_sram / reference.weight_sram,
        1 - total.sram / reference.sram,
        1 - total.system / reference.system,
        cycles,
    )

"""What an inference of a protected network costs: cycles, time, and energy at the four scopes.

Every rail of the base network is at the supply that the operating point gives it, and the clock as it says. A generator
runs at nominal supplies and clock, as in the NeuralFuse paper; only one with `own_faults` runs at the point, too. A
saving is always against the unprotected network at nominal supplies and clock, at the same scope.
"""

from dataclasses import dataclass

from neuralfuse.chips.cost import NONE, Overheads, scopes
from simulator.array.cycles import Counts
from simulator.energy import LayerEnergy, energy
from simulator.logic_protection import LogicCost, Razor
from simulator.mac_errors import mac_errors, stream_of
from simulator.operating_point import NOMINAL, OperatingPoint
from simulator.timing import clock_hz, slack


@dataclass(frozen=True)
class Cost:
    """Of one inference, as the columns of results are called. Savings are shares of the unprotected network's energy at
    nominal supply."""

    energy_weight_sram_pj: float
    energy_sram_pj: float
    energy_chip_pj: float
    energy_system_pj: float
    saving_weight_sram: float
    saving_sram: float
    saving_chip: float
    saving_system: float
    cycles: int
    clock_hz: float
    inference_s: float


def cost_of(
    network: Counts,
    generator: Counts | None,
    at: OperatingPoint,
    overheads: Overheads = NONE,
    generator_at_nominal: bool = True,
    razor: bool = False,
) -> Cost:
    """Cost of one inference at an operating point; `overheads` are those of the protection's SRAM parts, by buffer.

    `razor`: shadow latches find the sums that are late, and the array waits for each.
    """
    machine = network.accelerator
    reference = scopes(energy(network), machine, NOMINAL)
    spent = energy(network, at)
    if razor:
        rate = mac_errors(slack(machine, at), stream_of(machine), machine.delay.corner).word_error_rate
        spent = _waiting(spent, Razor().cost(rate, machine.array_rows * machine.array_cols))
    total, seconds = scopes(spent, machine, at, overheads), spent.seconds
    cycles = round(seconds * clock_hz(machine, at)) if razor else network.cycles
    if generator is not None:
        where = NOMINAL if generator_at_nominal else at
        extra: LayerEnergy = energy(generator, where)
        more = scopes(extra, generator.accelerator, where, NONE if generator_at_nominal else overheads)
        total = {scope: pj + more[scope] for scope, pj in total.items()}
        seconds, cycles = seconds + extra.seconds, cycles + generator.cycles
    return Cost(
        **{f"energy_{scope}_pj": pj for scope, pj in total.items()},
        **{f"saving_{scope}": 1 - total[scope] / pj for scope, pj in reference.items()},
        cycles=cycles,
        clock_hz=clock_hz(machine, at),
        inference_s=seconds,
    )


def _waiting(spent: LayerEnergy, more: LogicCost) -> LayerEnergy:
    """With what a protection of the logic adds: to MACs and registers, and to the time, in which everything leaks."""
    factor = {"mac": 1 + more.energy, "registers": 1 + more.energy}
    factor |= {"sram_leakage": 1 + more.cycles, "logic_leakage": 1 + more.cycles}
    parts = {part: pj * factor.get(part.component, 1.0) for part, pj in spent.parts.items()}
    return LayerEnergy(spent.layers, parts, spent.figures, spent.layer_seconds * (1 + more.cycles))

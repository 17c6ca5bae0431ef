"""What an inference of a protected network costs: cycles, time, and energy at the four scopes.

Every rail of the base network is at the supply that the operating point gives it, and the clock as it says. A generator
runs at nominal supplies and clock, as in the NeuralFuse paper; only one with `own_faults` runs at the point, too. A
second network runs at nominal. A saving is always against the unprotected network at nominal supplies and clock, at the
same scope.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuralfuse.chips.cost import NONE, Overheads, scopes
from simulator.array.cycles import Counts
from simulator.energy import LayerEnergy, energy
from simulator.logic_protection import Abft, LogicCost, Razor, checked_tiles
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
    logic: str | None = None,
    wrong: Sequence[float] | None = None,
) -> Cost:
    """Cost of one inference at an operating point; `overheads` are those of the protection's SRAM parts, by buffer.

    `logic`: what finds sums that are late: `razor`, or `abft`, whose shares of tiles that were found `wrong`, by layer
    on the array, count where they are given, and else are those expected at the clock's slack.
    """
    machine = network.accelerator
    reference = scopes(energy(network), machine, NOMINAL)
    spent = energy(network, at)
    if logic is not None:
        spent = _waiting(spent, _found_late(network, at, logic, wrong))
    total, seconds = scopes(spent, machine, at, overheads), spent.seconds
    cycles = network.cycles if logic is None else round(seconds * clock_hz(machine, at))
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


def with_second(cost: Cost, network: Counts, second: Counts, share: float) -> Cost:
    """A mean over images that all pass a `second` network at nominal supply, and this `share` of which pass `network`,
    protected, at a `cost`, too."""
    reference = scopes(energy(network), network.accelerator, NOMINAL)
    beside = energy(second)
    more = scopes(beside, second.accelerator, NOMINAL)
    total = {scope: share * getattr(cost, f"energy_{scope}_pj") + more[scope] for scope in reference}
    return Cost(
        **{f"energy_{scope}_pj": pj for scope, pj in total.items()},
        **{f"saving_{scope}": 1 - total[scope] / pj for scope, pj in reference.items()},
        cycles=round(share * cost.cycles) + second.cycles,
        clock_hz=cost.clock_hz,
        inference_s=share * cost.inference_s + beside.seconds,
    )


def _found_late(network: Counts, at: OperatingPoint, logic: str, wrong: Sequence[float] | None) -> list[LogicCost]:
    """What a protection of the logic adds to each layer."""
    machine, layers, room = network.accelerator, network.workload.layers, slack(network.accelerator, at)
    rate = mac_errors(room, stream_of(machine), machine.delay.corner).word_error_rate
    if logic == "razor":
        return [Razor().cost(rate, machine.array_rows * machine.array_cols)] * len(layers)
    tiles = checked_tiles(network.workload, machine, network.plan)
    shares = [None] * len(tiles) if wrong is None else wrong
    costs = [Abft().cost(rate, tile, room, share) for tile, share in zip(tiles, shares, strict=True)]
    of = {layer.name: cost for layer, cost in zip(network.workload.array_layers, costs, strict=True)}
    return [of.get(layer.name, LogicCost(0.0, 0.0)) for layer in layers]


def _waiting(spent: LayerEnergy, more: Sequence[LogicCost]) -> LayerEnergy:
    """With what a protection of the logic adds to each layer: to MACs and registers, to accesses of the buffers, and to
    the time, in which everything leaks."""
    energy, cycles, accesses = 1 + np.array(more).T
    factor = dict.fromkeys(("mac", "registers"), energy)
    factor |= dict.fromkeys(("clock_tree", "sram_leakage", "logic_leakage"), cycles)
    ways = {"read": accesses, "write": accesses}
    parts = {part: pj * factor.get(part.component, ways.get(part.way, 1.0)) for part, pj in spent.parts.items()}
    return LayerEnergy(spent.layers, parts, spent.figures, spent.layer_seconds * cycles)

"""What an inference takes on an accelerator: cycles, accesses and energy of each layer, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import pandas as pd

from simulator.accelerator import Accelerator, Policy, with_rails, with_weight_rail
from simulator.accelerator import accelerator as accelerator_named
from simulator.array import cycles
from simulator.array.cycles import Counts
from simulator.array.schedule import Plan
from simulator.array.schedule import load as load_plan
from simulator.energy import LayerEnergy, energy, idle_mw
from simulator.figures import PJ_PER_MILLIJOULE, EnergyTable, energy_table
from simulator.operating_point import OperatingPoint, Supply
from simulator.readers.read import load, trace
from simulator.timing import clock_hz
from simulator.workload import Workload
from sram.errors import InputError

if TYPE_CHECKING:
    from torch import nn

FILES = (".onnx", ".pt2", ".csv")


@dataclass(frozen=True)
class Simulation:
    """Counts are those of the whole batch, energies those of one inference."""

    counts: Counts
    energy: LayerEnergy
    at: OperatingPoint
    idle_mw: float  # what leaks between inferences

    @property
    def clock_hz(self) -> float:
        """The clock that the operating point comes to."""
        return clock_hz(self.counts.accelerator, self.at)

    def idle_pj(self, rate_hz: float) -> float:
        """What leaks from one inference to the next at so many a second. InputError for a rate that is not reached."""
        most = 1 / self.energy.seconds
        if not 0 < rate_hz <= most:
            raise InputError("simulate", "rate", rate_hz, f"more than 0, and at most {most:.6g} inferences a second")
        return self.idle_mw * PJ_PER_MILLIJOULE * (1 / rate_hz - self.energy.seconds)

    def frame(self) -> pd.DataFrame:
        """A row for each layer and one of totals; columns carry their units."""
        return pd.concat([self.counts.frame(), self.energy.frame().drop(columns="layer")], axis=1)


def simulate(
    network: nn.Module | Workload | str | Path,
    input_shape: Sequence[Any] | None = None,
    accelerator: Accelerator | str | Path = "paper",
    voltage: float | str | Mapping[str, float | str] | None = None,
    batch: int = 1,
    table: EnergyTable | str | Path = "published",
    clock: float | Literal["follow"] | None = None,
    schedule: Plan | str | Path | None = None,
) -> Simulation:
    """Cycles, memory accesses and energy of a network on an accelerator, layer by layer.

    Parameters
    ----------
    network, input_shape, batch: as `workload_of` takes them.
    accelerator: a preset, a YAML file, or an `Accelerator`.
    voltage: supply of the weight memory alone, in volts, or a text such as "0.83Vmin", a part of its nominal supply; or
        supplies by rail, or by what buffers hold (`simulator.with_rails`). One that is not named is nominal.
    clock: Hz, or `follow`: the fastest that all supplies allow. Left out, the accelerator's, whatever the supplies.
    table: energies of the components, as `simulator.energy.energy_table` takes them.
    schedule: search, fixed, a YAML file, or a `Plan`, if not as the accelerator says.

    Raises
    ------
    InputError: a name, file or number that cannot be; a supply above nominal; a clock that no path can meet.

    >>> full, low = (simulate("resnet8", (1, 16, 16), voltage=v) for v in (None, "0.8Vmin"))
    >>> full.counts.cycles == low.counts.cycles, round(low.energy.weight_sram_pj / full.energy.weight_sram_pj, 4)
    (True, 0.64)
    """
    machine = with_weight_rail(accelerator if isinstance(accelerator, Accelerator) else accelerator_named(accelerator))
    if voltage is None:
        voltage = {}
    elif not isinstance(voltage, Mapping):
        voltage = {machine.weight_buffer.rail: voltage}
    machine, plan = scheduled(machine, schedule)
    machine, supplies = lowered(machine, voltage)
    at = OperatingPoint(supplies, clock)
    entries = table if isinstance(table, EnergyTable) else energy_table(table)
    counts = cycles.simulate(workload_of(network, input_shape, batch), machine, plan, entries)
    return Simulation(counts, energy(counts, at, table=entries), at, idle_mw(machine, at, entries))


def lowered(machine: Accelerator, rails: Mapping[str, float | str]) -> tuple[Accelerator, tuple[Supply, ...]]:
    """The machine with a rail for each name, and the supplies of these rails.

    Memories are all in volts, or all in multiples of Vmin; logic, which has no Vmin, in volts. InputError for anything
    else, and for a supply above nominal.

    >>> from simulator.accelerator import accelerator
    >>> lowered(accelerator("paper"), {"weights": "0.83Vmin", "logic": 0.72})[1]
    (Supply(rail='weights', voltage=0.83, nominal=1.0), Supply(rail='logic', voltage=0.72, nominal=0.8))
    """
    machine, rail_of = with_rails(machine, rails)
    supplies, units = [], set()
    for name, text in rails.items():
        rail = rail_of[name]
        voltage, in_vmin = supply(text)
        nominal = 1.0 if in_vmin else machine.rails[rail]
        if in_vmin and rail == "logic":
            raise InputError("operating point", name, text, "volts: Vmin is that of a memory")
        if voltage > nominal:
            allowed = f"at most {nominal:g}{'Vmin' if in_vmin else 'V'}, nominal on {machine.name}"
            raise InputError("operating point", name, text, allowed)
        supplies.append(Supply(rail, voltage, nominal))
        units |= {in_vmin} if rail != "logic" else set()
    if len(units) > 1:
        raise InputError(
            "operating point", "rails", ", ".join(map(str, rails.values())), "memories in one unit, V or Vmin"
        )
    return machine, tuple(supplies)


def scheduled(machine: Accelerator, schedule: Plan | str | Path | None) -> tuple[Accelerator, Plan | None]:
    """The machine with this policy (search, fixed), or a plan, or the one in a YAML file, for it."""
    if schedule is None or isinstance(schedule, Plan):
        return machine, schedule
    if schedule in get_args(Policy):
        return replace(machine, schedule=cast(Policy, schedule)), None
    if not Path(schedule).is_file():
        raise InputError("simulate", "schedule", str(schedule), f"{', '.join(get_args(Policy))}, or a YAML file")
    return machine, load_plan(schedule)


def workload_of(
    network: nn.Module | Workload | str | Path, input_shape: Sequence[Any] | None = None, batch: int = 1
) -> Workload:
    """The workload of a torch module, of a built-in network or generator, of `package.module:callable`, or in a file.

    `input_shape` of one sample, such as (3, 32, 32), or of each input, is needed for modules and names. `batch`:
    samples that run together; a `Workload` is taken as it is.
    """
    if isinstance(network, Workload):
        return network
    if isinstance(network, Path) or (isinstance(network, str) and network.endswith(FILES)):
        return load(network, input_shape, batch)
    if not input_shape:
        raise InputError("simulate", "input", input_shape, "the shape of one sample, such as 3x32x32")
    if not isinstance(network, str):
        return trace(network, input_shape, batch)
    from neuralfuse import networks
    from neuralfuse.transforms import generators

    build = generators.build if network in generators.names() else networks.build
    first = input_shape if isinstance(input_shape[0], int) else input_shape[0]
    channels = first[0 if len(first) > 2 else -1]  # of an image, or the features of a step
    return trace(build(network, in_channels=channels), input_shape, batch, name=network)


def supply(text: float | str) -> tuple[float, bool]:
    """(number, whether it counts in multiples of Vmin, and not in volts) of a supply.

    >>> supply("0.7V"), supply(0.7), supply("0.83Vmin")
    ((0.7, False), (0.7, False), (0.83, True))
    """
    plain = str(text)
    in_vmin = plain.endswith("Vmin")
    try:
        value = float(plain.removesuffix("Vmin") if in_vmin else plain.removesuffix("V"))
    except ValueError:
        value = 0.0
    if not 0 < value < 10:
        raise InputError("simulate", "voltage", text, "a positive supply: 0.7V, or 0.83Vmin")
    return value, in_vmin

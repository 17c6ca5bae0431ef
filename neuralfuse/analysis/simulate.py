"""What an inference takes on an accelerator: cycles, accesses and energy of each layer, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import pandas as pd

from simulator.accelerator import Accelerator, Policy, with_weight_rail
from simulator.accelerator import accelerator as accelerator_named
from simulator.array import cycles
from simulator.array.cycles import Counts
from simulator.array.schedule import Plan
from simulator.array.schedule import load as load_plan
from simulator.energy import LayerEnergy, energy
from simulator.figures import EnergyTable, energy_table
from simulator.operating_point import NOMINAL, weights_at
from simulator.readers.read import load, trace
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

    def frame(self) -> pd.DataFrame:
        """A row for each layer and one of totals; columns carry their units."""
        return pd.concat([self.counts.frame(), self.energy.frame().drop(columns="layer")], axis=1)


def simulate(
    network: nn.Module | Workload | str | Path,
    input_shape: Sequence[Any] | None = None,
    accelerator: Accelerator | str | Path = "paper",
    voltage: float | str | None = None,
    batch: int = 1,
    table: EnergyTable | str | Path = "published",
    schedule: Plan | str | Path | None = None,
) -> Simulation:
    """Cycles, memory accesses and energy of a network on an accelerator, layer by layer.

    Parameters
    ----------
    network, input_shape, batch: as `workload_of` takes them.
    accelerator: a preset, a YAML file, or an `Accelerator`.
    voltage: supply of the weight memory alone: volts, or a text such as "0.83Vmin", a part of its nominal supply.
    schedule: search, fixed, a YAML file, or a `Plan`, if not as the accelerator says.
    table: energies of the components, as `simulator.figures.energy_table` takes them.

    Raises
    ------
    InputError: a name, file or number that cannot be.

    >>> full, low = (simulate("resnet8", (1, 16, 16), voltage=v) for v in (None, "0.8Vmin"))
    >>> full.counts.cycles == low.counts.cycles, round(low.energy.weight_sram_pj / full.energy.weight_sram_pj, 4)
    (True, 0.64)
    """
    machine = with_weight_rail(accelerator if isinstance(accelerator, Accelerator) else accelerator_named(accelerator))
    machine, plan = scheduled(machine, schedule)
    volts, nominal = supply(voltage)
    at = NOMINAL if volts is None else weights_at(machine, volts, nominal)
    entries = table if isinstance(table, EnergyTable) else energy_table(table)
    counts = cycles.simulate(workload_of(network, input_shape, batch), machine, plan, entries)
    return Simulation(counts, energy(counts, at, table=entries))


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
    return trace(build(network, in_channels=first[0]), input_shape, batch, name=network)


def supply(voltage: float | str | None) -> tuple[float | None, float | None]:
    """(voltage, nominal) as `energy` takes them: volts have no nominal of their own, multiples of Vmin have 1.

    >>> supply("0.7V"), supply(0.7), supply("0.83Vmin")
    ((0.7, None), (0.7, None), (0.83, 1.0))
    """
    if voltage is None:
        return None, None
    text = str(voltage)
    number, nominal = (text[:-4], 1.0) if text.endswith("Vmin") else (text.removesuffix("V"), None)
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not 0 < value < 10:
        raise InputError("simulate", "voltage", voltage, "a positive supply: 0.7V, or 0.83Vmin")
    return value, nominal

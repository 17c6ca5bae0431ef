"""Area of a machine, component by component, from the tables that energies come from.

SRAM: the macro of CACTI at the very node, times their number. Logic: published areas, which go with the square of the
node; a multiplier's with the product of its operand widths, everything else with the width. Wires between macros,
control, clock tree, pads and the DRAM's interface are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from simulator.accelerator import Accelerator
from simulator.figures import EnergyTable, Figures, published
from simulator.operating_point import NOMINAL
from sram.lazy import callable_module


@dataclass(frozen=True)
class Area:
    """mm2 of each component, and the figures that they were made with."""

    components: dict[str, float]
    figures: tuple[dict[str, object], ...] = field(repr=False)

    @property
    def mm2(self) -> float:
        """Of all components."""
        return sum(self.components.values())


def area(machine: Accelerator, table: EnergyTable | None = None) -> Area:
    """Area of a machine. A component without an entry in the table is an InputError.

    >>> from simulator.accelerator import accelerator
    >>> found = area(accelerator("edge"))  # 256 KB at 22 nm are most of it
    >>> round(found.mm2, 2), round(found.components["multipliers"], 3)
    (0.28, 0.017)
    """
    figures = Figures(machine, table or published(), NOMINAL.volts(machine))
    buffers = {name: figures.sram_area_mm2(name) for name in machine.memories}
    components = {name: machine.cores * mm2 for name, mm2 in (buffers | figures.array_area_mm2()).items()}
    return Area(components, tuple(figures.used.values()))


callable_module(__name__)

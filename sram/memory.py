"""A buffer as silicon, and the chip that it lies on: all that a fault map follows from."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from sram import faultmap
from sram.failure import FailureCurve
from sram.geometry import Geometry
from sram.structure import Structure
from sram.weakcells import FaultMap


@dataclass(frozen=True)
class Memory:
    """One buffer of an accelerator as silicon.

    `geometry` of its cells; `curve`, which gives the share of cells that fail at a voltage; `structure`, how their
    variation is shared; `mode`, `stuck_at_one`: what a faulty cell reads (`faultmap.generate`); `rail`, the supply that
    it hangs on; `protection`, the texts of its chain of protections (`sram.protection.parse`); `first_bank`: the bank
    of its die that it begins at.
    """

    geometry: Geometry
    curve: FailureCurve | str = "ibm14"
    structure: Structure | str = "iid"
    mode: str = "stuck"
    stuck_at_one: float = 0.5
    rail: str = "weights"
    protection: tuple[str, ...] = ()
    first_bank: int = 0


def side_by_side(memories: Iterable[Memory]) -> tuple[Memory, ...]:
    """The memories of one die: each begins at the bank behind the last, so that no two share a cell.

    >>> a, b = side_by_side([Memory(Geometry(banks=4)), Memory(Geometry(banks=2))])
    >>> a.first_bank, b.first_bank
    (0, 4)
    """
    laid: list[Memory] = []
    bank = 0
    for memory in memories:
        laid.append(replace(memory, first_bank=bank))
        bank += memory.geometry.banks
    return tuple(laid)


@dataclass(frozen=True)
class Chip:
    """One die of a lot: a number, from which the maps of all its memories follow.

    Memories that lie `side_by_side` share the die's part of the variance, and nothing else.

    >>> memory = Memory(Geometry.of_capacity(128 * 1024))
    >>> Chip(3).fault_map(memory, voltage_floor=0.79).count(0.83) > 0
    True
    """

    number: int
    seed: int = 0  # of the lot

    def fault_map(self, memory: Memory, voltage_floor: float, **how: Any) -> FaultMap:
        """The weak cells of a memory of this chip, numbered from its own first, down to `voltage_floor` in the unit of
        its curve; `how` is passed on to `faultmap.generate` (noise, threads, advance)."""
        whole = replace(memory.geometry, banks=memory.first_bank + memory.geometry.banks)
        found = faultmap.generate(
            self.number,
            whole,
            memory.curve,
            memory.structure,
            voltage_floor=voltage_floor,
            seed=self.seed,
            mode=memory.mode,
            stuck_at_one=memory.stuck_at_one,
            banks=range(memory.first_bank, whole.banks),
            **how,
        )
        return replace(
            found, geometry=memory.geometry, cell=found.cell - memory.first_bank * memory.geometry.cells_per_bank
        )

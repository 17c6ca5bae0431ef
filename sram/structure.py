"""How the variation between cells is shared: by the die, the bank, a smooth field, the column, the row, the cell alone.

The latent strength of a cell is u = sum of sqrt(share) * (standard normal term), so that u is standard normal over many
chips whatever the shares, and a cell fails at V iff u > -curve.z(V). Silicon: columns matter, rows do not
(Salmon-type block RAM read-backs: 0.51 within a column, about 0 within a row; see docs/physics).
"""

from dataclasses import dataclass

import numpy as np

from sram.errors import InputError

SHARES = ("die", "bank", "smooth", "column", "row")


@dataclass(frozen=True)
class Structure:
    """Shares of the variance of the latent critical voltage; what is left over is the cell's own.

    `column_tail` makes the column term heavier-tailed: Tukey's h distribution, z exp(h z^2 / 2) scaled back to unit
    variance, 0 <= h < 0.5. The latent is then mapped through the exact distribution of the sum, so that the mean over
    many chips follows the failure curve all the same.

    >>> round(Structure(column=0.46, bank=0.046).cell, 3)
    0.494
    """

    die: float = 0.0
    bank: float = 0.0
    smooth: float = 0.0
    column: float = 0.0
    row: float = 0.0
    column_tail: float | None = None

    def __post_init__(self) -> None:
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise InputError("structure", name, getattr(self, name), "a share of variance in [0, 1]")
        if self.cell <= 0:
            raise InputError("structure", "sum of shares", 1 - self.cell, "less than 1: something is the cell's own")
        if self.column_tail is not None and not (0 <= self.column_tail < 0.5 and self.column > 0):
            raise InputError("structure", "column_tail", self.column_tail, "in [0, 0.5), with a column share above 0")

    @property
    def cell(self) -> float:
        """Share of the cell alone."""
        return 1.0 - sum(getattr(self, name) for name in SHARES)

    @property
    def tail(self) -> float:
        """Tukey's h of the column term, 0 for a normal one."""
        return self.column_tail or 0.0

    def column_scale(self) -> float:
        """Standard deviation of the column term: Var[z exp(h z^2 / 2)] = (1 - 2 h)^(-3/2) brought to `column`."""
        return float(np.sqrt(self.column) * (1 - 2 * self.tail) ** 0.75)


PRESETS = {
    "iid": Structure(),
    "column": Structure(column=0.46, bank=0.046),
}


def structure_names() -> list[str]:
    """Names of the presets.

    >>> structure_names()
    ['iid', 'column']
    """
    return list(PRESETS)


def structure(name: str | Structure) -> Structure:
    """The preset of this name (a Structure is returned as it is). Raises InputError on unknown names."""
    if isinstance(name, Structure):
        return name
    if name not in PRESETS:
        raise InputError("structure", "name", name, ", ".join(PRESETS))
    return PRESETS[name]

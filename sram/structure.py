"""How the variation between cells is shared: by die, bank, a smooth field, column, row, a run of rows, the cell alone.

The latent strength of a cell is the sum of sqrt(share) * (term of unit variance). Over many chips it is standard
normal whatever the shares, and the cell fails at V iff its latent lies above -curve.z(V). On silicon columns matter and
rows do not: in the 28 nm block RAM read-backs of Salami et al. (MICRO 2018) the latents of two cells of one column
correlate by 0.51, of one row by about 0, of one bank but different columns by 0.046.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import log_ndtr, ndtri_exp

from sram.errors import InputError
from sram.failure import FailureCurve

SHARES = ("die", "bank", "smooth", "column", "row", "run")
RUN_ROWS = 4  # of a column that share its run term; a power of two


@dataclass(frozen=True)
class Structure:
    """Shares of the variance of the latent critical voltage; what is left over is the cell's own.

    `smooth` is a field over the die, alike in neighbouring banks, independent beyond the width of its splines, which
    is the die's edge; within a bank, small against that, it does not change. `column_tail` makes the column term
    heavier-tailed: Tukey's h distribution, z exp(h z^2 / 2) scaled back to unit variance, 0 <= h <= 0.1 (more would
    make columns all or nothing). The latent is then mapped through the exact distribution of the sum, so that the mean
    over many chips follows the failure curve all the same. `run` is shared by four neighbouring rows of a column: where
    a column's runs begin is drawn, so that neighbours are in one run three times out of four.

    >>> round(Structure(column=0.46, bank=0.046).cell, 3)
    0.494
    """

    die: float = 0.0
    bank: float = 0.0
    smooth: float = 0.0
    column: float = 0.0
    row: float = 0.0
    column_tail: float | None = None
    run: float = 0.0

    def __post_init__(self) -> None:
        for name in SHARES:
            share = getattr(self, name)
            if not (isinstance(share, int | float) and 0 <= share <= 1):
                raise InputError("structure", name, share, "a share of variance in [0, 1]")
        if not self.cell > 0:
            raise InputError("structure", "sum of shares", 1 - self.cell, "less than 1: something is the cell's own")
        if self.column_tail is not None and not (0 <= self.column_tail <= 0.1 and self.column > 0):
            raise InputError("structure", "column_tail", self.column_tail, "in [0, 0.1], with a column share above 0")

    @property
    def cell(self) -> float:
        """Share of the cell alone."""
        return 1.0 - sum(getattr(self, name) for name in SHARES)

    @property
    def differs_in_bank(self) -> bool:
        """Whether cells of a bank share terms that others of it do not."""
        return self.column > 0 or self.row > 0 or self.run > 0

    @property
    def tail(self) -> float:
        """Tukey's h of the column term, 0 for a normal one."""
        return self.column_tail or 0.0

    @property
    def column_scale(self) -> float:
        """What multiplies z exp(h z^2 / 2), whose variance is (1 - 2 h)^(-3/2), to give it the column's share."""
        return float(np.sqrt(self.column) * (1 - 2 * self.tail) ** 0.75)


# "column" is fitted to KC705-B: shares from the correlations above, the tail from the clustering at its lowest voltage
# (blocks without a fault, share of the worst tenth, columns with faults, what a spare column repairs). In "column_runs"
# neighbouring rows of a column fail together 2.5 times as often as by chance there: on silicon 2 to 3 times.
PRESETS = {
    "iid": Structure(),
    "column": Structure(column=0.46, bank=0.046, column_tail=0.005),
    "column_runs": Structure(column=0.46, bank=0.046, column_tail=0.005, run=0.16),
}


def structure_names() -> list[str]:
    """Names of the presets.

    >>> structure_names()
    ['iid', 'column', 'column_runs']
    """
    return list(PRESETS)


def structure(name: str | Structure) -> Structure:
    """The preset of this name, or shares as text; a Structure is returned as it is. Raises InputError otherwise.

    >>> structure("column=0.4,bank=0.1")
    Structure(die=0.0, bank=0.1, smooth=0.0, column=0.4, row=0.0, column_tail=None, run=0.0)
    """
    if isinstance(name, Structure):
        return name
    if name in PRESETS:
        return PRESETS[name]
    allowed = f"{', '.join(PRESETS)}, or shares such as column=0.4,bank=0.1 of {', '.join(SHARES)}, column_tail"
    shares = {}
    for part in name.split(","):
        key, _, value = part.partition("=")
        try:
            shares[key.strip()] = float(value)
        except ValueError:
            raise InputError("structure", "name", name, allowed) from None
    if not shares.keys() <= {*SHARES, "column_tail"}:
        raise InputError("structure", "name", name, allowed)
    return Structure(**shares)


def standard_latent(total: np.ndarray, shares: Structure) -> np.ndarray:
    """Sum of the terms -> standard normal latent of the same rank over many chips; the identity for normal terms."""
    if not shares.tail:
        return total
    # P(sum > t) = E over the column's z of Phi((column term - t) / sd of the rest); in logarithms, for the tails.
    z = np.linspace(-9, 9, 721)
    log_weight = -(z**2) / 2 + np.log((z[1] - z[0]) / np.sqrt(2 * np.pi))
    term = shares.column_scale * z * np.exp(shares.tail * z**2 / 2)
    log_p = log_ndtr((term - total[:, None]) / np.sqrt(1 - shares.column)) + log_weight
    peak = log_p.max(axis=1, keepdims=True)
    return -ndtri_exp(np.minimum(peak[:, 0] + np.log(np.exp(log_p - peak).sum(axis=1)), -1e-300))


@lru_cache(maxsize=16)
def _reach(shares: Structure) -> tuple[np.ndarray, np.ndarray]:
    """Sums from -40 to 40 in steps of 1/16, and their standard latents."""
    reach = np.arange(-640, 641) / 16
    return reach, standard_latent(reach, shares)


def voltage_table(
    curve: FailureCurve, shares: Structure, floor: float, shrink: float = 1.0
) -> tuple[float, float, np.ndarray]:
    """Critical voltage on a grid over the sum of terms: (first sum, steps per unit, voltages float64[m]).

    It reaches from just below `floor` to where 1e-20 of the cells lie above (at most 40, which matters only for heavy
    tails and rates below 1e-9). Linear interpolation on steps of 1/512 is exact for a probit and within 1e-8 of any
    published curve, less than the float32 that critical voltages are kept in. `shrink` multiplies the latent.
    """
    per_step = 512
    reach, latent = _reach(shares)
    low = int(np.searchsorted(shrink * latent, float(-curve.z(floor)))) - 2
    high = int(np.searchsorted(latent, 9.5))
    low, high = max(min(low, len(reach) - 3), 0), min(max(high, low + 2), len(reach) - 1)
    total = reach[low] + np.arange(int((reach[high] - reach[low]) * per_step) + 1) / per_step
    if shares.tail:
        from scipy.interpolate import CubicSpline  # half of sram's import time, for heavy tails only

        fine = CubicSpline(reach, latent)(total)
    else:
        fine = total
    return float(reach[low]), float(per_step), np.ascontiguousarray(curve.critical_voltage(shrink * fine))

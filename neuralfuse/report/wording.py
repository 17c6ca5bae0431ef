"""How the numbers of the headline and their intervals are written, the same in a terminal and on the page."""

from typing import Any

import pandas as pd


def interval(low: float, high: float, form: str = ".1f") -> str:
    """The bounds behind a number; nothing where a single chip leaves none.

    >>> interval(1.25, 2), interval(float("nan"), float("nan"))
    (' [1.2, 2.0]', '')
    """
    return "" if pd.isna(low) else f" [{low:{form}}, {high:{form}}]"


def supply(row: Any, unit: str = "") -> str:
    """Lowest supply of a row of the headline, behind ≤ where accuracy held down to the end of the sweep.

    >>> from types import SimpleNamespace as Row
    >>> supply(Row(chips=3, voltage=0.8, censored=True), " Vmin")
    '≤ 0.800 Vmin'
    >>> supply(Row(chips=3, voltage=float("nan"), censored=False))
    'none swept'
    """
    if row.chips == 0:
        return "no chip"  # that was measured at every voltage, so nothing is known
    return "none swept" if pd.isna(row.voltage) else f"{'≤ ' if row.censored else ''}{row.voltage:.3f}{unit}"


def saving(row: Any) -> str:
    """Energy saving there in per cent, without the sign.

    >>> from types import SimpleNamespace as Row
    >>> saving(Row(saving=0.361)), saving(Row(saving=float("nan")))
    ('36.1', '-')
    """
    return "-" if pd.isna(row.saving) else f"{100 * row.saving:.1f}"


def supply_interval(row: Any) -> str:
    """The bounds behind `supply`; they say nothing where there is no supply."""
    return "" if pd.isna(row.voltage) else interval(row.voltage_low, row.voltage_high, ".3f")


def saving_interval(row: Any) -> str:
    """The bounds behind `saving`."""
    return "" if pd.isna(row.saving) else interval(100 * row.saving_low, 100 * row.saving_high)

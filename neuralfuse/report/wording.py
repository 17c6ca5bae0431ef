"""How the numbers of the headline and their intervals are written, the same in a terminal and on the page."""

from typing import Any

import pandas as pd

from neuralfuse.results.statistics import FEW_CHIPS, MARGIN_COVERAGE, chips_for_a_bound


def interval(low: float, high: float, form: str = ".1f") -> str:
    """The bounds behind a number; nothing where a single chip leaves none.

    >>> interval(1.25, 2), interval(float("nan"), float("nan"))
    (' [1.2, 2.0]', '')
    """
    return "" if pd.isna(low) else f" [{low:{form}}, {high:{form}}]"


def supply(row: Any, unit: str = "") -> str:
    """Lowest supply of a row of the headline, behind ≤ where accuracy held down to the end of the sweep.

    >>> from types import SimpleNamespace as Row
    >>> supply(Row(chips=3, voltage=0.8, volts=0.64, censored=True), " Vmin")
    '≤ 0.800 Vmin = 0.640 V'
    >>> supply(Row(chips=3, voltage=float("nan"), volts=float("nan"), censored=False))
    'none swept'
    """
    if row.chips == 0:
        return "no chip"  # that was measured at every voltage, so nothing is known
    return (
        "none swept"
        if pd.isna(row.voltage)
        else f"{'≤ ' if row.censored else ''}{row.voltage:.3f}{unit}{in_volts(row)}"
    )


def in_volts(row: Any) -> str:
    """The supply in volts, where its unit is another."""
    volts = getattr(row, "volts", row.voltage)
    return "" if volts == row.voltage else f" = {volts:.3f} V"


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


def chip_share(row: Any, unit: str) -> str:
    """How low a share of the chips may go, with the interval that is exact for any lot.

    >>> from types import SimpleNamespace as Row
    >>> row = Row(share=0.9, points=5.0, voltage=0.83, volts=0.664, voltage_low=0.82, voltage_high=0.85)
    >>> row.coverage, row.chips = 0.957, 40
    >>> chip_share(row, "Vmin")
    '90% of chips stay within 5 points down to 0.830 Vmin = 0.664 V [0.820, 0.850] (96% sure, whatever the lot)'
    >>> row.chips, row.voltage_high = 20, float("nan")
    >>> chip_share(row, "Vmin")
    '90% of the 20 chips stay within 5 points down to 0.830 Vmin = 0.664 V; a bound for all chips takes 36 of them'
    """
    share = f"{100 * row.share:.0f}%"
    if pd.isna(row.voltage):
        return f"at no swept supply do {share} of the {row.chips} chips stay within {row.points:g} points"
    found = f"stay within {row.points:g} points down to {row.voltage:.3f} {unit}{in_volts(row)}"
    needed = chips_for_a_bound(row.share)
    if row.chips < needed:
        return f"{share} of the {row.chips} chips {found}; a bound for all chips takes {needed} of them"
    high = "none swept" if pd.isna(row.voltage_high) else f"{row.voltage_high:.3f}"
    bounds = f"[{row.voltage_low:.3f}, {high}] ({100 * row.coverage:.0f}% sure, whatever the lot)"
    return f"{share} of chips {found} {bounds}"


def few_chips(chips: int) -> str:
    """A warning where intervals of means hold the truth less often than they say.

    >>> few_chips(20), few_chips(5)[:12]
    ('', 'only 5 chips')
    """
    if chips >= FEW_CHIPS:
        return ""
    margins = MARGIN_COVERAGE[max(n for n in MARGIN_COVERAGE if n <= max(chips, min(MARGIN_COVERAGE)))]
    return (
        f"only {chips} chips: 95% intervals of lowest supplies hold the truth in {min(margins)} to 95% of lots, and "
        f"none knows of bad chips that are not among them; {FEW_CHIPS} or more are better"
    )

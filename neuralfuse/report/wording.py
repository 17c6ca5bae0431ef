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


def verdict(headline: pd.DataFrame, unit: str, points: float = 1.0) -> str:
    """The answer in a sentence: which protection saves most weight-SRAM energy within so many points, where.

    `headline` has a column `setting` (`pareto.labelled`).
    """
    rows = headline[(headline.scope == "weight_sram") & (headline.points == points)].dropna(subset=["saving"])
    if rows.empty:
        return f"At no swept supply does any protection stay within {points:g} point of the clean accuracy."
    best = rows.loc[rows.saving.idxmax()]
    found = (
        f"Within {points:g} point of clean accuracy, {best.protection} on {best.setting} maps saves most weight-SRAM "
        f"energy: {saving(best)}%{saving_interval(best)} at {supply(best, f' {unit}')}"
    )
    bare = rows[(rows.setting == best.setting) & (rows.protection == "none")]
    if best.protection == "none" or bare.empty:
        return found + "."
    bare = bare.iloc[0]
    return f"{found}; without protection {saving(bare)}% at {supply(bare, f' {unit}')}."


CAPTIONS = {
    "accuracy": "Accuracy against supply: mean over chips with its 95% band, one panel for each kind of fault maps",
    "pareto": "Energy saved against accuracy",
    "settings": "Networks, accelerators and curves in one plot: the best that any protection reaches",
    "attainment": "Energy saved against accuracy, chip by chip: what half of the chips reach, and 5% to 95% of them",
    "yield": "Share of chips that stay within 5 points of clean, with its exact 95% interval",
    "layers": "Energy of one inference by layer, at nominal supply",
    "failure-curve": "Share of faulty cells against supply: the curve, and the chips that were made from it",
    "bank": "One bank of chip 0: which cells are faulty",
    "images": "Test images, what the generator makes of them, and the difference",
    "sensitivity": "Accuracy lost to the faults of one layer, or one bit, at a time",
    "compared": "Studies in one plot: the best that any protection reaches",
}


def caption(name: str) -> str:
    """What a figure shows, in words, and of what.

    >>> caption("attainment-sram")
    'Energy saved against accuracy, chip by chip: what half of the chips reach, and 5% to 95% of them (sram)'
    """
    kind = next(kind for kind in CAPTIONS if name.startswith(kind))
    rest = name.removeprefix(kind).strip("-")
    return CAPTIONS[kind] + (f" ({rest})" if rest else "")

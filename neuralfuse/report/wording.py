"""How the numbers of the headline and their intervals are written, the same in a terminal and on the page."""

import math
from typing import Any

import pandas as pd

from neuralfuse.results import pareto
from neuralfuse.results.rows import ALONE
from neuralfuse.results.scale import ACCURACY, Scale
from neuralfuse.results.statistics import COVERAGE, FEW_CHIPS, chips_for_a_bound

SCOPE_LABEL = {
    "weight_sram": "weight SRAM, dynamic",
    "sram": "all SRAM",
    "chip": "chip: array, SRAM, leakage",
    "system": "system: chip and DRAM",
}


def interval(low: float, high: float, form: str = ".1f") -> str:
    """The bounds behind a number; nothing where a single chip leaves none.

    >>> interval(1.25, 2), interval(float("nan"), float("nan"))
    (' [1.2, 2.0]', '')
    """
    return "" if pd.isna(low) else f" [{low:{form}}, {high:{form}}]"


def finely(mean: float, low: float, high: float) -> str:
    """A number with its bounds, in as many decimals as two digits of the interval's width take, three at least.

    >>> finely(0.3381, 0.327, 0.3472), finely(0.004213, 0.00418, 0.004244), finely(0.5, float("nan"), float("nan"))
    ('0.338 [0.327, 0.347]', '0.004213 [0.004180, 0.004244]', '0.500')
    """
    width = high - low
    decimals = 3 if not width > 0 else min(9, max(3, 1 - math.floor(math.log10(width))))
    return f"{mean:.{decimals}f}" + interval(low, high, f".{decimals}f")


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


def chip_share(row: Any, unit: str, scale: Scale = ACCURACY) -> str:
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
    share, within = f"{100 * row.share:.0f}%", scale.within(row.points)
    if pd.isna(row.voltage):
        return f"at no swept supply do {share} of the {row.chips} chips stay within {within}"
    found = f"stay within {within} down to {row.voltage:.3f} {unit}{in_volts(row)}"
    needed = chips_for_a_bound(row.share)
    if row.chips < needed:
        return f"{share} of the {row.chips} chips {found}; a bound for all chips takes {needed} of them"
    high = "none swept" if pd.isna(row.voltage_high) else f"{row.voltage_high:.3f}"
    bounds = f"[{row.voltage_low:.3f}, {high}] ({100 * row.coverage:.0f}% sure, whatever the lot)"
    return f"{share} of chips {found} {bounds}"


def held(chips: int) -> str:
    """How often the 95% intervals of lowest supplies over so many chips hold the truth: less often than they say.

    >>> print(held(20))
    95% intervals of lowest supplies over 20 chips hold the truth in ... of lots whose chips are alike, in ...
    >>> print(held(5))
    few chips: 95% intervals ... over 5 chips ...; 20 chips or more are better
    """
    by_chips = [COVERAGE[f"lowest supply within {points}"] for points in ("1 point", "5 points")]
    n = max(n for n in by_chips[0] if n <= max(chips, min(by_chips[0])))
    alike, apart = ([share for found in by_chips for share in found[n][part]] for part in (slice(2), slice(2, None)))
    found = (
        f"95% intervals of lowest supplies over {chips} chips hold the truth in {min(alike)} to {max(alike)}% of lots "
        f"whose chips are alike, in {min(apart)} to {max(apart)}% of lots where some are far worse"
    )
    return found if chips >= FEW_CHIPS else f"few chips: {found}; {FEW_CHIPS} chips or more are better"


def choice_lines(choice: pd.DataFrame, unit: str, points: float | None = None, scale: Scale = ACCURACY) -> list[str]:
    """The operating point to choose, in a sentence for each setting: least energy within so many points of clean, the
    scale's narrowest margin unless told."""
    rows = choice[choice.points == (points or scale.margins[0])]
    named = pareto.labelled(rows.assign(rails=""))
    return [_choice(row, rails, unit, scale) for row, rails in zip(named.itertuples(), rows.rails, strict=True)]


def choice_cells(choice: pd.DataFrame, unit: str, scale: Scale = ACCURACY) -> list[dict[str, str]]:
    """The rows of the table of operating points to choose, as they are written."""
    named = pareto.labelled(choice.assign(rails=""))
    return [
        {
            "maps": row.setting,
            scale.unit: f"{row.points:g}",
            "protection": row.protection,
            f"weights ({unit})": f"{row.voltage:g}{in_volts(row)}",
            "rails beside": "-" if rails == ALONE else rails,
            "clock (MHz)": f"{row.clock_hz / 1e6:.4g}",
            "µJ": f"{row.energy_pj / 1e6:.4g}",
            "saving (%)": f"{100 * row.saving:.1f}",
            "inferences/s": f"{1 / row.inference_s:.4g}",
            f"{scale.head} [95%]": scale.number(row.accuracy_mean, row.accuracy_low, row.accuracy_high),
        }
        for row, rails in zip(named.itertuples(), choice.rails, strict=True)
    ]


def _choice(row: Any, rails: str, unit: str, scale: Scale) -> str:
    lowered = f"weights at {row.voltage:g} {unit}{in_volts(row)}" + ("" if rails == ALONE else f", {rails}")
    return (
        f"On {row.setting} maps, within {scale.within(row.points)} of clean {scale.name}, an inference takes least "
        f"energy on the {row.scope} with {'no protection' if row.protection == 'none' else row.protection}, {lowered}: "
        f"{row.energy_pj / 1e6:.4g} µJ, {100 * row.saving:.1f}% less than at nominal, at {row.clock_hz / 1e6:.4g} MHz "
        f"({1 / row.inference_s:.4g} inferences/s); {scale.name} "
        f"{scale.text(row.accuracy_mean, row.accuracy_low, row.accuracy_high)}."
    )


def verdicts(headline: pd.DataFrame, unit: str, scale: Scale = ACCURACY) -> list[str]:
    """The answer, in a sentence for each setting: which protection saves most weight-SRAM energy within the narrowest
    margin, where."""
    rows = headline[(headline.scope == "weight_sram") & (headline.points == scale.margins[0])]
    return [
        _verdict(part, setting, unit, scale) for setting, part in pareto.labelled(rows).groupby("setting", sort=False)
    ]


def _verdict(rows: pd.DataFrame, setting: str, unit: str, scale: Scale) -> str:
    within = f"{scale.within(scale.margins[0])} of clean {scale.name}"
    reaching = rows.dropna(subset=["saving"])
    if reaching.empty:
        return f"On {setting} maps no swept supply keeps any protection within {within}."
    best = reaching.loc[reaching.saving.idxmax()]
    others = reaching[(reaching.protection == "none") != (best.protection == "none")]
    ways = [_by(best, unit)] + ([] if others.empty else [_by(others.loc[others.saving.idxmax()], unit)])
    most = f"On {setting} maps, within {within}, most weight-SRAM energy is saved"
    return f"{most} {'; '.join(ways)}."


def _by(row: Any, unit: str) -> str:
    how = "without protection" if row.protection == "none" else f"with {row.protection}"
    return f"{how}: {saving(row)}%{saving_interval(row)} at {supply(row, f' {unit}')}"


def headline_lines(headline: pd.DataFrame, scope: str = "weight_sram") -> list[tuple[str, ...]]:
    """Rows of the table that the command line prints: setting, protection, points, voltage, saving in per cent."""
    lines: list[tuple[str, ...]] = []
    for row in pareto.labelled(headline[headline.scope == scope]).itertuples():
        found = (supply(row) + supply_interval(row), saving(row) + saving_interval(row))
        lines.append((row.setting, row.protection, f"{row.points:g}", *found))
    return lines


def yield_lines(yields: pd.DataFrame, unit: str, scale: Scale = ACCURACY, share: float = 0.9) -> list[str]:
    """How low `share` of the chips may go and stay within the widest margin of clean, in words."""
    rows = pareto.labelled(yields[(yields.points == scale.margins[-1]) & (yields["share"] == share)])
    return [f"{row.protection}, {row.setting} maps: {chip_share(row, unit, scale)}" for row in rows.itertuples()]


def gain_lines(summary: pd.DataFrame, unit: str, scale: Scale = ACCURACY) -> list[str]:
    """Where each protection gains most over the unprotected network on the same chips, in words."""
    if "gain_mean" not in summary:
        return []
    lines = []
    gained = pareto.labelled(summary).dropna(subset=["gain_mean"])
    for (setting, protection), rows in gained.groupby(["setting", "protection"], sort=False):
        best = rows.loc[rows.gain_mean.idxmax()]
        lines.append(
            f"{protection}, {setting} maps: at {best.voltage:g} {unit}{in_volts(best)} "
            f"{scale.text(best.accuracy_mean)} against {scale.text(best.accuracy_mean - best.gain_mean)} unprotected, "
            f"paired gain {scale.per_score * best.gain_mean:{scale.form}} {scale.unit}"
            f"{interval(scale.per_score * best.gain_low, scale.per_score * best.gain_high, scale.form)} "
            f"over {best.chips} chips"
        )
    return lines

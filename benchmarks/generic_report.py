"""From the rows of `benchmarks.generic_generators`: a table of paired differences, and accuracy against saving."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from neuralfuse.statistics import Estimate, paired_difference, t_interval
from sram.files import write_atomic

UNPROTECTED = "unprotected"
HEAD = [
    "variant",
    "parameters",
    "steps",
    "CPU s",
    "clean, %",
    "accuracy [95%], %",
    "worst chip, %",
    "- unprotected [95%]",
    "each seed",
]
HEAD += ["- paper's recipe [95%]", "weight-SRAM saving, %", "system saving, %", "unprotected at that saving, %"]


def saving_key(saving: pd.Series) -> pd.Series:
    """Savings as `same_saving.csv` has them; a saving below zero is that of the nominal supply."""
    return saving.clip(lower=0).round(6)


def table(rows: pd.DataFrame, same: pd.DataFrame) -> pd.DataFrame:
    """One line for each variant. The chip is the unit: its seeds are averaged first, differences are paired by chip.

    `reference` is the first variant of the dataset, the paper's recipe. `same` has the bare network at supplies that
    save as much as each variant.
    """
    lines = []
    for dataset, part in rows.groupby("dataset", sort=False):
        by_chip = part.pivot_table(index="chip", columns="variant", values="accuracy", sort=False)
        bare, reference = by_chip[UNPROTECTED], by_chip[next(v for v in by_chip if v != UNPROTECTED)]
        for variant in by_chip:
            mine, own = part[part.variant == variant], by_chip[variant]
            seeds = mine.pivot_table(index="chip", columns="seed", values="accuracy")
            line = dict(dataset=dataset, rate=mine.rate.iloc[0], variant=variant, chips=len(own), seeds=seeds.shape[1])
            line |= _estimate("accuracy", t_interval(own.to_numpy())) | {"worst_chip": own.min()}
            if variant != UNPROTECTED:
                line |= _estimate("gain", paired_difference(own.to_numpy(), bare.to_numpy()))
                line["gain_each_seed"] = " ".join(f"{100 * (seeds[s] - bare).mean():+.1f}" for s in seeds)
                if variant != reference.name:
                    line |= _estimate("against_paper", paired_difference(own.to_numpy(), reference.to_numpy()))
            for column in ("clean", "saving_weight_sram", "saving_system", "steps", "seconds", "parameters"):
                line[column] = mine.drop_duplicates("seed")[column].mean()
            equal = same[(same.dataset == dataset) & (same.saving == saving_key(mine.saving_weight_sram).iloc[0])]
            line["unprotected_same_saving"] = bare.mean() if variant == UNPROTECTED else equal.accuracy.mean()
            lines.append(line)
    return pd.DataFrame(lines)


def _estimate(name: str, e: Estimate) -> dict:
    return {name: e.mean, f"{name}_low": e.low, f"{name}_high": e.high}


def markdown(lines: pd.DataFrame) -> str:
    out = ["Accuracies in percent with 95% intervals over chips (seeds of one chip averaged); differences in points,"]
    out.append("paired by chip. Savings count the generator's own energy at nominal supply. Last column: without a")
    out.append("generator, the supply raised until the weight SRAM saves as little as with it.")
    for (dataset, rate), part in lines.groupby(["dataset", "rate"], sort=False):
        out += ["", f"**{dataset}, cell fault rate {100 * rate:g}%, {part.chips.max()} chips**", ""]
        out += ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
        for line in part.itertuples():
            bare = line.variant == UNPROTECTED
            cells = [line.variant, *("" if bare else f"{v:,.0f}" for v in (line.parameters, line.steps, line.seconds))]
            cells += [f"{100 * line.clean:.1f}", _interval(line, "accuracy", "{:.1f}"), f"{100 * line.worst_chip:.1f}"]
            cells += [_interval(line, "gain"), "" if bare else line.gain_each_seed, _interval(line, "against_paper")]
            cells += [f"{100 * line.saving_weight_sram:.1f}", f"{100 * line.saving_system:.1f}"]
            equal = line.unprotected_same_saving
            cells.append("" if np.isnan(equal) else f"{100 * equal:.1f}")
            out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def _interval(line, name: str, form: str = "{:+.1f}") -> str:
    mean, low, high = (form.format(100 * getattr(line, name + bound, np.nan)) for bound in ("", "_low", "_high"))
    return "" if "nan" in mean else f"{mean} [{low}, {high}]"


def figure_of(lines: pd.DataFrame) -> Figure:
    """Gain over the bare network, a row for each variant with the saving it leaves; a panel for each dataset."""
    groups = list(lines[lines.variant != UNPROTECTED].groupby("dataset", sort=False))
    figure = Figure(figsize=(6.5 * len(groups), 6), layout="constrained")
    axes = figure.subplots(1, len(groups), squeeze=False)[0]
    for axis, (dataset, part) in zip(axes, groups, strict=True):
        error = 100 * np.array([part.gain - part.gain_low, part.gain_high - part.gain])
        rows = range(len(part))
        axis.errorbar(100 * part.gain, rows, xerr=error, fmt="o", color="#0072B2", ms=5, lw=1, capsize=2)
        names = zip(part.variant, part.saving_weight_sram, strict=True)
        axis.set_yticks(rows, [f"{variant}  ({100 * saving:.0f}%)" for variant, saving in names], fontsize=8)
        axis.invert_yaxis()
        axis.axvline(0, color="0.5", lw=0.8, zorder=0)
        bare = lines[(lines.dataset == dataset) & (lines.variant == UNPROTECTED)].saving_weight_sram.iloc[0]
        axis.set_title(
            f"{dataset}, cell fault rate {100 * part.rate.iloc[0]:g}%\n"
            f"(weight-SRAM saving; unprotected {100 * bare:.0f}%)",
            fontsize=10,
        )
        axis.set_xlabel("accuracy won over the bare network, points\n(bars: 95% over chips, paired)")
        axis.grid(axis="x", alpha=0.3)
    return figure


def write(folder: Path, rows: pd.DataFrame, same: pd.DataFrame) -> str:
    lines = table(rows, same)
    text = markdown(lines)
    write_atomic(folder / "table.csv", lines.to_csv(index=False, float_format="%.6g"))
    write_atomic(folder / "table.md", text)
    figure = figure_of(lines)
    for kind in ("png", "svg"):
        picture = io.BytesIO()
        figure.savefig(picture, format=kind, dpi=130)
        write_atomic(folder / f"generic.{kind}", picture.getvalue())
    return text

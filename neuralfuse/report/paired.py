"""Protections, or networks, compared on the same chips: each against others, paired by chip, as a table and as plots.

Rows are those of results.csv, or any with a column of accuracies and columns that name a chip and what is compared. The
chip is the statistical unit: what was measured of one chip twice (with two seeds of a fit) counts as its mean. All
intervals are 95%, `statistics.mean_interval` over chips.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from neuralfuse.report import plots
from neuralfuse.report.wording import interval
from neuralfuse.results import pareto
from neuralfuse.results.scale import ACCURACY
from neuralfuse.results.statistics import DIFFERENCE, SHARE, mean_interval, paired_difference
from neuralfuse.results.tables import read_results, to_csv
from neuralfuse.results.trade import Trade
from neuralfuse.study import variants
from neuralfuse.study.files import load_study
from sram.errors import InputError
from sram.failure import FailureCurve
from sram.files import write_atomic
from sram.names import plot_label, printable

BEYOND = -0.1  # a saving below this would squeeze all else: such a point is named at the edge instead
STEP, STEPS = 0.025, 4  # equal savings: so many, so far apart, up to what all reach
HEADS = {"rate": "cell fault rate, %", "voltage": "supply", "saving": "saving, %"}
AXES = HEADS | {"saving_weight_sram": "weight-SRAM energy saved, %"}
SETTING = ("lot", "network", *pareto.SETTING[1:], "protection", "voltage", "rate")


def compare(
    rows: pd.DataFrame,
    against: Sequence[str] = ("none",),
    of: str = "protection",
    by: Sequence[str] = ("structure", "voltage"),
    chip: Sequence[str] = ("chip",),
    seed: str | None = None,
    **also: tuple[str, str],
) -> pd.DataFrame:
    """One line for each value of column `of` where all columns `by` are the same.

    `chips`, mean `accuracy` with its interval (`low`, `high`), `std` and `worst_chip`, and for each of `against`, on
    the chips that both have, the difference `minus_X` with `low_X` and `high_X`, and on how many it is `better_X`.
    `chip`: the columns that name a chip. `seed`: a column whose values have a mean difference each, too (`seeds_X`).
    `also`: more columns, as pandas aggregates them (`queries=("queries", "max")`).

    >>> rows = pd.DataFrame({"structure": "iid", "voltage": 0.8, "chip": [0, 1, 0, 1], "saving_weight_sram": 0.36,
    ...                      "protection": ["none", "none", "secded72", "secded72"], "accuracy": [0.5, 0.7, 0.8, 0.8]})
    >>> float(compare(rows).minus_none[1].round(3)), compare(rows).better_none[1]
    (0.2, '2 of 2')
    """
    lines = []
    more = {"saving_weight_sram": ("saving_weight_sram", "mean")} | also
    for key, part in rows.groupby(list(by), sort=False):
        chips = part.pivot_table(index=list(chip), columns=of, values="accuracy", sort=False)
        rest = part.groupby(of).agg(**more).to_dict("index")
        for name in chips:
            own = chips[name].dropna()
            mean = mean_interval(own.to_numpy(), within=SHARE)
            line = dict(zip(by, key, strict=True)) | {of: name, "chips": mean.chips, "accuracy": mean.mean}
            line |= {"low": mean.low, "high": mean.high, "std": mean.std, "worst_chip": own.min()}
            for base in against:
                if base in chips and base != name and len(both := chips[[name, base]].dropna()):
                    line |= _apart(both, base)
                    if seed is not None:
                        line[f"seeds_{base}"] = _each(part[part[of] == name], seed, both[base])
            lines.append(line | rest[name])
    table = pd.DataFrame(lines)
    return table[sorted(table, key=lambda column: _place(column, against))]


def _apart(both: pd.DataFrame, base: str) -> dict[str, object]:
    """The first column minus `base`, the second, on the same chips."""
    ours, theirs = both.iloc[:, 0], both[base]
    found = paired_difference(ours.to_numpy(), theirs.to_numpy(), within=DIFFERENCE)
    apart = {f"minus_{base}": found.mean, f"low_{base}": found.low, f"high_{base}": found.high}
    return apart | {f"better_{base}": f"{(ours > theirs).sum()} of {len(both)}"}


def _each(mine: pd.DataFrame, seed: str, base: pd.Series) -> str:
    """The mean difference of each seed, in points."""
    both = mine.join(base.rename("base"), on=base.index.names)
    apart = (both.accuracy - both.base).groupby(both[seed], sort=False).mean().dropna()
    return " ".join(f"{100 * one:+.1f}" for one in apart)


def _place(column: str, against: Sequence[str]) -> int:
    """Differences stand last, in the order of `against`."""
    base = column.partition("_")[2]
    return 1 + list(against).index(base) if base in against else 0


def at_equal_saving(
    rows: pd.DataFrame,
    of: str = "protection",
    by: Sequence[str] = ("structure",),
    chip: Sequence[str] = ("chip",),
    scope: str = "weight_sram",
) -> pd.DataFrame:
    """Rows for `compare` where equally much is saved, `saving` in place of a voltage: each chip linear between its
    supplies, at the largest multiples of STEP that all of `of` reach; none where they were measured at one supply."""
    saving = f"saving_{scope}"
    reached = rows.groupby([*by, of])[saving].max().min()
    wanted = STEP * (np.arange(1 - STEPS, 1) + np.floor(reached / STEP + 1e-9))
    numbered = rows.assign(chip=rows.groupby(list(chip), sort=False).ngroup())
    names = numbered.drop_duplicates("chip").set_index("chip")[[name for name in chip if name != "chip"]]
    made = []
    for key, part in numbered.groupby([*by, of], sort=False):
        trade = Trade.of(part, scope)
        for share in wanted[wanted > 0]:
            made.append(pd.DataFrame({"chip": trade.chips, "accuracy": trade.accuracy_at(share), "saving": share}))
            made[-1] = made[-1].assign(saving_weight_sram=share, **dict(zip([*by, of], key, strict=True)))
    return pd.concat(made).dropna(subset="accuracy").join(names, on="chip") if made else rows.iloc[:0]


def markdown(table: pd.DataFrame, of: str = "protection", **also: str) -> str:
    """The table of `compare` for a page: accuracies and differences in per cent, columns that say one thing left out.

    `also`: formats of its further columns, `queries="{:,}"`.
    """
    where = list(table.columns[: table.columns.get_loc(of)])
    varying = [name for name in where if table[name].nunique() > 1]
    bases = [name.removeprefix("minus_") for name in table if str(name).startswith("minus_")]
    more = {name: form for name, form in also.items() if name in table and table[name].notna().any()}
    head = [*(HEADS.get(name, name) for name in varying), of, "chips", "accuracy, %", "std", "worst chip"]
    head += [
        *(f"- {base} (better on{'; each seed' * (f'seeds_{base}' in table)})" for base in bases),
        "weight-SRAM saving, %",
        *more,
    ]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for line in table.to_dict("records"):
        cells = [_where(name, line[name]) for name in varying] + [str(line[of]), f"{line['chips']}"]
        cells += [_percent(line["accuracy"], line["low"], line["high"]), _percent(line["std"])]
        cells += [_percent(line["worst_chip"]), *(_difference(line, base) for base in bases)]
        cells += [_percent(line["saving_weight_sram"])]
        cells += ["" if pd.isna(line[name]) else form.format(line[name]) for name, form in more.items()]
        lines.append("| " + " | ".join(printable(cell).replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _where(name: str, value: object) -> str:
    if isinstance(value, float):
        return f"{100 * value:.3g}" if name in ("rate", "saving") else f"{value:g}"
    return str(value)


def _percent(mean: float, low: float = float("nan"), high: float = float("nan"), form: str = ".1f") -> str:
    return "" if pd.isna(mean) else f"{100 * mean:{form}}" + interval(100 * low, 100 * high, form)


def _difference(line: Mapping[str, Any], base: str) -> str:
    mean, low, high, better = (line[f"{what}_{base}"] for what in ("minus", "low", "high", "better"))
    if pd.isna(mean):
        return ""
    seeds = f"; {line[f'seeds_{base}']}" if f"seeds_{base}" in line else ""
    return f"{_percent(mean, low, high, '+.1f')} ({better}{seeds})"


def accuracy(
    table: pd.DataFrame, of: str = "protection", panels: Sequence[str] = ("structure",), x: str = "saving_weight_sram"
) -> Figure:
    """Accuracy against saving (or against column `x`) with intervals, a panel for each value of `panels`; what is
    compared looks the same in all of them."""
    table = plots.shown(table)
    groups = list(table.groupby(list(panels), sort=False))
    figure, axes = _axes(len(groups), 4.6, [3.6] * -(-len(groups) // 2))
    names = list(table[of].unique())
    style = plots.looks(names)
    for name in names[len(plots.COLOURS) :]:  # colours and markers come around again
        style[name] = style[name] | {"mfc": "none"}
    for axis, (key, part) in zip(axes, groups, strict=True):
        beyond = part[part.saving_weight_sram < BEYOND]
        for name, line in part.drop(beyond.index).groupby(of, sort=False):
            line = line.sort_values(x)
            error = _bars(line.accuracy, line.low, line.high)
            at = line[x] if x == "voltage" else 100 * line[x]
            axis.errorbar(at, 100 * line.accuracy, error, label=name, ms=5, lw=1.2, capsize=3, **style[name])
        saved = [f"beyond: {b[of]}, saving {b['saving_weight_sram']:.0%}, accuracy {b['accuracy']:.1%}"
                 for b in beyond.to_dict("records")]  # fmt: skip
        axis.text(0.02, 0.02, "\n".join(saved), transform=axis.transAxes, fontsize=7)
        axis.set(title=_title(panels, key), ylabel="test accuracy, %", xlabel=AXES.get(x, x))
    plots.legend(figure)
    return figure


def differences(
    table: pd.DataFrame, base: str, of: str = "protection", panels: Sequence[str] = ("structure",)
) -> Figure:
    """The mean difference from `base` with its interval, a dot for each line of the table, a panel for each value of
    `panels`."""
    found = plots.shown(table.dropna(subset=f"minus_{base}"))
    groups = list(found.groupby(list(panels), sort=False))
    figure, axes = _axes(len(groups), 6.5, [0.24 * len(part) + 0.6 for _, part in groups], across=1)
    where = [n for n in table.columns[: table.columns.get_loc(of)] if n not in panels and found[n].nunique() > 1]
    for axis, (key, part) in zip(axes, groups, strict=True):
        lines = part.to_dict("records")
        at = np.arange(len(lines))[::-1]
        mean, low, high = (part[f"{what}_{base}"] for what in ("minus", "low", "high"))
        axis.errorbar(100 * mean, at, xerr=_bars(mean, low, high), fmt="o", color=plots.COLOURS[1], ms=4, lw=1.2,
                      capsize=3)  # fmt: skip
        axis.axvline(0, color="0.4", lw=1)
        axis.set_ylim(-0.6, len(lines) - 0.4)
        axis.set_yticks(at, [", ".join([line[of], *(_where(n, line[n]) for n in where)]) for line in lines])
        axis.set_title(_title(panels, key), loc="left")
    axes[-1].set_xlabel(f"accuracy - {plot_label(base)}, points, on the same chips")
    return figure


def _bars(mean: pd.Series, low: pd.Series, high: pd.Series) -> NDArray[np.float64]:
    """How far intervals reach below and above their means, in per cent; no bar where one chip tells nothing, and none
    of -1e-17 where all chips agree."""
    return np.nan_to_num(100 * np.array([mean - low, high - mean])).clip(min=0)


def _axes(count: int, width: float, heights: Sequence[float], across: int = 2) -> tuple[Figure, list[Axes]]:
    across = min(across, count)
    with matplotlib.rc_context(plots.RC):
        figure = Figure(figsize=(width * across, sum(heights) + 1), layout="constrained")
        share: Any = {"sharex": across == 1, "sharey": across > 1}
        axes = figure.subplots(len(heights), across, squeeze=False, height_ratios=heights, **share).ravel().tolist()
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def _title(panels: Sequence[str], key: Sequence[object]) -> str:
    words = {"structure": "{} maps", "rate": "cell fault rate {}%"}
    return ", ".join(words.get(name, "{}").format(_where(name, value)) for name, value in zip(panels, key, strict=True))


def rows_of(folder: Path) -> pd.DataFrame:
    """The rows of a results folder with the curve's cell fault `rate` at each supply (0 at the nominal one), and with
    the `variant` and its `lot`: variants that differ in nothing but their seed, chips and protections are one lot."""
    tables: list[pd.DataFrame] = []
    lots: dict[str, str] = {}
    for name, part in variants.folders(folder).items():
        study = load_study(part / "study.yaml")
        lot = lots.setdefault(study.model_copy(update={"name": "", "seed": 0}).identity(), name)
        tables.append(with_rates(read_results(part), study.curve).assign(variant=name, lot=lot))
    return pd.concat(tables, ignore_index=True)


def with_rates(rows: pd.DataFrame, curve: FailureCurve) -> pd.DataFrame:
    """Rows of one curve with the cell fault `rate` that it has at each supply, 0 at the nominal one."""
    return rows.assign(rate=np.where(rows.voltage == curve.nominal, 0.0, curve.probability(rows.voltage.to_numpy())))


def write(folder: str | Path, against: str) -> str:
    """Write paired.csv, paired.md and plots/paired-* into a results folder: all its protections (or
    networks) against this one, at equal supply and at equal saving. The text of paired.md; InputError."""
    folder = Path(folder)
    rows = rows_of(folder)
    if (other := rows.metric[rows.metric != ACCURACY.name]).any():
        raise InputError(
            folder, "--against", against, f"a study of accuracies; the metric of this one is {other.iloc[0]}"
        )
    of = next((of for of in ("protection", "network") if against in set(rows[of])), None)
    if of is None:
        allowed = ", ".join([*rows.protection.unique(), *rows.network.unique()])
        raise InputError(folder, "--against", against, f"a protection or a network of its results: {allowed}")
    by = [name for name in SETTING if name != of]
    chip = ("variant", "chip") if rows.lot.nunique() < rows.variant.nunique() else ("chip",)
    seed = "variant" if len(chip) > 1 else None
    table = compare(rows, [against], of, by, chip, seed)
    equal = at_equal_saving(rows, of, by[:-2], chip)
    text = f"At equal supply\n\n{markdown(table, of)}"
    if len(equal):
        equal = compare(equal, [against], of, [*by[:-2], "saving"], chip, seed)
        text += f"\nAt equal saving of weight-SRAM energy\n\n{markdown(equal, of)}"
    write_atomic(folder / "paired.csv", to_csv(table))
    write_atomic(folder / "paired-equal-saving.csv", to_csv(equal))
    write_atomic(folder / "paired.md", text)
    panels = [name for name in by[:-2] if name == "structure" or table[name].nunique() > 1]
    plots.save(accuracy(table, of, panels), folder / "plots", "paired-accuracy")
    plots.save(differences(table, against, of, panels), folder / "plots", "paired-differences")
    return text

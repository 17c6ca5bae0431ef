"""A picture for each question. Bars and bands are 95% intervals over chips; differences are paired by chip."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neuralfuse.results.statistics import Estimate, mean_interval

GAIN = "gain over the unprotected chip, points"
NARROWEST = 2  # points of saving that a panel shows
LEAST_SHOWN = -0.1  # saving: what costs more would squeeze all else, and is named instead
MARKERS = "os^Dv<>PX*hp"
MAIN = ["unprotected", "generic", "generic UNetS", "affine", "tiny", "affine of another chip"]
MAIN += ["random bit errors, network retrained", "BatchNorm statistics of the chip", "secded72", "spare_columns:4"]
MAIN += ["hardened_msb:2", "hardened_msb:1", "hardened_msb:1 and affine", "hardened by layer"]
MAIN += ["generic ConvL", "generic ConvS"]
SUPERVISION = ["affine", "affine, outputs only", "affine, statistics only"]
SUPERVISION += [f"affine, {n} images" for n in (1024, 128, 16)]
ROBUSTNESS = {  # title: (condition, method, what it says)
    "a quarter of the rate": [
        ("higher", "affine", "made there"),
        ("higher", "affine of all supplies", "made there and at the lowest"),
        ("higher", "affine of the lowest supply", "made at the lowest"),
    ],
    "half of the rate": [
        ("between", "affine", "made there"),
        ("between", "affine of all supplies", "made on both sides of it"),
        ("between", "affine of the higher supply", "made above"),
        ("between", "affine of the lowest supply", "made below"),
    ],
    "all cells drifted alike": [
        ("drifted", "affine", "as before"),
        ("drifted", "affine, recalibrated from canaries", "again, by canaries"),
        ("drifted", "affine, recalibrated", "again, by the new map"),
    ],
    "drifted with a scatter": [
        ("aged", "affine", "as before"),
        ("aged", "affine, recalibrated from canaries", "again, by canaries"),
        ("aged", "affine, recalibrated", "again, by the new map"),
    ],
    "faults that the fit does not know": [
        ("main", "affine", "none"),
        ("main", "affine, 10% of the faults unknown", "10%"),
        ("main", "affine, 30% of the faults unknown", "30%"),
        ("intermittent", "affine", "intermittent cells"),
    ],
}
QUERIES = [(n, f"affine, {n} steps of queries") for n in (50, 200, 800)]
STARTS = {"untrained": "{name}, {steps} steps", "prior of the lot": "{name}, {steps} steps from a turns prior",
          "Reptile prior": "{name}, {steps} steps from a reptile prior"}  # fmt: skip


def of(rows: pd.DataFrame, lines: pd.DataFrame) -> dict[str, Figure]:
    """The figures that the rows are enough for; all but `main` are about the rate and structure measured first."""
    first = rows[(rows.structure == rows.structure.iloc[0]) & (rows.rate == rows.rate.iloc[0])]
    chips = first.pivot_table(index="chip", columns=["condition", "method"], values="accuracy", sort=False)
    made = {
        "main": main(lines),
        "supervision": supervision(chips),
        "robustness": robustness(chips),
        "queries": queries(chips, first),
        "few_steps": few_steps(chips),
    }
    return {name: figure for name, figure in made.items() if figure is not None}


def main(lines: pd.DataFrame) -> Figure | None:
    """Accuracy against energy saving under the main condition, a panel for each structure and rate.

    A method looks the same in every panel, whichever others are there.
    """
    shown = lines[(lines.condition == "main") & lines.method.isin(MAIN)]
    groups = [(key, part) for key, part in shown.groupby(["structure", "rate"], sort=False) if len(part) > 1]
    if not groups:
        return None
    across = min(2, len(groups))
    down = -(-len(groups) // across)
    figure = Figure(figsize=(max(5.2, 4.6 * across), 3.9 * down + 1.2), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for axis, ((structure, rate), part) in zip(axes, groups, strict=False):
        beyond = part[part.saving_weight_sram < LEAST_SHOWN]
        names = [
            f"beyond the axis: {one.method}, saving {one.saving_weight_sram:.0%}, accuracy {one.accuracy:.1%}"
            for one in beyond.itertuples()
        ]
        axis.text(0.02, 0.02, "\n".join(names), transform=axis.transAxes, fontsize=8)
        for line in part.drop(beyond.index).itertuples():
            i = MAIN.index(line.method)
            error = [[100 * (line.accuracy - line.low)], [100 * (line.high - line.accuracy)]]
            look = {"fmt": MARKERS[i % len(MARKERS)], "color": f"C{i % 10}", "ms": 7, "lw": 1, "capsize": 3}
            look |= {"mfc": "none"} if i >= 10 else {}
            axis.errorbar(100 * line.saving_weight_sram, 100 * line.accuracy, np.nan_to_num(error), label=line.method,
                          **look)  # fmt: skip
        axis.set(title=f"{structure} maps, cell fault rate {100 * rate:.3g}%", xlabel="weight-SRAM energy saving, %")
        axis.set(ylabel="accuracy, %")
        left, right = axis.get_xlim()
        if right - left < NARROWEST:  # else hundredths of a point would look like a difference
            axis.set_xlim((left + right - NARROWEST) / 2, (left + right + NARROWEST) / 2)
        axis.grid(alpha=0.3)
    for axis in axes[len(groups) :]:
        axis.set_visible(False)
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    order = [method for method in MAIN if method in handles]
    figure.legend([handles[m] for m in order], order, loc="outside lower center", ncols=1 + across, fontsize=8)
    return figure


def gains(chips: pd.DataFrame, wanted: Sequence[tuple[str, str]]) -> list[np.ndarray] | None:
    """Gains in points over `unprotected` of each (condition, method), chip by chip, on the chips that have them all.

    None where one is missing, or a second chip.
    """
    bare = [(condition, "unprotected") for condition, _ in wanted]
    columns = list(dict.fromkeys([*wanted, *bare]))
    if any(column not in chips for column in columns):
        return None
    both = chips[columns].dropna()
    if len(both) < 2:
        return None
    return [100 * (both[w].to_numpy() - both[b].to_numpy()) for w, b in zip(wanted, bare, strict=True)]


def _dots(axis: Axes, found: Sequence[np.ndarray], names: Sequence[str]) -> None:
    """One row for each: mean gain with its interval, and every chip's."""
    at = np.arange(len(names))[::-1]
    for y, values in zip(at, found, strict=True):
        e = mean_interval(values)
        axis.plot(values, np.full(len(values), y + 0.25), "|", color="0.45", ms=6)
        axis.errorbar(e.mean, y, xerr=e.half_width, fmt="o", color="C0", ms=5, lw=1.2, capsize=3)
    axis.axvline(0, color="0.4", lw=1)
    axis.set_yticks(at, names)
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.grid(axis="x", alpha=0.3)


def supervision(chips: pd.DataFrame) -> Figure | None:
    found = gains(chips, [("main", method) for method in SUPERVISION])
    if found is None:
        return None
    figure = Figure(figsize=(6.5, 2.8), layout="constrained")
    axis = figure.subplots()
    names = ["all labels", "clean outputs, no labels", "statistics of clean outputs"]
    _dots(axis, found, [*names, *(f"{n:,} labelled images" for n in (1024, 128, 16))])
    axis.set(title=f"What the fit is told: affine on {len(found[0])} chips", xlabel=GAIN)
    return figure


def robustness(chips: pd.DataFrame) -> Figure | None:
    panels = {title: ([text for *_, text in rows], gains(chips, [(c, m) for c, m, _ in rows]))
              for title, rows in ROBUSTNESS.items()}  # fmt: skip
    shown = {title: (names, found) for title, (names, found) in panels.items() if found is not None}
    if not shown:
        return None
    heights = [len(names) + 1.6 for names, _ in shown.values()]
    figure = Figure(figsize=(6.5, 0.34 * sum(heights) + 0.4), layout="constrained")
    axes = figure.subplots(len(shown), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axis, (title, (names, found)) in zip(axes, shown.items(), strict=True):
        assert found is not None
        _dots(axis, found, names)
        axis.set_title(f"{title} ({len(found[0])} chips)", loc="left", fontsize=10)
    axes[-1].set_xlabel(GAIN)
    return figure


def queries(chips: pd.DataFrame, rows: pd.DataFrame) -> Figure | None:
    wanted = [("main", method) for _, method in QUERIES if ("main", method) in chips]
    found = gains(chips, [*wanted, ("main", "affine")]) if wanted else None
    if found is None:
        return None
    *by_queries, gradient = map(mean_interval, found)
    asked = [int(rows[rows.method == method].queries.max()) for _, method in wanted]
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.errorbar(asked, [e.mean for e in by_queries], [e.half_width for e in by_queries], fmt="o-",
                  capsize=3, label="outputs only")  # fmt: skip
    _level(axis, gradient, "gradient through the known map", "C1")
    axis.axhline(0, color="0.4", lw=1)
    axis.set_xscale("log")
    axis.set(xlabel="images that the chip is asked about", ylabel=GAIN)
    axis.set_title(f"affine on {len(found[0])} chips", fontsize=10)
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return figure


def _level(axis: Axes, e: Estimate, label: str, color: str) -> None:
    axis.axhline(e.mean, color=color, label=label)
    axis.axhspan(e.low, e.high, color=color, alpha=0.15)


def few_steps(chips: pd.DataFrame) -> Figure | None:
    """Gain against steps on the chip, by what the fit starts from. All are on the same chips."""
    curves: dict[tuple[str, str], dict[int, str]] = {}
    names = [name for name in ("affine", "tiny") if ("main", f"{name} of the lot") in chips]
    for name in names:
        for start, pattern in STARTS.items():
            lot = {0: f"{name} of the lot"} if start == "prior of the lot" else {}
            curves[name, start] = lot | {n: pattern.format(name=name, steps=n) for n in (10, 25)}
        curves[name, "untrained"][100] = name
    wanted = [("main", method) for points in curves.values() for method in points.values()]
    found = gains(chips, wanted) if wanted else None
    if found is None:
        return None
    gain = dict(zip((method for _, method in wanted), map(mean_interval, found), strict=True))
    figure = Figure(figsize=(1 + 4 * len(names), 3.4), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True):
        for i, start in enumerate(STARTS):
            points = curves[name, start]
            at = np.array(list(points)) + 0.6 * (i - 1)  # bars side by side
            axis.errorbar(at, [gain[m].mean for m in points.values()],
                          [gain[m].half_width for m in points.values()], fmt=MARKERS[i] + "-", capsize=3,
                          label=start)  # fmt: skip
        axis.axhline(0, color="0.4", lw=1)
        axis.set(title=f"{name}, {len(found[0])} chips", xlabel="steps on the chip")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel(GAIN)
    figure.axes[0].legend(fontsize=8, title="starts from", title_fontsize=8)
    return figure

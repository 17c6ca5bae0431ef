"""From the rows: a table of paired differences, and accuracy against energy saving."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from neuralfuse.statistics import paired_difference, t_interval
from sram.files import write_atomic

MARKERS = "os^Dv<>P"
COLUMNS = ["structure", "rate", "condition", "method", "chips", "accuracy", "low", "high", "worst_chip"]
COLUMNS += [f"{part}_{base}" for base in ("unprotected", "generic") for part in ("minus", "low", "high", "better")]
COLUMNS += ["saving_weight_sram", "saving_system", "bytes", "queries", "seconds"]
HEAD = ["method", "accuracy", "worst chip", "- unprotected", "better", "- generic", "better"]
HEAD += ["weight-SRAM saving, %", "bytes a chip", "queries"]


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a method. Intervals are 95%, Student's t over chips; seeds of one chip are averaged first.

    Differences are paired by chip with `unprotected` and `generic` under the same condition; `better` counts chips.
    """
    lines = []
    for (structure, rate, condition), part in rows.groupby(["structure", "rate", "condition"], sort=False):
        by_chip = part.pivot_table(index="chip", columns="method", values="accuracy", sort=False)
        for method in by_chip.columns:
            own, mine = by_chip[method].dropna(), part[part.method == method]
            e = t_interval(own.to_numpy())
            line = dict(structure=structure, rate=rate, condition=condition, method=method, chips=len(own))
            line |= dict(accuracy=e.mean, low=e.low, high=e.high, worst_chip=own.min())
            for base in ("unprotected", "generic"):
                line |= _against(by_chip, method, base)
            line |= dict(saving_weight_sram=mine.saving_weight_sram.mean(), saving_system=mine.saving_system.mean())
            line |= dict(bytes=mine.storage_bytes.max(), queries=mine.queries.max(), seconds=mine.seconds.mean())
            lines.append(line)
    return pd.DataFrame(lines, columns=COLUMNS)


def _against(by_chip: pd.DataFrame, method: str, base: str) -> dict:
    if base not in by_chip or method == base:
        return {}
    both = by_chip[[method, base]].dropna()
    if not len(both):
        return {}
    e = paired_difference(both[method].to_numpy(), both[base].to_numpy())
    better = f"{int((both[method] > both[base]).sum())} of {len(both)}"
    return {f"minus_{base}": e.mean, f"low_{base}": e.low, f"high_{base}": e.high, f"better_{base}": better}


def markdown(lines: pd.DataFrame, clean: float) -> str:
    """The table for a page: accuracies and differences in percent, intervals in brackets."""
    out = [f"Clean accuracy {clean:.2%}. Accuracy in percent [95% over chips]; differences in points, paired by chip."]
    for (structure, rate, condition), part in lines.groupby(["structure", "rate", "condition"], sort=False):
        out += ["", f"**{structure} maps, cell fault rate {rate:.3g}, condition: {condition}**", ""]
        out.append("| " + " | ".join(HEAD) + " |")
        out.append("|---" * len(HEAD) + "|")
        for line in part.itertuples():
            cells = [line.method, f"{100 * line.accuracy:.1f} [{100 * line.low:.1f}, {100 * line.high:.1f}]"]
            cells.append(f"{100 * line.worst_chip:.1f}")
            for base in ("unprotected", "generic"):
                mean, low, high = (100 * getattr(line, f"{bound}_{base}") for bound in ("minus", "low", "high"))
                cells.append("" if np.isnan(mean) else f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]")
                cells.append("" if np.isnan(mean) else getattr(line, f"better_{base}"))
            cells += [f"{100 * line.saving_weight_sram:.1f}", f"{line.bytes:,}", f"{line.queries:,}"]
            out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def figure_of(lines: pd.DataFrame) -> Figure:
    """Accuracy against energy saving under the main condition, a panel for each structure and rate.

    A method looks the same in every panel, whichever others are there.
    """
    main = lines[lines.condition == "main"]
    methods = list(main.method.unique())
    groups = list(main.groupby(["structure", "rate"], sort=False))
    figure = Figure(figsize=(5.5 * len(groups), 5), layout="constrained")
    axes = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
    for axis, ((structure, rate), part) in zip(axes, groups, strict=True):
        for line in part.itertuples():
            i = methods.index(line.method)
            error = [[100 * (line.accuracy - line.low)], [100 * (line.high - line.accuracy)]]
            x, y, look = 100 * line.saving_weight_sram, 100 * line.accuracy, {"fmt": MARKERS[i % len(MARKERS)]}
            look |= {"color": f"C{i % 10}", "ms": 6, "lw": 1, "capsize": 2}
            axis.errorbar(x, y, np.nan_to_num(error), label=line.method, **look)
        axis.set(title=f"{structure}, cell fault rate {rate:.3g}", xlabel="weight-SRAM energy saving, %")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy, %  (bars: 95% over chips)")
    shown = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def plot(lines: pd.DataFrame, folder: Path) -> None:
    figure = figure_of(lines)
    for kind in ("png", "svg"):
        write_atomic(folder / f"beyond.{kind}", lambda file, kind=kind: figure.savefig(file, format=kind, dpi=130))


def write(folder: Path, rows: pd.DataFrame) -> str:
    lines = table(rows)
    text = markdown(lines, rows.clean_accuracy.mean())
    write_atomic(folder / "table.csv", lines.to_csv(index=False, float_format="%.6g"))
    write_atomic(folder / "table.md", text)
    plot(lines, folder)
    return text

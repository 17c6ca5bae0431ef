"""From the rows: a table of paired differences, and the pictures (`figures`)."""

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.beyond import figures
from neuralfuse.results.statistics import mean_interval, paired_difference
from sram.files import write_atomic

GROUP = ["structure", "rate", "condition"]
BASES = ("unprotected", "generic", "affine")
COLUMNS = [*GROUP, "method", "chips", "seeds", "clean", "accuracy", "low", "high", "worst_chip"]
COLUMNS += [f"{part}_{base}" for base in BASES for part in ("minus", "low", "high", "better")]
COLUMNS += ["saving_weight_sram", "saving_system", "bytes", "queries", "seconds"]
HEAD = ["method", "chips", "accuracy", "worst chip", "- unprotected", "better", "- generic", "- affine"]
HEAD += ["weight-SRAM saving, %", "bytes a chip", "queries"]


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a method. Intervals are 95%, Student's t over chips; seeds of one chip are averaged first.

    Differences are paired by chip with a base under the same condition; `better` counts chips.
    """
    lines = []
    for (structure, rate, condition), part in rows.groupby(GROUP, sort=False):
        by_chip = part.pivot_table(index="chip", columns="method", values="accuracy", sort=False)
        for method in by_chip.columns:
            own, mine = by_chip[method].dropna(), part[part.method == method]
            e = mean_interval(own.to_numpy())
            line = dict(structure=structure, rate=rate, condition=condition, method=method, chips=len(own))
            line |= dict(seeds=mine.seed.nunique(), clean=mine.clean_accuracy.mean())
            line |= dict(accuracy=e.mean, low=e.low, high=e.high, worst_chip=own.min())
            for base in BASES:
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
    for (structure, rate, condition), part in lines.groupby(GROUP, sort=False):
        out += ["", f"**{structure} maps, cell fault rate {rate:.3g}, condition: {condition}**", ""]
        out.append("| " + " | ".join(HEAD) + " |")
        out.append("|---" * len(HEAD) + "|")
        for line in part.itertuples():
            own = "" if abs(line.clean - clean) < 1e-9 else f" (clean: {line.clean:.1%})"
            cells = [line.method + own, f"{line.chips}" + (f", {line.seeds} seeds" if line.seeds > 1 else "")]
            cells += [f"{100 * line.accuracy:.1f} [{100 * line.low:.1f}, {100 * line.high:.1f}]"]
            cells.append(f"{100 * line.worst_chip:.1f}")
            for base in BASES:
                mean, low, high = (100 * getattr(line, f"{bound}_{base}") for bound in ("minus", "low", "high"))
                cells.append("" if np.isnan(mean) else f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]")
                if base == "unprotected":
                    cells.append("" if np.isnan(mean) else line.better_unprotected)
            cells += [f"{100 * line.saving_weight_sram:.1f}", f"{line.bytes:,}", f"{line.queries:,}"]
            out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def write(folder: Path, rows: pd.DataFrame) -> str:
    lines, bare = table(rows), rows[rows.method == "unprotected"]
    text = markdown(lines, (bare if len(bare) else rows).clean_accuracy.mean())
    write_atomic(folder / "table.csv", lines.to_csv(index=False, float_format="%.6g"))
    write_atomic(folder / "table.md", text)
    for name, figure in figures.of(rows, lines).items():
        for kind in ("png", "svg"):
            write_atomic(folder / f"{name}.{kind}", lambda file, f=figure, k=kind: f.savefig(file, format=k, dpi=150))
    return text

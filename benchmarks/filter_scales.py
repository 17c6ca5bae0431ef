"""Tables and plot of the study of weight words with one scale a tensor and with one a filter.

    neuralfuse sweep benchmarks/studies/filter_scales.yaml --out out/filter_scales      # 40 minutes of one core
    python -m benchmarks.filter_scales --study out/filter_scales --out benchmarks/results/beyond/filter_scales

Both networks lie in the same chips, so differences are paired by chip; intervals are 95% over chips (Student's t).
"""

import argparse
import shutil
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from neuralfuse.report import plots
from neuralfuse.results.statistics import mean_interval, paired_difference
from neuralfuse.study.files import load_study
from sram import failure
from sram.files import write_atomic

TENSOR, FILTER = "one scale a tensor", "one scale a filter"
LOOKS = {TENSOR: plots.COLOURS[0], FILTER: plots.COLOURS[1]}
HEAD = ["structure", "cell fault rate, %", "protection", *(f"{name}, %" for name in (TENSOR, FILTER))]
HEAD += ["difference", "better on", "weight-SRAM saving, %"]


def read(folder: Path) -> pd.DataFrame:
    """Rows of a variant's folder, accuracies in percent, with the rate of their supply, 0 at the nominal one."""
    rows = pd.read_csv(folder / "results.csv")
    curve = failure.curve(load_study(folder / "study.yaml").sram.curve)
    rows["rate"] = [0.0 if v == curve.nominal else float(curve.probability(v)) for v in rows.voltage]
    rows["accuracy"] *= 100
    return rows


def interval(values: pd.Series) -> str:
    found = mean_interval(values.to_numpy())
    return f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}]"


def table(rows: pd.DataFrame) -> str:
    """A line for each structure, rate and protection: both networks and their difference on the same chips."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    for (structure, rate, protection), part in rows.groupby(["structure", "rate", "protection"], sort=False):
        chips = part.pivot_table(index="chip", columns="network", values="accuracy")
        cells = [structure, f"{100 * rate:.3g}", protection]
        cells += [interval(chips[name]) if name in chips else "" for name in (TENSOR, FILTER)]
        if TENSOR in chips:
            both = chips.dropna()
            won = paired_difference(both[FILTER].to_numpy(), both[TENSOR].to_numpy())
            cells.append(f"{won.mean:+.1f} [{won.low:+.1f}, {won.high:+.1f}]")
            cells.append(f"{(both[FILTER] > both[TENSOR]).sum()} of {len(both)}")
        else:
            cells += ["", ""]
        lines.append("| " + " | ".join([*cells, f"{100 * part.saving_weight_sram.mean():.1f}"]) + " |")
    return "\n".join(lines)


def plot(rows: pd.DataFrame, network: str) -> Figure:
    """Accuracy by cell fault rate and by saving, of independent cells below the nominal supply."""
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    rows = rows[(rows.structure == "iid") & (rows.rate > 0)]
    for (name, protection), part in rows.groupby(["network", "protection"], sort=False):
        points = [(rate, 100 * of_rate.saving_weight_sram.mean(), mean_interval(of_rate.accuracy.to_numpy()))
                  for rate, of_rate in part.groupby("rate")]  # fmt: skip
        style = {"color": LOOKS[name], "linestyle": "-" if protection == "none" else "--", "markersize": 4,
                 "marker": "o" if protection == "none" else "s", "capsize": 2.5, "linewidth": 1.3}  # fmt: skip
        label = name if protection == "none" else f"{name}, {protection}"
        mean, half = [e.mean for _, _, e in points], [e.half_width for _, _, e in points]
        left.errorbar([100 * rate for rate, _, _ in points], mean, half, **style)
        right.errorbar([saving for _, saving, _ in points], mean, half, label=label, **style)
    rates = [100 * rate for rate in sorted(rows.rate.unique())]
    left.set(xscale="log", xlabel="cell fault rate (%)", ylabel="test accuracy (%)")
    left.set_xticks(rates, [f"{rate:.3g}" for rate in rates])
    left.minorticks_off()
    left.set_title(f"{network}, independent cells, mean of {rows.chip.nunique()} chips, 95%")
    right.set(xlabel="weight-SRAM energy saved (%)", title="the same against what it saves")
    right.legend(loc="lower left", fontsize=8, frameon=False)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path("out/filter_scales"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/beyond/filter_scales"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    parts = []
    for folder in sorted(path.parent for path in given.study.glob("*/results.csv")):
        rows = read(folder)
        shutil.copyfile(folder / "results.csv", given.out / f"{folder.name}.csv")
        parts.append(f"**{folder.name}**, {rows.total.iloc[0]:,} test images\n\n{table(rows)}\n")
        if folder.name == "resnet14":
            plots.save(plot(rows, "resnet14"), given.out, "accuracy")
    text = "\n".join(parts)
    write_atomic(given.out / "table.md", text)
    print(text)


if __name__ == "__main__":
    main()

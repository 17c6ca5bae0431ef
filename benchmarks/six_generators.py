"""Table and plot of the study of six generators on CIFAR-10.

    neuralfuse sweep benchmarks/studies/cifar10.yaml --out out/cifar10       # about an hour on two cores
    python -m benchmarks.six_generators --study out/cifar10 --out benchmarks/results/cifar10

Accuracies are means over chips with 95% t-intervals; gains are paired by chip with the unprotected network. The second
table compares the two mappings of weights to cells at the same rate: does the paper's conclusion depend on it?
"""

import argparse
import shutil
from pathlib import Path

import pandas as pd

from neuralfuse.results import pareto
from neuralfuse.results.statistics import mean_interval
from neuralfuse.study.data import build_transform
from neuralfuse.study.files import load_study
from sram import failure
from sram.files import write_atomic


def summary_of(folder: Path) -> pd.DataFrame:
    """One line for each protection and rate, the nominal supply left out; rates are the curve's."""
    results = pd.read_csv(folder / "results.csv")
    study = load_study(folder / "study.yaml")
    parameters = {
        p.name: sum(part.numel() for part in build_transform(p.neuralfuse, study).parameters())
        for p in study.protections
        if p.neuralfuse
    }
    table = pareto.per_million_parameters(pareto.summarise(results), parameters)
    curve = failure.curve(study.sram.curve)
    table["rate"] = curve.probability(table.voltage.to_numpy())
    nominal = table[table.voltage == table.voltage.max()].set_index("protection").accuracy_mean
    table["clean"] = table.protection.map(nominal)
    return table[table.rate > 1e-4].sort_values("rate", kind="stable")


def markdown(table: pd.DataFrame) -> str:
    lines = [
        "| protection | parameters | clean, % | rate, % | accuracy [95%], % | std | worst chip | paired gain [95%] |"
    ]
    lines[0] += " per million parameters | weight-SRAM saving, % |"
    lines.append("|---" * 10 + "|")
    for row in table.itertuples():
        bare = pd.isna(row.gain_mean)
        gain = "" if bare else f"{100 * row.gain_mean:+.1f} [{100 * row.gain_low:+.1f}, {100 * row.gain_high:+.1f}]"
        cells = [row.protection, "" if bare else f"{row.parameters:,.0f}", f"{100 * row.clean:.1f}"]
        cells += [f"{100 * row.rate:.2f}", interval(row), f"{100 * row.accuracy_std:.1f}"]
        cells += [f"{100 * row.accuracy_worst_chip:.1f}", gain]
        cells += ["" if bare else f"{row.gain_points_per_million_parameters:+.1f}"]
        lines.append("| " + " | ".join([*cells, f"{100 * row.saving_weight_sram:.1f}"]) + " |")
    return "\n".join(lines)


def interval(row) -> str:
    return f"{100 * row.accuracy_mean:.1f} [{100 * row.accuracy_low:.1f}, {100 * row.accuracy_high:.1f}]"


def mappings(own: pd.DataFrame, paper: pd.DataFrame) -> str:
    lines = [
        "| protection | rate, % | own cells: accuracy, std, gain | paper's mapping: accuracy, std, gain |",
        "|---|---|---|---|",
    ]
    for right in paper.itertuples():
        left = own[(own.protection == right.protection) & (own.voltage == right.voltage)]
        for one in left.itertuples():
            sides = [f"{interval(r)}, {100 * r.accuracy_std:.1f}" + _gain(r) for r in (one, right)]
            lines.append(f"| {right.protection} | {100 * right.rate:.2f} | {sides[0]} | {sides[1]} |")
    return "\n".join(lines)


def _gain(row) -> str:
    if pd.isna(row.gain_mean):
        return ""
    return f", {100 * row.gain_mean:+.1f} [{100 * row.gain_low:+.1f}, {100 * row.gain_high:+.1f}]"


def plot(results: pd.DataFrame, table: pd.DataFrame, folder: Path) -> None:
    """Every chip as a dot, the mean with its interval beside it; a panel for each rate."""
    from matplotlib.figure import Figure

    rates = sorted(table.rate.unique())
    figure = Figure(figsize=(5 * len(rates), 3.8), layout="constrained")
    axes = figure.subplots(1, len(rates), sharey=True, squeeze=False)[0]
    for axis, rate in zip(axes, rates, strict=True):
        part = table[table.rate == rate]
        for i, row in enumerate(part.itertuples()):
            same = (results.protection == row.protection) & (results.voltage == row.voltage)
            accuracy = 100 * results[same].accuracy.to_numpy()
            mean = mean_interval(accuracy)
            axis.plot([i - 0.15] * len(accuracy), accuracy, "o", ms=3, color="0.65", mec="none")
            axis.errorbar(i + 0.1, mean.mean, mean.half_width, fmt="s", ms=5, color="#0072B2", capsize=3)
        axis.set_xticks(range(len(part)), part.protection, rotation=40, ha="right")
        axis.set_title(f"cell fault rate {100 * rate:.2f}%, {part.chips.max()} chips")
        axis.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel("test accuracy, %\n(dots: chips; squares: mean, 95%)")
    for kind in ("png", "svg"):
        write_atomic(folder / f"accuracy.{kind}", lambda file, kind=kind: figure.savefig(file, format=kind, dpi=130))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path("out/cifar10"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cifar10"))
    given = parser.parse_args()
    own = summary_of(given.study / "own-cells")
    text = markdown(own)
    paper = given.study / "paper-cells"
    if (paper / "results.csv").is_file():
        text += "\n\nThe same network and rate in both mappings:\n\n" + mappings(own, summary_of(paper))
    given.out.mkdir(parents=True, exist_ok=True)
    write_atomic(given.out / "table.md", text + "\n")
    for variant in ("own-cells", "paper-cells"):
        if (given.study / variant / "results.csv").is_file():
            shutil.copyfile(given.study / variant / "results.csv", given.out / f"{variant}.csv")
    plot(pd.read_csv(given.study / "own-cells" / "results.csv"), own, given.out)
    print(text)


if __name__ == "__main__":
    main()

"""Tables and plot of the study of generators for every voltage, and of generators at low voltage.

    neuralfuse sweep benchmarks/studies/every_voltage.yaml --out out/every_voltage --workers 1
    python -m benchmarks.every_voltage --study out/every_voltage --out benchmarks/results/beyond/every_voltage

and on CIFAR-10 the same with `every_voltage_cifar10` in place of `every_voltage`.

Each variant of the study is a seed: other generators, other chips and, on the digits, another base network. Accuracies
are means over the chips of all seeds with 95% t-intervals, differences are paired by chip; beside them stands the
difference of each seed, because chips of one seed share their training. `each, all steps` has the first seed only.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from neuralfuse.results.statistics import mean_interval, paired_difference
from neuralfuse.study.data import build_transform
from neuralfuse.study.files import load_study
from neuralfuse.study.variants import folders
from neuralfuse.training.calibrate import storage_bytes
from neuralfuse.transforms.per_voltage import PerVoltage, constants
from sram import failure
from sram.files import write_atomic

VOLTAGES = ("none", "range", "film", "each", "each, all steps")
SUPPLIES = ("none", "range", "low voltage, untrained", "low voltage, trained")
DIFFERENCES = (
    *(("film", "range"), ("each", "range"), ("each, all steps", "range"), ("film", "each, all steps")),
    *(("range", "none"), ("low voltage, untrained", "range"), ("low voltage, trained", "range")),
    ("low voltage, trained", "low voltage, untrained"),
)


def rows_of(folder: Path) -> pd.DataFrame:
    """All rows with the curve's rate and the key `pair` of a chip of a seed."""
    rows = pd.read_csv(folder / "results.csv")
    rows["pair"] = rows.variant + "/" + rows.chip.astype(str)
    curve = failure.curve(rows.curve.iloc[0])
    rows["rate"] = curve.probability(rows.voltage.to_numpy())
    return rows


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each structure, voltage and protection."""
    lines = []
    for keys, part in rows.groupby(["structure", "voltage", "rate", "protection"], sort=False):
        mean = mean_interval(part.accuracy.to_numpy())
        names = ("structure", "voltage", "cell_fault_rate", "protection")
        lines.append(
            dict(zip(names, keys, strict=True))
            | {"chips": mean.chips, "accuracy": mean.mean, "low": mean.low, "high": mean.high}
            | {"worst_chip": part.accuracy.min(), "saving_weight_sram": part.saving_weight_sram.mean()}
        )
    return pd.DataFrame(lines)


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Paired by chip, for each structure and voltage where any bit reads wrong."""
    table = rows.pivot_table(index=["structure", "voltage", "variant", "pair"], columns="protection", values="accuracy")
    lines = []
    for (structure, voltage), part in table.groupby(level=["structure", "voltage"], sort=False):
        for treated, control in DIFFERENCES:
            both = part[[treated, control]].dropna()  # `each, all steps` was trained for one seed only
            found = paired_difference(both[treated].to_numpy(), both[control].to_numpy())
            seeds = (both[treated] - both[control]).groupby(level="variant").mean()
            lines.append(
                {"structure": structure, "voltage": voltage, "treated": treated, "control": control}
                | {"chips": found.chips, "difference": found.mean, "low": found.low, "high": found.high}
                | {f"difference_{name.replace('-', '_')}": value for name, value in seeds.items()}
            )
    return pd.DataFrame(lines).sort_values(["structure", "voltage"], ascending=[True, False], kind="stable")


def at_equal_saving(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy where the same share of weight-SRAM energy is saved, each chip linear between its supplies.

    At the four largest multiples of 2.5% that all of SUPPLIES reach.
    """
    lines = []
    reached = min(rows[rows.protection == name].saving_weight_sram.max() for name in SUPPLIES)
    savings = 0.025 * (np.arange(-3, 1) + np.floor(reached / 0.025 + 1e-9))
    for structure, found in rows.groupby("structure", sort=False):
        accuracy = {
            name: np.array(
                [
                    np.interp(savings, part.saving_weight_sram.to_numpy(), part.accuracy.to_numpy())
                    for _, part in found[found.protection == name].sort_values("saving_weight_sram").groupby("pair")
                ]
            )
            for name in SUPPLIES
        }
        for i, saving in enumerate(savings):
            for name in SUPPLIES:
                mean = mean_interval(accuracy[name][:, i])
                apart = paired_difference(accuracy[name][:, i], accuracy["range"][:, i])
                lines.append(
                    {"structure": structure, "saving": saving, "protection": name}
                    | {"accuracy": mean.mean, "low": mean.low, "high": mean.high}
                    | {"against_range": apart.mean, "against_low": apart.low, "against_high": apart.high}
                )
    return pd.DataFrame(lines)


def words(folder: Path) -> pd.DataFrame:
    """What each way keeps: words of weights, and for each supply constants of normalisation."""
    study = load_study(folder / "study.yaml")
    lines = []
    for protection in study.protections:
        if protection.neuralfuse is None:
            continue
        transform = build_transform(protection.neuralfuse, study)
        made = transform.generator
        members = list(made.members) if isinstance(made, PerVoltage) else [made]
        lines.append(
            {"protection": protection.name, "weight_bytes": storage_bytes(transform), "supplies": len(members)}
            | {"constants_a_supply": constants(members[0])}
        )
    return pd.DataFrame(lines)


def markdown(
    table: pd.DataFrame, apart: pd.DataFrame, equal: pd.DataFrame, kept: pd.DataFrame, clean: dict[str, float]
) -> str:
    parts = ["Clean accuracy " + ", ".join(f"{100 * value:.1f}% ({name})" for name, value in clean.items()) + "."]
    below = table[table.cell_fault_rate > 1e-6]
    for title, names in (("One for every voltage", VOLTAGES), ("At low voltage itself", SUPPLIES)):
        for structure in table.structure.unique():
            part = below[(below.structure == structure) & below.protection.isin(names)]
            parts.append(f"**{title}, {structure} maps**: accuracy, % [95% over {part.chips.max()} chips]")
            grid = part.assign(cell=[_accuracy(row) for row in part.itertuples()])
            parts.append(_grid(grid, names))
    saving = table[table.structure == table.structure.iloc[0]]
    cells = saving.assign(cell=[f"{100 * value:.1f}" for value in saving.saving_weight_sram])
    parts += ["**Saving of weight-SRAM energy, %**", _grid(cells[cells.protection.isin(SUPPLIES)], SUPPLIES)]
    for structure, part in equal.groupby("structure", sort=False):
        parts.append(f"**At equal saving of weight-SRAM energy, {structure} maps**: accuracy, % [95%] (minus `range`)")
        parts.append(_equal(part))
    parts.append("**Differences of accuracy, points** [95% over chips] (each seed)")
    for structure in table.structure.unique():
        part = apart[(apart.structure == structure) & apart.voltage.isin(below.voltage)]
        grid = part.assign(cell=[_difference(row) for row in part.itertuples()], cell_fault_rate=float("nan"))
        grid["protection"] = part.treated + " - " + part.control
        parts += [f"{structure} maps:", _grid(grid, [f"{a} - {b}" for a, b in DIFFERENCES])]
    parts.append("**Kept**: words of weights, and constants of normalisation (a scale and a shift a channel)")
    lines = ["| protection | bytes of weights | supplies | constants a supply |", "|---|---|---|---|"]
    lines += [
        f"| {r.protection} | {r.weight_bytes:,} | {r.supplies} | {r.constants_a_supply} |" for r in kept.itertuples()
    ]
    return "\n\n".join([*parts, "\n".join(lines)]) + "\n"


def _grid(table: pd.DataFrame, names) -> str:
    """Column `cell` with a line for each voltage and a column for each protection."""
    wide = table.pivot(index="voltage", columns="protection", values="cell").sort_index(ascending=False)
    rates = table.groupby("voltage").cell_fault_rate.first()
    lines = ["| supply, Vmin | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for voltage, row in wide.iterrows():
        rate = "" if pd.isna(rates[voltage]) else f" ({100 * rates[voltage]:.2g}%)"
        lines.append(f"| {voltage:g}{rate} | " + " | ".join(row[name] for name in names) + " |")
    return "\n".join(lines)


def _equal(table: pd.DataFrame) -> str:
    lines = ["| saving, % | " + " | ".join(SUPPLIES) + " |", "|---" * (len(SUPPLIES) + 1) + "|"]
    for saving, part in table.groupby("saving"):
        cells = [f"{_accuracy(row)} ({100 * row.against_range:+.1f})" for row in part.itertuples()]
        lines.append(f"| {100 * saving:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _accuracy(row) -> str:
    chips = f" ({row.chips} chips)" if row.protection == "each, all steps" else ""
    return f"{100 * row.accuracy:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]{chips}"


def _difference(row) -> str:
    seeds = [v for name, v in row._asdict().items() if name.startswith("difference_") and not pd.isna(v)]
    each = ", ".join(f"{100 * value:+.1f}" for value in seeds)
    return f"{100 * row.difference:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}] ({each})"


def plot(table: pd.DataFrame, folder: Path) -> None:
    """Left: accuracy by supply of what is for every voltage. Right: accuracy by saving of what runs at low voltage."""
    import matplotlib
    from matplotlib.figure import Figure

    from neuralfuse.report import plots

    structures, low = table.structure.unique(), table.voltage[table.cell_fault_rate > 1e-6]
    with matplotlib.rc_context(plots.RC):
        figure = Figure(figsize=(10, 3.2 * len(structures)), layout="constrained")
        axes = figure.subplots(len(structures), 2, sharey=True, squeeze=False)
        for row, structure in zip(axes, structures, strict=True):
            for axis, names, across in zip(row, (VOLTAGES, SUPPLIES), ("voltage", "saving_weight_sram"), strict=True):
                styles = plots.looks(names)
                for name in names:
                    part = table[(table.structure == structure) & (table.protection == name)].sort_values("voltage")
                    x = part[across] if across == "voltage" else 100 * part[across]
                    axis.plot(x, 100 * part.accuracy, label=name, ms=4, **styles[name])
                    axis.fill_between(x, 100 * part.low, 100 * part.high, color=styles[name]["color"], alpha=0.1, lw=0)
                axis.set_title(f"{structure} maps")
                axis.legend()
            row[0].set_xlim(low.max() + 0.005, low.min() - 0.0025)
            row[0].set_ylabel("test accuracy, % (bands: 95% over chips)")
            row[1].set_xlim(left=0)
        axes[-1][0].set_xlabel("supply of the weight SRAM, Vmin")
        axes[-1][1].set_xlabel("saving of weight-SRAM energy, %")
        plots.save(figure, folder, "every_voltage")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path("out/every_voltage"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/beyond/every_voltage"))
    given = parser.parse_args()
    rows = rows_of(given.study)
    table, apart = summary(rows), differences(rows)
    kept = words(next(iter(folders(given.study).values())))
    clean = (rows.groupby("variant").correct_clean.first() / rows.total.iloc[0]).to_dict()
    equal = at_equal_saving(rows)
    text = markdown(table, apart, equal, kept, clean)
    frames = {"results": rows.drop(columns=["pair", "rate"]), "summary": table, "differences": apart}
    for name, frame in (frames | {"equal_saving": equal}).items():
        write_atomic(given.out / f"{name}.csv", frame.to_csv(index=False))
    write_atomic(given.out / "table.md", text)
    plot(table, given.out)
    print(text)


if __name__ == "__main__":
    main()

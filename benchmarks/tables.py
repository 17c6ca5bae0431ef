"""The tables and pictures of benchmarks/results, from the rows there: `python -m benchmarks.tables [FOLDER...]`.

Every comparison is on the same chips, paired, with 95% intervals over chips (`neuralfuse.report.paired`).
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from neuralfuse.report import paired, plots
from neuralfuse.results.tables import read_table
from neuralfuse.study.files import load_studies
from neuralfuse.training.calibrate import storage_bytes
from neuralfuse.transforms.generators import NeuralFuse, build
from neuralfuse.transforms.per_voltage import constants
from sram import failure
from sram.files import write_atomic

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
ROW = ["network", "structure", "rate", "method", "condition", "chip", "seed", "base_steps", "base_batch"]
ALSO = {
    **{"seeds": ("seed", "nunique"), "clean": ("clean_accuracy", "mean"), "bytes": ("storage_bytes", "max")},
    **{"queries": ("queries", "max"), "seconds": ("seconds", "mean"), "saving_system": ("saving_system", "mean")},
}
FORMS = {"seeds": "{}", "clean": "{:.1%}", "bytes": "{:,}", "queries": "{:,}", "parameters": "{:,.0f}"}
KEPT = ("parameters", "bytes", "supplies", "constants")
SHAPES = {"digits": (1, 16, 16), "cifar10": (3, 32, 32)}
SIDE = (
    r"images|steps|only|unknown|prior|of the lot|recalibrated|supply|supplies"  # questions with pictures of their own
)
PICTURES = {  # of benchmarks/results/beyond/cifar10: methods of the rate and structure measured first
    "supervision": r"main (affine(, (outputs only|statistics only|\d+ images))?)$",
    "robustness": r"(?!main).* affine|main affine(, .* unknown)?$",
    "queries": r"main affine(, \d+ steps of queries)?$",
    "few_steps": r"main (affine|tiny)(, \d+ steps( from .*)?| of the lot)?$",
}


def methods(folder: Path) -> str:
    """Rows of methods, each under a condition of the chip; a row that was measured twice counts once."""
    rows = read_table(folder / "rows.csv").drop_duplicates(ROW)
    bases, by = ["unprotected", "generic", "affine"], ["structure", "rate", "condition"]
    table = paired.compare(rows, bases, "method", by, **ALSO)
    write_atomic(folder / "table.csv", table.to_csv(index=False, float_format="%.6g"))
    main = table[(table.condition == "main") & ~table.method.str.contains(SIDE)]
    main = main[main.groupby(["structure", "rate"]).method.transform("size") > 1]
    plots.save(paired.accuracy(main, "method", ["structure", "rate"]), folder, "main")
    one = table[(table.structure == table.structure[0]) & (table.rate == table.rate[0])]
    for name, wanted in PICTURES.items() if folder.name == "cifar10" else ():
        shown = one[(one.condition + " " + one.method).str.match(wanted)]
        plots.save(paired.differences(shown, "unprotected", "method", ["condition"]), folder, name)
    return paired.markdown(table, "method", **FORMS)


def every_voltage(folder: Path) -> str:
    """Generators for every voltage; chips of two seeds, with generators of their own, count together."""
    rows = _rated(folder / "results.csv").join(kept(folder.name), on="protection")
    chip = ["variant", "chip"]
    bases, by = ["none", "range", "each, all steps", "low voltage, untrained"], ["structure", "voltage", "rate"]
    table = paired.compare(rows, bases, "protection", by, chip, "variant", **first(*KEPT[1:]))
    equal = paired.compare(paired.at_equal_saving(rows, chip=chip), ["range"], by=["structure", "saving"], chip=chip)
    for name, made in {"table": table, "equal_saving": equal}.items():
        write_atomic(folder / f"{name}.csv", made.to_csv(index=False, float_format="%.6g"))
    low = table[table.rate > 1e-6]
    for x, name in {"voltage": "accuracy", "saving_weight_sram": "every_voltage"}.items():
        plots.save(paired.accuracy(low, x=x), folder, name)
    forms = FORMS | {"supplies": "{:.0f}", "constants": "{:.0f}", "bytes": "{:,.0f}"}
    return f"{paired.markdown(table, **forms)}\nAt equal saving\n\n{paired.markdown(equal)}"


def kept(study: str) -> pd.DataFrame:
    """Of each protection of a study: parameters of its generators, bytes of their words, at how many supplies, and
    constants of normalisation at each."""
    found = {}
    for config in load_studies(HERE / "studies" / f"{study}.yaml").values():
        channels, *size = SHAPES[config.dataset.name]
        for protection in config.protections:
            if (fuse := protection.neuralfuse) is not None:
                made = build(fuse.generator, channels, size=(size[0], size[1]), **fuse.options)
                supplies = len(fuse.train_voltages or ()) if fuse.per_voltage else 1
                stored = storage_bytes(NeuralFuse(made)) * (supplies if fuse.per_voltage == "each" else 1)
                count = sum(part.numel() for part in made.parameters())
                found[protection.name] = count, stored, supplies, constants(made)
    return pd.DataFrame.from_dict(found, "index", columns=list(KEPT))


def first(*names: str) -> dict[str, tuple[str, str]]:
    """Columns that say the same in all rows of a line."""
    return {name: (name, "first") for name in names}


def filter_scales(folder: Path) -> str:
    """The same network with two kinds of words, in the same chips."""
    rows, by = _variants(folder), ["variant", "structure", "rate", "protection"]
    table = paired.compare(rows, ["one scale a tensor"], "network", by, images=("total", "first"))
    write_atomic(folder / "table.csv", table.to_csv(index=False, float_format="%.6g"))
    shown = table[(table.variant == "resnet14") & (table.structure == "iid") & (table.rate > 0)]
    plots.save(paired.accuracy(shown, "network", ["protection"]), folder, "accuracy")
    return paired.markdown(table, "network", images="{:,}")


def generators(folder: Path) -> str:
    """Six generators and the universal perturbation, with both mappings of weights to cells."""
    rows = _variants(folder).join(kept(folder.name), on="protection")
    table = paired.compare(rows, by=["variant", "rate"], **first("parameters"))
    table["points a million parameters"] = 100e6 * table.minus_none / table.parameters
    write_atomic(folder / "table.csv", table.to_csv(index=False, float_format="%.6g"))
    plots.save(paired.accuracy(table[table.rate > 0], panels=["variant", "rate"]), folder, "accuracy")
    return paired.markdown(table, **FORMS | {"points a million parameters": "{:+.1f}"})


def for_all_chips(folder: Path) -> str:
    """Recipes for generators; beside each the network without one, where its supply saves as much."""
    rows = read_table(folder / "rows.csv")
    also = {name: (name, "mean") for name in ("clean", "steps", "seconds", "parameters", "saving_system")}
    bases = ["unprotected", "paper: ConvS, N 10"]
    table = paired.compare(rows, bases, "variant", ["dataset", "rate"], seed="seed", **also)
    bare = read_table(folder / "same_saving.csv").round({"saving": 6}).groupby(["dataset", "saving"]).accuracy.mean()
    saved = table.saving_weight_sram.clip(lower=0).round(6)
    table["unprotected, saving as much"] = bare.reindex([*zip(table.dataset, saved, strict=True)]).to_numpy()
    table["unprotected, saving as much"] = table["unprotected, saving as much"].fillna(table.accuracy)
    write_atomic(folder / "table.csv", table.to_csv(index=False, float_format="%.6g"))
    plots.save(paired.differences(table, "unprotected", "variant", ["dataset"]), folder, "generic")
    forms = dict.fromkeys(["steps", "seconds"], "{:,.0f}")
    forms |= dict.fromkeys(["saving_system", "unprotected, saving as much"], "{:.1%}")
    return paired.markdown(table, "variant", **FORMS | forms)


def _rated(path: Path) -> pd.DataFrame:
    """Rows of a built-in curve, with its cell fault rate."""
    rows = read_table(path)
    return paired.with_rates(rows, failure.curve(str(rows.curve.iloc[0])))


def _variants(folder: Path) -> pd.DataFrame:
    """The rows of a study's variants, one file each."""
    files = [path for path in sorted(folder.glob("*.csv")) if "hardening" not in path.name and path.stem != "table"]
    return pd.concat([_rated(path).assign(variant=path.stem) for path in files])


FOLDERS: dict[str, Callable[[Path], str]] = {
    **{f"beyond/{name}": methods for name in ("cifar10", "digits", "resnet18", "resnet18_checkpoint",
                                              "resnet18_methods", "vgg19", "vgg19_methods")},
    **{f"beyond/{name}": every_voltage for name in ("every_voltage", "every_voltage_cifar10")},
    "beyond/filter_scales": filter_scales,
    "beyond/generic": for_all_chips,
    "cifar10": generators,
}  # fmt: skip


def main() -> None:
    for folder in map(Path, sys.argv[1:] or [RESULTS / name for name in FOLDERS]):
        make = FOLDERS.get(os.path.relpath(folder.resolve(), RESULTS))
        if make is None:
            sys.exit(f"{folder}: not one of {', '.join(FOLDERS)} in {RESULTS}")
        write_atomic(folder / "table.md", make(folder))


if __name__ == "__main__":
    main()

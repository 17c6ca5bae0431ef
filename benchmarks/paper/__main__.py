"""The NeuralFuse paper's accuracies beside ours.

    python -m benchmarks.paper                                   # what is printed, what was run, what was not
    python -m benchmarks.paper --run relaxed_access/cifar10 --networks resnet18,vgg19 \\
        --generators ConvL,ConvS,UNetL,UNetS --device cuda       # days on two cores, hours on a GPU
    python -m benchmarks.paper --run lambda --steps 2000 --epochs 20

Each study is a file beside this one; its results lie in OUT/STUDY/VARIANT, and a run that was killed goes on. Networks
and generators that are not asked for are left out; fewer steps or epochs are said in the table.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from benchmarks.paper import energy
from benchmarks.paper.anchors import Anchor, anchors, efficiency, million_parameters, percent
from neuralfuse.results.statistics import mean_interval
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.files import load_studies, load_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.sweep.executors import choose
from neuralfuse.sweep.run import run_study
from sram import failure
from sram.errors import InputError
from sram.progress import steps

HERE = Path(__file__).parent
STUDIES = ("relaxed_access", "transfer", "reduced_precision", "lambda", "maps", "universal_perturbation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="append", default=[], metavar="STUDY[/VARIANT]", help=", ".join(STUDIES))
    parser.add_argument("--out", type=Path, default=Path("out/paper"))
    parser.add_argument("--root", help="folder of the data; default: as in the study files, data/NAME")
    parser.add_argument("--networks", help="only these, with commas between them")
    parser.add_argument("--generators", help="only these, with commas between them")
    parser.add_argument("--steps", type=int, help="training steps of each generator instead of 30000")
    parser.add_argument("--epochs", type=int, help="training epochs of each network instead of 60")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    try:
        for name in given.run:
            study, _, variant = name.partition("/")
            if study not in STUDIES:
                raise InputError("command line", "--run", study, ", ".join(STUDIES))
            _run(study, variant, given)
    except InputError as error:
        parser.exit(2, f"{error}\n")
    print_tables(given.out)
    print("\nEnergy (Tables 2, 6, 8), every figure: python -m benchmarks.paper.energy")
    for title, rows in energy.compare().items():
        slips = sum(row.erratum for row in rows)
        known = f", {slips} known slip of the paper" if slips else ""
        print(f"{title}: {sum(row.agrees for row in rows)} of {len(rows)} agree{known}")


def _run(name: str, variant: str, given: argparse.Namespace) -> None:
    studies = load_studies(HERE / f"{name}.yaml")
    if variant and variant not in studies:
        raise InputError("command line", "--run", f"{name}/{variant}", f"variants {', '.join(studies)}")
    workers = choose(1 if given.device != "cpu" else given.workers)
    for key, study in studies.items():
        if variant in ("", key):
            with steps() as say:
                run_study(StudyFolder(given.out / name / key, reduced(study, given)), workers, say)


def reduced(study: StudyConfig, given: argparse.Namespace) -> StudyConfig:
    """The study with only the networks and generators asked for, trained as long as asked for."""
    content = study.model_dump(mode="json")
    content["device"] = given.device
    if given.root:
        content["dataset"]["root"] = given.root
    if given.networks:
        names = given.networks.split(",")
        content["networks"] = [n for n in content["networks"] if n["name"].partition("-")[0] in names]
    if given.generators:
        names = ["none", *given.generators.split(",")]
        content["protections"] = [p for p in content["protections"] if p["name"].split()[0] in names]
    have = {network["name"] for network in content["networks"]}
    content["protections"] = [  # a surrogate that is not there cannot teach
        p for p in content["protections"] if not p["neuralfuse"] or set(p["neuralfuse"]["train_on"] or have) <= have
    ]
    for network in content["networks"]:
        network["training"] |= {"epochs": given.epochs} if given.epochs else {}
    for protection in content["protections"]:
        if protection["neuralfuse"] and given.steps:
            protection["neuralfuse"]["training"]["steps"] = given.steps
    return StudyConfig.model_validate(content)


def print_tables(out: Path) -> None:
    """Paper and ours side by side; what was not run is counted, and named by study and variant."""
    groups: dict[tuple[str, str], list[Anchor]] = {}
    for anchor in anchors():
        groups.setdefault((anchor.study, anchor.variant), []).append(anchor)
    missing = []
    for (study, variant), printed in groups.items():
        folder = out / study / variant
        if not (folder / "results.csv").is_file():
            missing.append(f"{study}/{variant} ({len(printed)} figures)")
            continue
        results = pd.read_csv(folder / "results.csv")
        settings = load_study(folder / "study.yaml")
        _print_group(f"{study}/{variant}", printed, results, settings)
        if study == "relaxed_access" and variant == "cifar10":
            _print_efficiency(results, settings)
            own = out / study / "cifar10-own-cells" / "results.csv"
            if own.is_file():
                _print_mappings(printed, results, pd.read_csv(own), settings)
    if missing:
        print("\nNot run: " + "; ".join(missing))


def _print_group(title: str, printed: Iterable[Anchor], results: pd.DataFrame, settings: StudyConfig) -> None:
    print(f"\n{title}   accuracy under faults, %; bands: std over maps | 95% interval of the mean over chips")
    print(f"trained: {training_of(settings)}")
    print(f"{'network':<18}{'protection':<30}{'rate':>6}  {'paper':>12}  {'ours':>12}  {'interval':>14}")
    inside, run, skipped = 0, 0, 0
    for anchor in printed:
        rows = rows_of(results, settings, anchor.network, anchor.protection, anchor.rate)
        if len(rows) < 2:
            skipped += 1
            continue
        accuracy = 100 * rows.accuracy.to_numpy()
        interval, std = mean_interval(accuracy), float(accuracy.std(ddof=1))
        within = anchor.std is not None and interval.mean >= anchor.mean - anchor.std
        inside, run = inside + within, run + 1
        printed_std = "" if anchor.std is None else f"±{anchor.std:.1f}"
        print(
            f"{anchor.network:<18}{anchor.protection:<30}{percent(anchor.rate):>6}  {anchor.mean:6.1f}{printed_std:>6}"
            f"  {interval.mean:6.1f}{f'±{std:.1f}':>6}  [{interval.low:5.1f},{interval.high:5.1f}]"
            f"{'' if within else '  below the band'}"
        )
    print(f"{inside} of {run} in the paper's band or better; {skipped} of the printed figures not run")


def rows_of(results: pd.DataFrame, study: StudyConfig, network: str, protection: str, rate: float) -> pd.DataFrame:
    """Rows of one point at the supply where the study's curve has this rate."""
    supply = round(float(failure.curve(study.sram.curve).voltage(rate)), 6)
    same = (results.network == network) & (results.protection == protection) & (results.voltage == supply)
    return results[same]


def training_of(study: StudyConfig) -> str:
    """How long networks and generators were trained, as the study says."""
    epochs = {n.training.epochs if n.checkpoint is None else "given weights" for n in study.networks}
    fuses = [p.neuralfuse for p in study.protections if p.neuralfuse]
    generator = {fuse.training.steps if fuse.training else "given weights" for fuse in fuses}
    return f"epochs {', '.join(map(str, epochs))}; generator steps {', '.join(map(str, generator)) or 'none'}"


def _print_efficiency(results: pd.DataFrame, study: StudyConfig) -> None:
    print("\nTable 3: points won back per million parameters of the generator, CIFAR-10")
    for network, generator, rate, paper in efficiency():
        bare = rows_of(results, study, network, "none", rate)
        fused = rows_of(results, study, network, f"{generator} {percent(rate)}", rate)
        if len(bare) and len(fused):
            won = 100 * (fused.accuracy.mean() - bare.accuracy.mean()) / million_parameters(generator)
            print(f"{network:<12}{generator:<10}{percent(rate):>6}  paper {paper:6.1f}  ours {won:6.1f}")


def _print_mappings(printed: Iterable[Anchor], paper: pd.DataFrame, own: pd.DataFrame, study: StudyConfig) -> None:
    print("\nDoes the mapping matter? The paper's (a cell hits 16 weights of every layer) | a cell for each stored bit")
    for anchor in printed:
        sides = [rows_of(r, study, anchor.network, anchor.protection, anchor.rate).accuracy for r in (paper, own)]
        if all(len(side) > 1 for side in sides):
            shown = "  |  ".join(f"{100 * side.mean():5.1f} ±{100 * side.std():4.1f}" for side in sides)
            print(f"{anchor.network:<18}{anchor.protection:<30}{percent(anchor.rate):>6}  {shown}")


if __name__ == "__main__":
    main()

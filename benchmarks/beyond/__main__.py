"""Transforms fitted to one chip against everything else, on the same chips.

    python -m benchmarks.beyond --digits --chips 4
    python -m benchmarks.beyond --root CIFAR --base benchmarks/checkpoints/cifar10-resnet14.safetensors --chips 20
    python -m benchmarks.beyond --report --out benchmarks/results/beyond

CIFAR holds cifar-10-batches-bin, cifar-10-batches-py or images. Every method is measured on every chip with every
seed, chip by chip, and one row appended when it is done; what is in rows.csv is not done again. Test images are used
for nothing but accuracy. hardening-NETWORK-STRUCTURE-RATE.csv says which bits of which layers were hardened by layer.
"""

import argparse
import csv
import io
import os
import sys
from pathlib import Path

import pandas as pd
import torch

from benchmarks.beyond import report
from benchmarks.beyond.fits import Fit, Fitter, Prior
from benchmarks.beyond.lot import BY_LAYER, CONDITIONS, OTHERS, SHARES, Lot, Plan, digits_base
from benchmarks.beyond.methods import METHODS, Method, run
from benchmarks.beyond.retrained import retrained
from neuralfuse.cli.progress import steps as progress
from neuralfuse.study.digest import RESULTS_VERSION
from neuralfuse.study.file_names import generator_file
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.prepare import prepare
from neuralfuse.sweep.allocator import keep_freed_memory
from neuralfuse.training.calibrate import Settings
from neuralfuse.training.settings import PRECISIONS
from sram.files import write_atomic

KEY = ["network", "structure", "rate", "method", "condition", "chip", "seed", "base_steps", "base_batch"]
MEASURED = ["dataset", "schedule", "curve", "voltage", "test_images", "steps", "batch", "images", "supervision",
            "access", "queries", "seconds", "storage_bytes", "saving_weight_sram", "saving_system", "clean_accuracy",
            "accuracy", "code"]  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", action="store_true", help="embedded digits and a resnet8 trained here")
    parser.add_argument("--root", help="folder of CIFAR-10")
    parser.add_argument("--base", help="checkpoint of the frozen network")
    parser.add_argument("--network", default="resnet14")
    parser.add_argument("--options", default="width=32,first_stride=2", help="of the network's builder")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/beyond"))
    parser.add_argument("--work", type=Path, help="folder of networks and generators; default OUT/work")
    parser.add_argument("--only", help="methods, with ';' between them (default all); see --list")
    parser.add_argument("--conditions", default=",".join(CONDITIONS), help="of " + ", ".join(CONDITIONS))
    parser.add_argument("--list", action="store_true", help="names of the methods")
    parser.add_argument("--chips", type=int, default=20)
    parser.add_argument("--seeds", default="0", help="of fits; the first of the retrained network, too")
    parser.add_argument("--structures", default="iid,column", help="of iid, column, paper")
    shares = ", ".join(f"{name} {share:g}" for name, share in SHARES.items())
    parser.add_argument("--rates", default="0.02", help=f"cell fault rates; supplies at shares of it: {shares}")
    parser.add_argument("--curve", default="ibm14")
    parser.add_argument("--schedule", default="resident", choices=["streamed", "resident"])
    parser.add_argument("--test-images", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--pixel-rate", type=float, help="learning rate of numbers of pixels; default calibrate's")
    parser.add_argument(
        "--precision", default="float32", choices=list(PRECISIONS), help="of fits, and of the retraining"
    )
    parser.add_argument("--generator", default="ConvS", help="the generic one, and the one fitted from scratch")
    parser.add_argument("--width", type=int, help="its channels; default the paper's")
    parser.add_argument("--generic", help="its checkpoint, trained for all chips; without it, it is trained here")
    parser.add_argument("--generic-steps", type=int, default=800)
    parser.add_argument("--generic-maps", type=int, default=4)
    parser.add_argument("--generic-batch", type=int, default=64)
    text = "a study's folder of generators trained for all chips; of these " + ", ".join(OTHERS)
    parser.add_argument("--generators", type=Path, help=text)
    parser.add_argument("--retrain-epochs", type=int, default=1, help="of the network retrained with random bit errors")
    parser.add_argument("--report", action="store_true", help="only the tables and the plot, from rows.csv")
    return parser.parse_args()


def generic_of(given: argparse.Namespace, methods: list[Method]) -> dict | None:
    """The generator for all chips; none where it would have to be trained and no method starts from it."""
    generic: dict = {"generator": given.generator, "options": {"width": given.width} if given.width else {}}
    if given.generic:
        return generic | {"checkpoint": given.generic}
    if not any(begins_with(m.transform) == "generic" for m in methods):
        return None
    training = dict(steps=given.generic_steps, maps=given.generic_maps, batch=given.generic_batch, decay="cosine",
                    learning_rate=0.005)  # fmt: skip
    return generic | {"training": training | (dict(flip=False, shift=0) if given.digits else {})}


def begins_with(transform: Fit | Prior | str | None) -> str | None:
    """The name of what the first of the fits starts from."""
    while isinstance(transform, Fit | Prior):
        transform = transform.start
    return transform


def plan_of(given: argparse.Namespace, structure: str, rate: float, work: Path, generic: dict | None) -> Plan:
    if given.digits:
        dataset = {"name": "digits"}
        network = {"name": "resnet8", "checkpoint": str(digits_base(work / "resnet8.safetensors"))}
    else:
        dataset = {"name": "cifar10", "root": given.root, "test_images": given.test_images}
        pairs = dict(pair.split("=") for pair in given.options.split(",") if pair)
        options = {key: int(value) for key, value in pairs.items()}
        network = {"name": given.network, "options": options, "checkpoint": given.base}
    others = {}
    if given.generators:
        files = {name: given.generators / generator_file([given.network], name) for name in OTHERS}
        others = {name: str(file) for name, file in files.items() if file.is_file()}
    return Plan(dataset, network, structure, rate, given.curve, given.schedule, generic, others)


def append(path: Path, row: dict) -> None:
    """One whole line at a time."""
    text = io.StringIO()
    writer = csv.DictWriter(text, KEY + MEASURED, lineterminator="\n")
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not before:
        writer.writeheader()
    elif not before.endswith("\n"):  # a run was killed in the middle of a line
        text.write("\n")
    writer.writerow(row)
    with open(path, "a", encoding="utf-8", newline="") as file:
        file.write(text.getvalue())
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> pd.DataFrame:
    """The whole rows, each once: two runs side by side may both have measured one."""
    if not path.is_file():
        return pd.DataFrame(columns=KEY + MEASURED)
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if _whole(line)]
    return pd.read_csv(io.StringIO("\n".join(lines))).drop_duplicates(KEY, ignore_index=True)


def _whole(line: str) -> bool:
    """A torn line lacks fields, the last of which is the code's hash."""
    return line.count('"') % 2 == 0 and len(next(csv.reader([line]), [])) == len(KEY + MEASURED)


def applies(method: Method, plan: Plan) -> bool:
    """The paper's mapping has no memory words to protect; a generic generator needs a checkpoint."""
    if plan.structure == "paper" and method.sram != "none":
        return False
    start = method.transform
    return not (isinstance(start, str) and start.startswith("generic ") and start[8:] not in plan.others)


def measure(given: argparse.Namespace, lots: dict[bool, Lot], plan: Plan, methods: list[Method], path: Path) -> None:
    """`lots`: with the network as it is, and (True) retrained."""
    settings, scratch = Settings(given.steps, given.batch, precision=given.precision), (given.generator, given.width)
    fitters = {key: Fitter(lot, settings, scratch, given.pixel_rate) for key, lot in lots.items()}
    done = {tuple(map(str, row)) for row in read(path)[KEY].itertuples(index=False)}
    first, *others = map(int, given.seeds.split(","))
    for chip in range(given.chips):
        for seed in (first, *others):
            for method in methods:
                if method.fit is None and seed != first:
                    continue  # nothing random in what is not fitted
                key = [plan.network["name"], plan.structure, plan.rate, method.name, method.condition, chip, seed]
                key += [given.steps, given.batch]
                if tuple(map(str, key)) in done:
                    continue
                lot = lots[method.retrained]
                found = run(method, fitters[method.retrained], chip, seed)
                changes = method.fit.changes if method.fit else {}
                row = dict(zip(KEY, key, strict=True)) | dict(
                    dataset=plan.dataset["name"], schedule=lot.study.sram.schedule, curve=plan.curve,
                    voltage=lot.voltages[method.condition], test_images=len(lot.bench.labels),
                    steps=found.took.steps, batch=changes.get("batch", given.batch), images=found.took.images,
                    supervision=changes.get("supervision", "labels") if method.fit else "",
                    access=changes.get("access", "gradient") if method.fit else "",
                    queries=found.took.queries, seconds=round(found.seconds, 2), storage_bytes=found.storage_bytes,
                    saving_weight_sram=found.saving_weight_sram, saving_system=found.saving_system,
                    clean_accuracy=lot.clean, accuracy=found.accuracy, code=RESULTS_VERSION,
                )  # fmt: skip
                append(path, row)
                print(f"{plan.structure} {plan.rate:g} chip {chip} seed {seed} {method.name} ({method.condition}): "
                      f"{found.accuracy:.3f} in {found.seconds:.1f} s", file=sys.stderr, flush=True)  # fmt: skip


def main() -> None:
    keep_freed_memory()
    given = arguments()
    path = given.out / "rows.csv"
    names = list(dict.fromkeys(method.name for method in METHODS))
    if given.list:
        print("\n".join(names))
        return
    only = [name.strip() for name in given.only.split(";")] if given.only else names
    unknown = [name for name in only if name not in names]
    if unknown or not (given.report or given.digits or (given.root and given.base)):
        sys.exit(f"no such method: {unknown[0]}" if unknown else "give --digits, or --root and --base, or --report")
    conditions = given.conditions.split(",")
    chosen = [m for m in METHODS if m.name in only and m.condition in conditions]
    if not given.report:
        given.out.mkdir(parents=True, exist_ok=True)
        work = given.work or given.out / "work"
        for structure in given.structures.split(","):
            for rate in map(float, given.rates.split(",")):
                plan = plan_of(given, structure, rate, work, generic_of(given, chosen))
                folder = work / f"{plan.network['name']}-{structure}-{rate:g}"
                methods = [m for m in chosen if applies(m, plan)]
                absent = [name for name in OTHERS if f"generic {name}" in only and name not in plan.others]
                if absent and given.only:
                    sys.exit(f"{given.generators or '--generators'}: no {generator_file([given.network], absent[0])}")
                with progress() as say:
                    prepare(StudyFolder(folder, plan.study()), say)
                    lots = {False: Lot(folder)}
                    if any(m.retrained for m in methods):
                        seed, epochs, lot = int(given.seeds.split(",")[0]), given.retrain_epochs, lots[False]
                        file = work / f"{lot.name}-randbet-{rate:g}-{epochs}{f'-{seed}' if seed else ''}.safetensors"
                        lots[True] = lot.holding(
                            retrained(lot.bench, lot.name, file, rate, epochs, say, seed, given.precision)
                        )
                chosen_bits = given.out / f"hardening-{folder.name}.csv"
                if any(m.sram == BY_LAYER for m in methods) and not chosen_bits.is_file():
                    write_atomic(chosen_bits, lots[False].hardening.to_csv(index=False, float_format="%.6g"))
                measure(given, lots, plan, methods, path)
    print(report.write(given.out, read(path)))


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    main()

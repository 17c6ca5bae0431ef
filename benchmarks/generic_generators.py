"""Better generators for all chips? Recipes, objectives and small generators, each given the same number of passes.

    python -m benchmarks.generic_generators --data digits --seeds 0,1
    python -m benchmarks.generic_generators --data cifar10 --root data/cifar10
    python -m benchmarks.generic_generators --report

Every variant passes `--budget` images forward and backward through the frozen network, on training chips whose memory
has a cell of its own for every stored bit; it is then measured on chips that no training saw. What is in rows.csv is
not made again, and a training that was killed goes on.
"""

import argparse
import re
import time
from pathlib import Path

import pandas as pd
import torch
from scipy.optimize import brentq
from torch import nn

from benchmarks.generic_report import UNPROTECTED, saving_key, write
from benchmarks.generic_variants import VARIANTS, Averaged, Variant
from neuralfuse import evaluate, generators, training
from neuralfuse.cli.progress import Advance
from neuralfuse.cli.progress import steps as progress
from neuralfuse.config import StudyConfig, parse_study
from neuralfuse.cost import machine_of, scopes
from neuralfuse.quantize import quantize_in_place
from neuralfuse.stored import training_source
from neuralfuse.sweep.artifacts import read_workload
from neuralfuse.sweep.bench import Bench
from neuralfuse.sweep.prepare import prepare
from simulator.cycles import simulate
from simulator.workload import trace
from sram import failure
from sram.files import write_atomic

MACHINE = "paper"
RATES = {"digits": 0.03, "cifar10": 0.0175}  # cell fault rates where the bare network keeps 35 to 50%
BATCH = {"digits": 32, "cifar10": 64}
AUGMENT: dict[str, dict] = {"digits": {"flip": False, "shift": 0}, "cifar10": {}}  # digits have a left and a right
CHIPS_A_SEED = 1_000_000  # training chips of one seed; the next seed has others


def study_of(name: str, root: str | None, test_images: int) -> StudyConfig:
    network: dict = {"name": "resnet8", "training": {"epochs": 10, "flip": False, "shift": 2}}
    dataset: dict = {"name": name}
    if name == "cifar10":
        checkpoint = "benchmarks/checkpoints/cifar10-resnet14.safetensors"
        network = {"name": "resnet14", "options": {"width": 32, "first_stride": 2}, "checkpoint": checkpoint}
        dataset |= {"root": root, "test_images": test_images}
    content = {
        "name": f"generators for all chips, {name}",
        "dataset": dataset,
        "networks": [network],
        "accelerators": [MACHINE],
        "sram": {"structures": ["iid"], "schedule": "resident"},
        "cell_fault_rates": [RATES[name]],
    }
    return parse_study(content, "generic generators")


class Setting:
    """A frozen network with its images, its memory, chips to train on and chips to measure on."""

    def __init__(self, folder: Path):
        self.bench = Bench(folder)
        self.dataset = self.bench.study.dataset.name
        self.name = self.bench.study.networks[0].name
        self.voltage = self.bench.study.voltages[0]
        self.faulty = self.bench.network(self.name)
        self.counts = simulate(read_workload(folder, self.name), machine_of(MACHINE))
        self.nominal = failure.curve(self.bench.study.sram.curve).nominal

    def trained(self, variant: Variant, steps: int, seed: int, partial: Path, advance: Advance) -> nn.Module:
        channels, *_ = self.bench.data.input_shape
        made = generators.NeuralFuse(generators.build(variant.generator, channels, seed=seed, **variant.options))
        placed = self.bench.placement(self.name, MACHINE)
        chips = training_source(self.bench.study, placed, self.faulty, (self.voltage,))
        objective = variant.objective if variant.average is None else Averaged(variant.average)
        training.train_generator(
            self.faulty, made, self.bench.data, lambda draw: chips(seed * CHIPS_A_SEED + draw), steps,
            BATCH[self.dataset], variant.maps, decay=variant.decay, learning_rate=variant.learning_rate, seed=seed,
            objective=objective, checkpoint_path=None if isinstance(objective, Averaged) else partial,
            progress=advance, **AUGMENT[self.dataset],
        )  # fmt: skip
        return quantize_in_place(objective.take(made)).eval() if isinstance(objective, Averaged) else made

    def measured(self, made: nn.Module | None, chips: int, voltage: float | None = None) -> tuple[float, list[float]]:
        """Accuracy without faults, and of each chip."""
        images, labels = self.bench.images, self.bench.labels
        seen = images if made is None else evaluate.transform(made, images)
        clean = evaluate.correct(self.faulty, seen, labels) / len(labels)
        accuracy = []
        for chip in range(chips):
            stored = self.bench.chip(self.name, MACHINE, "iid", chip, ())
            self.faulty.set_faults(*stored.faults(voltage or self.voltage))
            accuracy.append(evaluate.correct(self.faulty, seen, labels) / len(labels))
        self.faulty.restore()
        return clean, accuracy

    def bare_at(self, saving: float, chips: int) -> pd.DataFrame:
        """The network without a generator, at the higher supply that saves as much of the weight-SRAM energy."""
        voltage = self.nominal
        if saving > 0:
            voltage = brentq(lambda v: self.savings(None, v)[0] - saving, self.voltage, self.nominal)
        _, accuracy = self.measured(None, chips, voltage)
        rate = float(failure.curve(self.bench.study.sram.curve).probability(voltage))
        return pd.DataFrame(
            dict(dataset=self.dataset, saving=saving, voltage=voltage, rate=rate, chip=range(chips), accuracy=accuracy)
        )

    def savings(self, made: nn.Module | None, voltage: float | None = None) -> tuple[float, float]:
        """Shares of the bare network's energy at nominal supply, the generator's own counted: weight SRAM, system."""
        base, total = scopes(self.counts), scopes(self.counts, voltage or self.voltage, self.nominal)
        if made is not None:
            total = total + scopes(simulate(trace(made, self.bench.data.input_shape), machine_of(MACHINE)))
        return 1 - total.weight_sram / base.weight_sram, 1 - total.system / base.system


def rows_of(setting: Setting, variant: Variant | None, seed: int, given: argparse.Namespace) -> pd.DataFrame:
    """Train one variant (None: no generator) and measure it on every chip."""
    made, steps, start = None, 0, time.process_time()
    if variant is not None:
        steps = variant.steps(given.budget, BATCH[setting.dataset])
        partial = given.work / re.sub(r"[^a-z0-9]+", "-", f"{setting.dataset} {variant.name} {seed}".lower())
        with progress() as say:
            made = setting.trained(variant, steps, seed, partial, say(f"{variant.name}, seed {seed}"))
        partial.unlink(missing_ok=True)
    seconds = time.process_time() - start
    clean, accuracy = setting.measured(made, given.chips)
    weight_sram, system = setting.savings(made)
    print(f"{sum(accuracy) / len(accuracy):.4f} in {seconds:.0f} s", flush=True)
    return pd.DataFrame(
        dict(
            dataset=setting.dataset, network=setting.name, rate=RATES[setting.dataset],
            variant=variant.name if variant else UNPROTECTED, seed=seed, chip=range(given.chips), accuracy=accuracy,
            clean=clean, saving_weight_sram=weight_sram, saving_system=system, steps=steps, budget=given.budget,
            parameters=sum(p.numel() for p in made.parameters()) if made else 0, seconds=round(seconds, 1),
        )
    )  # fmt: skip


def with_bare(same: pd.DataFrame, setting: Setting, rows: pd.DataFrame, chips: int) -> pd.DataFrame:
    """Rows of the bare network at the saving of every variant that has none yet."""
    wanted = saving_key(rows[(rows.dataset == setting.dataset) & (rows.variant != UNPROTECTED)].saving_weight_sram)
    for saving in sorted(set(wanted) - set(same[same.dataset == setting.dataset].saving)):
        same = pd.concat([same, setting.bare_at(saving, chips)], ignore_index=True)
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=list(VARIANTS), default="digits")
    parser.add_argument("--root", help="folder of CIFAR-10")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/beyond/generic"))
    parser.add_argument("--work", type=Path, default=Path("out/generic"), help="networks and unfinished trainings")
    parser.add_argument("--budget", type=int, default=64_000, help="images forward and backward through the network")
    parser.add_argument("--chips", type=int, default=40)
    parser.add_argument("--test-images", type=int, default=500)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--only", help="variants, with ';' between them (default all)")
    parser.add_argument("--report", action="store_true", help="only the table and the plot, from rows.csv")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "rows.csv"
    rows = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["dataset", "variant", "seed"])
    same_path = given.out / "same_saving.csv"
    same = pd.read_csv(same_path) if same_path.is_file() else pd.DataFrame(columns=["dataset", "saving"])
    if not given.report:
        torch.set_num_threads(1)
        with progress() as say:
            prepare(study_of(given.data, given.root, given.test_images), given.work / given.data, say)
        setting = Setting(given.work / given.data)
        chosen = given.only.split(";") if given.only else [variant.name for variant in VARIANTS[given.data]]
        for seed in map(int, given.seeds.split(",")):
            for variant in [None, *(v for v in VARIANTS[given.data] if v.name in chosen)]:
                key = given.data, variant.name if variant else UNPROTECTED, seed if variant else 0
                if key not in set(rows[["dataset", "variant", "seed"]].itertuples(index=False, name=None)):
                    rows = pd.concat([rows, rows_of(setting, variant, seed, given)], ignore_index=True)
                    write_atomic(path, rows.to_csv(index=False))
        same = with_bare(same, setting, rows, given.chips)
        write_atomic(same_path, same.to_csv(index=False))
    print(write(given.out, rows, same))


if __name__ == "__main__":
    main()

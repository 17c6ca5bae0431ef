"""Time, memory and size of the page that `neuralfuse report` takes for large studies, made up without a measurement.

    python -m benchmarks.speed.report_speed [small rows ...]

Each study is reported on in a process of its own, start-up included. Processor time is what other work on the machine
stretches least; memory is the peak of what lay in it. Accuracies fall along a logistic curve around each chip's own
voltage, which a protection lowers.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from neuralfuse.quantized import checkpoint
from neuralfuse.results.pareto import SCOPES
from neuralfuse.results.rows import COLUMNS
from neuralfuse.results.tables import to_csv
from neuralfuse.study.config import NetworkConfig
from neuralfuse.study.data import build_network
from neuralfuse.study.files import parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.prepare import prepare

SIZES = {  # chips, voltages, protections; two structures of each
    "small": (20, 11, 2),
    "rows": (500, 20, 5),
    "voltages": (10, 1000, 2),
    "protections": (20, 11, 199),
}
CLEAN, TOTAL = 960, 1000  # right answers without a fault, of so many images


def made_up(folder: Path, chips: int, voltages: int, protections: int, names: tuple[str, ...] = ()) -> int:
    """Fill a folder as a finished sweep leaves it, but for its rows/; the number of its rows. Protections are called
    `names`, or by their numbers, behind `none`."""
    names = names or tuple(f"protection {i}" for i in range(1, protections))
    content = {
        "name": "made up",
        "networks": ["resnet8"],
        "voltages": np.linspace(1, 0.75, voltages).round(6).tolist(),
        "chips": {"evaluation": chips},
        "protections": ["none", *({"name": name, "sram": ["secded72"]} for name in names)],
    }
    with tempfile.TemporaryDirectory() as where:
        weights, study = Path(where) / "network.safetensors", parse_study(content, "made up")
        checkpoint.save(weights, build_network(study.networks[0], study).state_dict(), {})
        network = NetworkConfig(name="resnet8", checkpoint=str(weights))
        study = study.model_copy(update={"networks": (network,)})
        prepare(StudyFolder(folder, study), lambda text: lambda *progress: None)
    parts = [
        _rows(np.array(study.voltages), chips, study.curve, float(i)).assign(structure=structure, protection=name)
        for structure in study.forms
        for i, name in enumerate(("none", *names))
    ]
    names_of = {"network": "resnet8", "dataset": "digits", "accelerator": "paper", "curve": study.sram.curve}
    names_of |= {"rails": "weights alone"}
    rows = pd.concat(parts, ignore_index=True).assign(**names_of)[COLUMNS]
    (folder / "results.csv").write_text(to_csv(rows), newline="")
    return len(rows)


def _rows(voltages: np.ndarray, chips: int, curve, tougher: float) -> pd.DataFrame:
    """Numbers of every chip at every voltage, of a protection that much tougher than none."""
    random = np.random.default_rng(int(tougher))
    centres = random.normal(0.82 - 0.02 * np.sin(tougher), 0.01, chips)
    chip, voltage = (axis.ravel() for axis in np.meshgrid(np.arange(chips), voltages, indexing="ij"))
    share = 1 / (1 + np.exp(-(voltage - centres[chip]) / 0.008))
    correct = random.binomial(TOTAL, 0.1 + (CLEAN / TOTAL - 0.1) * share)
    rate = np.clip(curve.probability(voltage) * random.uniform(0.9, 1.1, len(chip)), 0, 1)
    cost = 0.0 if tougher == 0 else 0.05 + 0.01 * np.cos(tougher)
    savings = {"weight_sram": 1 - voltage**2 - cost, "sram": 0.3 * (1 - voltage**2) - cost / 3}
    savings["chip"] = 0.1 * (1 - voltage**2) - cost / 10
    savings["system"] = 0.022 * (1 - voltage**2) - cost / 50
    rows = pd.DataFrame({"chip": chip, "voltage": voltage, "correct": correct, "accuracy": correct / TOTAL})
    both = np.minimum(correct, CLEAN)
    rows = rows.assign(total=TOTAL, correct_clean=CLEAN, correct_both=both, test_images=TOTAL)
    rows = rows.assign(clean_accuracy=CLEAN / TOTAL, cell_fault_rate=rate, flip_rate=rate / 2, cycles=50_000)
    nominal = {"voltage_activations": 1.0, "voltage_accumulators": 1.0, "voltage_logic": 1.0}
    rows = rows.assign(**nominal, metric="accuracy", cell_fault_rate_activations=0.0, clock_hz=500e6, inference_s=1e-4)
    for scope in SCOPES:
        rows[f"saving_{scope}"], rows[f"energy_{scope}_pj"] = savings[scope], 1e6 * (1 - savings[scope])
    rows["inferences_per_s"] = 1 / rows.inference_s
    rows["energy_delay_chip_pj_s"] = rows.energy_chip_pj * rows.inference_s
    return rows


def report_on(folder: Path) -> tuple[float, float, float]:
    """Seconds of processor time and of the clock, and MiB of memory, of `neuralfuse report` in a new process."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "neuralfuse", "report", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{folder}: the report failed")
    unit = 1 if sys.platform == "darwin" else 1024
    return used.ru_utime + used.ru_stime, time.perf_counter() - start, used.ru_maxrss * unit / 2**20


def processor() -> str:
    """Its name, as the system gives it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", default=list(SIZES), metavar="SIZE", help=f"of {', '.join(SIZES)}; all")
    wanted = parser.parse_args().sizes
    if unknown := set(wanted) - set(SIZES):
        parser.error(f"{unknown.pop()}: none of {', '.join(SIZES)}")
    print(f"{processor()}, {os.cpu_count()} cores")
    print("| study | rows | processor time, s | clock, s | peak memory, MiB | page, MB | plots/, MB |")
    print("|---|---|---|---|---|---|---|")
    for name in wanted:
        chips, voltages, protections = SIZES[name]
        with tempfile.TemporaryDirectory() as where:
            folder = Path(where) / "study"
            rows = made_up(folder, chips, voltages, protections)
            seconds, clock, memory = report_on(folder)
            page = (folder / "report.html").stat().st_size / 1e6
            plots = sum(path.stat().st_size for path in (folder / "plots").iterdir()) / 1e6
        what = f"{chips} chips, {voltages} voltages, {protections} protections, 2 structures"
        numbers = f"{seconds:.1f} | {clock:.1f} | {memory:.0f} | {page:.2f} | {plots:.1f}"
        print(f"| {what} | {rows:,} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()

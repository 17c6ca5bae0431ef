"""How low may the supply of a decoder's keys and values go, by the format of their words?

    python -m benchmarks.kv_cache [--chips 20] [--out out/text]

The decoder of benchmarks/studies/text.yaml, trained as there (in --out, kept); keys and values in a buffer of their own
that holds each element of the window once, on chips of the study's lot; weights as trained. One row a chip, format and
supply goes to benchmarks/results/kv_cache: bits a character over the study's test windows, means, a figure.
"""

import argparse
from io import BytesIO
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from neuralfuse.quantized import evaluate
from neuralfuse.quantized.cache import FaultyCache
from neuralfuse.quantized.formats import WordFormat
from neuralfuse.quantized.metric import bits, counted
from neuralfuse.results.statistics import mean_interval
from neuralfuse.results.tables import to_csv
from neuralfuse.study.data import load_data, test_set
from neuralfuse.study.prepare import prepare
from neuralfuse.sweep.run import claimed
from neuralfuse.training.loop import threads
from sram.failure import curve
from sram.files import write_atomic
from sram.geometry import Geometry
from sram.memory import Chip, Memory
from sram.progress import steps

STUDY = Path(__file__).parent / "studies" / "text.yaml"
ROWS = Path(__file__).parent / "results" / "kv_cache" / "chips.csv"
LABELS = {"int": "INT8", "fp8_e4m3": "FP8 E4M3", "fp8_e5m2": "FP8 E5M2", "bf16": "BF16"}
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("out/text"))
    given = parser.parse_args()
    (folder,) = claimed(STUDY, given.out).values()
    study, ibm14 = folder.study, curve("ibm14")
    with steps() as say, threads(1):
        with folder.in_use():
            prepare(folder, say)
        network, data = folder.network("chardecoder").eval(), load_data(study.dataset)
        x, y = test_set(study.dataset)

        def measured() -> float:
            return float(bits(evaluate.logits(network, x), y).sum() / counted(y).sum())

        plain, rows, advance = measured(), [], say("keys and values")
        for i, name in enumerate(LABELS):
            form = WordFormat(name=name)
            cache = FaultyCache(network, data.train_x[:64], form)
            clean = measured()
            elements = sum(part.elements for part in cache.parts)
            memory = Memory(Geometry.of_capacity(elements * form.bits // 8), ibm14, "column", rail="cache")
            placed, volts = cache.place(memory.geometry), [float(ibm14.voltage(rate)) for rate in RATES]
            for chip in range(given.chips):
                weak = Chip(chip, study.seed).fault_map(memory, min(volts))
                for rate, voltage in zip(RATES, volts, strict=True):
                    now = weak.at(voltage)
                    cache.set_faults(*placed.faults(now.cell, now.kind))
                    about = {"format": name, "cell_fault_rate": rate, "voltage": voltage, "chip": chip}
                    rows.append(about | {"bits": measured(), "clean_bits": clean, "plain_bits": plain})
                advance(i * given.chips + chip + 1, len(LABELS) * given.chips, {"bits": rows[-1]["bits"]})
            cache.remove()
    write(pd.DataFrame(rows), plain)


def write(rows: pd.DataFrame, plain: float) -> None:
    """The rows; their means over chips with 95% intervals; a figure of these."""
    found = []
    for (name, rate, voltage), part in rows.groupby(["format", "cell_fault_rate", "voltage"], sort=False):
        e = mean_interval(part.bits.to_numpy())
        about = {"format": name, "cell_fault_rate": rate, "voltage": voltage, "chips": len(part)}
        found.append(about | {"clean": part.clean_bits.iloc[0], "bits": e.mean, "low": e.low, "high": e.high})
    table = pd.DataFrame(found)
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    for i, (name, part) in enumerate(table.groupby("format", sort=False)):
        whiskers = [part.bits - part.low, part.high - part.bits]
        style = {"marker": "os^D"[i], "markersize": 4, "linewidth": 1.3, "capsize": 2}
        axes.errorbar(part.cell_fault_rate, part.bits, whiskers, label=LABELS[str(name)], **style)
    axes.axhline(plain, color="0.6", linewidth=0.8, label="numbers, no fault")
    axes.set(xscale="log", xlabel="Cell fault rate of the cache", ylabel="Test cross-entropy (bits a character)")
    axes.legend(title="keys and values in", fontsize=8, title_fontsize=8)
    ROWS.parent.mkdir(exist_ok=True)
    write_atomic(ROWS, to_csv(rows))
    write_atomic(ROWS.with_name("summary.csv"), to_csv(table))
    buffer = BytesIO()
    figure.savefig(buffer, dpi=200, format="png")
    write_atomic(ROWS.with_name("bits.png"), buffer.getvalue())


if __name__ == "__main__":
    main()

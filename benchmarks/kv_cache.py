"""How low may the supply of a decoder's keys and values go, by the format of their words?

    python -m benchmarks.kv_cache [--chips 20] [--out out/text]

The decoder of benchmarks/studies/text.yaml, trained as there (in --out, kept); keys and values in a buffer of their own
that holds each element of the window once, on chips of the study's lot; weights as trained. One row a chip, format and
supply goes to benchmarks/results/kv_cache/rows.csv: bits a character over the study's test windows.
"""

import argparse
from pathlib import Path

import pandas as pd

from neuralfuse.quantized import evaluate
from neuralfuse.quantized.cache import FaultyCache
from neuralfuse.quantized.formats import WordFormat
from neuralfuse.quantized.metric import bits, counted
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
ROWS = Path(__file__).parent / "results" / "kv_cache" / "rows.csv"
FORMATS = ("int", "fp8_e4m3", "fp8_e5m2", "bf16")
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
        for i, name in enumerate(FORMATS):
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
                advance(i * given.chips + chip + 1, len(FORMATS) * given.chips, {"bits": rows[-1]["bits"]})
            cache.remove()
    ROWS.parent.mkdir(exist_ok=True)
    write_atomic(ROWS, to_csv(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()

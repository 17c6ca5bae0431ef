"""Are the counts of untiled schedules what they were before schedules were searched?

tests/data/untiled_counts.csv was written by the engine without tiles; `python -m tests.simulator.array.test_untiled`
prints it anew.
"""

import io
from dataclasses import replace

import numpy as np
import pandas as pd

from simulator.accelerator import Buffer, accelerator
from simulator.array.cycles import simulate
from simulator.workload import Workload, conv, linear, matmul
from tests.conftest import DATA

LAYERS = (
    conv("stem", 32, 32, 3, 24, 3, padding=1, batch=2),
    conv("strided", 15, 17, 12, 20, (3, 5), stride=2, padding=1),
    conv("grouped", 12, 12, 8, 16, 3, padding=1, groups=4, dilation=2),
    conv("up", 7, 7, 16, 6, 4, stride=2, padding=1, transposed=True),
    conv("pointwise", 14, 14, 64, 96, 1),
    linear("fc", 3, 300, 70, batch=5),
    matmul("scores", 50, 16, 50, groups=3, batch=2),
)


def table() -> pd.DataFrame:
    rows = []
    for array in ((16, 16), (12, 14)):
        for room in (500, 4_000, 100_000):
            for dataflow in ("os", "ws", "is", "best"):
                for fast in (False, True):
                    machine = replace(
                        accelerator("paper"),
                        array_rows=array[0],
                        array_cols=array[1],
                        dataflow=dataflow,
                        ifmap_buffer=Buffer(room),
                        weight_buffer=Buffer(2 * room),
                        ofmap_buffer=Buffer(3 * room, double=fast),
                        double_buffered_registers=fast,
                        skip_idle_rows=fast,
                        dram_bytes_per_cycle=4.0,
                    )
                    counts = simulate(Workload("layers", LAYERS), machine).layers
                    for layer, row in zip(LAYERS, counts, strict=True):
                        case = {"rows": array[0], "room": room, "flow": dataflow, "fast": fast, "layer": layer.name}
                        rows.append(case | dict(zip(counts.dtype.names, row.tolist(), strict=True)))
    return pd.DataFrame(rows)


def test_untiled_counts_are_what_they_were():
    found, kept = table(), pd.read_csv(DATA / "untiled_counts.csv", float_precision="round_trip")
    assert len(kept) == 336
    for name in kept.columns:
        assert np.array_equal(found[name].to_numpy(), kept[name].to_numpy()), name


if __name__ == "__main__":
    text = io.StringIO()
    table().to_csv(text, index=False)
    print(text.getvalue(), end="")

"""Schedules that are searched, against a mapper of others and a published chip; writes benchmarks/results/mapper.

python -m benchmarks.mapper

zigzag.csv: ResNet18 at 224 x 224 by ZigZag 3.9.1 (zigzag_figures.py made it), on mirrors of `edge` and of its own
`tpu_like`. eyeriss.csv: layer by layer what the Eyeriss chip took (tests/data has its source).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from benchmarks.mapper import networks
from simulator.accelerator import Accelerator, Buffer, accelerator
from simulator.array.cycles import Counts, simulate

HERE = Path(__file__).parents[1]
RESULTS = HERE / "results" / "mapper"
EYERISS = HERE.parent / "tests" / "data" / "eyeriss_jssc2017.csv"
MB = 1e6


def mirrors() -> dict[str, Accelerator]:
    """The machines that ZigZag was given, in terms of this project's; every tensor goes through DRAM between layers."""
    edge = replace(accelerator("edge"), keep_on_chip=False, dram_bytes_per_cycle=102 / 8, dram_latency_cycles=1)
    # 128 B of weights in each of 32 x 32 elements, 2 MiB for inputs and outputs, 64 bits a cycle
    tpu_like = replace(
        edge,
        name="tpu_like",
        array_rows=32,
        array_cols=32,
        weight_buffer=Buffer(2 * 32 * 32 * 128),
        ifmap_buffer=Buffer(2 << 20),
        ofmap_buffer=Buffer(2 << 20),
        dram_bytes_per_cycle=8.0,
    )
    return {"edge": edge, "tpu_like": tpu_like}


def on_array(counts: Counts) -> pd.DataFrame:
    """Cycles and DRAM bytes of the layers on the array."""
    frame = counts.frame().iloc[:-1]
    frame = frame[frame.dataflow != "vector"]
    moved = {
        "input_bytes": frame.ifmap_dram_read_bytes,
        "weight_bytes": frame.filter_dram_read_bytes,
        "psum_bytes": frame.psum_dram_read_bytes + frame.psum_dram_write_bytes,
        "output_bytes": frame.ofmap_dram_write_bytes,
    }
    return pd.DataFrame({"layer": frame.layer, "cycles": frame.cycles, **moved})


def zigzag() -> pd.DataFrame:
    """A row a machine, a source, and with or without the first layer."""
    theirs = pd.read_csv(RESULTS / "zigzag.csv")
    theirs = theirs[theirs.layer.str.contains("Conv|Gemm")].copy()
    theirs["psum_bytes"] = 2 * theirs.psum_read_bytes
    theirs["output_bytes"] -= theirs.psum_read_bytes
    theirs["layer"] = theirs.layer.str.replace(r"^/|/(Conv|Gemm)$", "", regex=True)
    rows = []
    for name, machine in mirrors().items():
        ours = on_array(simulate(networks.resnet18(), machine))
        for first in (True, False):
            for source, table in (("ZigZag 3.9.1", theirs[theirs.machine == name]), ("this simulator", ours)):
                kept = table if first else table[table.layer != "conv1"]
                label = "all" if first else "all but conv1"
                sums = {c: kept[c].sum() / MB for c in ours.columns if c != "layer"}
                rows.append({"machine": name, "layers": label, "by": source, **sums})
    return pd.DataFrame(rows)


def eyeriss() -> pd.DataFrame:
    """A row a layer: milliseconds and DRAM megabytes, published and simulated on the preset `eyeriss`."""
    published = pd.read_csv(EYERISS, comment="#")
    rows = []
    for network, batch in (("alexnet", 4), ("vgg16", 3)):
        counts = simulate(getattr(networks, network)().with_batch(batch), accelerator("eyeriss"))
        found = on_array(counts).set_index("layer")
        for row in published[published.network == network].itertuples():
            ours = found.loc[row.layer]
            layer = next(one for one in counts.workload.layers if one.name == row.layer)
            least = 2 * (layer.batch * (layer.ifmap_elements + layer.ofmap_elements) + layer.weights) / MB
            rows.append(
                {
                    "network": network,
                    "layer": row.layer,
                    "published_ms": row.latency_ms,
                    "ms": 1e3 * ours.cycles / counts.accelerator.clock_hz,
                    "published_dram_mb": row.dram_mb,
                    "dram_mb": ours.filter(like="_bytes").sum() / MB,
                    "compulsory_mb": least,
                }
            )
    return pd.DataFrame(rows)


def main() -> None:
    for name, table in (("resnet18", zigzag()), ("eyeriss", eyeriss())):
        table.round(3).to_csv(RESULTS / f"{name}.csv", index=False)
        print(table.round(2).to_string(index=False), end="\n\n")
        if name == "eyeriss":
            print(table.groupby("network").sum(numeric_only=True).round(1).to_string())


if __name__ == "__main__":
    main()

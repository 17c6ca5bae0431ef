"""Schedules that are searched, against a mapper of others and a published chip; writes benchmarks/results/mapper.

python -m benchmarks.mapper

zigzag.csv: ResNet18 at 224 x 224 by ZigZag 3.9.1 (zigzag_figures.py made it), on mirrors of `edge` and of its own
`tpu_like`. eyeriss.csv: layer by layer what the Eyeriss chip took (tests/data has its source), beside its own schedules
here, and those that are found for two objectives.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from benchmarks.mapper import networks
from simulator.accelerator import Accelerator, Buffer, accelerator
from simulator.array import schedule
from simulator.array.cycles import Counts, simulate
from simulator.energy import energy
from simulator.figures import PJ_PER_MILLIJOULE

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


def coded(zeros: float) -> float:
    """Bytes of a feature map in DRAM over its own: three pairs of zeros in a row (5 bits) and value (16) in 64 bits.

    >>> coded(0.0), coded(0.625)
    (1.0, 0.5)
    """
    return min(1.0, (1 - zeros) * 64 / 48)


def eyeriss() -> pd.DataFrame:
    """A row a layer: published, by the chip's own schedules (`chip_`), and by those that are found: of least energy x
    cycles, and of least energy (`energy_`). mj: of the layer, DRAM included."""
    published = pd.read_csv(EYERISS, comment="#")
    rows = []
    for network, batch in (("alexnet", 4), ("vgg16", 3)):
        workload, machine = getattr(networks, network)().with_batch(batch), accelerator("eyeriss")
        chip = schedule.load(HERE / "mapper" / f"eyeriss.{network}.yaml")
        runs = {"chip_": simulate(workload, machine, chip), "": simulate(workload, machine)}
        runs["energy_"] = simulate(workload, replace(machine, objective="energy"))
        spent = {label: batch * sum(energy(counts).components.values()) for label, counts in runs.items()}
        known = published[published.network == network].reset_index()
        for i, (row, layer) in enumerate(zip(known.itertuples(), workload.layers, strict=True)):
            following = known.input_zeros[min(i + 1, len(known) - 1)]  # zeros of its outputs, as far as they are known
            found: dict[str, object] = {"network": network, "layer": row.layer}
            for name, key in (("ms", "latency_ms"), ("buffer_mb", "buffer_mb"), ("dram_mb", "dram_mb")):
                found[f"published_{name}"] = getattr(row, key)
            for label, counts in runs.items():
                ours, moved = counts.layers[i], on_array(counts).iloc[i]
                maps = moved.input_bytes * coded(row.input_zeros) + moved.output_bytes * coded(following)
                ports = [
                    f"{operand}_sram_{way}s" for operand in ("ifmap", "psum", "ofmap") for way in ("read", "write")
                ]
                found[f"{label}ms"] = 1e3 * moved.cycles / machine.clock_hz
                found[f"{label}buffer_mb"] = 2 * sum(int(ours[port]) for port in ports) / MB
                found[f"{label}dram_mb"] = moved.filter(like="_bytes").sum() / MB
                found[f"{label}coded_dram_mb"] = (moved.weight_bytes + maps) / MB
                found[f"{label}mj"] = spent[label][i] / PJ_PER_MILLIJOULE
            least = layer.batch * (layer.ifmap_elements + layer.ofmap_elements) + layer.weights
            rows.append(found | {"compulsory_mb": 2 * least / MB})
    return pd.DataFrame(rows)


def main() -> None:
    for name, table in (("resnet18", zigzag()), ("eyeriss", eyeriss())):
        table.round(3).to_csv(RESULTS / f"{name}.csv", index=False)
        print(table.round(2).to_string(index=False), end="\n\n")
        if name == "eyeriss":
            print(table.groupby("network").sum(numeric_only=True).round(1).to_string())


if __name__ == "__main__":
    main()

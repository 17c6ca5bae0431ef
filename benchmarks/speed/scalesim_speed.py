"""ResNet18 at 224x224, weight-stationary 32x32: our SCALE-Sim-compatible counts against the scalesim package's.

    python -m benchmarks.speed.scalesim_speed --python VENV/bin/python [--full]

The package wants numpy below 2.3, so it runs in an environment of its own (pip install scalesim "numpy<2.3"), whose
interpreter --python names. Without one only our side runs. Both sides count CPU seconds of one process for the same
layers, ours after one warm-up call; the counts must agree, or the status is 1.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from simulator.accelerator import Accelerator, Buffer, accelerator
from simulator.compat import scalesim
from simulator.workload import Layer, Workload, conv, linear

CONFIG = """[general]
run_name = run
[architecture_presets]
ArrayHeight = {a.array_rows}
ArrayWidth = {a.array_cols}
IfmapSramSzkB = {ifmap}
FilterSramSzkB = {filter}
OfmapSramSzkB = {ofmap}
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Bandwidth = 10
Dataflow = {a.dataflow}
ReadRequestBuffer = 64
WriteRequestBuffer = 64
[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterCustomLayout = False
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
"""

# Runs under the other interpreter: files in, CPU seconds and one list of reports a layer out.
DRIVER = """
import json, sys, time
from scalesim.scale_sim import scalesim
config, topology, layout, out = sys.argv[1:]
run = scalesim(save_disk_space=True, verbose=False, config=config, topology=topology, layout=layout)
begin = time.process_time()
run.run_scale(top_path=out)
seconds = time.process_time() - begin
rows = [
    [float(x) for x in layer.get_compute_report_items()] + [float(x) for x in layer.get_detail_report_items()]
    for layer in run.runner.single_layer_sim_object_list
]
json.dump({"seconds": seconds, "rows": rows}, open(out + "/result.json", "w"))
"""
# Where our columns lie in a row of the compute report (which may begin with total cycles including prefetch) and of the
# detailed report (start cycle, stop cycle, count for each operand).
COMPUTE = ("total_cycles", "stall_cycles", "overall_util_pct", "mapping_eff_pct", "compute_util_pct")
DETAIL = scalesim.COLUMNS[6:]


def resnet18() -> list[Layer]:
    """ResNet18 (He et al., CVPR 2016) for 224x224 images: 20 convolutions and the classifier."""
    layers = [conv("conv1", 224, 224, 3, 64, 7, stride=2, padding=3)]
    side, channels = 56, 64
    for stage, filters in enumerate((64, 128, 256, 512), start=2):
        for block in (1, 2):
            stride = 2 if filters != channels else 1
            name = f"conv{stage}_{block}"
            layers.append(conv(f"{name}a", side, side, channels, filters, 3, stride=stride, padding=1))
            if stride == 2:
                layers.append(conv(f"{name}s", side, side, channels, filters, 1, stride=2))
            side //= stride
            layers.append(conv(f"{name}b", side, side, filters, filters, 3, padding=1))
            channels = filters
    return [*layers, linear("fc", 1, 512, 1000)]


def package(python: str, layers: list[Layer], machine: Accelerator) -> tuple[float, list[dict[str, float]]]:
    """(CPU seconds, rows with the columns of scalesim.COLUMNS but the name) of the scalesim package."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = {
            name: buffer.capacity_bytes // 1024
            for name, buffer in (
                ("ifmap", machine.ifmap_buffer),
                ("filter", machine.weight_buffer),
                ("ofmap", machine.ofmap_buffer),
            )
        }
        header = "Layer, IFMAP H, IFMAP W, Filter H, Filter W, Channels, Filters, Strides,\n"
        rows = [f"{i}, {', '.join(map(str, scalesim.row_of(layer)))},\n" for i, layer in enumerate(layers)]
        files = {
            "config.cfg": CONFIG.format(a=machine, **sizes),
            "net.csv": header + "".join(rows),
            "layout.csv": "Layer,\n",
        }
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        paths = [str(Path(folder) / name) for name in files]
        done = subprocess.run([python, "-c", DRIVER, *paths, folder], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"scalesim failed under {python}:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
        result = json.loads((Path(folder) / "result.json").read_text(encoding="utf-8"))
    found = []
    for row in result["rows"]:
        compute, detail = row[: len(row) - 18], row[len(row) - 18 :]
        values = dict(zip(COMPUTE, compute[len(compute) - len(COMPUTE) :], strict=True))
        found.append(values | dict(zip(DETAIL, detail[2::3], strict=True)))
    return result["seconds"], found


def differences(layers: list[Layer], ours: list[dict], theirs: list[dict]) -> list[str]:
    """One line for each count that differs, utilisations by more than 1e-6."""
    return [
        f"{layer.name}: {name} {mine[name]} here, {other[name]} there"
        for layer, mine, other in zip(layers, ours, theirs, strict=True)
        for name in scalesim.COLUMNS[1:]
        if abs(mine[name] - other[name]) > (1e-6 if name.endswith("_pct") else 0)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", help="interpreter that can import scalesim")
    parser.add_argument("--full", action="store_true", help="the package runs all layers (minutes), not five of them")
    arguments = parser.parse_args()
    buffer = Buffer(64 * 1024)
    machine = replace(
        accelerator("paper"), dataflow="ws", ifmap_buffer=buffer, weight_buffer=buffer, ofmap_buffer=buffer
    )
    network = resnet18()
    scalesim.simulate(Workload("warm-up", tuple(network[-1:] + network[:1])), machine)
    begin = time.process_time()
    scalesim.simulate(Workload("resnet18", tuple(network)), machine)
    print(f"this project, {len(network)} layers: {time.process_time() - begin:.3f} s")
    layers = network if arguments.full else network[-6:-2] + network[-1:]
    begin = time.process_time()
    ours = [scalesim.counts(layer, machine) for layer in layers]
    seconds = time.process_time() - begin
    if not arguments.python:
        print("the scalesim package did not run: name an interpreter that has it with --python")
        return 0
    their_seconds, theirs = package(arguments.python, layers, machine)
    print(f"the same {len(layers)} layers ({', '.join(layer.name for layer in layers)}):")
    print(
        f"  this project {seconds:.3f} s, scalesim {their_seconds:.1f} s: {their_seconds / seconds:,.0f} times faster"
    )
    wrong = differences(layers, ours, theirs)
    print("\n".join(wrong) if wrong else "  all counts agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

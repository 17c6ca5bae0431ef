"""Figures of ZigZag for ResNet18 at 224 x 224, layer by layer, as CSV; benchmarks/mapper compares with them.

In an environment of its own, since it pins other packages: pip install zigzag-dse==3.9.1; then, in this folder,
python zigzag_figures.py > ../results/mapper/zigzag.csv. Minutes. The workload and `tpu_like` are those that it ships.
"""

import contextlib
import csv
import sys
import tempfile
from pathlib import Path

import yaml
import zigzag
from zigzag.api import get_hardware_performance_zigzag
from zigzag.hardware.architecture.memory_port import DataDirection

INPUTS = Path(zigzag.__file__).parent / "inputs"
MACHINES = {
    "edge": (Path(__file__).parent / "edge.zigzag.yaml", 16, 102),
    "tpu_like": (INPUTS / "hardware/tpu_like.yaml", 32, 64),
}


COLUMNS = (
    *("machine", "layer", "cycles", "array_cycles"),
    *("input_bytes", "weight_bytes", "output_bytes", "psum_read_bytes", "pj"),
)


def mapping(side: int) -> list[dict]:
    """Filters along the columns, input channels along the rows; other operators as ZigZag's own mappings have them."""
    spatial = {"default": ("K", side, "C", side), "Add": ("G", side, "C", 1), "Pooling": ("G", side, "C", 1)}
    links = {"O": "O", "W": "I2", "I": "I1"}
    return [
        {"name": name, "spatial_mapping": {"D1": [f"{a}, {n}"], "D2": [f"{b}, {m}"]}, "memory_operand_links": links}
        for name, (a, n, b, m) in spatial.items()
    ]


def main() -> None:
    rows = csv.writer(sys.stdout)
    rows.writerow(COLUMNS)
    for name, (hardware, side, word_bits) in MACHINES.items():
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
            path = Path(folder) / "mapping.yaml"
            path.write_text(yaml.safe_dump(mapping(side)))
            network = str(INPUTS / "workload/resnet18.onnx")
            options = {"opt": "EDP", "dump_folder": folder, "loma_show_progress_bar": False}
            _, _, found = get_hardware_performance_zigzag(network, str(hardware), str(path), **options)
        for cost, _ in found[0][1]:
            rows.writerow((name, *row(cost, word_bits)))


def row(cost, word_bits: int) -> tuple:
    """COLUMNS but the first: the highest memory of each operand is DRAM; an operand that has none moves nothing."""
    read, written = DataDirection.RD_OUT_TO_LOW, DataDirection.WR_IN_BY_LOW
    moved = {str(operand): levels[-1] for operand, levels in cost.memory_word_access.items()}
    ways = (("I", read), ("W", read), ("O", written), ("O", read))
    words = [moved[operand].get(way) if operand in moved else 0 for operand, way in ways]
    cycles = round(cost.latency_total2), round(cost.ideal_temporal_cycle)
    return (cost.layer.name, *cycles, *(round(n * word_bits / 8) for n in words), round(cost.energy_total))


if __name__ == "__main__":
    main()

"""The counts of SCALE-Sim v3, quirk for quirk: `simulate` with `--compat scalesim`.

Reference: scalesim-project/SCALE-Sim, commit 1d62b68, bandwidth mode CALC. One word is one byte, one kB 1024 words.
In its terms (M output pixels, K taps, N filters; Sr x Sc folded onto R rows and C columns, fr x fc folds, T cycles
streamed):

- The output has ceil((H - r + stride) / stride) rows: windows that hang over the edge count, their missing taps are
  SRAM reads but not DRAM reads. Padding is part of the given ifmap.
- total_cycles = fr fc F - 1 with F = R + C + T - 2 (os) or 2R + C + T - 2; partial folds cost as much. os leaves out
  the R cycles in which the results shift out (dataflow.py has them). No stalls in CALC.
- SRAM: ifmap fc M K (is: M K), filters fr K N, K N, fc K N (os, ws, is), ofmap fr M N, os M N + fr fc (R + C) (its
  issue 166).
- DRAM reads: the demand stream, word after word, against a set of resident words that is emptied when it holds
  50 floor(words / 100) of the buffer's words; each word not in the set is a read. Order of a stream: fold after fold,
  cycle after cycle, port after port; ports skewed by a cycle each, but stationary tiles come unskewed, bottom row
  first.
- DRAM writes: a buffer that drains its older half in lines of C words when more than half is taken; a line that was
  closed early counts as full unless it is the last of its drain, so writes may exceed the outputs.

Groups, batch and transposed convolutions, which SCALE-Sim does not know, are as many rows of its topology.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.accelerator import Accelerator, Buffer
from simulator.array.dataflow import CODES, code, spatial
from simulator.compat import scalesim_kernels as kernels
from simulator.workload import Layer, Workload
from sram.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *("layer", "total_cycles", "stall_cycles", "overall_util_pct", "mapping_eff_pct", "compute_util_pct"),
    *("ifmap_sram_reads", "filter_sram_reads", "ofmap_sram_writes"),
    *("ifmap_dram_reads", "filter_dram_reads", "ofmap_dram_writes"),
)


def simulate(workload: Workload, accelerator: Accelerator) -> pd.DataFrame:
    """SCALE-Sim's results for the layers of `workload` that run on the array; columns COLUMNS, one row a layer.

    Of the accelerator only the array, the dataflow and the three capacities matter.

    >>> from simulator.accelerator import accelerator
    >>> from simulator.workload import Workload, conv
    >>> net = Workload("n", (conv("c", 10, 10, 4, 33, kernel=3),))
    >>> simulate(net, accelerator("paper"))[["total_cycles", "ifmap_sram_reads", "ifmap_dram_reads"]].values.tolist()
    [[391, 4608, 400]]
    """
    import pandas as pd

    if accelerator.dataflow not in CODES:
        raise InputError(accelerator.name, "dataflow", accelerator.dataflow, "os, ws or is with --compat scalesim")
    if accelerator.cores > 1:
        raise InputError(accelerator.name, "cores", accelerator.cores, "1 with --compat scalesim")
    rows = [counts(layer, accelerator) for layer in workload.array_layers]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def counts(layer: Layer, accelerator: Accelerator) -> dict[str, object]:
    """One row of SCALE-Sim's reports."""
    h, w, kh, kw, ch, n, stride = row_of(layer)
    out_h, out_w = -(-(h - kh + stride) // stride), -(-(w - kw + stride) // stride)
    m, k = out_h * out_w, kh * kw * ch
    rows, cols, dataflow = accelerator.array_rows, accelerator.array_cols, code(accelerator.dataflow)
    is_os = accelerator.dataflow == "os"
    sr, sc, t = spatial(accelerator.dataflow, m, k, n)
    fr, fc = -(-sr // rows), -(-sc // cols)
    cycles = fr * fc * (rows + cols + t - 2 + (0 if is_os else rows)) - 1
    busy = fr * fc * rows * cols * (t + rows + cols - 2 + (0 if is_os else rows) + (0 if is_os else cols - 1))
    times = layer.batch * accelerator.batch * layer.groups
    sums = {
        "total_cycles": cycles,
        "stall_cycles": 0,
        "ifmap_sram_reads": m * k * (1 if accelerator.dataflow == "is" else fc),
        "filter_sram_reads": k * n * {"os": fr, "ws": 1, "is": fc}[accelerator.dataflow],
        "ofmap_sram_writes": m * n + fr * fc * (rows + cols) if is_os else fr * m * n,
        "ifmap_dram_reads": ifmap_dram_reads(accelerator, h, w, kh, kw, ch, n, stride),
        "filter_dram_reads": filter_dram_reads(accelerator, m, k, n),
        "ofmap_dram_writes": kernels.ofmap_writes(
            dataflow, m, k, n, rows, cols, accelerator.ofmap_buffer.capacity_bytes
        ),
    }
    return {
        "layer": layer.name,
        "overall_util_pct": 100 * m * n * k / (cycles * rows * cols),
        "mapping_eff_pct": 100 * sr * sc / (fr * fc * rows * cols),
        "compute_util_pct": 100 * sr * sc * t / busy,
    } | {name: times * count for name, count in sums.items()}


def folds(accelerator: Accelerator, m: int, k: int, n: int) -> list[tuple[int, int, int, int]]:
    """(first row, rows, first column, columns) of the folds in the order in which they run."""
    sr, sc, _ = spatial(accelerator.dataflow, m, k, n)
    rows, cols = accelerator.array_rows, accelerator.array_cols
    return [(r, min(rows, sr - r), c, min(cols, sc - c)) for c in range(0, sc, cols) for r in range(0, sr, rows)]


def ifmap_dram_reads(accelerator: Accelerator, h: int, w: int, kh: int, kw: int, ch: int, n: int, stride: int) -> int:
    """Reads of the ifmap of one convolution."""
    ys = np.arange(0, h - kh + stride, stride)
    xs = np.arange(0, w - kw + stride, stride)
    touched_words = ch * inside(ys, kh, h) * inside(xs, kw, w)
    limit = set_size(accelerator.ifmap_buffer)
    if touched_words < limit:  # never emptied
        return touched_words
    m, k = ys.size * xs.size, kh * kw * ch
    y, x = np.repeat(ys, xs.size), np.tile(xs, ys.size)
    windows = ((y * w + x) * ch, np.minimum(kh, h - y), np.minimum(kw, w - x) * ch, kw * ch, w * ch, h * w * ch)
    if accelerator.dataflow == "os":
        stream, demand = kernels.CARRIER_PORTS, [(r, u, 0, k) for r, u, _, _ in folds(accelerator, m, k, n)]
    elif accelerator.dataflow == "ws":
        stream, demand = kernels.TAP_PORTS, [(0, m, r, u) for r, u, _, _ in folds(accelerator, m, k, n)]
    else:
        stream, demand = kernels.TILE, [(c, v, r, u) for r, u, c, v in folds(accelerator, m, k, n)]
    return int(kernels.reads(stream, *windows, np.array(demand), limit))


def filter_dram_reads(accelerator: Accelerator, m: int, k: int, n: int) -> int:
    """Reads of the filters; ws asks for each of their words once."""
    limit = set_size(accelerator.weight_buffer)
    if accelerator.dataflow == "ws" or k * n < limit:
        return k * n
    words = (np.arange(n) * k, np.ones(n, np.int64), np.full(n, k), k, k, n * k)  # word n * k + k
    if accelerator.dataflow == "os":
        stream, demand = kernels.CARRIER_PORTS, [(c, v, 0, k) for _, _, c, v in folds(accelerator, m, k, n)]
    else:
        stream, demand = kernels.TAP_PORTS, [(0, n, r, u) for r, u, _, _ in folds(accelerator, m, k, n)]
    return int(kernels.reads(stream, *words, np.array(demand), limit))


def inside(starts: np.ndarray, size: int, end: int) -> int:
    """Positions below `end` that windows of `size` at `starts` touch."""
    touched = np.unique(starts[:, None] + np.arange(size))
    return int((touched < end).sum())


def set_size(buffer: Buffer) -> int:
    """Words that the resident set holds when it is emptied."""
    if buffer.capacity_bytes < 100:
        raise InputError("buffer", "capacity_bytes", buffer.capacity_bytes, "at least 100 with --compat scalesim")
    return 50 * (buffer.capacity_bytes // 100)


def row_of(layer: Layer) -> tuple[int, int, int, int, int, int, int]:
    """The layer as a row of SCALE-Sim's topology: ifmap h, w (padded), filter h, w, channels, filters, stride."""
    if layer.kind != "conv" or layer.transposed:
        return layer.m, layer.k, 1, layer.k, 1, layer.n, 1
    for key, pair in (("dilation", (layer.dilation_h, layer.dilation_w)), ("stride", (layer.stride_h, layer.stride_w))):
        if pair[0] != pair[1] or (key == "dilation" and pair[0] != 1):
            allowed = "1" if key == "dilation" else "the same in both directions"
            raise InputError(layer.name, key, pair, f"{allowed} with --compat scalesim")
    return (
        layer.in_h + layer.padding_top + layer.padding_bottom,
        layer.in_w + layer.padding_left + layer.padding_right,
        layer.kernel_h,
        layer.kernel_w,
        layer.in_channels // layer.groups,
        layer.n,
        layer.stride_h,
    )

"""Traces of one layer: which element passes which port of the array in which cycle.

Cycles are those of the array without stalls (dataflow.py), from 0. Addresses are elements of the tensors in torch
order: input and output (sample, channel, row, column), weights as stored. Padding is generated and does not appear.
Operands:

    ifmap_read, filter_read     enter the array
    psum_read, psum_write       partial sums of ws and is, added at the bottom edge
    ofmap_write                 finished outputs

Rows come fold after fold, in a fold by cycle; with overlap neighbouring folds share cycles.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from simulator.accelerator import Accelerator
from simulator.array import traces_kernels as kernels
from simulator.array.dataflow import code, spatial
from simulator.workload import Layer
from sram.errors import InputError
from sram.files import write_atomic

OPERANDS = ("ifmap_read", "filter_read", "psum_read", "psum_write", "ofmap_write")
BLOCK_EVENTS = 1 << 18  # what is held in memory at a time

_FIELDS = (
    *("batch", "groups", "m", "k", "n", "in_h", "in_w", "in_channels", "kernel_h", "kernel_w", "stride_h", "stride_w"),
    *("padding_top", "padding_left", "dilation_h", "dilation_w", "out_h", "out_w"),
)
SHAPE = np.dtype([(name, np.int64) for name in (*_FIELDS, "is_conv", "is_matmul", "k_major")], align=True)

Block = tuple[np.ndarray, np.ndarray, np.ndarray]


def events(layer: Layer, accelerator: Accelerator) -> Iterator[Block]:
    """(cycle int64[n], operand uint8[n], address int64[n]) in blocks of bounded size; operand indexes OPERANDS.

    >>> from simulator.accelerator import accelerator
    >>> from simulator.workload import linear
    >>> blocks = list(events(linear("l", 1, 2, 1), accelerator("paper")))
    >>> [(int(c), OPERANDS[o], int(a)) for block in blocks for c, o, a in zip(*block)]
    [(0, 'filter_read', 0), (1, 'filter_read', 1), (31, 'ifmap_read', 0), (32, 'ifmap_read', 1), (64, 'ofmap_write', 0)]
    """
    if accelerator.dataflow == "best":
        raise InputError(accelerator.name, "dataflow", "best", "os, ws or is for a trace")
    if not layer.on_array or layer.transposed:
        raise InputError(layer.name, "kind", layer.kind, "conv (not transposed), linear or matmul for a trace")
    shape = np.zeros(1, SHAPE)
    for name in _FIELDS:
        shape[name] = getattr(layer, name)
    shape["batch"] *= accelerator.batch
    shape["is_conv"], shape["is_matmul"] = layer.kind == "conv", layer.kind == "matmul"
    shape["k_major"] = layer.k_major or layer.kind == "matmul"
    a, dataflow = accelerator, code(accelerator.dataflow)
    width = a.array_rows + 3 * a.array_cols
    cycles = max(1, BLOCK_EVENTS // width)
    cycle, operand, address = np.empty((3, cycles * width), np.int64)
    for fold, first, last in _folds(layer, a):
        for begin in range(first, last, cycles):
            end = min(begin + cycles, last)
            machine = (a.double_buffered_registers, a.array_rows, a.array_cols, a.skip_idle_rows)
            count = kernels.fold_events(shape[0], dataflow, *machine, fold, begin, end, cycle, operand, address)
            yield cycle[:count].copy(), operand[:count].astype(np.uint8), address[:count].copy()


def _folds(layer: Layer, a: Accelerator) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """For each fold what the kernel wants, its first cycle, and the cycle after its last."""
    batch = layer.batch * a.batch
    pairs = layer.kind == "matmul"
    rows, cols = a.array_rows, a.array_cols
    sr, sc, t = spatial(a.dataflow, layer.m * (1 if pairs else batch), layer.k, layer.n)
    clock, drained, first_fold = 0, 0, True
    for product in range(layer.groups * (batch if pairs else 1)):
        for c in range(0, sc, cols):
            for r in range(0, sr, rows):
                u, v = min(rows, sr - r), min(cols, sc - c)
                used, wide = (u, v) if a.skip_idle_rows else (rows, cols)
                if not a.double_buffered_registers:
                    drain = clock + t + rows + wide - 2
                    end = clock + t + rows + used + wide - 2
                    yield (product, r, u, c, v, sr, clock, drain), clock, end
                    clock = end
                elif a.dataflow == "os":
                    drain = max(clock + t, drained)
                    drained = drain + used
                    yield (product, r, u, c, v, sr, clock, drain), clock, drained + rows + v - 2
                    clock = drain
                else:
                    clock = used if first_fold else clock + max(t, used)
                    yield (product, r, u, c, v, sr, clock, 0), clock - u, clock + t + rows + v - 2
                first_fold = False


def write(layer: Layer, accelerator: Accelerator, path: str | Path) -> int:
    """Write the trace of `layer` to a .parquet or .csv file with columns cycle, operand, address; returns its rows.

    Memory stays bounded whatever the length. Parquet needs pyarrow (extra `parquet`).
    """
    path = Path(path)
    writers: dict[str, Callable[[Iterator[Block], BinaryIO], int]] = {".parquet": _parquet, ".csv": _csv}
    if path.suffix not in writers:
        raise InputError(path, "suffix", path.suffix, ".parquet or .csv")
    rows = 0

    def content(file: BinaryIO) -> None:
        nonlocal rows
        rows = writers[path.suffix](events(layer, accelerator), file)

    write_atomic(path, content)
    return rows


def _parquet(blocks: Iterator[Block], file: BinaryIO) -> int:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise InputError("trace", "format", ".parquet", ".csv, or .parquet with pyarrow (extra parquet)") from None
    names = pa.array(OPERANDS)
    operand_type = pa.dictionary(pa.int8(), pa.string())
    schema = pa.schema([("cycle", pa.int64()), ("operand", operand_type), ("address", pa.int64())])
    rows = 0
    with parquet.ParquetWriter(file, schema) as writer:
        for cycle, operand, address in blocks:
            column = pa.DictionaryArray.from_arrays(pa.array(operand.astype(np.int8)), names)
            writer.write_table(pa.table([cycle, column, address], schema=schema))
            rows += len(cycle)
    return rows


def _csv(blocks: Iterator[Block], file: BinaryIO) -> int:
    import pandas as pd

    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    text.write("cycle,operand,address\n")
    rows = 0
    for cycle, operand, address in blocks:
        names = pd.Categorical.from_codes(operand.astype(np.int8), list(OPERANDS))
        pd.DataFrame({"cycle": cycle, "operand": names, "address": address}).to_csv(text, header=False, index=False)
        rows += len(cycle)
    text.detach()
    return rows

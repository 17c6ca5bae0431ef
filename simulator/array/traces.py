"""Traces of one layer: which element passes which port of the array in which cycle.

Cycles are those of the array without stalls (dataflow.py), from 0. Addresses are elements of the tensors in torch
order: input and output (sample, channel, row, column), weights as stored. Padding is generated and does not appear.
Operands:

    ifmap_read, filter_read     enter the array
    psum_read, psum_write       partial sums of ws and is, added at the bottom edge
    ofmap_write                 finished outputs

Rows come tile after tile of the schedule, in a tile fold after fold, in a fold by cycle; with overlap neighbouring
folds share cycles. With several cores they come core after core, each from cycle 0.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from simulator.accelerator import Accelerator
from simulator.array import traces_kernels as kernels
from simulator.array.cores import fitted, shares
from simulator.array.cycles import plan_of
from simulator.array.dataflow import code, spatial
from simulator.array.schedule import Plan, Schedule
from simulator.workload import Layer, Workload
from sram.errors import InputError
from sram.files import write_atomic

OPERANDS = ("ifmap_read", "filter_read", "psum_read", "psum_write", "ofmap_write")
BLOCK_EVENTS = 1 << 18  # what is held in memory at a time

_FIELDS = (
    *("batch", "groups", "m", "k", "n", "in_h", "in_w", "in_channels", "kernel_h", "kernel_w", "stride_h", "stride_w"),
    *("padding_top", "padding_left", "dilation_h", "dilation_w", "out_h", "out_w"),
)
_PART = ("first_sample", "first_n", "all_n")  # of the layer, what a core's part of it begins with
SHAPE = np.dtype([(name, np.int64) for name in (*_FIELDS, "is_conv", "is_matmul", "k_major", *_PART)], align=True)

Block = tuple[np.ndarray, np.ndarray, np.ndarray]
Columns = dict[str, np.ndarray]


def events(layer: Layer, accelerator: Accelerator, plan: Plan | None = None, core: int = 0) -> Iterator[Block]:
    """(cycle int64[n], operand uint8[n], address int64[n]) in blocks of bounded size; operand indexes OPERANDS.

    `plan`: with the schedule of the layer, if not the one that it alone runs by. Of several cores what `core` does.

    >>> from simulator.accelerator import accelerator
    >>> from simulator.workload import linear
    >>> blocks = list(events(linear("l", 1, 2, 1), accelerator("paper")))
    >>> [(int(c), OPERANDS[o], int(a)) for block in blocks for c, o, a in zip(*block)]
    [(0, 'filter_read', 0), (1, 'filter_read', 1), (31, 'ifmap_read', 0), (32, 'ifmap_read', 1), (64, 'ofmap_write', 0)]
    """
    if not layer.on_array or layer.transposed:
        raise InputError(layer.name, "kind", layer.kind, "conv (not transposed), linear or matmul for a trace")
    a, whole = replace(accelerator, batch=1), replace(layer, batch=layer.batch * accelerator.batch)
    net = Workload(layer.name, (whole,), batch=whole.batch)
    plan = replace(plan or plan_of(net, a), samples=whole.batch)
    parts = {at: (first, part) for at, first, part in shares(net, whole, a.cores, plan)}
    if core not in parts:
        return
    first_n, part = parts[core]
    by = fitted(plan.of(layer), part)
    assert isinstance(by, Schedule)
    shape = np.zeros(1, SHAPE)
    for name in _FIELDS:
        shape[name] = getattr(part, name)
    shape["first_n"], shape["all_n"] = first_n, layer.n
    shape["first_sample"] = core * part.batch if part.batch < whole.batch else 0
    shape["is_conv"], shape["is_matmul"] = layer.kind == "conv", layer.kind == "matmul"
    shape["k_major"] = layer.k_major or layer.kind == "matmul"
    dataflow = code(by.dataflow)
    width = a.array_rows + 3 * a.array_cols
    cycles = max(1, BLOCK_EVENTS // width)
    cycle, operand, address = np.empty((3, cycles * width), np.int64)
    for tile, fold, first, last in _folds(part, a, by):
        for begin in range(first, last, cycles):
            end = min(begin + cycles, last)
            machine = (a.double_buffered_registers, a.array_rows, a.array_cols, a.skip_idle_rows)
            count = kernels.fold_events(shape[0], dataflow, *machine, tile, fold, begin, end, cycle, operand, address)
            yield cycle[:count].copy(), operand[:count].astype(np.uint8), address[:count].copy()


Tile = tuple[int, int, int, int, int, int, int]


def _tiles(layer: Layer, a: Accelerator, by: Schedule) -> Iterator[tuple[bool, Tile]]:
    """The tiles in the order in which they run: whether the array is empty before it, and (product, first row, rows,
    first tap, taps, first filter, filters)."""
    pairs = layer.kind == "matmul"
    samples, block = 1 if pairs else layer.batch * a.batch, by.samples * layer.m
    products = range(layer.groups * (layer.batch * a.batch if pairs else 1))
    starts = range(0, layer.m * samples, block)
    if (block, layer.k, layer.n) == (by.m, by.k, by.n):  # untiled: products do not wait for each other, blocks do
        for start, product in itertools.product(starts, products):
            yield product == 0, (product, start, block, 0, layer.k, 0, layer.n)
        return
    # a tile of pixels ends where its row of the output, or its sample, does
    inside = layer.out_w if layer.kind == "conv" and by.m < layer.out_w else layer.m if by.m < layer.m else block
    ranges = {
        "m": [(x, min(by.m, inside - x % inside)) for y in range(0, block, inside) for x in range(y, y + inside, by.m)],
        "k": [(x, min(by.k, layer.k - x)) for x in range(0, layer.k, by.k)],
        "n": [(x, min(by.n, layer.n - x)) for x in range(0, layer.n, by.n)],
    }
    for product, start in itertools.product(products, starts):
        for parts in itertools.product(*(ranges[loop] for loop in by.order)):
            at = dict(zip(by.order, parts, strict=True))
            yield True, (product, start + at["m"][0], at["m"][1], *at["k"], *at["n"])


def _folds(layer: Layer, a: Accelerator, by: Schedule) -> Iterator[tuple[Tile, tuple[int, ...], int, int]]:
    """For each fold what the kernel wants, its first cycle, and the cycle after its last."""
    rows, cols = a.array_rows, a.array_cols
    clock, drained, first_fold, over = 0, 0, True, 0
    for empty, tile in _tiles(layer, a, by):
        if empty:
            clock, drained, first_fold = over, over, True
        sr, sc, t = spatial(by.dataflow, tile[2], tile[4], tile[6])
        for c in range(0, sc, cols):
            for r in range(0, sr, rows):
                u, v = min(rows, sr - r), min(cols, sc - c)
                used, wide = (u, v) if a.skip_idle_rows else (rows, cols)
                if not a.double_buffered_registers:
                    drain = clock + t + rows + wide - 2
                    end = clock + t + rows + used + wide - 2
                    yield tile, (r, u, c, v, clock, drain), clock, end
                    clock = end
                elif by.dataflow == "os":
                    drain = max(clock + t, drained)
                    drained, end = drain + used, drain + used + rows + v - 2
                    yield tile, (r, u, c, v, clock, drain), clock, end
                    clock = drain
                else:
                    clock = clock + used if first_fold else clock + max(t, used)
                    end = clock + t + rows + v - 2
                    yield tile, (r, u, c, v, clock, 0), clock - u, end
                over, first_fold = max(over, end), False


def write(layer: Layer, accelerator: Accelerator, path: str | Path, plan: Plan | None = None) -> int:
    """Write the trace of `layer` to a .parquet or .csv file with columns cycle, operand, address; returns its rows.

    With several cores a column `core` comes first. Memory stays bounded whatever the length. Parquet needs pyarrow
    (extra `parquet`).
    """
    path = Path(path)
    writers: dict[str, Callable[[Iterator[Columns], BinaryIO], int]] = {".parquet": _parquet, ".csv": _csv}
    if path.suffix not in writers:
        raise InputError(path, "suffix", path.suffix, ".parquet or .csv")
    rows = 0

    def content(file: BinaryIO) -> None:
        nonlocal rows
        rows = writers[path.suffix](_columns(layer, accelerator, plan), file)

    write_atomic(path, content)
    return rows


def _columns(layer: Layer, accelerator: Accelerator, plan: Plan | None) -> Iterator[Columns]:
    for core in range(accelerator.cores):
        for cycle, operand, address in events(layer, accelerator, plan, core):
            first = {"core": np.full(len(cycle), core)} if accelerator.cores > 1 else {}
            yield first | {"cycle": cycle, "operand": operand, "address": address}


def _parquet(blocks: Iterator[Columns], file: BinaryIO) -> int:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise InputError("trace", "format", ".parquet", ".csv, or .parquet with pyarrow (extra parquet)") from None
    names = pa.array(OPERANDS)
    first, rows = next(blocks), 0
    types = {name: pa.dictionary(pa.int8(), pa.string()) if name == "operand" else pa.int64() for name in first}
    schema = pa.schema(list(types.items()))
    with parquet.ParquetWriter(file, schema) as writer:
        for block in itertools.chain([first], blocks):
            operand = pa.DictionaryArray.from_arrays(pa.array(block["operand"].astype(np.int8)), names)
            writer.write_table(pa.table(list((block | {"operand": operand}).values()), schema=schema))
            rows += len(operand)
    return rows


def _csv(blocks: Iterator[Columns], file: BinaryIO) -> int:
    import pandas as pd

    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    rows = 0
    for block in blocks:
        names = pd.Categorical.from_codes(block["operand"].astype(np.int8), list(OPERANDS))
        pd.DataFrame(block | {"operand": names}).to_csv(text, header=rows == 0, index=False)
        rows += len(names)
    text.detach()
    return rows

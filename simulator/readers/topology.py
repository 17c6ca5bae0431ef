"""SCALE-Sim's topology files: one layer a line, convolution or matrix product."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from simulator import userfile
from simulator.workload import Layer, Workload, conv, linear
from sram.errors import InputError
from sram.names import check_names

CONV = ("ifmap height", "ifmap width", "filter height", "filter width", "channels", "num filters", "stride")
GEMM = ("M", "N", "K")
# Far beyond any network, and so far below 2**63 that all counts of a layer stay there too.
MOST = 1 << 24  # of a cell
MOST_PIXELS = 1 << 26  # of an ifmap; each is looked at
MOST_PIXELS_OF_ALL = 1 << 28
MOST_LINES = 1 << 15
MOST_MACS = 1 << 53
MOST_LAYERS = 1 << 16  # of a depth-wise row


def read(path: str | Path) -> Workload:
    """The layers of a topology CSV.

    A header line, then `name, ifmap h, ifmap w, filter h, filter w, channels, filters, stride` (convolution; the ifmap
    already padded) or `name, M, N, K` (an M x K times K x N product), the same kind in all lines. Taken as its users
    write them: blank lines, trailing commas, spaces, a missing header, a dense sparsity ratio ("1:1") at the end, a
    batch count after K, and depth-wise rows (name contains "DP": one single-channel layer for each channel). Anything
    else raises InputError with the line's number. Format: scalesim-project/SCALE-Sim, scalesim/topology_utils.py.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(path, "file", error.strerror, "a readable topology CSV") from None
    except UnicodeDecodeError:
        raise InputError(path, "content", "bytes that are not UTF-8", "a topology CSV") from None
    layers: list[Layer] = []
    columns: tuple[str, ...] = ()
    pixels = 0
    for number, cells in enumerate(_rows(path, lines), start=1):
        cells = [cell.strip() for cell in cells]
        while cells and not cells[-1]:
            cells.pop()
        if not cells or (not layers and _is_header(cells)):
            continue
        where = f"{path} line {number}"
        check_names(where, cells[:1])
        values, batch = _values(where, cells)
        names = CONV if len(values) == len(CONV) else GEMM
        if columns and names != columns:
            raise InputError(where, "columns", ", ".join(cells), f"as in the lines before: name, {', '.join(columns)}")
        columns = names
        found = _conv_rows(where, cells[0], values) if names is CONV else [_gemm(cells[0], values, batch)]
        if found[0].macs > MOST_MACS:
            raise InputError(where, "multiplications", found[0].macs, f"at most 2**53 = {MOST_MACS} a layer")
        pixels += values[0] * values[1] * len(found) if names is CONV else 0
        if pixels > MOST_PIXELS_OF_ALL:
            raise InputError(where, "ifmaps up to here", f"{pixels} pixels", f"at most {MOST_PIXELS_OF_ALL} in a file")
        layers += found
    if not layers:
        raise InputError(path, "content", "no layer", f"lines of name, {', '.join(CONV)}; or name, {', '.join(GEMM)}")
    names_seen: dict[str, int] = {}
    for index, layer in enumerate(layers):
        names_seen[layer.name] = names_seen.get(layer.name, 0) + 1
        if names_seen[layer.name] > 1:  # two lines with one name are two layers with their own weights
            name = f"{layer.name}#{names_seen[layer.name]}"
            layers[index] = _renamed(layer, name)
    return Workload(path.stem, tuple(layers))


def _rows(path: Path, lines: list[str]) -> Iterator[list[str]]:
    if len(lines) > MOST_LINES:
        raise InputError(path, "lines", len(lines), f"at most {MOST_LINES}")
    reader = csv.reader(lines, skipinitialspace=True)
    try:
        yield from reader
    except csv.Error as error:  # a cell of more than 131072 characters
        raise InputError(f"{path} line {reader.line_num}", "content", str(error), "a topology CSV") from None


def _renamed(layer: Layer, name: str) -> Layer:
    from dataclasses import replace

    return replace(layer, name=name, weight_name=f"{name}.weight")


def _is_header(cells: list[str]) -> bool:
    return len(cells) > 1 and not any(cell.lstrip("+-").isdigit() for cell in cells[1:])


def _values(where: str, cells: list[str]) -> tuple[list[int], int]:
    """The numbers of a row, and the batch count that may follow the three of a matrix product."""
    numbers, batch = cells[1:], 1
    if numbers and ":" in numbers[-1]:
        kept, _, block = numbers.pop().partition(":")
        if kept.strip() != block.strip() or userfile.whole(kept.strip(), MOST) is None:
            allowed = "a dense ratio such as 1:1; sparse weights are not modelled"
            raise InputError(where, "sparsity", cells[-1][:40], allowed)
    values = []
    for column, cell in enumerate(numbers, start=2):
        value = userfile.whole(cell, MOST)
        if value is None:
            raise InputError(where, f"column {column}", cell[:40], f"a whole number from 1 to {MOST}")
        values.append(value)
    if len(values) == len(GEMM) + 1:
        batch = values.pop()
    if len(values) not in (len(CONV), len(GEMM)):
        allowed = f"{len(CONV)} (name, {', '.join(CONV)}) or {len(GEMM)} (name, {', '.join(GEMM)})"
        raise InputError(where, "number of values", len(values), allowed)
    return values, batch


def _conv_rows(where: str, name: str, values: list[int]) -> list[Layer]:
    height, width, kernel_h, kernel_w, channels, filters, stride = values
    if kernel_h > height or kernel_w > width:
        raise InputError(where, "filter", f"{kernel_h}x{kernel_w}", f"at most the ifmap's {height}x{width}")
    if height * width > MOST_PIXELS:
        raise InputError(where, "ifmap", f"{height}x{width}", f"at most {MOST_PIXELS} pixels")
    depthwise = "DP" in name
    if depthwise and channels > MOST_LAYERS:
        raise InputError(where, "channels", channels, f"at most {MOST_LAYERS} in a depth-wise row: each is a layer")
    rows = [f"{name}Channel_{channel}" for channel in range(channels)] if depthwise else [name]
    channels = 1 if depthwise else channels
    return [conv(row, height, width, channels, filters, (kernel_h, kernel_w), stride) for row in rows]


def _gemm(name: str, values: list[int], batch: int) -> Layer:
    m, n, k = values
    return linear(name, m, k, n, batch=batch)

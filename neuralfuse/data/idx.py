"""MNIST and Fashion-MNIST: the four IDX files, plain or gzipped."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from neuralfuse.data.files import need
from sram.errors import InputError


def read(path: Path, axes: int) -> np.ndarray:
    """An IDX file of unsigned bytes with so many axes: two zero bytes, type 0x08, number of axes, big-endian sizes,
    data in row-major order."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(path, "content", str(error), "an IDX file of unsigned bytes") from None
    header = bytes((0, 0, 8, axes))
    if raw[:4] != header or len(raw) < 4 + 4 * axes:
        raise InputError(path, "header", raw[:4].hex(), f"an IDX file of unsigned bytes, axes: {axes} ({header.hex()})")
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", axes, 4))
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * axes)
    if data.size != math.prod(shape):
        raise InputError(path, "size", data.size, f"{shape} bytes, as its header says")
    return data.reshape(shape)


def load(root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """uint8[n, 1, 28, 28] and int64 labels, training and test."""

    def part(name: str, axes: int) -> np.ndarray:
        packed = root / f"{name}.gz"
        path = packed if packed.exists() else need(root, name, f"the four IDX files, {name} or {name}.gz")
        return read(path, axes)

    train, test = part("train-images-idx3-ubyte", 3), part("t10k-images-idx3-ubyte", 3)
    return (
        *(train[:, None], part("train-labels-idx1-ubyte", 1).astype(np.int64)),
        *(test[:, None], part("t10k-labels-idx1-ubyte", 1).astype(np.int64)),
    )

"""MNIST and Fashion-MNIST: the four IDX files, plain or gzipped."""

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from neuralfuse.data.files import need
from sram.errors import InputError

MOST_BYTES, MOST_TIMES = 2**28, 8  # a small file may unpack to so much, a larger one to so many times its size


def read(path: Path, axes: int) -> np.ndarray:
    """An IDX file of unsigned bytes with so many axes: two zero bytes, type 0x08, number of axes, big-endian sizes,
    data in row-major order."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _read(path, file, axes, max(MOST_BYTES, MOST_TIMES * path.stat().st_size))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(path, "content", str(error), "an IDX file of unsigned bytes") from None


def _read(path: Path, file: gzip.GzipFile | BinaryIO, axes: int, most: int) -> np.ndarray:
    """What the header says is read, and no more: a few bytes may unpack to many."""
    head, header = file.read(4 + 4 * axes), bytes((0, 0, 8, axes))
    if head[:4] != header or len(head) < 4 + 4 * axes:
        allowed = f"an IDX file of unsigned bytes, axes: {axes} ({header.hex()})"
        raise InputError(path, "header", head[:4].hex(), allowed)
    shape = tuple(int(size) for size in np.frombuffer(head, ">u4", axes, 4))
    if math.prod(shape) > most:
        raise InputError(path, "size", shape, f"at most {most} bytes of a file of this size")
    data = np.frombuffer(file.read(math.prod(shape) + 1), np.uint8)
    if data.size != math.prod(shape):
        more = " or more" if data.size > math.prod(shape) else ""
        raise InputError(path, "size", f"{data.size}{more}", f"{shape} bytes, as its header says")
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

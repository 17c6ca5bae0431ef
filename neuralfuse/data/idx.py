"""MNIST and Fashion-MNIST: the four IDX files, plain or gzipped."""

import gzip
from pathlib import Path

import numpy as np

from neuralfuse.data.files import need
from sram.errors import InputError


def read(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes: two zero bytes, type 0x08, number of axes, big-endian sizes, data in row-major
    order."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise InputError(path, "content", str(error), "an IDX file of unsigned bytes") from None
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * raw[3]:
        raise InputError(path, "header", raw[:4].hex(), "an IDX file of unsigned bytes (0000080n)")
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", raw[3], 4))
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    if data.size != np.prod(shape, dtype=np.int64):
        raise InputError(path, "size", data.size, f"{shape} bytes, as its header says")
    return data.reshape(shape)


def load(root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """uint8[n, 1, 28, 28] and int64 labels, training and test."""

    def part(name: str) -> np.ndarray:
        packed = root / f"{name}.gz"
        return read(packed if packed.exists() else need(root, name, f"the four IDX files, {name} or {name}.gz"))

    train, test = part("train-images-idx3-ubyte"), part("t10k-images-idx3-ubyte")
    return (
        *(train[:, None], part("train-labels-idx1-ubyte").astype(np.int64)),
        *(test[:, None], part("t10k-labels-idx1-ubyte").astype(np.int64)),
    )

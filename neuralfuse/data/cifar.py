"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from either official layout: binary records, or pickled batches.

Pickles are read by an unpickler that knows arrays of whole numbers and nothing else, so a file can not run code.
"""

import io
import math
import pickle
import pickletools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuralfuse.data.files import need
from sram.errors import InputError

MOST_OBJECTS = 2**20  # of a batch; it has some 20,000
PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Layout:
    """Folder, training files and test file of an official archive."""

    folder: str
    train: tuple[str, ...]
    test: str


BINARY = {
    "cifar10": (Layout("cifar-10-batches-bin", tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"), 1),
    "cifar100": (Layout("cifar-100-binary", ("train.bin",), "test.bin"), 2),  # number of label bytes of a record
}
PYTHON = {
    "cifar10": (Layout("cifar-10-batches-py", tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch"), "labels"),
    "cifar100": (Layout("cifar-100-python", ("train",), "test"), "fine_labels"),  # key of the labels
}


class PickledType:
    """Stands in for `numpy.dtype`: `u1` or `i8`, and the order of the bytes from its state."""

    def __init__(self, kind: str | bytes, *_: object):
        self.kind, self.order = _text(kind), "|"

    def __setstate__(self, state: tuple) -> None:
        self.order = _text(state[1])

    def dtype(self) -> np.dtype:
        """The numpy type. ValueError for anything but whole numbers."""
        if not re.fullmatch("[iu][1248]", self.kind) or self.order not in ("|", "<", ">", "="):
            raise ValueError(f"an array of {self.order}{self.kind}")
        return np.dtype(self.order + self.kind)


class PickledArray:
    """Stands in for `numpy.ndarray`, whose own `__setstate__` may end the process where a file is damaged: the state is
    checked before an array is made of it."""

    def __init__(self, *_: object):
        self.array = np.zeros(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, by_columns, content = state
        dtype = kind.dtype()
        if not all(isinstance(size, int) for size in shape):
            raise ValueError("a shape that is none")
        if not isinstance(content, bytes) or len(content) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"an array of shape {shape} without its content")
        self.array = np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")


# What a pickled array of numbers is made of, under the module names of old and new NumPy.
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): PickledArray,
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): PickledType,
}


class ArrayUnpickler(pickle.Unpickler):
    """Refuses every class and function but the four that an array of numbers needs, and has its own in their place."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a class of an array; UnpicklingError for every other name."""
        if (module, name) == ("_codecs", "encode"):  # bytes, as Python 3 pickles them under protocol 2
            return lambda text, encoding: text.encode("latin1")
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")
        return ALLOWED[module, name]


def _check_pickle(content: bytes) -> None:
    """ValueError for what would fill the memory before a class is asked for: far more objects than a batch has, or
    bytes that are claimed but not there."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "BYTEARRAY8" or ("PUT" in opcode.name and argument and argument > MOST_OBJECTS):
            raise ValueError(f"{opcode.name} {argument}")


def _text(value: str | bytes) -> str:
    """Texts of Python 2 arrive as bytes."""
    return value.decode("ascii") if isinstance(value, bytes) else value


def read_binary(path: Path, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8[n, 3, 32, 32] and labels int64[n]; of two label bytes (coarse, fine) the last is used."""
    raw = np.fromfile(path, np.uint8)
    if raw.size == 0 or raw.size % (label_bytes + PIXELS):
        raise InputError(path, "size", raw.size, f"a multiple of {label_bytes + PIXELS} bytes")
    records = raw.reshape(-1, label_bytes + PIXELS)
    return records[:, label_bytes:].reshape(-1, 3, 32, 32), records[:, label_bytes - 1].astype(np.int64)


def read_python(path: Path, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    """The same from a pickled batch."""
    try:
        content = path.read_bytes()
        _check_pickle(content)
        batch = ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        images = batch[b"data"] if b"data" in batch else batch["data"]
        labels = batch[label_key.encode()] if label_key.encode() in batch else batch[label_key]
        if isinstance(labels, list) and not all(isinstance(label, int) for label in labels):
            raise ValueError("labels that are no whole numbers")  # lists in lists of lists may stand for any number
        images, labels = images.array, np.array(getattr(labels, "array", labels), np.int64)
        if images.dtype != np.uint8 or images.shape != (*labels.shape, PIXELS):
            raise ValueError(f"data of type {images.dtype} and shape {images.shape}, labels of shape {labels.shape}")
    except Exception as error:  # to the unpickler, damaged bytes are other instructions: any error may follow
        raise InputError(path, "batch", str(error), "a CIFAR batch: uint8 data [n, 3072] and n labels") from None
    return images.reshape(-1, 3, 32, 32), labels


def load(name: str, root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """train images, train labels, test images, test labels; the binary layout is preferred where both are there."""
    (binary, label_bytes), (python, label_key) = BINARY[name], PYTHON[name]
    pickled = (root / python.folder).is_dir() and not (root / binary.folder).is_dir()
    layout = python if pickled else binary
    what = f"the unpacked archive, {binary.folder} or {python.folder}"
    files = [need(root, f"{layout.folder}/{file}", what) for file in (*layout.train, layout.test)]
    parts = [read_python(file, label_key) if pickled else read_binary(file, label_bytes) for file in files]
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images[:-1]), np.concatenate(labels[:-1]), images[-1], labels[-1]

"""One frozen record for every dataset, and the two things that training does with it: split and augment."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from neuralfuse.data import cifar, digits, idx, images, series, text
from neuralfuse.data.inputs import Inputs
from simulator.readers.read import Integers
from sram import plugins
from sram.errors import InputError


@dataclass(frozen=True)
class Dataset:
    """train_x, test_x: images float32[n, channels, height, width] in [-1, 1]; or whole numbers int64[n, ...], such as
    those of letters; or features float32[n, ..., features]; or several of these, `Inputs` in place of a tensor.

    train_y, test_y: classes int64[n]; or several an item, int64[n, ...], of which -1 does not count; or numbers
    float32[n, ...], of which NaN does not.
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    num_classes: int  # of targets that are numbers: how many an item has

    @property
    def are_images(self) -> bool:
        """Whether the inputs are images, and nothing else."""
        return not self.input_names and self.train_x.dim() == 4

    @property
    def input_names(self) -> tuple[str, ...]:
        """Of several inputs, in the order of a network's arguments; none where there is one."""
        return tuple(self.train_x.parts) if isinstance(self.train_x, Inputs) else ()

    @property
    def are_labelled(self) -> bool:
        """Whether the target of an item is one class."""
        return self.train_y.dim() == 1 and not self.train_y.is_floating_point()

    @property
    def in_channels(self) -> int | dict[str, int]:
        """Channels of an image, features of others; of numbers how many different ones there may be. Of several inputs
        by name."""
        if isinstance(self.train_x, Inputs) and isinstance(self.test_x, Inputs):
            pairs = zip(self.train_x.parts.items(), self.test_x.parts.values(), strict=True)
            return {name: _channels(x, test_x) for (name, x), test_x in pairs}
        return _channels(self.train_x, self.test_x)

    @property
    def input_shape(self) -> tuple[Any, ...]:
        """Of one item, (channels, height, width) of an image; `Integers` where it is made of numbers; one for each of
        several inputs."""
        if isinstance(self.train_x, Inputs):
            return tuple(_shape(x) for x in self.train_x.parts.values())
        return _shape(self.train_x)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of the answer to one item: a number for each class of each target, or for each target that is a number."""
        targets = tuple(self.train_y.shape[1:])
        return targets if self.train_y.is_floating_point() else (*targets, self.num_classes)


def _channels(x: Tensor, test_x: Tensor) -> int:
    if not x.is_floating_point():
        return int(max(x.max(), test_x.max())) + 1
    return x.shape[1 if x.dim() == 4 else -1]


def _shape(x: Tensor) -> tuple[int, ...]:
    return (tuple if x.is_floating_point() else Integers)(x.shape[1:])


FILE_DATASETS: dict[str, tuple[Callable[..., tuple], int | None]] = {
    "cifar10": (partial(cifar.load, "cifar10"), 10),
    "cifar100": (partial(cifar.load, "cifar100"), 100),
    "gtsrb": (images.load_gtsrb, images.GTSRB_CLASSES),
    "mnist": (idx.load, 10),
    "fashion-mnist": (idx.load, 10),
    "folders": (images.load_folders, None),  # as many classes as there are folders
}


# Nothing to download, no folder: what makes them, of the options that they take.
EMBEDDED: dict[str, Callable[..., Sequence[Any]]] = {
    "digits": digits.load,
    "digits-rows": digits.rows,
    "text": text.load,
    "japanese-vowels": series.japanese_vowels,
    "basic-motions": series.basic_motions,
}
GROUP = "neuralfuse.datasets"


def names() -> list[str]:
    """Names that `load` knows, besides `package.module:callable` and those of installed packages."""
    return [*EMBEDDED, *FILE_DATASETS]


def load(name: str, root: str | Path | None = None, **options: Any) -> Dataset:
    """Read a dataset from the folder `root` (by default data/NAME); those of EMBEDDED need no files.

    A name that is not built in is an entry point `neuralfuse.datasets` of an installed package, or
    `package.module:callable`: called with the folder and `options`, it returns training images, training labels, test
    images, test labels. Images are uint8[n, channels, height, width], or floats in [-1, 1]; labels are int[n] from 0.
    Arrays of other shapes, and other targets, are tasks of another kind (`Dataset`). Of several inputs an item it
    returns dicts of arrays, {name: inputs}.

    `size` sets the edge of the images of `gtsrb` (32) and `folders` (224), and the characters of a window of `text`
    (64). Missing or damaged files are an InputError that says what belongs where.

    >>> digits = load("digits")
    >>> tuple(digits.train_x.shape), tuple(digits.test_x.shape)
    ((1347, 1, 16, 16), (450, 1, 16, 16))
    """
    if name in EMBEDDED:
        return _embedded(name, options)
    read, num_classes, _ = _reader(name)
    folder = Path(root if root is not None else f"data/{name}")
    parts = _parts(name, read, folder, options)
    if isinstance(parts[0], dict):
        return _several(name, folder, *parts)
    train_x, train_y, test_x, test_y = parts
    if name not in FILE_DATASETS and not (train_x.ndim == 4 and train_y.ndim == 1 and train_y.dtype.kind in "iu"):
        return _other(name, folder, train_x, train_y, test_x, test_y)
    for part, x, y in (("training", train_x, train_y), ("test", test_x, test_y)):
        if x.ndim != 4 or len(x) != len(y) or x.size == 0:
            allowed = "one label for each image, one image at least: [n, channels, height, width]"
            raise InputError(folder, f"{part} images", f"{list(x.shape)} with {len(y)} labels", allowed)
        if x.shape[1:] != train_x.shape[1:]:
            raise InputError(folder, f"{part} images", list(x.shape[1:]), f"{list(train_x.shape[1:])}, as for training")
        if y.ndim != 1 or y.dtype.kind not in "iu":
            raise InputError(folder, f"{part} labels", f"{y.dtype}{list(y.shape)}", "one whole number for each image")
        if x.dtype != np.uint8 and not np.abs(x).max() <= 1:
            raise InputError(folder, f"{part} images", f"{x.dtype} up to {np.abs(x).max():g}", "uint8, or -1 to 1")
        classes = num_classes or int(train_y.max()) + 1
        if y.min() < 0 or y.max() >= classes:
            raise InputError(folder, f"{part} labels", (int(y.min()), int(y.max())), f"0 to {classes - 1}")
    return Dataset(
        *(name, scale(train_x), torch.from_numpy(train_y).long()),
        *(scale(test_x), torch.from_numpy(test_y).long()),
        num_classes=classes,
    )


def _embedded(name: str, options: dict[str, Any]) -> Dataset:
    if options and name != "text":
        raise InputError("data", f"{name} options", options, "none: its images are what they are")
    train_x, train_y, test_x, test_y = map(torch.as_tensor, EMBEDDED[name](**options))
    classes = int(torch.cat([train_y, test_y]).max()) + 1
    return Dataset(name, train_x, train_y, test_x, test_y, classes)


def _other(name: str, folder: Path, *parts: np.ndarray) -> Dataset:
    """What is not images with a class each. InputError where the parts do not fit each other, or a network."""
    train_x, train_y, test_x, test_y = parts
    whole = train_y.dtype.kind in "iu"
    classes = int(train_y.max(initial=0)) + 1 if whole else math.prod(train_y.shape[1:])
    for part, x, y in (("training", train_x, train_y), ("test", test_x, test_y)):
        for what, array, like in (("inputs", x, train_x), ("targets", y, train_y)):
            if (
                array.ndim < (2 if what == "inputs" and array.dtype.kind == "f" else 1)
                or array.size == 0
                or len(array) != len(x)
            ):
                allowed = "inputs [n, ...] and as many targets [n, ...], one at least"
                raise InputError(folder, f"{part} {what}", list(array.shape), allowed)
            if array.shape[1:] != like.shape[1:] or array.dtype.kind != like.dtype.kind:
                allowed = f"{like.dtype} [n, {', '.join(map(str, like.shape[1:]))}], as for training"
                raise InputError(folder, f"{part} {what}", f"{array.dtype} {list(array.shape)}", allowed)
        found = float(np.abs(x).max()) if x.dtype.kind == "f" else int(x.min())
        if x.dtype.kind not in "iuf" or not (found < math.inf if x.dtype.kind == "f" else found >= 0):
            raise InputError(folder, f"{part} inputs", found, "finite floats, or whole numbers from 0")
        if x.ndim == 4 and x.dtype != np.uint8 and not found <= 1:
            raise InputError(folder, f"{part} images", f"{x.dtype} up to {found:g}", "uint8, or -1 to 1")
        lowest = -1 if y.ndim > 1 else 0  # -1 does not count, but an item has a target
        if whole and not lowest <= y.min() <= y.max() < classes:
            raise InputError(folder, f"{part} targets", (int(y.min()), int(y.max())), f"{lowest} to {classes - 1}")
        if y.dtype.kind not in "iuf" or (not whole and (np.isinf(y).any() or (y.ndim == 1 and np.isnan(y).any()))):
            raise InputError(folder, f"{part} targets", str(y.dtype), "whole numbers, or finite floats")

    def tensor(part: np.ndarray) -> Tensor:
        kind = np.float32 if part.dtype.kind == "f" else np.int64
        return scale(part) if part.ndim == 4 else torch.from_numpy(part.astype(kind))

    return Dataset(name, tensor(train_x), tensor(train_y), tensor(test_x), tensor(test_y), classes)


def _several(name: str, folder: Path, *parts: Any) -> Dataset:
    """What has several inputs: each is read as if it were the only one. InputError where one does not fit."""
    train_x, train_y, test_x, test_y = parts
    if train_x.keys() != test_x.keys():
        raise InputError(folder, "test inputs", ", ".join(test_x), f"{', '.join(train_x)}, as for training")
    each = {part: _other(f"{name} {part}", folder, x, train_y, test_x[part], test_y) for part, x in train_x.items()}
    train, test = (Inputs({part: getattr(found, x) for part, found in each.items()}) for x in ("train_x", "test_x"))
    first = next(iter(each.values()))
    return replace(first, name=name, train_x=cast(Tensor, train), test_x=cast(Tensor, test))


def _parts(name: str, read: Callable[..., tuple], folder: Path, options: dict[str, Any]) -> list[Any]:
    """The four arrays that a reader returns, or dicts of arrays for inputs. InputError where it takes no such options,
    or returns something else."""
    allowed = "training images and labels, test images and labels, as arrays"
    try:
        inspect.signature(read).bind(folder, **options)
    except TypeError as error:
        raise InputError("data", f"{name} options", options, f"what its reader takes ({error})") from None
    found = read(folder, **options)
    if not isinstance(found, tuple | list) or len(found) != 4:
        raise InputError("data", name, type(found).__name__, allowed)
    several = [isinstance(part, dict) for part in found]
    if any(several) and (several != [True, False, True, False] or not found[0] or not found[2]):
        raise InputError("data", name, [type(part).__name__ for part in found], "dicts of inputs, arrays of targets")
    try:
        parts = [
            {str(key): np.asarray(value) for key, value in part.items()} if isinstance(part, dict) else np.asarray(part)
            for part in found
        ]
    except (ValueError, TypeError) as error:
        raise InputError("data", name, str(error), allowed) from None
    kinds = [array.dtype for part in parts for array in (part.values() if isinstance(part, dict) else [part])]
    if any(kind.kind not in "biuf" for kind in kinds):
        raise InputError("data", name, [str(kind) for kind in kinds], allowed + " of numbers")
    return parts


def sources(name: str) -> list[str]:
    """Paths of the Python files behind a dataset's name; none for those that are built in."""
    return [] if name in EMBEDDED else _reader(name)[2]


def _reader(name: str) -> tuple[Callable[..., tuple], int | None, list[str]]:
    """(reader, number of classes if it is known, files that the reader comes from)."""
    if name in FILE_DATASETS:
        return *FILE_DATASETS[name], []
    if ":" in name:
        made = plugins.imported(name, "data")
        return made, None, plugins.sources(made, name.partition(":")[0])
    found = plugins.installed(GROUP, name)
    if found is None:
        known = [*names(), *plugins.names(GROUP), "package.module:callable"]
        raise InputError("data", "name", name, "one of " + ", ".join(known))
    return found, None, plugins.sources(found)


def scale(images: np.ndarray) -> Tensor:
    """uint8 pixels to float32 in [-1, 1]; floats are taken as they are."""
    pixels = torch.from_numpy(images.astype(np.float32, order="C"))
    return pixels.div_(127.5).sub_(1) if images.dtype == np.uint8 else pixels


def split(data: Dataset, fraction: float = 0.1, seed: int = 0) -> Dataset:
    """Hold out a share of the training images as the test images of a new dataset: for early stopping and tuning."""
    order = torch.randperm(len(data.train_y), generator=torch.Generator().manual_seed(seed))
    held, kept = order[: round(fraction * len(order))], order[round(fraction * len(order)) :]
    return replace(
        data,
        train_x=data.train_x[kept],
        train_y=data.train_y[kept],
        test_x=data.train_x[held],
        test_y=data.train_y[held],
    )


def augment(x: Tensor, generator: torch.Generator, shift: int = 4, flip: bool = True) -> Tensor:
    """Random crop after padding by `shift` pixels of background, and a random mirror image; one draw per image.

    x: float32[n, c, h, w] in [-1, 1]; the padding is -1 (black), as zero-padding before scaling gives.
    """
    n, _, height, width = x.shape
    if shift:
        padded = F.pad(x, (shift,) * 4, value=-1.0)
        top = torch.randint(0, 2 * shift + 1, (n, 1), generator=generator)
        left = torch.randint(0, 2 * shift + 1, (n, 1), generator=generator)
        rows = (top + torch.arange(height))[:, None, :, None]
        columns = (left + torch.arange(width))[:, None, None, :]
        x = padded[torch.arange(n)[:, None, None, None], torch.arange(x.shape[1])[None, :, None, None], rows, columns]
    if flip:
        mirrored = torch.rand(n, generator=generator) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    return x

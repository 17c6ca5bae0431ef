"""Datasets of image files: GTSRB in its official layout, and class folders as ImageNet has them."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuralfuse.data.files import need
from sram.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".webp"}
GTSRB_CLASSES = 43
MOST_PIXELS, MOST_TIMES, MOST_SIZE = 2**26, 32, 1024  # of a file, of its sides, of an edge that it is brought to
SPLITS = {"train": ("train",), "test": ("test", "val")}


def read(path: Path, size: int, crop: bool) -> np.ndarray:
    """uint8[3, size, size]: resized as a whole, or (crop) its short side to 8/7 size and the middle cut out (256 ->
    224). Of 16 bits a channel the upper 8 count."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            opened.verify()  # of a PNG, its checksums: pixels of a damaged one may be decoded
        with Image.open(path) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise ValueError(f"{opened.width}x{opened.height}, more than {MOST_PIXELS} pixels")
            if max(opened.size) > MOST_TIMES * min(opened.size):  # its short side is enlarged, and the other with it
                raise ValueError(f"{opened.width}x{opened.height}, sides that differ more than {MOST_TIMES} times")
            image = _grey(opened) if opened.mode[0] in "IF" else opened.convert("RGB")
    except Exception as error:  # each of Pillow's decoders has errors of its own for damaged bytes
        raise InputError(path, "image", str(error), "a readable image") from None
    if not crop:
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    scale = size * 8 / 7 / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    return np.asarray(resized).transpose(2, 0, 1)


def _grey(opened: "Image") -> "Image":
    """RGB of an image whose pixels are whole numbers of 16 bits; Pillow's own conversion cuts them at 255."""
    from PIL import Image

    pixels = np.asarray(opened)
    if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 0xFFFF:
        raise ValueError(f"pixels of mode {opened.mode}, up to {pixels.max()}")
    return Image.fromarray((pixels.astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")


def stack(files: list[Path], labels: list[int], size: int, crop: bool) -> tuple[np.ndarray, np.ndarray]:
    """uint8[n, 3, size, size] of the files, and their labels as int64[n]."""
    if not (isinstance(size, int) and 1 <= size <= MOST_SIZE):
        raise InputError("data", "size", size, f"a whole number of pixels, 1 to {MOST_SIZE}")
    images = np.empty((len(files), 3, size, size), np.uint8)
    for i, file in enumerate(files):
        images[i] = read(file, size, crop)
    return images, np.asarray(labels, np.int64)


def load_gtsrb(root: Path, size: int = 32) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """German Traffic Sign Recognition Benchmark (Stallkamp et al., 2012), 43 classes, resized to size x size."""
    what = "GTSRB's Final_Training/Images, Final_Test/Images and GT-final_test.csv"
    base = root / "GTSRB" if (root / "GTSRB").is_dir() else root
    training = need(base, "Final_Training/Images", what)
    files = sorted(training.glob("*/*.ppm"))
    table = next(
        (path for path in (base / "GT-final_test.csv", base / "Final_Test/Images/GT-final_test.csv") if path.exists()),
        None,
    ) or need(base, "GT-final_test.csv", what)
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter=";"))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(table, "content", str(error), "columns Filename and ClassId with ; between them") from None
    if not files or not rows or not {"Filename", "ClassId"} <= rows[0].keys():
        raise InputError(base, "images", f"{len(files)} training images, {len(rows)} test rows", what)
    tests = [need(base, f"Final_Test/Images/{row['Filename']}", what) for row in rows]
    return (
        *stack(files, [_gtsrb_class(training, "folder", path.parent.name) for path in files], size, crop=False),
        *stack(tests, [_gtsrb_class(table, "ClassId", row["ClassId"]) for row in rows], size, crop=False),
    )


def _gtsrb_class(where: Path, key: str, text: str | None) -> int:
    """The number of a class as a folder or the table names it; a short row of the table has None."""
    if text is None or not text.isdecimal() or len(text) > 5 or int(text) >= GTSRB_CLASSES:
        raise InputError(where, key, text, f"the number of a class, 0 to {GTSRB_CLASSES - 1}")
    return int(text)


def load_folders(root: Path, size: int = 224) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """train/CLASS/*.jpg and test/CLASS/*.jpg (or val/): classes are numbered in the order of their sorted names."""
    what = "train/CLASS/*.jpg and test/CLASS/*.jpg (or val/CLASS/*.jpg)"
    training = need(root, "train", what)
    classes = sorted(folder.name for folder in training.iterdir() if folder.is_dir())
    if not classes:
        raise InputError(training, "classes", "none", what)
    result: list[np.ndarray] = []
    for names in SPLITS.values():
        base = next((root / name for name in names if (root / name).is_dir()), None) or need(root, names[0], what)
        unknown = {folder.name for folder in base.iterdir() if folder.is_dir()} - set(classes)
        if unknown:
            raise InputError(base, "class", sorted(unknown)[0], f"the classes of {training}")
        files = [
            file for name in classes for file in sorted((base / name).glob("*")) if file.suffix.lower() in SUFFIXES
        ]
        if not files:
            raise InputError(base, "images", "none", what)
        result += stack(files, [classes.index(file.parent.name) for file in files], size, crop=True)
    return tuple(result)  # type: ignore[return-value]

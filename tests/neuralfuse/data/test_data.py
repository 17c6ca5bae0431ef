"""Are datasets read from their official layouts, and are hostile or missing files refused with one clear message?"""

import gzip
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from neuralfuse import data
from neuralfuse.data import cifar, images
from sram.errors import InputError

RANDOM = np.random.default_rng(8)


def records(n, classes):
    return RANDOM.integers(0, 256, (n, 3072), dtype=np.uint8), RANDOM.integers(0, classes, n)


def test_digits_row_by_row_are_the_same_digits():
    images, rows = data.load("digits"), data.load("digits-rows")
    assert torch.equal(images.test_x.squeeze(1), rows.test_x)
    assert (rows.in_channels, rows.input_shape, rows.output_shape) == (16, (16, 16), (10,))
    assert torch.equal(images.train_y, rows.train_y)
    with pytest.raises(InputError, match="digits-rows options"):
        data.load("digits-rows", size=8)


def test_text_is_windows_of_the_asked_length_and_what_follows():
    found = data.load("text", size=16)
    assert found.input_shape == (16,)
    assert torch.equal(found.test_x[:, 1:], found.test_y[:, :-1])
    with pytest.raises(InputError, match="text size = 1 "):
        data.load("text", size=1)


def test_digits_are_fixed_scaled_and_split():
    digits = data.load("digits")
    assert (len(digits.train_y), len(digits.test_y)) == (1347, 450)
    assert digits.input_shape == (1, 16, 16)
    assert digits.train_x.dtype == torch.float32
    assert digits.train_x.min() == -1
    assert digits.train_x.max() == 1
    assert (digits.test_y.bincount() > 35).all()
    pixels = {x.numpy().tobytes() for x in digits.train_x}
    assert not any(x.numpy().tobytes() in pixels for x in digits.test_x)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_binary_and_python_layouts_of_cifar_agree(tmp_path, name):
    (binary, label_bytes), (python, label_key) = cifar.BINARY[name], cifar.PYTHON[name]
    for root, layout in (("b", binary), ("p", python)):
        (tmp_path / root / layout.folder).mkdir(parents=True)
    for raw, pickled in zip((*binary.train, binary.test), (*python.train, python.test), strict=True):
        pixels, labels = records(6, 10)
        coarse = np.full((6, label_bytes - 1), 77, np.uint8)
        rows = np.concatenate([coarse, labels[:, None].astype(np.uint8), pixels], 1)
        (tmp_path / "b" / binary.folder / raw).write_bytes(rows.tobytes())
        batch = {b"data": pixels, label_key.encode(): labels.tolist(), b"filenames": [b"a.png"] * 6}
        (tmp_path / "p" / python.folder / pickled).write_bytes(pickle.dumps(batch, protocol=2))
        last = pixels, labels
    a, b = data.load(name, tmp_path / "b"), data.load(name, tmp_path / "p")
    for part in ("train_x", "train_y", "test_x", "test_y"):
        assert torch.equal(getattr(a, part), getattr(b, part))
    assert torch.equal(a.test_y, torch.from_numpy(last[1]))
    assert torch.allclose((a.test_x + 1) * 127.5, torch.from_numpy(last[0]).view(6, 3, 32, 32).float(), atol=1e-4)
    assert a.num_classes == int(name.removeprefix("cifar"))


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/owned-by-a-pickle",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({b"data": Evil(), b"labels": [1]}),
        pickle.dumps(Evil()),
        pickle.dumps({b"data": np.zeros((2, 3072), object), b"labels": [0, 1]}),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8)}),
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]})[:50],
        b"",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
    ],
)
def test_unpickler_refuses_everything_but_arrays(tmp_path, content):
    path = tmp_path / "batch"
    path.write_bytes(content)
    with pytest.raises(InputError, match="CIFAR batch"):
        cifar.read_python(path, "labels")
    assert not os.path.exists("/tmp/owned-by-a-pickle")


def test_damaged_batches_are_refused_or_read(tmp_path):
    """Damaged bytes are other instructions to the unpickler. IndexError, OverflowError and SystemError came out of it,
    and NumPy's own `__setstate__` ended the process."""
    whole = pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}, protocol=2)
    path, random, refused = tmp_path / "batch", np.random.default_rng(5), 0
    for _ in range(1000):
        damaged = bytearray(whole)
        for place in random.choice([*range(250), *range(len(whole) - 60, len(whole))], random.integers(1, 5)):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            images, labels = cifar.read_python(path, "labels")
        except InputError:
            refused += 1
        else:
            assert images.shape == (*labels.shape, 3, 32, 32)
    assert refused > 500


def test_batches_of_python_2(tmp_path):
    """The official archives, by hand: texts of bytes, old module names, the number of bytes before the pixels."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    pixels = RANDOM.integers(0, 256, (6, 3072), dtype=np.uint8)
    kind = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNN" + 2 * b"J\xff\xff\xff\xff"
    content = b"T" + pixels.size.to_bytes(4, "little") + pixels.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array += b"(K\x01K\x06M\x00\x0c\x86" + kind + b"K\x00tb\x89" + content + b"tb"
    labels = b"](" + b"".join(b"K" + bytes([i]) for i in range(6)) + b"e"
    path = tmp_path / "batch"
    path.write_bytes(b"\x80\x02}(" + text(b"data") + array + text(b"labels") + labels + b"u.")
    images, found = cifar.read_python(path, "labels")
    assert np.array_equal(images.reshape(6, 3072), pixels)
    assert found.tolist() == list(range(6))


@pytest.mark.parametrize("name", list(data.dataset.FILE_DATASETS))
def test_missing_files_say_where_they_belong(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)  # a data folder of one's own does not count
    with pytest.raises(InputError, match=r"data: root = .*a folder that holds .* is missing"):
        data.load(name, tmp_path)
    with pytest.raises(InputError, match=f"data/{name}"):
        data.load(name)


def test_unknown_dataset():
    with pytest.raises(InputError, match="cifar10"):
        data.load("cifar11")


def test_truncated_binary_and_labels_out_of_range(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in (*cifar.BINARY["cifar10"][0].train, "test_batch.bin"):
        (folder / name).write_bytes(bytes(3073))
    assert len(data.load("cifar10", tmp_path).train_y) == 5
    (folder / "test_batch.bin").write_bytes(b"\x0a" + bytes(3072))
    with pytest.raises(InputError, match="labels"):
        data.load("cifar10", tmp_path)
    (folder / "test_batch.bin").write_bytes(bytes(3000))
    with pytest.raises(InputError, match="multiple of 3073"):
        data.load("cifar10", tmp_path)


def idx(array):
    head = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return head + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("train-labels-idx1-ubyte", idx(np.zeros(5)), r"training images = '\[7, 1, 28, 28\] with 5 labels'"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((0, 28, 28))), "test images"),
        ("train-images-idx3-ubyte", idx(np.zeros(7)), "train-images-idx3-ubyte: header = '00000801'"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros((3, 1, 1))), "t10k-labels-idx1-ubyte: header = '00000803'"),
        ("t10k-labels-idx1-ubyte", b"", "t10k-labels-idx1-ubyte: header = ''"),
        (
            "train-images-idx3-ubyte",
            b"\0\0\x08\x03" + 3 * b"\x80\0\0\0",
            "at most 268435456 bytes",
        ),
        ("t10k-labels-idx1-ubyte.gz", gzip.compress(bytes(99))[:10] + bytes(20), "ubyte.gz: content"),
    ],
    ids=["fewer labels", "no images", "labels for images", "images for labels", "empty", "huge", "not packed"],
)
def test_idx_files_that_do_not_fit(tmp_path, file, content, says):
    for part, n in (("train", 7), ("t10k", 3)):
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx(np.zeros((n, 28, 28))))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.zeros(n)))
    assert len(data.load("mnist", tmp_path).train_y) == 7
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=says) as refused:
        data.load("mnist", tmp_path)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files(tmp_path, packed):
    images = {part: RANDOM.integers(0, 256, (n, 28, 28), dtype=np.uint8) for part, n in (("train", 7), ("t10k", 3))}
    for part, pixels in images.items():
        for kind, array in (("images-idx3", pixels), ("labels-idx1", np.arange(len(pixels)))):
            content = idx(array)
            name = tmp_path / f"{part}-{kind}-ubyte"
            name.with_name(name.name + ".gz").write_bytes(gzip.compress(content)) if packed else name.write_bytes(
                content
            )
    read = data.load("mnist", tmp_path)
    assert read.input_shape == (1, 28, 28)
    assert torch.allclose((read.test_x[:, 0] + 1) * 127.5, torch.from_numpy(images["t10k"]).float(), atol=1e-4)
    assert read.train_y.tolist() == list(range(7))
    suffix = ".gz" if packed else ""
    bad = tmp_path / f"train-labels-idx1-ubyte{suffix}"
    bad.write_bytes(bad.read_bytes()[:9])
    with pytest.raises(InputError, match="idx1"):
        data.load("fashion-mnist", tmp_path)


def save_image(path, colour, size=(40, 30)):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_class_folders(tmp_path):
    for split in ("train", "val"):
        for i, name in enumerate(("cat", "dog")):
            for k in range(2):
                save_image(tmp_path / split / name / f"{k}.png", (255 * i, 0, 255))
    read = data.load("folders", tmp_path, size=24)
    assert read.input_shape == (3, 24, 24)
    assert read.num_classes == 2
    assert read.test_y.tolist() == [0, 0, 1, 1]
    assert read.test_x[:, 0, 0, 0].tolist() == [-1, -1, 1, 1]
    save_image(tmp_path / "val" / "fish" / "0.png", (0, 0, 0))
    with pytest.raises(InputError, match="fish"):
        data.load("folders", tmp_path)


def test_gtsrb(tmp_path):
    for label in (0, 42):
        save_image(tmp_path / f"GTSRB/Final_Training/Images/{label:05d}/00000_00000.ppm", (label, 0, 0))
    save_image(tmp_path / "GTSRB/Final_Test/Images/00000.ppm", (9, 9, 9))
    rows = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n00000.ppm;40;30;1;1;9;9;16\n"
    (tmp_path / "GTSRB/GT-final_test.csv").write_text(rows)
    read = data.load("gtsrb", tmp_path)
    assert read.train_y.tolist() == [0, 42]
    assert read.test_y.tolist() == [16]
    assert read.input_shape == (3, 32, 32)


def damaged_images():
    """Headers cut short and sizes that cannot be: what Pillow says ValueError, SyntaxError and bombs to."""
    from io import BytesIO

    from PIL import Image

    def saved(kind):
        buffer = BytesIO()
        Image.new("RGB", (20, 20)).save(buffer, kind)
        return buffer.getvalue()

    png, bmp = saved("png"), saved("bmp")
    pixels = png.index(b"IDAT")
    return {
        "cut.ppm": b"P6 20 ",
        "broken.png": png[: pixels - 4] + b"\0\0\0\2" + png[pixels:],  # what follows two bytes of them is no chunk
        "huge.bmp": bmp[:18] + 2 * (50000).to_bytes(4, "little") + bmp[26:],
    }


@pytest.mark.parametrize("name", ["cut.ppm", "broken.png", "huge.bmp"])
def test_damaged_images_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(damaged_images()[name])
    with pytest.raises(InputError, match=f"{name}: image = "):
        images.read(tmp_path / name, 24, crop=True)


def test_a_damaged_png_is_refused_whatever_pixels_it_decodes_to(tmp_path):
    """Each bit of the compressed pixels turned in turn: the checksum says so, the decoder often does not."""
    path, random = tmp_path / "a.png", np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    start = whole.index(b"IDAT") + 4
    for place in range(start, len(whole) - 16):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(InputError, match="readable image"):
            images.read(path, 8, crop=False)


@pytest.mark.parametrize(
    ("folder", "class_id", "says"),
    [
        ("abc", "16", "Final_Training/Images: folder = 'abc'"),
        ("00043", "16", "Final_Training/Images: folder = '00043'"),
        ("00001", "x", "GT-final_test.csv: ClassId = 'x'"),
        ("00001", "9" * 30, "GT-final_test.csv: ClassId = '9999"),
        ("00001", None, "GT-final_test.csv: ClassId = None"),
        ("00001", "\udcff", "GT-final_test.csv: content"),
    ],
)
def test_classes_that_gtsrb_does_not_have(tmp_path, folder, class_id, says):
    save_image(tmp_path / f"Final_Training/Images/{folder}/00000_00000.ppm", (1, 0, 0))
    save_image(tmp_path / "Final_Test/Images/00000.ppm", (9, 9, 9))
    row = "00000.ppm" if class_id is None else f"00000.ppm;{class_id}"
    (tmp_path / "GT-final_test.csv").write_bytes(f"Filename;ClassId\n{row}\n".encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=says):
        data.load("gtsrb", tmp_path)


def test_augmentation_shifts_and_mirrors():
    x = torch.arange(16.0).view(1, 1, 4, 4).repeat(400, 1, 1, 1) / 16
    random = torch.Generator().manual_seed(3)
    assert torch.equal(data.augment(x, random, shift=0, flip=False), x)
    flipped = data.augment(x, random, shift=0, flip=True)
    mirrored = torch.tensor([torch.equal(image, x[0].flip(2)) for image in flipped])
    assert 150 < mirrored.sum() < 250  # 5 standard deviations of 400 fair coins
    assert all(torch.equal(image, x[0].flip(2) if m else x[0]) for image, m in zip(flipped, mirrored, strict=True))
    moved = data.augment(x, random, shift=1, flip=False)
    padded = torch.nn.functional.pad(x[:1], (1,) * 4, value=-1.0)
    crops = [padded[0, :, i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    found = [next(k for k, crop in enumerate(crops) if torch.equal(image, crop)) for image in moved]
    assert len(set(found)) == 9


def test_split_takes_no_test_image():
    digits = data.load("digits")
    parts = data.split(digits, 0.2, seed=1)
    assert len(parts.test_y) == round(0.2 * 1347)
    assert len(parts.train_y) + len(parts.test_y) == 1347
    training = {x.numpy().tobytes() for x in digits.train_x}
    assert all(x.numpy().tobytes() in training for x in parts.test_x)


def class_folders(root, make):
    """One image of `make` in each class of each part."""
    for part in ("train", "test"):
        for name in "ab":
            (root / part / name).mkdir(parents=True)
            make().save(root / part / name / "0.png")


def test_images_of_sixteen_bits_are_scaled_not_cut(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    class_folders(tmp_path / "16", lambda: Image.fromarray(ramp))
    class_folders(tmp_path / "8", lambda: Image.fromarray((ramp // 256).astype(np.uint8)))
    found, expected = (data.load("folders", tmp_path / bits, size=32).train_x for bits in ("16", "8"))
    assert found.equal(expected)
    assert len(found.unique()) > 50


@pytest.mark.parametrize("size", [0, -1, 10**9, 1.5, "32"])
def test_sizes_of_images_are_pixels(tmp_path, size):
    class_folders(tmp_path, lambda: Image.new("RGB", (8, 8)))
    with pytest.raises(InputError, match="size"):
        data.load("folders", tmp_path, size=size)


@pytest.mark.parametrize("shape", [(60_000, 1), (1, 60_000), (9000, 9000)])
def test_images_that_would_fill_the_memory_are_refused(tmp_path, shape):
    class_folders(tmp_path, lambda: Image.new("L", shape))
    with pytest.raises(InputError, match=r"sides that differ|more than"):
        data.load("folders", tmp_path, size=32)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (lambda x, y: (x, y + 0.5, x, y), "one whole number for each image"),
        (lambda x, y: (x, np.eye(4)[y], x, y), "one whole number for each image"),
        (lambda x, y: (x, y, x[:, :, :4], y), "as for training"),
        (lambda x, y: (x, y, x), "as arrays"),
        (lambda x, y: "x", "as arrays"),
        (lambda x, y: (x, ["a", "b", "c", "d"], x, y), "of numbers"),
    ],
)
def test_what_a_reader_returns_is_checked(monkeypatch, found, says):
    x, y = np.zeros((4, 1, 8, 8), np.uint8), np.arange(4)
    monkeypatch.setitem(data.dataset.FILE_DATASETS, "own", (lambda root: found(x, y), None))
    with pytest.raises(InputError, match=says):
        data.load("own")

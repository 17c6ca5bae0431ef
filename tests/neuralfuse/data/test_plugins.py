"""Are datasets of other packages read like those that are built in, and checked like them?"""

import numpy as np
import pytest
import torch

from neuralfuse import data
from sram.errors import InputError
from tests.plugin_package import install

SOURCE = '''
import numpy as np

def stripes(root, period=2):
    """Two classes: stripes down, stripes across."""
    down = np.zeros((20, 1, 8, 8), np.uint8)
    down[:, :, :, ::period] = 255
    images = np.concatenate([down, down.transpose(0, 1, 3, 2)])
    labels = np.repeat([0, 1], 20).astype(np.int32)
    return images[::2], labels[::2], images[1::2], labels[1::2]

def floats(root):
    return [part / 255 if part.ndim == 4 else part for part in stripes(root)]

def too_bright(root):
    return [part / 2 if part.ndim == 4 else part for part in stripes(root)]

def unlabelled(root):
    train_x, train_y, test_x, test_y = stripes(root)
    return train_x, train_y[:3], test_x, test_y
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    return install(
        tmp_path, monkeypatch, "stripy", SOURCE, {data.dataset.GROUP: {"stripes": "stripy:stripes", "gone": "stripy:x"}}
    )


@pytest.mark.parametrize("name", ["stripes", "stripy:stripes"])
def test_a_dataset_of_another_package(package, name):
    found = data.load(name, period=4)
    assert (found.name, found.num_classes, found.input_shape) == (name, 2, (1, 8, 8))
    assert found.train_y.dtype == found.test_y.dtype == torch.int64
    assert found.train_x.dtype == torch.float32
    assert found.train_x[0, 0, 0].tolist() == [1, -1, -1, -1, 1, -1, -1, -1]
    assert data.sources(name) == [str(package)]


def test_floats_are_taken_as_they_are(package):
    assert np.unique(data.load("stripy:floats").train_x).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("stripy:too_bright", "uint8, or -1 to 1"),
        ("stripy:unlabelled", "with 3 labels"),
        ("stripy:x", "importable"),
        ("gone", "entry point"),
        ("mnits", r"mnist, .*stripes, package\.module:callable"),
    ],
)
def test_mistakes(package, name, says):
    with pytest.raises(InputError, match=says):
        data.load(name)


def test_built_in_datasets_have_no_sources():
    assert all(data.sources(name) == [] for name in data.names())

"""Do series of other lengths end together, and does a missing package say what to install?"""

import sys
import types

import numpy as np
import pytest

from neuralfuse import data, networks
from neuralfuse.data import series
from sram.errors import InputError


@pytest.fixture
def aeon(monkeypatch):
    """A package of its functions and of four made-up series each."""

    def load(split):
        lengths = (3, 5) if split == "train" else (7, 2)
        return [np.arange(2.0 * n).reshape(2, n) + 1 for n in lengths], np.array(["b", "a"])

    package = types.ModuleType("aeon")
    package.datasets = types.SimpleNamespace(load_japanese_vowels=load, load_basic_motions=load)
    monkeypatch.setitem(sys.modules, "aeon", package)


def test_series_end_together_and_labels_are_numbered(aeon):
    for name in ("japanese-vowels", "basic-motions"):
        found = data.load(name)
        assert tuple(found.train_x.shape) == (2, 7, 2) == tuple(found.test_x.shape)
        assert found.train_x[0].tolist() == [[0, 0]] * 4 + [[1, 4], [2, 5], [3, 6]]
        assert found.train_y.tolist() == found.test_y.tolist() == [1, 0]
        assert (found.num_classes, found.in_channels, found.input_shape) == (2, 2, (7, 2))


def test_without_the_package_one_message(monkeypatch):
    monkeypatch.setitem(sys.modules, "aeon", None)
    with pytest.raises(InputError, match=r"japanese-vowels.*neuralfuse-sim\[series\]"):
        data.load("japanese-vowels")


def test_what_ships_is_what_the_page_says():
    pytest.importorskip("aeon")
    sizes = [part.shape for part in series.japanese_vowels()]
    assert sizes == [(270, 29, 12), (270,), (370, 29, 12), (370,)]
    assert [part.shape for part in series.basic_motions()][::2] == [(40, 100, 6)] * 2


def test_an_lstm_answers_by_its_last_step():
    import torch

    net = networks.build("lstm", num_classes=4, in_channels=3, width=5)
    x = torch.randn(2, 7, 3)
    whole = torch.nn.functional.linear(net.lstm(x)[0][:, -1], net.head.weight, net.head.bias)
    assert torch.equal(net(x), whole)
    late = x.clone()
    late[:, -1] += 1
    assert not torch.equal(net(late), net(x))

"""Does each argument of a network get the input that a study says, in a row's key, too?"""

import pytest
import torch

from neuralfuse.data import load
from neuralfuse.data.inputs import Inputs, fed
from neuralfuse.study.check import check
from neuralfuse.study.data import build_network, kind_of, training_hash, workload_of
from neuralfuse.study.data import test_set as images_of
from neuralfuse.study.files import parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import points_of
from simulator.readers.read import Integers
from sram.errors import InputError
from tests.plugin_package import install

SOURCE = """
import numpy as np
from torch import nn

def pair(root, last=0, names=("image", "age"), short=0):
    image = np.random.default_rng(0).random((40, 1, 8, 8))
    age = np.arange(40) % 7
    age[-1] = last
    x = {names[0]: image, names[1]: age}
    train, test = ({name: part[at] for name, part in x.items()} for at in (slice(30), slice(30 + short, None)))
    return train, np.arange(30) % 3, test, np.arange(30, 40) % 3

def only_training(root):
    train_x, train_y, test_x, test_y = pair(root)
    return train_x, train_y, test_x["image"], test_y

def other(root):
    train_x, train_y, test_x, test_y = pair(root)
    return train_x, train_y, {"picture": test_x["image"], "age": test_x["age"]}, test_y

def less(root): return pair(root, short=1)
def moved(root): return pair(root, last=5)
def renamed(root): return pair(root, names=("picture", "age"))

class Net(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        assert in_channels == {"image": 1, "age": 7}
        self.of = nn.Embedding(in_channels["age"], num_classes)
        self.see = nn.Linear(64, num_classes)

    def forward(self, x, age):
        return self.see(x.flatten(1)) + self.of(age)

class Turned(Net):
    def forward(self, age, x):
        return super().forward(x, age)
"""
INPUTS = {"x": "image", "age": "age"}


@pytest.fixture
def package(tmp_path, monkeypatch):
    return install(tmp_path, monkeypatch, "paired", SOURCE, {})


def study(data="pair", build="paired:Net", inputs=INPUTS, **more):
    network = {"name": "net", "build": build} | ({"inputs": inputs} if inputs else {}) | more.pop("network", {})
    content = {"name": "s", "dataset": {"name": f"paired:{data}"}, "networks": [network], "voltages": [0.8]}
    return parse_study(content | more, "here")


def test_what_a_dataset_says(package):
    kind = kind_of(study().dataset)
    assert (kind.input_names, kind.classes, kind.are_images) == (("image", "age"), 3, False)
    assert kind.input_shape == ((1, 8, 8), ())
    assert isinstance(kind.input_shape[1], Integers)


def test_a_sample_takes_the_same_items_of_each():
    drawn = Inputs({"a": torch.arange(9), "b": torch.arange(9) * 2})[torch.tensor([5, 2])]
    assert (drawn.parts["b"] == 2 * drawn.parts["a"]).all()
    assert len(drawn) == 2


def test_names_decide_not_places(package):
    x, _ = images_of(study().dataset)
    plain, turned = (build_network(s.networks[0], s).eval() for s in (study(), study(build="paired:Turned")))
    want = plain.see(x.parts["image"].flatten(1)) + plain.of(x.parts["age"])
    torch.testing.assert_close(plain(x), want, rtol=0, atol=0)
    torch.testing.assert_close(turned(x), want, rtol=0, atol=0)


def test_a_network_of_one_of_them_is_told_its_channels(package):
    check(alone := study(build="resnet8", inputs={"x": "image"}))
    found = build_network(alone.networks[0], alone).eval()
    x, _ = images_of(alone.dataset)
    assert found(x).shape == (10, 3)
    assert workload_of(found, alone.networks[0], alone).macs > 0


def test_it_is_counted_and_placed(package):
    check(study())
    workload = workload_of(build_network(study().networks[0], study()), study().networks[0], study())
    assert [layer.weight_name for layer in workload.layers if layer.weight_name == "see.weight"] == ["see.weight"]


def test_each_input_and_its_name_is_in_the_key(package, tmp_path):
    def setup(**how):
        return points_of(StudyFolder(tmp_path / "out", study(**how)))[0].setup

    other = [setup(), setup(data="moved", inputs=INPUTS), setup(inputs=None), setup(data="renamed", inputs=None)]
    assert setup() == other[0]
    assert len(set(other)) == 4
    # the number that differs is of the test set
    assert (
        training_hash(study().dataset)
        == training_hash(study("moved").dataset)
        != training_hash(study("renamed").dataset)
    )


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"inputs": {"x": "image", "age": "years"}}, "inputs = 'image, years'.*image, age"),
        ({"inputs": {"y": "image", "age": "age"}}, "inputs = .*its arguments"),
        ({"data": "only_training"}, "dicts of inputs"),
        ({"data": "other"}, "test inputs = 'picture, age'.*image, age"),
        ({"data": "less"}, r"as many targets"),
        ({"network": {"activations": "int8"}}, "activations = 'int8'.*no images"),
        ({"protections": [{"neuralfuse": {"generator": "conv"}}]}, "neuralfuse = 'conv'.*no images"),
        ({"build": "paired:Turned", "inputs": None}, "takes image: images .1, 8, 8., age: int64"),
    ],
)
def test_what_does_not_fit_is_one_message(package, how, says):
    with pytest.raises(InputError, match=says):
        check(study(**how))


def test_of_one_input_there_are_no_names(package):
    with pytest.raises(InputError, match="one, without a name"):
        check(
            parse_study(
                {"name": "s", "networks": [{"name": "resnet8", "inputs": {"x": "image"}}], "voltages": [0.8]}, "here"
            )
        )
    assert load("digits").input_names == ()


def test_parameters_keep_their_names():
    assert list(fed(torch.nn.Linear(2, 3), ["a"]).state_dict()) == ["weight", "bias"]

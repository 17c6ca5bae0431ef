"""Is a network or generator that cannot be measured one message, before anything is trained?"""

import pytest
import torch

from neuralfuse.networks import build
from neuralfuse.quantized import checkpoint
from neuralfuse.study.check import check
from neuralfuse.study.data import build_network, workload_of
from neuralfuse.study.files import parse_study
from neuralfuse.transforms import generators
from sram.errors import InputError
from sram.plugins import allow_folder

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, channels, classes, as_what=lambda found: found):
        super().__init__()
        self.made = nn.Sequential(nn.Conv2d(channels, 4, 16), nn.Flatten(), nn.Linear(4, classes))
        self.as_what = as_what

    def forward(self, x):
        return self.as_what(self.made(x))

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(256, 10))

    def forward(self, x):
        return x.flatten(1) @ self.w

def plain(num_classes, in_channels): return Net(in_channels, num_classes)
def two(num_classes, in_channels): return Net(in_channels, num_classes, lambda found: (found, found))
def named(num_classes, in_channels): return Net(in_channels, num_classes, lambda found: {"logits": found})
def colour(num_classes, in_channels): return Net(3, num_classes)
def more(num_classes, in_channels): return Net(in_channels, 12)
def fewer(num_classes, in_channels): return Net(in_channels, 7)
def breaks(num_classes, in_channels): raise RuntimeError("no such layer")
def text(num_classes, in_channels): return "net"
def own(num_classes, in_channels): return Own()
def smaller(in_channels): return nn.Conv2d(in_channels, in_channels, 3)
"""


@pytest.fixture
def odd(tmp_path, monkeypatch):
    (tmp_path / "odd_of_this_test.py").write_text(SOURCE)
    allow_folder(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "odd_of_this_test", raising=False)


def study(name, **more):
    return parse_study({"name": "odd", "networks": [{"name": name}], "voltages": [0.8], **more}, "here")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("two", r"output = 'a tuple'.*\[images, 10\]"),
        ("named", "output = 'a dict'"),
        ("colour", r"3 channels.*takes images \[1, 16, 16\]"),
        ("more", r"output = \[12\].*10 classes"),
        ("fewer", r"output = \[7\]"),
        ("breaks", "no such layer"),
        ("text", "returns a torch.nn.Module"),
        ("own", "or one named in its module's stored_weights"),
    ],
)
def test_networks(odd, name, says):
    with pytest.raises(InputError, match=says):
        check(study(f"odd_of_this_test:{name}"))


@pytest.mark.parametrize(
    ("name", "output", "known"), [("two", 3, "0 to 1"), ("two", "x", "0 to 1"), ("named", 0, "logits")]
)
def test_an_output_that_there_is_not(odd, name, output, known):
    asked = study("net", networks=[{"name": "net", "build": f"odd_of_this_test:{name}", "output": output}])
    network = asked.networks[0]
    for found in (lambda: check(asked), lambda: workload_of(build_network(network, asked), network, asked)):
        with pytest.raises(InputError) as raised:
            found()
        expected = "networks.net.output", output, f"one that it returns: {known}"
        assert (raised.value.key, raised.value.value, raised.value.allowed) == expected


def test_a_plain_one_passes(odd):
    check(study("odd_of_this_test:plain"))


def test_a_generator_gives_images_like_those_it_takes(odd):
    fuse = {"generator": "odd_of_this_test:smaller", "training": {"steps": 1}}
    with pytest.raises(InputError, match=r"fuse\.neuralfuse.*16"):
        check(study("resnet8", protections=[{"name": "fuse", "neuralfuse": fuse}]))


def test_weights_that_are_not_finite(tmp_path):
    network = build("resnet8", in_channels=1)
    next(tensor for tensor in network.state_dict().values() if tensor.ndim == 1)[0] = torch.nan
    path = checkpoint.save(tmp_path / "net.safetensors", network.state_dict(), {})
    with pytest.raises(InputError, match=r"tensor .* = 'NaN or infinity'"):
        check(
            parse_study(
                {"name": "n", "networks": [{"name": "resnet8", "checkpoint": str(path)}], "voltages": [0.8]}, ""
            )
        )
    made = generators.build("ConvS", 1, width=2)
    next(made.parameters()).data.fill_(torch.inf)
    path = checkpoint.save(tmp_path / "fuse.safetensors", made.state_dict(), {})
    fuse = {"generator": "ConvS", "options": {"width": 2}, "checkpoint": str(path)}
    with pytest.raises(InputError, match="NaN or infinity"):
        check(study("resnet8", protections=[{"name": "fuse", "neuralfuse": fuse}]))


def test_a_pickle_is_told_how_to_become_a_checkpoint(tmp_path):
    torch.save({}, tmp_path / "net.pth")
    with pytest.raises(
        InputError, match=r"save_file\(torch\.load\('net\.pth', weights_only=True\), 'net\.safetensors'\)"
    ):
        checkpoint.load(tmp_path / "net.pth")

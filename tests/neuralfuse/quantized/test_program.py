"""Does a network that a device runs compute what torch computes, whatever its windows and its BatchNorm; and is what no
device has refused by name?"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neuralfuse import networks
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.integer import IntegerNetwork
from neuralfuse.quantized.program import compile_network
from neuralfuse.study.files import Study
from simulator.accelerator import accelerator
from simulator.activation_placement import place_activations, place_partial_sums, taps_between_spills
from simulator.device.activations import activation_memory
from simulator.device.array_faults import TimingFaults, partial_sum_faults
from simulator.device.program import Program, execute
from simulator.mac_errors import errors_at
from simulator.readers.read import trace
from sram import plugins
from sram.errors import InputError
from sram.geometry import Geometry
from tests.neuralfuse.quantized.test_activations import on_a_device
from tests.neuralfuse.quantized.test_array_faults import Folded, Late
from tests.neuralfuse.quantized.test_fold import trained_like
from tests.neuralfuse.quantized.test_integer import WAYS, answers, by_the_device
from tests.neuralfuse.sweep.test_operating_points import rows_of

SIZES = st.tuples(st.integers(1, 5), st.integers(1, 5))
PLANE = (9, 8)


def whole(network, seed):
    """The network with weights, biases and images [3, ...] that are whole numbers up to 127, each layer with a 127: so
    that words and units are 1, and a float sum below 2^24 is exact."""
    random = np.random.default_rng(seed)

    def numbers(shape):
        found = random.integers(-127, 128, shape)
        found.flat[0] = 127
        return torch.from_numpy(found.astype(np.float32))

    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(numbers(tuple(parameter.shape)))
    return network.eval(), numbers


@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    kernel=SIZES,
    stride=SIZES,
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)) | st.sampled_from(["same", "valid"]),
    groups=st.sampled_from([1, 2, 8]),
    bias=st.booleans(),
    ints=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_window_is_torchs(kernel, stride, padding, groups, bias, ints, seed):
    if padding == "same":
        kernel, stride = tuple(size - 1 + size % 2 for size in kernel), (1, 1)
    window = (kernel[0], stride[0], padding[0]) if ints and not isinstance(padding, str) else (kernel, stride, padding)
    network, numbers = whole(nn.Sequential(nn.Conv2d(8, 16, *window, groups=groups, bias=bias)), seed)
    x = numbers((3, 8, *PLANE))
    with torch.no_grad():
        expected = network(x).flatten(1).numpy()
    faulty = FaultyNetwork(network)
    program = compile_network(faulty, x)
    assert np.array_equal(by_the_device(program, faulty.words, x), expected)
    assert np.array_equal(answers(IntegerNetwork(faulty, program), x), expected)
    assert Program.from_json(program.to_json()) == program


@settings(deadline=None, max_examples=60, derandomize=True)
@given(flat=st.booleans(), affine=st.booleans(), bias=st.booleans(), relu=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_every_batchnorm_is_torchs(flat, affine, bias, relu, seed):
    """Against torch in double precision: outputs are rounded to float32 once."""
    one = nn.Linear(24, 16, bias) if flat else nn.Conv2d(24, 16, (3, 2), (1, 2), (2, 0), bias=bias)
    network, numbers = whole(nn.Sequential(one), seed)
    norm = (nn.BatchNorm1d if flat else nn.BatchNorm2d)(16, affine=affine)
    random = torch.Generator().manual_seed(seed % 2**31)
    for tensor, low in ((norm.running_mean, -500), (norm.running_var, 1), *((p, -2) for p in norm.parameters())):
        tensor.data.uniform_(low, 500, generator=random)
    network = nn.Sequential(*network, norm, *[nn.ReLU()] * relu).eval()
    x = numbers((3, 24) if flat else (3, 24, *PLANE))
    with torch.no_grad():
        expected = network.double()(x.double()).flatten(1).numpy()
    faulty = FaultyNetwork(network.float())
    program = compile_network(faulty, x)
    found = by_the_device(program, faulty.words, x)
    assert np.abs(found - expected).max() <= 2.0**-22 * np.abs(expected).max()
    assert np.array_equal(answers(IntegerNetwork(faulty, program), x), found)


class TwoReaders(nn.Module):
    """A plane that is convolved and flattened."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, (3, 1), padding=(1, 0))
        self.left, self.right = nn.Linear(4 * 7 * 6, 5), nn.Linear(4 * 7 * 6, 5)

    def forward(self, x):
        x = torch.relu(self.one(x))
        return self.left(x.flatten(1)) + self.right(torch.relu(self.two(x)).flatten(1))


FULL = {name: networks.MLPERF_TINY[f"mlperf-tiny-{name}"][0] for name in ("kws", "ad")}
PERCEPTRON = (nn.Flatten(), nn.Linear(2 * 9 * 8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5))
SMALL = {"perceptron": (lambda: nn.Sequential(*PERCEPTRON)), "two readers": TwoReaders}
NETWORKS = [*FULL, *SMALL]


def built(name):
    torch.manual_seed(0)
    shape = FULL.get(name, (2, *PLANE))
    network = trained_like(networks.build(f"mlperf-tiny-{name}") if name in FULL else SMALL[name]())
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    return network, x, trace(network, shape)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_whole_network_is_torchs_up_to_the_rounding_of_activations(name):
    network, x, _ = built(name)
    faulty = FaultyNetwork(network, fold=True)
    with torch.no_grad():
        expected = faulty(x).numpy()
    found = by_the_device(compile_network(faulty, x), faulty.words, x)
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize("integers", WAYS)
@pytest.mark.parametrize("share", [0.001, 0.2])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_with_all_its_rails_lowered_answers_as_a_device_does(name, share, integers):
    """Faulty weights, activations, partial sums and late sums: torch's integers against the slow twins of each."""
    network, x, workload = built(name)
    machine = replace(accelerator("paper"), dataflow="ws", array_rows=8, schedule="fixed")
    faulty, random = FaultyNetwork(network, fold=True), np.random.default_rng(3)
    program = compile_network(faulty, x, stored=True)
    lies = place_activations(workload, machine, Geometry(banks=8))
    sums, taps = place_partial_sums(workload, machine, Geometry(banks=8)), taps_between_spills(workload, machine)
    assert [tensor.count for tensor in lies.tensors] == [int(np.prod(program.shapes[t])) for t in program.stored]

    def faults(placed):
        cells = np.flatnonzero(random.random(placed.geometry.cells) < share)
        return placed.faults(cells, random.integers(0, 3, len(cells)).astype(np.uint8))

    memory, waiting = activation_memory(program, lies, faults(lies)), faults(sums)
    weight = random.integers(faulty.words.size, size=500)
    fast = IntegerNetwork(faulty, program, integers)
    clean = answers(fast, x)
    faulty.set_faults(weight, *(random.integers(k, size=500).astype(np.uint8) for k in (8, 3)))
    late = TimingFaults(errors_at(0.001), seed=1, chip=2)
    fast.activations, fast.first_image = memory, 0
    fast.in_array = (partial_sum_faults(program, sums, taps, waiting), late)
    product = Folded(program, faulty.words, sums, taps, waiting)
    twin = Late(program, faulty.words, late)
    expected = execute(program, x.numpy(), product, memory.read_back, twin)
    found = answers(fast, x)
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, clean)


@pytest.mark.parametrize("integers", WAYS)
def test_what_is_flattened_in_the_memory_is_read_from_it_once(integers):
    """The lowest word, -128, is of no number that is stored: only a fault has made it."""
    faulty = FaultyNetwork(nn.Sequential(nn.Flatten(), nn.Linear(8, 3)).eval())
    x = torch.rand(2, 2, 2, 2) * 2 - 1
    program = compile_network(faulty, x, stored=True)
    assert program.stored == (0, 2)

    class Lowest:
        def read_back(self, tensor, words, channels_last=False):
            if tensor == 0:
                words[:] = -128

    fast = IntegerNetwork(faulty, program, integers)
    fast.activations = Lowest()
    assert np.array_equal(answers(fast, x), on_a_device(program, faulty.words, x, Lowest()))


class Reading(nn.Module):
    def __init__(self, forward, **layers):
        super().__init__()
        self.does = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.does(self, x)


def conv(**options):
    return nn.Conv2d(2, 4, 3, **options)


REFUSED = {
    "dilation": (nn.Sequential(conv(dilation=(1, 2))), "dilation of _0.*without dilation"),
    "padding_mode": (nn.Sequential(conv(padding=1, padding_mode="reflect")), "padding_mode of _0.*zeros"),
    "padding": (nn.Sequential(nn.Conv2d(2, 4, (2, 3), padding="same")), "padding of _0.*before as behind"),
    "track_running_stats": (
        nn.Sequential(conv(), nn.BatchNorm2d(4, track_running_stats=False)),
        "track_running_stats of _1.*statistics",
    ),
    "rows": (nn.Sequential(nn.Linear(8, 8)), r"input of _0.*\[2, 8, 8\].*Linear of one row"),
    "BatchNorm before": (nn.Sequential(nn.BatchNorm2d(2), conv()), "BatchNorm2d"),
    "MaxPool2d": (nn.Sequential(conv(), nn.MaxPool2d((2, 1))), "MaxPool2d"),
    "dilated pool": (nn.Sequential(nn.MaxPool2d(2, dilation=2), conv()), "MaxPool2d"),
    "divided pool": (nn.Sequential(nn.AvgPool2d(2, divisor_override=3), conv()), "AvgPool2d"),
    "flatten": (nn.Sequential(conv(), nn.Flatten(2)), "Flatten"),
    "weighted sum": (
        Reading(lambda self, x: torch.add(self.one(x), self.two(x), alpha=2), one=conv(), two=conv()),
        "add",
    ),
    "read twice": (
        Reading(
            lambda self, x: (lambda y: self.norm(self.same(y)) + y)(self.one(x)),
            one=conv(), same=nn.Dropout(), norm=nn.BatchNorm2d(4),
        ),
        "BatchNorm2d",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_device_has_is_refused_by_name(name):
    network, message = REFUSED[name]
    with pytest.raises(InputError, match=f"device network.*{message}"):
        compile_network(FaultyNetwork(network), torch.rand(2, 2, 8, 8))


def speech(root):
    """Numbers of the shape of MLPerf Tiny's keywords."""
    return random_parts((1, 49, 10), 12)


def sounds(root):
    """Numbers of the shape of MLPerf Tiny's sounds; its network has as many outputs as inputs."""
    return random_parts((640, 1, 1), 640)


def random_parts(shape, classes):
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, (classes + 40, *shape)).astype(np.float32)
    y = np.concatenate([np.arange(classes), random.integers(0, classes, 40)])
    return x, y, x[:20], y[:20]


@pytest.mark.parametrize(("name", "data"), [("kws", "speech"), ("ad", "sounds")])
def test_a_study_lowers_every_rail_under_a_whole_network(tmp_path, monkeypatch, name, data):
    """Hardly trained: it runs, with nothing wrong at nominal and faults in both memories below."""
    monkeypatch.setattr(plugins, "_opened", {__name__: None})
    study = Study(
        "whole",
        networks=[
            {"name": f"mlperf-tiny-{name}", "activations": "int8"}
            | {"training": {"epochs": 1, "flip": False, "shift": 0}}
        ],
        dataset={"name": f"{__name__}:{data}"},
        sram={"structures": ["iid"]},
        rails={"weights": [1.0, 0.8], "activations": [1.0, 0.86], "accumulators": [1.0, 0.86]},
        accelerators=["gap9-like"],
        chips={"evaluation": 1},
        protections=["none"],
    )
    rows, _ = rows_of(study, tmp_path / "out")
    assert len(rows) == 8
    nominal = rows[(rows.voltage == 1) & (rows.voltage_activations == 1) & (rows.voltage_accumulators == 1)]
    assert (nominal.correct == nominal.correct_clean).all()
    assert (rows[rows.voltage == 0.8].flip_rate > 0).all()
    assert (rows[rows.voltage_activations == 0.86].cell_fault_rate_activations > 0).all()

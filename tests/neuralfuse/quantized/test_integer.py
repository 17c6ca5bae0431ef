"""Do integer convolutions answer as a device does, whatever the faults, and does a study with words for activations
hold together?"""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neuralfuse import networks
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.integer import IntegerNetwork, integers_are_exact
from neuralfuse.quantized.program import compile_network
from neuralfuse.study.folder import StudyFolder
from neuralfuse.sweep.bench import Bench, Die
from simulator.device.program import Add, Conv, Flatten, Pool, Program, execute
from tests.conftest import run
from tests.neuralfuse.quantized.test_fold import trained_like
from tests.neuralfuse.sweep.test_study import study_with

needs_integers = pytest.mark.skipif(not integers_are_exact(), reason="torch has no exact integer convolutions here")
WAYS = [pytest.param(True, marks=needs_integers), False]


class Words:
    """Stands for a network: nothing but its words."""

    device = torch.device("cpu")

    def __init__(self, words):
        self.words = words


def by_the_device(program, words, x):
    """The reference: sums in 64-bit integers."""

    def matmul(activations, address, n):
        weights = words[address : address + n * activations.shape[1]].reshape(n, -1)
        return (activations.astype(np.int64) @ weights.T.astype(np.int64)).astype(np.int32)

    return execute(program, x.numpy(), matmul)


def answers(network, x):
    with torch.inference_mode():
        return network(x).numpy()


@pytest.mark.parametrize("integers", WAYS)
@pytest.mark.parametrize("name", ["resnet8", "vgg11"])
def test_the_answers_of_a_device_whatever_the_faults(name, integers):
    faulty = FaultyNetwork(trained_like(networks.build(name, 10, 3)), fold=True)
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    program = compile_network(faulty, x)
    network, random = IntegerNetwork(faulty, program, integers), np.random.default_rng(0)
    clean = answers(network, x)
    for faults in (40, faulty.words.size // 50, 3, 0):
        weight = random.integers(faulty.words.size, size=faults)
        bit, kind = (random.integers(k, size=faults).astype(np.uint8) for k in (8, 3))
        faulty.set_faults(weight, bit, kind)
        assert np.array_equal(answers(network, x), by_the_device(program, faulty.words, x))
    assert np.array_equal(answers(network, x), clean)  # the faults are gone
    assert np.array_equal(answers(network, x[2:]), clean[2:])  # a batch of another size


def test_a_weight_that_two_layers_share_lies_in_the_memory_once():
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)),
        *(nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    )
    network[4].weight = network[2].weight
    faulty = FaultyNetwork(network, fold=True)
    x = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1)) * 2 - 1
    program = compile_network(faulty, x)
    first, second, third, _ = (step.address for step in program.steps if isinstance(step, Conv))
    expected = by_the_device(program, faulty.words, x)
    assert second == third != first
    assert np.abs(expected - answers(faulty.network, x)).max() < 0.05 * np.abs(expected).max()
    assert np.array_equal(answers(IntegerNetwork(faulty, program), x), expected)


def pair(size):
    return (size, size) if isinstance(size, int) else size


def conv(source, channels, filters, kernel, address, relu=True, stride=1, padding=0, unit=1.0, scale=0.25):
    """A convolution whose numbers are all exact in float32."""
    offset = tuple(float(i % 5 - 2) for i in range(filters))
    window = *pair(kernel), pair(stride), pair(padding)
    return Conv(source, address, filters, channels, *window, 1, unit, (scale,) * filters, offset, relu)


KERNELS = st.sampled_from([(1, 1), (3, 3), (1, 3), (4, 2)])
STRIDES = st.sampled_from([(1, 1), (2, 2), (1, 2), (3, 1)])
PADDINGS = st.sampled_from([(0, 0), (1, 1), (0, 1), (3, 0)])


@pytest.mark.parametrize("integers", WAYS)
@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    channels=st.sampled_from([8, 16, 24]),
    filters=st.sampled_from([8, 32]),
    kernel=KERNELS,
    stride=STRIDES,
    padding=PADDINGS,
    unit=st.sampled_from([0.125, 2.0, 64.0]),  # from all activations at the top to nearly all at zero
    extreme=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_sum_is_exact_at_the_largest_products_too(
    integers, channels, filters, kernel, stride, padding, unit, extreme, seed
):
    """First a convolution of both signs, then one of words, then one whose output is numbers of both signs."""
    first = conv(0, 3, channels, 1, 0)
    second = conv(1, channels, filters, kernel, 3 * channels, True, stride, padding, unit)
    third = conv(2, filters, 8, 1, 3 * channels + second.weights, relu=False, unit=unit * 4)
    program = Program((3, 5, 6), (first, second, third))
    random = np.random.default_rng(seed)
    words = (
        random.choice([-128, 127], program.weight_bytes)
        if extreme
        else random.integers(-128, 128, program.weight_bytes)
    )
    words = words.astype(np.int8)
    x = torch.from_numpy(random.integers(-200, 200, (2, 3, 5, 6)).astype(np.float32))  # beyond the words
    found = answers(IntegerNetwork(Words(words), program, integers), x)
    assert np.array_equal(found, by_the_device(program, words, x))


@pytest.mark.parametrize("integers", WAYS)
def test_sums_overwrite_nothing_that_is_still_read(integers):
    """The first sum's other operand is read again at the end; the second's is not, and its memory is used."""
    parts, address = [conv(0, 8, 8, 1, 0, padding=1)], 64
    for source in (1, 1):
        parts.append(conv(source, 8, 8, 3, address, relu=False, padding=1, scale=2.0**-9))
        address += parts[-1].weights
    steps = (
        parts[0],  # 1
        parts[1],  # 2
        Add(2, 1, relu=True),  # 3
        parts[2],  # 4: of tensor 1
        Add(3, 4, relu=False),  # 5
        Add(1, 5, relu=True),  # 6
        Pool(6, "max", 2),  # 7
        Pool(7, "mean", 0),  # 8
        Flatten(8),  # 9
        conv(9, 8, 3, 1, address, relu=False),
    )
    program = Program((8, 6, 6), steps)
    words = np.random.default_rng(1).integers(-128, 128, program.weight_bytes).astype(np.int8)
    x = torch.from_numpy(np.random.default_rng(2).integers(-3, 4, (2, 8, 6, 6)).astype(np.float32))
    given, network = x.clone(), IntegerNetwork(Words(words), program, integers)
    expected = by_the_device(program, words, x)
    for _ in range(2):
        assert np.array_equal(answers(network, x), expected)
    assert torch.equal(x, given)


@needs_integers
def test_what_a_relu_made_positive_is_convolved_in_integers():
    faulty = FaultyNetwork(networks.build("resnet8", 10, 3), fold=True)
    network = IntegerNetwork(faulty, compile_network(faulty, torch.rand(1, 3, 16, 16)))
    assert [layer.integers for layer in network.layers.values()] == [False, *[True] * 8, False]


@pytest.fixture(scope="module")
def both(tmp_path_factory, undrawn):
    """The finished folder of a study of one network whose activations are numbers, and words."""
    folder = tmp_path_factory.mktemp("both")
    one = {"build": "resnet8", "options": {"width": 8}, "training": {"epochs": 3, "flip": False, "shift": 1}}
    changes = {
        "networks": [{"name": "numbers", **one}, {"name": "words", "activations": "int8", **one}],
        "sram": {"structures": ["iid"]},
        "voltages": [1.0, 0.8, 0.76],
        "protections": ["none", "calibrated(channel_affine, steps=2)"],
    }
    assert run("sweep", study_with(folder, **changes), "--out", folder / "out", "--workers", 1) == 0
    return folder / "out"


def test_a_study_of_numbers_and_words(both):
    """Without faults few answers differ (of 120 images; the networks are the same). With faults they are two things."""
    rows = pd.read_csv(both / "results.csv")
    assert len(rows) == 2 * 2 * 3 * 3
    clean = rows.groupby("network").correct_clean.unique()
    assert len(clean["numbers"]) == len(clean["words"]) == 1
    assert abs(int(clean["numbers"][0]) - int(clean["words"][0])) <= 4
    assert clean["numbers"][0] > 60
    files = [(both / "networks" / f"{name}.safetensors").read_bytes() for name in ("numbers", "words")]
    assert files[0] == files[1]  # trained once
    faulty = rows[rows.voltage == 0.76].pivot_table(index=["protection", "chip"], columns="network", values="correct")
    assert (faulty["numbers"] != faulty["words"]).any()
    for column in ("flip_rate", "cell_fault_rate", "energy_system_pj", "cycles"):
        numbers, words = (rows[rows.network == name][column].to_numpy() for name in ("numbers", "words"))
        assert np.array_equal(numbers, words)  # the same words in the same cells


def test_measured_answers_are_those_of_the_program(both):
    folder = StudyFolder.open(both)
    bench, program = Bench(folder), folder.program("words")
    faulty = bench.network("words")
    stored = bench.chip("words", Die("paper", "iid", 0), ())
    faulty.set_faults(*stored.faults(0.76))
    expected = int((by_the_device(program, faulty.words, bench.images).argmax(1) == bench.labels.numpy()).sum())
    rows = pd.read_csv(both / "results.csv").query("network == 'words' and protection == 'none' and voltage == 0.76")
    assert rows.set_index("chip").correct[0] == expected


def test_a_second_run_measures_and_makes_nothing(both):
    program = both / "networks" / "words.program.json"
    before = (both / "results.csv").read_bytes(), program.stat().st_mtime_ns
    assert run("sweep", both / "study.yaml", "--out", both, "--workers", 1) == 0
    assert ((both / "results.csv").read_bytes(), program.stat().st_mtime_ns) == before
    assert run("sensitivity", both / "study.yaml", "--out", both, "--workers", 1) == 0
    table = pd.read_csv(both / "sensitivity.csv")
    assert set(table.network) == {"numbers", "words"}


@pytest.mark.parametrize(
    ("network", "key", "words"),
    [
        ({"bits": 4}, "networks.resnet8", ["bits 8", "not 4"]),
        ({"name": "mobilenetv2"}, "networks.mobilenetv2.activations", ["ReLU6", "float; int8 is for Conv2d"]),
    ],
)
def test_what_no_device_could_run_is_refused_before_anything_is_trained(tmp_path, capsys, network, key, words):
    changes = {"networks": [{"name": "resnet8", "activations": "int8"} | network]}
    assert run("sweep", study_with(tmp_path, **changes), "--out", tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert all(part in message for part in [key, *words])
    assert not (tmp_path / "out").exists()

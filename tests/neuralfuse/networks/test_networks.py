"""Do the networks and generators have exactly the paper's parameters, and do users' own files run as they were
saved?"""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from neuralfuse import networks
from neuralfuse.quantized import checkpoint
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.quantize import quantize_in_place, weight_parameters
from neuralfuse.study.files import parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.prepare import prepare
from neuralfuse.transforms import generators
from simulator.readers.read import Integers, trace
from sram import plugins
from sram.errors import InputError
from tests.conftest import DATA


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def table(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="") as file:
        return list(csv.DictReader(file))


BASES = [(row["name"], int(row["params_paper"])) for row in table("paper_params_macs.csv") if row["kind"] == "base"]


@pytest.mark.parametrize(("name", "count"), BASES)
def test_base_networks_have_the_papers_parameters(name, count):
    ours = name.lower().removesuffix("py") + ("-imagenet" if name.endswith("Py") else "")
    with torch.device("meta"):  # counts need no memory
        assert parameters(networks.NETWORKS[ours](num_classes=10, in_channels=3)) == count


@pytest.mark.parametrize("row", table("mlperf_tiny_networks.csv"), ids=lambda row: row["network"])
def test_mlperf_tinys_networks_have_the_reference_models_layers_parameters_and_macs(row):
    layers = [
        {key: int(value) for key, value in layer.items() if key != "network"}
        for layer in table("mlperf_tiny_layers.csv")
        if layer["network"] == row["network"]
    ]
    shape = tuple(map(int, row["input"].split("x")))
    built = networks.build(f"mlperf-tiny-{row['network']}", in_channels=shape[0]).eval()
    weighted = [m for m in built.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    kernels = sorted((k["cout"], k["cin"] // k["groups"], k["kernel_height"], k["kernel_width"]) for k in layers)
    assert sorted((*m.weight.shape, 1, 1)[:4] for m in weighted) == kernels
    sums = [k["cout"] * (k["cin"] // k["groups"] * k["kernel_height"] * k["kernel_width"] + 1) for k in layers]
    gains = sum(2 * k["cout"] for k in layers if k["batchnorm"])
    assert parameters(built) == sum(sums) + gains == int(row["trainable_parameters"])
    assert parameters(built) + gains == int(row["all_parameters"])  # with the means and variances of BatchNorm
    traced = trace(built, shape)
    macs = sum((total - k["cout"]) * k["out_height"] * k["out_width"] for total, k in zip(sums, layers, strict=True))
    assert sum(layer.macs for layer in traced.layers) == macs == int(row["macs"])
    assert not traced.unknown


@pytest.mark.parametrize("name", generators.names())
def test_generators_have_the_papers_layers(name):
    rows = [row for row in table("paper_generator_layers.csv") if row["generator"] == name]
    built = generators.build(name)
    assert parameters(built) == sum(int(row["params"]) for row in rows)
    convs = [m for m in built.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    shape = ("in_channels", "out_channels", "kernel_size", "stride", "padding")
    ours = [tuple(v[0] if isinstance(v, tuple) else v for v in (getattr(conv, key) for key in shape)) for conv in convs]
    assert sorted(ours) == sorted(tuple(int(row[key]) for key in ("cin", "cout", "k", "stride", "pad")) for row in rows)


@pytest.mark.parametrize("name", generators.names())
@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (1, 3, 28, 20), (1, 2, 17, 33), (1, 1, 5, 8)])
def test_neuralfuse_keeps_size_and_range(name, shape):
    fuse = generators.NeuralFuse(generators.build(name, shape[1], width=2)).eval()
    x = torch.rand(shape) * 2 - 1
    y = fuse(x)
    assert y.shape == x.shape
    assert y.abs().max() <= 1


def test_neuralfuse_of_a_zero_generator_is_the_identity():
    class Zero(nn.Module):
        def forward(self, x):
            return torch.zeros_like(x)

    x = torch.rand(2, 3, 13, 9) * 2 - 1
    assert torch.equal(generators.NeuralFuse(Zero())(x), x)


def test_building_depends_on_the_seed_alone():
    torch.manual_seed(1)
    first = networks.build("resnet8", seed=3).state_dict()
    torch.manual_seed(2)
    before = torch.rand(1)
    torch.manual_seed(2)
    again, other = networks.build("resnet8", seed=3).state_dict(), networks.build("resnet8", seed=4).state_dict()
    assert torch.equal(torch.rand(1), before)  # and the caller's random numbers are left alone
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.mark.parametrize("name", ["resnet8", "vgg11", "mobilenetv2", "vit-tiny"])
def test_networks_of_any_image_size_and_channels(name):
    options = {"vgg11": {"width": 0.1}, "mobilenetv2": {"width": 0.25}, "vit-tiny": {"dim": 24, "depth": 2}}
    network = networks.build(name, num_classes=7, in_channels=2, **options.get(name, {})).eval()
    for size in (32, 64):
        assert network(torch.zeros(2, 2, size, size)).shape == (2, 7)


def test_mobilenetv2_has_the_published_parameters():
    # 3,504,872 for 1000 classes (torchvision's documentation); its 1,281,000 of the last layer become 12,810
    assert parameters(networks.build("mobilenetv2")) == 3_504_872 - 1_281_000 + 12_810


def test_a_character_is_foretold_by_those_before_it_alone():
    network = networks.build("chardecoder", num_classes=5, in_channels=7, dim=16, heads=2).eval()
    words = torch.arange(24).view(2, 12) % 7
    changed = words.clone()
    changed[:, 8:] = (words[:, 8:] + 3) % 7
    before, after = network(words), network(changed)
    assert before.shape == (2, 12, 5)
    assert torch.equal(before[:, :8], after[:, :8])
    assert not torch.isclose(before[:, 8:], after[:, 8:]).all(2).any()


def test_the_products_of_a_decoder_are_those_of_its_formula():
    """t positions of d channels: 12 d² weights a block, scores and sums of t x t x d each; tables of v and of c."""
    t, d, v, c, depth = 10, 16, 7, 5, 3
    network = networks.build("chardecoder", num_classes=c, in_channels=v, dim=d, heads=2, depth=depth)
    found = trace(network, Integers((t,)))
    assert sum(layer.macs for layer in found.layers) == t * d * (v + c) + depth * (12 * t * d**2 + 2 * t**2 * d)
    assert found.unknown == ()
    assert sum(weight.numel() for weight in weight_parameters(network).values()) == d * (v + c) + depth * 12 * d**2


def my_network(num_classes, in_channels, width=3):
    return nn.Sequential(nn.Conv2d(in_channels, width, 3), nn.Flatten(), nn.Linear(width * 36, num_classes))


def test_networks_and_generators_by_import_path(monkeypatch):
    monkeypatch.setattr(plugins, "_opened", {__name__: None, "torch.nn": None})
    built = networks.build(f"{__name__}:my_network", num_classes=5, in_channels=2, width=4)
    assert built(torch.zeros(1, 2, 8, 8)).shape == (1, 5)
    assert generators.build("torch.nn:Identity", in_channels=1).__class__ is nn.Identity
    for bad in ("no_such_module:x", f"{__name__}:absent", "resnet7"):
        with pytest.raises(InputError, match="is not allowed"):
            networks.build(bad)
    with pytest.raises(InputError, match="options"):
        networks.build("resnet8", depth=3)


def trained_like(network: nn.Module) -> nn.Module:
    """Normalisation statistics as after training, so that folding or dropping them would show."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


@pytest.mark.parametrize("batch", [None, 3])
def test_exported_program_runs_and_takes_faults_like_the_module(tmp_path, batch):
    network = trained_like(networks.build("resnet8", in_channels=1))
    x = torch.rand(5, 1, 16, 16)
    dynamic = None if batch else ({0: torch.export.Dim("n", min=1, max=64)},)
    program = torch.export.export(network, (x[: batch or 5],), dynamic_shapes=dynamic)
    torch.export.save(program, tmp_path / "a.pt2")
    read = networks.build(str(tmp_path / "a.pt2"))
    assert torch.allclose(read(x), network(x), atol=1e-5)
    original, fromfile = FaultyNetwork(network), FaultyNetwork(read)
    assert [layer.shape for layer in fromfile.layer_table] == [layer.shape for layer in original.layer_table]
    assert np.array_equal(original.words, fromfile.words)
    faults = np.arange(0, 70_000, 7), np.full(10_000, 6, np.uint8), np.full(10_000, 2, np.uint8)
    before = original(x)
    original.set_faults(*faults)
    fromfile.set_faults(*faults)
    assert torch.allclose(fromfile(x), original(x), atol=1e-4)
    assert not torch.allclose(original(x), before, atol=1e-1)


class Left(nn.Module):
    """A weight on the left of a product, one that a recurrent layer hides, and one that only adds."""

    def __init__(self):
        super().__init__()
        self.left, self.added = nn.Parameter(torch.rand(6, 16)), nn.Parameter(torch.rand(6, 16))
        self.gru, self.fc = nn.GRU(16, 4, batch_first=True), nn.Linear(4, 10)

    def forward(self, x):
        return self.fc(self.gru(self.left @ x.flatten(1, 2) + self.added)[0][:, -1])


def test_weights_of_an_exported_program_are_those_that_are_multiplied(tmp_path):
    program = torch.export.export(Left().eval(), (torch.zeros(2, 1, 16, 16),))
    torch.export.save(program, tmp_path / "left.pt2")
    names = [name.removeprefix("network.") for name in networks.build(str(tmp_path / "left.pt2")).stored_weights]
    assert names == ["left", "gru.weight_ih_l0", "gru.weight_hh_l0", "fc.weight"]
    torch.export.save(torch.export.export(nn.Conv3d(1, 2, 3), (torch.zeros(1, 1, 4, 4, 4),)), tmp_path / "three.pt2")
    with pytest.raises(InputError, match="one or two axes"):
        networks.build(str(tmp_path / "three.pt2"))


def onnx_network(tmp_path) -> tuple[Path, nn.Module]:
    """A convolution, normalisation, pooling, residual sum and linear layer, written node by node with onnx's own
    helper."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(5)

    def tensor(name, *shape, positive=False):
        value = random.normal(size=shape).astype(np.float32)
        return numpy_helper.from_array(np.abs(value) + 0.5 if positive else value, name)

    initial = [
        tensor("stem.weight", 4, 2, 3, 3), tensor("stem.bias", 4), tensor("bn.weight", 4), tensor("bn.bias", 4),
        tensor("bn.mean", 4), tensor("bn.var", 4, positive=True), tensor("body.weight", 4, 2, 3, 3),
        tensor("up.weight", 4, 3, 2, 2), tensor("fc.weight", 6, 3), tensor("fc.bias", 6), tensor("fc2", 6, 5),
        numpy_helper.from_array(np.array([0, -1], np.int64), "shape"),
    ]  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "stem.weight", "stem.bias"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["a", "bn.weight", "bn.bias", "bn.mean", "bn.var"], ["b"], epsilon=1e-3),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Conv", ["c", "body.weight"], ["d"], pads=[1, 1, 1, 1], group=2),
        helper.make_node("Add", ["d", "c"], ["e"]),
        helper.make_node("MaxPool", ["e"], ["f"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("AveragePool", ["f"], ["g"], kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["g", "up.weight"], ["h"], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["h"], ["i"]),
        helper.make_node("Reshape", ["i", "shape"], ["j"]),
        helper.make_node("Gemm", ["j", "fc.weight", "fc.bias"], ["k"], transB=1),
        helper.make_node("MatMul", ["k", "fc2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])], initial,
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path, networks.build(str(path))


def test_onnx_model_agrees_with_the_reference_evaluator(tmp_path):
    path, network = onnx_network(tmp_path)
    from onnx.reference import ReferenceEvaluator

    x = np.random.default_rng(6).normal(size=(3, 2, 12, 12)).astype(np.float32)
    (expected,) = ReferenceEvaluator(str(path)).run(None, {"x": x})
    assert np.allclose(network(torch.from_numpy(x)).numpy(), expected, atol=1e-4)
    names = [name.removeprefix("network.") for name in weight_parameters(network)]
    assert names == ["stem.weight", "body.weight", "up.weight", "fc.weight", "fc2"]
    faulty = FaultyNetwork(network)
    clean = faulty(torch.from_numpy(x))
    faulty.set_faults(np.array([0]), np.array([7], np.uint8), np.array([2], np.uint8))
    assert not torch.allclose(faulty(torch.from_numpy(x)), clean)


def test_model_files_that_are_missing_or_damaged_are_refused(tmp_path):
    for name in ("absent.pt2", "absent.onnx"):
        with pytest.raises(InputError, match="existing"):
            networks.build(str(tmp_path / name))
    for name in ("bad.pt2", "bad.onnx"):
        (tmp_path / name).write_bytes(b"not a model")
        with pytest.raises(InputError, match="bad"):
            networks.build(str(tmp_path / name))


def test_a_study_takes_a_model_file_with_the_weights_that_it_has(tmp_path):
    """Not trained again, and a file written anew is read anew."""
    study = {"name": "file", "networks": [{"name": str(tmp_path / "a.pt2")}], "voltages": [1.0]}
    study["dataset"] = {"name": "digits", "test_images": 20}
    for seed in (0, 1):
        network = networks.build("resnet8", in_channels=1, seed=seed, width=4).eval()
        torch.export.save(torch.export.export(network, (torch.zeros(4, 1, 16, 16),)), tmp_path / "a.pt2")
        prepare(StudyFolder(tmp_path / "out", parse_study(study, "test")), lambda title: pytest.fail(title))
        (stored,) = (tmp_path / "out" / "networks").glob("*.safetensors")
        tensors, _ = checkpoint.load(stored)
        quantize_in_place(network)
        expected = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())


def test_the_tiny_generator_starts_as_the_identity_and_is_small():
    fuse = generators.NeuralFuse(generators.build("tiny"))
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(fuse(images), images)
    assert sum(p.numel() for p in fuse.parameters()) == 27 * 8 + 8 + 72 * 3 + 3


def test_filters_of_vgg_start_with_the_variance_that_keeps_gradients():
    """He et al. (ICCV 2015): 2 / (9 filters of the layer); 4.5 standard errors of 30,000 normal numbers are 2%."""
    network = networks.build("vgg11", 10, 3, width=0.5)
    wide = [
        layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 30_000
    ]
    assert len(wide) > 4
    for weight in wide:
        assert weight.std().item() == pytest.approx((2 / (9 * len(weight))) ** 0.5, rel=0.02)

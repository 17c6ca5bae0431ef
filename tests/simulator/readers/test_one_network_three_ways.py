"""Does a network cost the same as a module, as a program (.pt2), and as ONNX of several opsets?"""

import contextlib
import io
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neuralfuse import networks
from simulator.accelerator import accelerator
from simulator.array.cycles import simulate
from simulator.readers.read import load, trace

pytest.importorskip("onnx")
# Opsets without and with operators of their own for layer normalisation (17) and GELU (20).
OPSETS = (14, 17, 20)
# `bias` and `k_major` say how a file keeps the numbers; pixels of a vector layer are those of the view that it reads.
COST = """kind batch groups m k n transposed weights operations elements_read elements_written constants
    sources operands""".split()


class Lambda(nn.Module):
    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.run(self, x)


def ones(*shape):
    return nn.Parameter(torch.ones(shape))


def attention(mode):
    def run(net, x):
        q, k, v = net.qkv(x).reshape(1, 8, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        if mode == "by hand":
            return net.out(((q @ k.transpose(-2, -1)) * 8**-0.5).softmax(-1) @ v)
        return net.out(F.scaled_dot_product_attention(q, k, v, is_causal=mode == "causal"))

    return Lambda(run, qkv=nn.Linear(16, 48), out=nn.Linear(8, 16))


def channels_first_norm(net, x):
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(2).mean(1, keepdim=True)
    return net.scale[:, None, None] * ((x - mean) / torch.sqrt(variance + 1e-6)) + net.shift[:, None, None]


def convnext_block(net, x):
    y = net.second(F.gelu(net.first(net.norm(net.depthwise(x).permute(0, 2, 3, 1)))))
    return x + (net.scale * y).permute(0, 3, 1, 2)


IMAGE, ROWS = (8, 16, 16), (8, 16)
SMALL = {
    "normalisation behind convolutions": (
        nn.Sequential(
            *(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Dropout(0.5)),
            *(nn.BatchNorm2d(8), nn.Identity(), nn.ReLU6(), nn.ConvTranspose2d(8, 4, 4, 2, 1), nn.BatchNorm2d(4)),
        ),
        IMAGE,
    ),
    "normalisation before a convolution": (nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)), IMAGE),
    "a convolution read twice": (
        Lambda(lambda n, x: (lambda y: n.norm(y) + y)(n.conv(x)), conv=nn.Conv2d(8, 8, 3), norm=nn.BatchNorm2d(8)),
        IMAGE,
    ),
    "normalisation behind linear layers": (
        nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16)),
        ROWS,
    ),
    "parameters": (Lambda(lambda n, x: torch.tanh(x @ n.w + n.b) * n.t, w=ones(16, 4), b=ones(4), t=ones(8, 4)), ROWS),
    "weights on the left": (Lambda(lambda n, x: n.w @ x + n.b, w=ones(4, 8), b=ones(4, 1)), ROWS),
    "norms of a sample": (
        nn.Sequential(nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3), nn.InstanceNorm2d(8, affine=True)),
        IMAGE,
    ),
    "layer normalisation": (nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 4)), ROWS),
    "layer normalisation by hand": (Lambda(channels_first_norm, scale=ones(8), shift=ones(8)), IMAGE),
    "convnext": (
        Lambda(
            convnext_block,
            depthwise=nn.Conv2d(8, 8, 7, padding=3, groups=8),
            norm=nn.LayerNorm(8),
            first=nn.Linear(8, 32),
            second=nn.Linear(32, 8),
            scale=ones(8),
        ),
        IMAGE,
    ),
    "activation functions": (
        nn.Sequential(
            *itertools.chain.from_iterable(
                (nn.Conv2d(8, 8, 1), act)
                for act in (
                    nn.SiLU(),
                    nn.Mish(),
                    nn.Hardswish(),
                    nn.GELU(),
                    nn.Tanhshrink(),
                    nn.PReLU(8),
                    nn.Softplus(),
                )
            )
        ),
        IMAGE,
    ),
    "gates": (nn.Sequential(nn.Conv2d(8, 8, 1), nn.GLU(1), nn.Softmax(1), nn.LogSoftmax(1)), IMAGE),
    "squeeze and excite": (
        Lambda(
            lambda n, x: x * torch.sigmoid(n.up(F.relu(n.down(F.adaptive_avg_pool2d(x, 1))))),
            down=nn.Conv2d(8, 2, 1),
            up=nn.Conv2d(2, 8, 1),
        ),
        IMAGE,
    ),
    "pools": (
        nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 1, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        IMAGE,
    ),
    "views": (
        Lambda(lambda n, x: n.c(torch.cat([x, *n.a(x).chunk(2, 1)], 1)), a=nn.Conv2d(8, 8, 1), c=nn.Conv2d(16, 4, 1)),
        IMAGE,
    ),
    "a sum with what is turned": (
        Lambda(lambda n, x: (lambda y: y + y.transpose(2, 3))(n.a(x)), a=nn.Conv2d(8, 8, 1)),
        IMAGE,
    ),
    "numbers": (Lambda(lambda n, x: (n.a(x) * 0.5 + 1).clamp(0, 1) * 2 - 1, a=nn.Conv2d(8, 8, 1)), IMAGE),
    "statistics": (Lambda(lambda n, x: F.normalize(x, dim=1) * x.std(1, keepdim=True)), ROWS),
    "a choice": (Lambda(lambda n, x: torch.where(x > 0, x, x * 0.1)), IMAGE),
    **{f"attention, {mode}": (attention(mode), ROWS) for mode in ("fused", "causal", "by hand")},
    "multi-head attention": (
        Lambda(lambda n, x: n.heads(x, x, x)[0], heads=nn.MultiheadAttention(16, 4, batch_first=True)),
        ROWS,
    ),
    "larger images": (nn.Sequential(nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2, mode="bilinear")), IMAGE),
}
BUILT_IN = {
    name: (networks.build(name), (3, 32, 32)) for name in ("resnet8", "resnet50", "vgg11", "mobilenetv2", "vit-tiny")
}


def three_ways(module, shape, folder):
    module = module.eval()
    example = (torch.zeros(1, *shape),)
    torch.export.save(torch.export.export(module, example), folder / "net.pt2")
    yield "module", trace(module, shape)
    yield "program", load(folder / "net.pt2")
    for opset in OPSETS:
        with contextlib.redirect_stdout(io.StringIO()):
            torch.onnx.export(module, example, str(folder / "net.onnx"), dynamo=False, opset_version=opset)
        yield f"opset {opset}", load(folder / "net.onnx")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SMALL | BUILT_IN)
def test_a_network_costs_the_same_whichever_way_it_is_read(name, tmp_path):
    module, shape = (SMALL | BUILT_IN)[name]
    (_, first), *others = three_ways(module, shape, tmp_path)
    costs = [[getattr(layer, field) for field in COST] for layer in first.layers]
    cycles = simulate(first, accelerator("edge")).cycles
    assert first.unknown == ()
    for way, workload in others:
        assert workload.unknown == (), way
        assert [[getattr(layer, field) for field in COST] for layer in workload.layers] == costs, way
        assert workload.outputs == first.outputs, way
        assert simulate(workload, accelerator("edge")).cycles == cycles, way


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("normalisation behind convolutions", ["conv", "activation", "conv", "activation", "conv"]),
        ("normalisation before a convolution", ["norm", "activation", "conv"]),
        ("a convolution read twice", ["conv", "norm", "elementwise"]),
        (
            "normalisation behind linear layers",
            ["linear", "norm", "linear"],
        ),
        ("parameters", ["linear", "activation", "elementwise"]),
        ("weights on the left", ["linear"]),
        ("layer normalisation by hand", ["norm"]),
        ("numbers", ["conv", "activation"]),
        ("attention, by hand", ["linear", "matmul", "softmax", "matmul", "linear"]),
        ("attention, causal", ["linear", "matmul", "elementwise", "softmax", "matmul", "linear"]),
        ("a sum with what is turned", ["conv", "elementwise"]),
        ("a choice", ["activation"]),
    ],
)
def test_what_costs_nothing_of_its_own(name, kinds):
    module, shape = SMALL[name]
    assert [layer.kind for layer in trace(module, shape).layers] == kinds

"""Do traced workloads have the multiply-accumulates, names, shapes and sharing of the network?"""

import io
import pickle
import zipfile
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.paper.energy import read
from neuralfuse import networks
from neuralfuse.transforms import generators
from simulator.readers import torch_file
from simulator.readers.read import Integers, load, trace
from simulator.workload import Workload, conv, linear, matmul
from sram.errors import InputError


def counted_macs(module: nn.Module, *inputs: torch.Tensor) -> int:
    """By torch's own counter, on a real run. Attention is taken apart: the counter knows no fused one on CPU."""
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            module.eval()(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
    return counter.get_total_flops() // 2


def built(name: str) -> nn.Module:
    """A built-in network or generator without values: shapes are all that counts here."""
    with torch.device("meta"):
        return generators.NeuralFuse(generators.build(name)) if name in generators.names() else networks.build(name)


def shape_of(name: str) -> tuple[int, ...]:
    if name == "chardecoder":
        return Integers((16,))
    usual = (3, 224, 224) if name.endswith("imagenet") else (3, 32, 32)
    return networks.MLPERF_TINY.get(name, (usual, 10))[0]


@cache
def workload_of(name: str) -> Workload:
    return trace(built(name), shape_of(name))


@pytest.mark.parametrize("name", [name for name in networks.names() if name != "lstm"])  # the counter leaves LSTMs out
def test_macs_of_built_in_networks_equal_the_flop_counter(name):
    network, workload = built(name), workload_of(name)
    kind = torch.int64 if isinstance(shape_of(name), Integers) else torch.float32
    assert workload.macs == counted_macs(network, torch.zeros(1, *shape_of(name), dtype=kind, device="meta"))
    assert workload.unknown == ()
    assert workload.weights == sum(
        module.weight.numel() for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))
    ) + sum(module.in_proj_weight.numel() for module in network.modules() if isinstance(module, nn.MultiheadAttention))


def test_macs_of_the_lstm_are_those_of_its_gates_at_every_step():
    with torch.device("meta"):
        network = networks.build("lstm", 9, 12)
    found = trace(network, (29, 12))
    assert (found.macs, found.weights) == (29 * 4 * 64 * (12 + 64) + 64 * 9, 4 * 64 * (12 + 64) + 64 * 9)


@pytest.mark.parametrize("name", generators.names())
def test_macs_of_generators_equal_the_flop_counter(name):
    assert workload_of(name).macs == counted_macs(built(name), torch.zeros(1, 3, 32, 32, device="meta"))


@pytest.mark.parametrize("row", read("paper_macs.csv"), ids=lambda row: row["model"])
def test_macs_equal_the_published_true_counts(row):
    name = row["model"]
    assert workload_of(name if name in generators.names() else name.lower()).macs == int(row["true_macs"])


class Odd(nn.Module):
    """What users bring: everything at once, on an input of 8 channels x 5."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(8, 8, 4, padding="same", groups=2)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.lin = nn.Linear(8, 8)
        self.shared = nn.Linear(8, 8)
        self.shared.weight = self.lin.weight
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.gru = nn.GRU(8, 4, batch_first=True)
        self.up = nn.ConvTranspose1d(8, 4, 4, 2, 1, groups=2)
        self.tail = nn.Sequential(nn.BatchNorm1d(4), nn.ReLU(inplace=True), nn.Dropout(), nn.AdaptiveAvgPool1d(1))

    def forward(self, x):
        y = self.encoder(self.conv(x).transpose(1, 2))
        y = self.normed(self.lin(y) + self.shared(y))
        y = self.attention(y, y * 2, y)[0]
        g, _ = self.gru(y)
        y = torch.einsum("bij,bkj->bik", y, y) @ y
        for _ in range(2):
            y = self.lin(y)
        return self.tail(self.up(y.transpose(1, 2))).flatten(1), g


class Vision(nn.Module):
    """Depth-wise, dilated, strided, transposed with output padding, residual, resized, functional attention."""

    def __init__(self):
        super().__init__()
        self.depthwise = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=8)
        self.dilated = nn.Conv2d(16, 12, (3, 5), padding=(2, 4), dilation=(2, 2))
        self.up = nn.ConvTranspose2d(12, 8, 3, stride=2, padding=1, output_padding=1, groups=4)
        self.table = nn.Parameter(torch.ones(8, 8))
        self.experts = nn.Parameter(torch.ones(2, 8, 5))

    def forward(self, x):
        y = self.up(F.gelu(self.dilated(self.depthwise(x)))) + x
        y = F.interpolate(y, scale_factor=0.5, mode="bilinear")
        rows = y.flatten(2).transpose(1, 2) @ self.table
        rows = F.scaled_dot_product_attention(rows, rows, rows)
        with torch.no_grad():
            rows = torch.cat([rows, self.table @ rows[:, :8]], 1)
        return torch.bmm(rows.repeat(2, 1, 1), self.experts), F.max_pool2d(x, 2)


@pytest.mark.parametrize(("module", "shape"), [(Odd, (8, 5)), (Vision, (8, 16, 16))])
@pytest.mark.parametrize("batch", [1, 3])
def test_macs_of_users_models_equal_the_flop_counter(module, shape, batch):
    if module is Vision and batch > 1:
        pytest.skip("its experts fix the batch")
    network = module()
    inputs = torch.zeros(batch, *shape)
    workload = trace(network, [inputs])
    assert workload.macs == counted_macs(network, inputs)
    assert workload.unknown == ()
    assert trace(network, shape, batch=batch).macs == workload.macs


def test_weight_sharing_is_seen():
    workload = trace(Odd(), (8, 5))
    named = {layer.name: layer for layer in workload.layers}
    assert named["lin"].weight_name == named["shared"].weight_name == named["lin#2"].weight_name == "lin.weight"
    # one fused projection in the encoder; three parts of one parameter in the attention with unequal query and key
    parts = [layer for layer in workload.layers if layer.weight_name == "attention.in_proj_weight"]
    assert [(layer.weight_offset, layer.weights) for layer in parts] == [(0, 64), (64, 64), (128, 64)]
    own = {id(p): p.numel() for name, p in Odd().named_parameters() if p.dim() > 1 and "original0" not in name}
    assert workload.weights == sum(own.values())


def test_names_follow_the_module_tree_and_sources_the_data():
    workload = trace(networks.build("resnet8"), (3, 32, 32))
    names = [layer.name for layer in workload.array_layers]
    assert names[0] == "stem.0"
    assert names[-1] == "head"
    index = {layer.name: position for position, layer in enumerate(workload.layers)}
    block = "stages.0.0"
    add = workload.layers[index[f"{block}.add"]]
    assert add.sources == (index["stem.2"], index[f"{block}.body.1.0"])  # the skip path and the second convolution
    assert workload.layers[0].sources == (-1,)
    for position, layer in enumerate(workload.layers):
        assert all(source < position for source in layer.sources)


def test_operands_keep_their_order_and_their_sources():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.v, self.q = nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, x):
            v, q = self.v(x), self.q(x)
            return (q @ q.transpose(1, 2)).softmax(-1) @ v

    layers = trace(Attention(), (6, 16)).layers
    at = {layer.name: i for i, layer in enumerate(layers)}
    softmax = next(i for i, layer in enumerate(layers) if layer.kind == "softmax")
    assert layers[-1].operands == (((softmax,), 36), ((at["v"],), 96))  # probabilities first, though they come later
    fused = trace(nn.MultiheadAttention(8, 2, batch_first=True), [torch.zeros(1, 5, 8) for _ in range(3)]).layers
    context = [layer for layer in fused if layer.kind == "matmul"][-1]
    probabilities, values = (fused[sources[0]] for sources, _ in context.operands)
    assert probabilities.kind == "softmax"
    assert values.weight_name == "in_proj_weight"


class Slices(nn.Module):
    """A buffer made of zeros that two results are written into, piece by piece."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        out = torch.zeros(x.shape[0], 8, 6, 6)
        out[:, :4] = self.a(x)
        out[:, 4:] = x.mean(1, keepdim=True)
        return F.softmax(F.gelu(out), 1)


@pytest.mark.parametrize("how", ["export", "a recorded run"])
def test_what_is_written_into_a_slice_is_in_the_buffer(how):
    class Branches(Slices):
        def forward(self, x):
            return super().forward(x) if x.sum() < 1 else x

    workload = trace(Slices() if how == "export" else Branches(), [torch.zeros(1, 3, 6, 6)])
    kinds = [layer.kind for layer in workload.layers if layer.name != "sum" and layer.name != "lt"]
    assert kinds == ["conv", "elementwise", "activation", "softmax"]
    assert workload.layers[-2].sources[-2:] == (len(workload.layers) - 4, len(workload.layers) - 3)


@pytest.mark.parametrize("how", ["export", "a recorded run"])
def test_what_leaves_the_network_is_told(how):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x):
            if how != "export" and x.sum() > 1:
                return x
            a = self.a(x)
            return {"features": a, "logits": F.relu(a)}

    workload = trace(Both(), [torch.zeros(1, 4)])
    last = len(workload.layers) - 1
    assert workload.outputs == (last - 1, last)


class Computed(nn.Module):
    def __init__(self):
        super().__init__()
        for name in "abcd":
            setattr(self, name, nn.Parameter(torch.ones(6, 6)))

    def forward(self, x):
        return F.linear(F.linear(F.linear(x, self.a * self.b), self.c * self.d), self.a * self.b)


def test_weights_made_of_different_parameters_are_different_weights():
    workload = trace(Computed(), (6,))
    assert [layer.weight_name for layer in workload.array_layers] == ["weight", "weight#2", "weight"]
    assert workload.weights == 72


class Overlapping(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.l = nn.Parameter(torch.ones(8, 8)), nn.Linear(8, 2)

    def forward(self, x):
        return self.l(F.linear(x, self.w[:4]).repeat(1, 2) + F.linear(x, self.w))


def test_a_part_of_a_weight_and_the_whole_share_what_they_share():
    workload = trace(Overlapping(), (8,))
    assert workload.tensors() == [("w", 0, 64), ("l.weight", 0, 16)]
    assert workload.weights == 80


def test_the_order_of_stored_weights_is_seen():
    class Products(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.g = nn.Parameter(torch.ones(8, 4)), nn.Parameter(torch.ones(3, 8, 4))

        def forward(self, x):  # [1, 3, 5, 8]
            return x @ self.w, F.linear(x, self.w.t()), x @ self.w.t().contiguous().t(), torch.matmul(x, self.g)

    layers = trace(Products(), (3, 5, 8)).array_layers
    assert [layer.k_major for layer in layers] == [True, True, False, True]
    assert not any(layer.k_major for layer in trace(nn.Linear(8, 4), (8,)).layers)


def test_vector_operations_by_hand():
    module = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Upsample(scale_factor=2), nn.Softmax(1))
    layers = trace(module, (4, 6, 6)).layers
    found = [(layer.kind, layer.operations, layer.elements_read, layer.elements_written) for layer in layers]
    assert found == [
        ("norm", 2 * 144, 144, 144),
        ("activation", 144, 144, 144),
        ("pool", 4 * 36, 144, 36),
        ("resize", 144, 36, 144),
        ("softmax", 5 * 144, 144, 144),
    ]


def test_unknown_operators_are_listed():
    class Unusual(nn.Module):
        def forward(self, x):
            return torch.linalg.svdvals(x) + torch.fft.fft(x).abs().sum(-1)

    workload = trace(Unusual(), (4, 4))
    assert any("svd" in entry for entry in workload.unknown)
    assert any("fft" in entry for entry in workload.unknown)


def test_three_dimensional_convolution_is_unknown_not_zero():
    (entry,) = trace(nn.Conv3d(1, 2, 3), (1, 4, 4, 4)).unknown
    assert "conv" in entry


class Dynamic(nn.Module):
    """Its kernel is computed from the input."""

    def __init__(self):
        super().__init__()
        self.make = nn.Linear(8, 72)

    def forward(self, x):
        return F.conv2d(x, self.make(x.mean((2, 3))).view(8, 1, 3, 3), groups=8)


def test_a_computed_kernel_counts_and_stores_nothing():
    workload = trace(Dynamic(), (8, 6, 6))
    assert workload.macs == counted_macs(Dynamic(), torch.zeros(1, 8, 6, 6)) == 576 + 16 * 72
    assert workload.weights == 576
    assert workload.layers[-1].filter_elements == 72


def test_recurrent_layers_are_opened():
    workload = trace(nn.LSTM(8, 6, 2, bidirectional=True), [torch.zeros(5, 1, 8)])
    assert workload.unknown == ()
    # 5 steps, 2 directions: 24 gates of 8 + 6 inputs in the first layer, of 12 + 6 in the second
    assert workload.macs == 5 * 2 * (24 * (8 + 6) + 24 * (12 + 6))
    assert workload.weights == 2 * (24 * 14 + 24 * 18)


class Branching(nn.Module):
    """Its path hangs on a value: torch.export gives up, plain tracing takes the path of the inputs."""

    def __init__(self):
        super().__init__()
        self.near, self.far = nn.Linear(4, 8), nn.Linear(4, 16)

    def forward(self, x):
        return self.near(x) if x.sum() < 1 else self.far(x)


def test_falls_back_to_fx_where_export_cannot():
    workload = trace(Branching(), [torch.zeros(1, 4)])
    assert [(layer.name, layer.macs, layer.weight_name) for layer in workload.array_layers] == [
        ("near", 32, "near.weight")
    ]
    assert trace(Branching(), [torch.ones(1, 4)]).macs == 64


def test_an_input_that_does_not_fit_is_an_input_error():
    with pytest.raises(InputError, match="Linear"):
        trace(nn.Linear(4, 4), (5,))


def test_tracing_leaves_the_module_as_it_was():
    module = Odd()
    module.tail.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    trace(module, (8, 5))
    assert module.training
    assert not module.tail.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_gemm_views_by_hand():
    layer = conv("c", 14, 14, 8, 12, kernel=(3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=4)
    assert (layer.out_h, layer.out_w) == (7, 10)
    assert (layer.m, layer.k, layer.n) == (70, 30, 3)
    assert layer.macs == 4 * 70 * 30 * 3
    assert layer.weights == 12 * 2 * 15
    expected = F.conv2d(torch.zeros(1, 8, 14, 14), torch.zeros(12, 2, 3, 5), None, (2, 1), (1, 2), (1, 2), 4).shape
    assert expected == (1, 12, layer.out_h, layer.out_w)
    assert matmul("qk", 7, 3, 5, groups=2).filter_elements == 30
    assert Workload("w", (linear("a", 2, 3, 4),)).with_batch(5).macs == 5 * 24


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: conv("c", 2, 2, 3, 8, kernel=5), "kernel"),
        (lambda: conv("c", 8, 8, 10, 8, 3, groups=4), "groups"),
        (lambda: conv("c", 8, 8, 8, 8, 3, stride=0), "sizes"),
        (lambda: linear("l", 0, 3, 4), "sizes"),
    ],
)
def test_layers_that_cannot_be_are_refused(make, key):
    with pytest.raises(InputError, match=f"{key} = "):
        make()


def test_pt2_gives_the_workload_of_the_module(tmp_path):
    network = networks.build("resnet8").eval()
    fixed, free = tmp_path / "fixed.pt2", tmp_path / "free.pt2"
    torch.export.save(torch.export.export(network, (torch.zeros(1, 3, 32, 32),)), fixed)
    batch = {0: torch.export.Dim("batch")}
    torch.export.save(torch.export.export(network, (torch.zeros(2, 3, 32, 32),), dynamic_shapes=(batch,)), free)
    assert load(fixed).layers == trace(network, (3, 32, 32)).layers
    assert load(free, batch=4).layers == trace(network, (3, 32, 32), batch=4).layers


class Trap:
    def __reduce__(self):
        return (open, ("trap was sprung", "w"))


@pytest.mark.parametrize("where", ["sample_inputs", "weights", "library", "size", "not a zip"])
def test_pt2_that_would_run_code_is_refused(tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    good, bad = tmp_path / "good.pt2", tmp_path / "bad.pt2"
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), good)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if where == "sample_inputs" and "sample_inputs" in name:
                buffer = io.BytesIO()
                torch.save(Trap(), buffer)
                content = buffer.getvalue()
            if where == "weights" and name.endswith("weights_config.json"):
                content = content.replace(b'"use_pickle": false', b'"use_pickle": true')
                assert b"true" in content
            if where == "size" and "/models/" in name:
                content = content.replace(b'{"as_int": 1}', b'{"as_expr": {"expr_str": "__import__(\'os\').getcwd()"}}')
                assert b"__import__" in content
            target.writestr(name, content)
        if where == "library":
            target.writestr(source.namelist()[0].split("/")[0] + "/data/aotinductor/model/a.so", pickle.dumps(1))
    if where == "not a zip":
        bad.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError):
        torch_file.load_program(bad)
    assert not (tmp_path / "trap was sprung").exists()

"""Are bodies that run many times, batched functions and broadcast attention counted as torch's counter counts a run?"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from simulator.readers.read import load, trace
from sram.errors import InputError


class Mapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(16, 4)

    def forward(self, x):
        from torch._higher_order_ops.map import map as over

        return over(lambda row: self.f(row), x)


class Scanned(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(16, 16)

    def forward(self, x):
        from torch._higher_order_ops.scan import scan

        def step(carry, row):
            carry = torch.tanh(self.f(carry) + row)
            return carry, carry.clone()

        return scan(step, torch.zeros(2, 16), x, dim=0)[1]


class Vmapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(16, 4)

    def forward(self, x):
        return torch.vmap(self.f)(x)


class Ensemble(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(5, 4, 16))

    def forward(self, x):
        return torch.vmap(lambda w: F.linear(x, w))(self.w)


class OneQuery(nn.Module):
    """The query's batch is 1: torch broadcasts it against the keys."""

    def __init__(self):
        super().__init__()
        self.q = nn.Parameter(torch.randn(1, 4, 5, 8))

    def forward(self, k):
        return F.scaled_dot_product_attention(self.q, k, k)


class Grouped(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x.repeat(1, 3, 1, 1), x, x, enable_gqa=True)


class Quiet(nn.Module):
    """A region without gradients that is given one tensor twice."""

    def __init__(self):
        super().__init__()
        self.f = nn.Linear(16, 16)

    def forward(self, x):
        with torch.no_grad():
            y = self.f(x)
            y = y @ x.T + y @ y.T
        return y


@pytest.mark.parametrize(
    ("module", "shape", "macs"),
    [
        (Mapped, (7, 2, 16), 7 * 2 * 16 * 4),
        (Scanned, (7, 2, 16), 7 * 2 * 16 * 16),
        (Vmapped, (2, 5, 16), 2 * 5 * 16 * 4),
        (Ensemble, (2, 16), 5 * 2 * 16 * 4),
        (OneQuery, (3, 4, 7, 8), 2 * 3 * 4 * 5 * 7 * 8),
        (Grouped, (2, 4, 7, 8), 2 * 2 * 12 * 7 * 7 * 8),
        (Quiet, (3, 16), 3 * 16 * 16 + 2 * 3 * 3 * 16),
    ],
)
def test_what_runs_many_times_is_counted_as_often(module, shape, macs):
    workload = trace(module(), (torch.zeros(shape),))
    assert workload.unknown == ()
    assert workload.macs == macs
    assert all(source < i for i, layer in enumerate(workload.layers) for source in layer.sources)


def test_a_scan_hands_its_state_on():
    workload = trace(Scanned(), (torch.zeros(3, 2, 16),))
    linear = [i for i, layer in enumerate(workload.layers) if layer.kind == "linear"]
    tanh = [i for i, layer in enumerate(workload.layers) if layer.kind == "activation"]
    assert workload.layers[linear[1]].sources == (tanh[0],)
    assert workload.weights == 256


class Conditional(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(4, 4)

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda y: self.f(y), lambda y: y.sin(), (x,))


class While(nn.Module):
    def forward(self, x):
        from torch._higher_order_ops.while_loop import while_loop

        return while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y @ y), (torch.tensor(0), x))[1]


@pytest.mark.parametrize(("module", "name"), [(Conditional, "cond"), (While, "while_loop")])
def test_a_body_whose_runs_hang_on_values_is_listed(module, name):
    workload = trace(module(), (torch.zeros(4, 4),))
    assert any(name in entry for entry in workload.unknown)
    assert workload.array_layers == ()


@pytest.mark.parametrize("module", [nn.Conv3d(1, 2, 3), nn.ConvTranspose3d(1, 2, 3), nn.MaxPool3d(2), nn.AvgPool3d(2)])
def test_three_dimensions_are_listed(module):
    workload = trace(module, (1, 4, 4, 4))
    assert len(workload.unknown) == 1
    assert workload.layers == ()


def test_free_sizes_of_a_program_are_given_and_fixed_ones_are_not(tmp_path):
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    image, dim = torch.zeros(2, 3, 8, 8), torch.export.Dim
    free, fixed = tmp_path / "free.pt2", tmp_path / "fixed.pt2"
    axes = {0: dim("n"), 2: dim("h", min=4, max=512), 3: dim("w", min=4, max=512)}
    torch.export.save(torch.export.export(net.eval(), (image,), dynamic_shapes=(axes,)), free)
    torch.export.save(torch.export.export(net, (image,)), fixed)
    found = load(free, (3, 20, 24))
    assert (found.batch, found.macs) == (1, 20 * 24 * 216 + 32)
    fields = lambda layers: [(layer.kind, layer.macs, layer.operations, layer.weight_name) for layer in layers]  # noqa: E731
    assert fields(found.layers) == fields(trace(net, (3, 20, 24)).layers)
    for path, shape, says in (
        (free, None, "give the input shape"),
        (free, (4, 20, 24), "that of the file"),
        (free, (3, 20), "that of the file"),
        (fixed, (3, 9, 9), "that of the file"),
        (free, (3, 2, 2), "the network runs on"),
    ):
        with pytest.raises(InputError, match=says):
            load(path, shape)
    assert load(fixed, (3, 8, 8)) == load(fixed)


def test_a_topology_takes_no_shape(tmp_path):
    path = tmp_path / "net.csv"
    path.write_text("Conv1, 8, 8, 3, 3, 3, 4, 1,\n")
    with pytest.raises(InputError, match="every layer"):
        load(path, (3, 8, 8))


@pytest.mark.parametrize(
    "moves",
    [
        lambda x: torch.roll(x, 1, 2),
        lambda x: torch.flip(x, (2,)),
        lambda x: torch.gather(x, 2, torch.zeros(1, 3, 5, dtype=torch.int64)),
        lambda x: torch.index_select(x, 2, torch.tensor([0, 2])),
        lambda x: torch.tril(x),
        lambda x: x.masked_fill(x > 2, 0.0),
    ],
)
def test_what_only_moves_elements_is_counted_as_a_move(moves):
    """It reads and writes as many as come out, and multiplies none."""

    class Moves(torch.nn.Module):
        def forward(self, x):
            return moves(x)

    x = torch.zeros(1, 3, 8)
    made = moves(x).numel()
    (layer,) = (found for found in trace(Moves(), (3, 8)).layers if found.kind == "move")
    assert (layer.elements_read, layer.elements_written, layer.macs) == (made, made, 0)

"""Do the pictures show the numbers, and is no layer above the roof?"""

import numpy as np
import pytest

from neuralfuse import networks
from simulator import plots
from simulator.accelerator import accelerator, accelerator_names
from simulator.array.cycles import simulate
from simulator.energy import energy
from simulator.readers.read import trace
from simulator.workload import Workload, linear


@pytest.fixture(scope="module")
def workload():
    return trace(networks.build("resnet8"), (3, 32, 32))


def lengths(figure) -> float:
    return sum(bar.get_width() for axes in figure.axes for bar in axes.patches)


@pytest.mark.parametrize("name", accelerator_names())
def test_no_layer_is_above_the_roof(workload, name):
    machine = accelerator(name)
    intensity, rate = plots.roofline(simulate(workload, machine))
    roof = np.minimum(intensity * machine.dram_bytes_per_cycle, machine.array_rows * machine.array_cols)
    assert (rate <= roof * (1 + 1e-12)).all()
    assert (rate > 0).all()


def test_the_roof_is_drawn_where_it_is_and_its_sides_are_named(workload):
    machine = accelerator("paper")
    counts = simulate(workload, machine)
    (axes,) = plots.roofline_figure(counts).axes
    peak, bandwidth = machine.array_rows * machine.array_cols, machine.dram_bytes_per_cycle
    (roof,) = axes.get_lines()
    assert roof.get_ydata() == pytest.approx(np.minimum(roof.get_xdata() * bandwidth, peak))
    assert roof.get_xdata()[1] == pytest.approx(peak / bandwidth)
    assert [text.get_text() for text in axes.texts] == [f"{peak} MACs a cycle", f"{bandwidth:g} bytes a cycle"]
    (layers,) = axes.collections
    assert np.allclose(layers.get_offsets(), np.transpose(plots.roofline(counts)))
    share = counts.layers["cycles"][counts.layers["macs"] > 0] / counts.layers["cycles"].sum()
    assert layers.get_sizes() == pytest.approx(12 + 500 * share)


def test_bars_add_up_to_the_totals(workload):
    counts = simulate(workload, accelerator("paper"))
    found = energy(counts)
    assert lengths(plots.energy_figure(found)) == pytest.approx(found.system_pj / 1e6)
    assert lengths(plots.energy_figure(found, "sram")) == pytest.approx(found.sram_pj / 1e6)
    assert lengths(plots.energy_figure(found, "weight_sram")) == pytest.approx(found.weight_sram_pj / 1e6)
    assert lengths(plots.cycles_figure(counts)) == counts.cycles


def test_long_networks_keep_their_total_and_their_largest_layers():
    layers = tuple(linear(f"fc{i}", 1, 64, 64 + 8 * i) for i in range(plots.LARGEST + 30))
    counts = simulate(Workload("long", layers), accelerator("paper"))
    figure = plots.cycles_figure(counts)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(labels) == plots.LARGEST + 1
    assert labels[-1] == "30 others"
    assert layers[-1].name in labels
    assert lengths(figure) == counts.cycles


def test_the_same_picture_is_the_same_file():
    counts = simulate(Workload("two", (linear("a", 1, 64, 64), linear("b", 1, 64, 10))), accelerator("edge"))
    first, second = (plots.encoded(plots.roofline_figure(counts), "svg") for _ in range(2))
    assert first == second

"""Do the figures show the numbers that the tables hold?"""

import io
import json

import numpy as np
import pandas as pd
import pytest

from neuralfuse.report import plots
from neuralfuse.report.front import interactive_front
from neuralfuse.results.scale import Scale
from sram import failure


def rows_of(accuracy: dict[int, list[float]]) -> pd.DataFrame:
    """Chips at 1.0, 0.9, 0.8, saving 0, 0.2 and 0.4."""
    return pd.DataFrame(
        [
            {"structure": "iid", "protection": "none", "voltage": v, "chip": chip, "accuracy": a, "saving_sram": s}
            for chip, values in accuracy.items()
            for v, s, a in zip((1.0, 0.9, 0.8), (0.0, 0.2, 0.4), values, strict=True)
        ]
    )


def test_attainment_shows_what_half_of_the_chips_reach():
    """Three chips: two of them, and so half, reach 0.9 at no saving, 0.8 at 0.2, and 0.5 at 0.4."""
    figure = plots.attainment(rows_of({0: [0.9, 0.8, 0.3], 1: [0.9, 0.6, 0.5], 2: [0.9, 0.85, 0.7]}), "sram")
    (line,) = figure.axes[0].get_lines()
    saving, accuracy = line.get_data()
    assert dict(zip(np.round(saving, 9).tolist(), np.round(accuracy, 9).tolist(), strict=True)) == {
        0.0: 90.0,
        20.0: 80.0,
        40.0: 50.0,
    }


def summary_of(**columns: list) -> pd.DataFrame:
    """Means of two protections at 1.0 and 0.8, as summary.csv has them."""
    shared = {"structure": "iid", "chips": 3, "clean_accuracy": 0.97, "cell_fault_rate": [0.0, 0.05] * 2}
    shared |= {"voltage": [1.0, 0.8] * 2, "protection": ["none"] * 2 + ["fuse"] * 2, "setting": ["a"] * 2 + ["b"] * 2}
    shared |= {"accuracy_mean": [0.97, 0.3, 0.96, 0.9], "saving_sram": [0.0, 0.36, -0.02, 0.3]}
    shared |= {"accuracy_low": [0.96, 0.1, 0.95, 0.85], "accuracy_high": [0.98, 0.5, 0.97, 0.95]}
    return pd.DataFrame(shared | columns)


def lines_of(axis) -> dict[str, list[tuple[float, float]]]:
    return {
        line.get_label(): [tuple(point) for point in np.round(np.transpose(line.get_data()), 9).tolist()]
        for line in axis.get_lines()
    }


def test_the_front_is_drawn_through_what_no_mean_beats():
    """`fuse` at nominal costs energy and is less accurate than the bare network: on no front."""
    lines = lines_of(plots.energy_accuracy_front(summary_of(), "sram").axes[0])
    assert sorted(lines["none"]) == [(0, 97), (36, 30)]
    assert sorted(lines["fuse"]) == [(-2, 96), (30, 90)]
    assert sorted(lines["Pareto front of the means"]) == [(0, 97), (30, 90), (36, 30)]
    by_setting = lines_of(plots.settings_front(summary_of(), "sram").axes[0])
    assert sorted(by_setting["a"]) == [(0, 97), (36, 30)]
    assert sorted(by_setting["b"]) == [(-2, 96), (30, 90)]


def test_accuracy_against_supply_has_its_band_and_the_rate_above():
    figure = plots.accuracy_against_voltage(summary_of())
    axis, top = figure.axes
    lines = lines_of(axis)
    assert lines["fuse"] == [(1.0, 96), (0.8, 90)]
    assert [y for _, y in lines["clean, 97.0%"]] == [97, 97]
    corners = axis.collections[1].get_paths()[0].vertices
    assert sorted({(round(x, 9), round(y, 9)) for x, y in corners.tolist()}) == [(0.8, 85), (0.8, 95), (1, 95), (1, 97)]
    assert axis.xaxis.get_inverted()
    assert [label.get_text() for label in top.get_xticklabels()] == ["0", "5%"]


def test_yield_against_supply_has_its_exact_band():
    table = summary_of(
        **{"yield": [1.0, 0.0, 1.0, 0.67], "yield_low": [0.4, 0, 0.4, 0.1], "yield_high": [1, 0.6, 1, 1]}
    )
    (axis,) = plots.yield_against_voltage(table, "V").axes
    lines = lines_of(axis)
    assert (lines["none"], lines["fuse"]) == ([(1.0, 100), (0.8, 0)], [(1.0, 100), (0.8, 67)])
    corners = axis.collections[1].get_paths()[0].vertices
    assert {(x, round(y, 9)) for x, y in corners.tolist()} == {(0.8, 10), (0.8, 100), (1, 40), (1, 100)}
    assert (axis.get_ylabel(), axis.get_xlabel()[-3:-1]) == ("Chips within 5 points of clean (%)", "(V")
    assert axis.xaxis.get_inverted()


def test_attainment_band_reaches_from_the_worst_chip_to_the_best():
    """Of two chips 5% is the better one and 95% the worse."""
    figure = plots.attainment(rows_of({0: [0.9, 0.8, 0.3], 1: [0.9, 0.6, 0.5]}), "sram")
    corners = figure.axes[0].collections[0].get_paths()[0].vertices
    assert {(round(x), round(y)) for x, y in corners.tolist()} >= {(20, 60), (20, 80), (40, 30), (40, 50), (0, 90)}


def test_bars_of_a_layer_and_a_bit_have_their_whiskers():
    lost = {"lost_points": [9.0, 4.0, 3.0, 7.0], "lost_points_low": [8.0, 3.5, 2.0, 5.0]}
    lost |= {"lost_points_high": [12.0, 5.0, 3.5, 8.0], "part": ["all", "layer", "bit", "bit"]}
    other = {"voltage": 0.8, "network": "net", "structure": "iid", "chips": 3, "name": ["all", "stem", "0", "7"]}
    figure = plots.sensitivity(pd.DataFrame(lost | other))
    layers, bits = figure.axes
    assert [bar.get_height() for axis in (layers, bits) for bar in axis.patches] == [4, 3, 7]
    ends = [segment[:, 1].tolist() for axis in (layers, bits) for segment in axis.collections[0].get_segments()]
    assert ends == [[3.5, 5], [2, 3.5], [5, 8]]
    assert [line.get_label() for line in layers.get_lines() if "all" in line.get_label()] == ["all faults: 9.0 points"]
    assert "net at 0.8 Vmin, iid fault maps, 3 chips" in figure.get_suptitle()


def test_rates_of_chips_are_drawn_where_they_were_measured():
    """Every protection and network sees the same chips: each is counted once."""
    curve = failure.curve("ibm14")
    chips = [(v, c, r) for v, rates in ((0.9, (1e-4, 3e-4)), (0.8, (0.03, 0.05))) for c, r in enumerate(rates)]
    rows = [
        {"accelerator": "paper", "structure": "iid", "voltage": v, "chip": c, "cell_fault_rate": r, "protection": p}
        for p in ("none", "fuse")
        for v, c, r in chips
    ]
    axis = plots.failure_curve(pd.DataFrame(rows), curve).axes[0]
    (container,) = axis.containers
    points = dict(zip(*container.lines[0].get_data(), strict=True))
    assert points == pytest.approx({0.8: 0.04, 0.9: 2e-4})
    low, high = container.lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((0.03, 0.05))
    assert "2 chips" in axis.figure.legends[0].get_texts()[-1].get_text()


def test_whiskers_of_the_page_stay_between_0_and_100():
    row = {"structure": "iid", "protection": "none", "chips": 3, "network": "n", "accelerator": "a"}
    row |= {"dataset": "d", "curve": "c", "rails": "weights alone", "cell_fault_rate": 0.1, "flip_rate": 0.05}
    wide = {"voltage": [1.0, 0.8], "accuracy_mean": [0.97, 0.1], "accuracy_low": [0.9, -0.2]}
    wide |= {"accuracy_high": [1.04, 0.4], "saving_sram": [0.0, 0.36]}
    summary = pd.DataFrame(wide).assign(**row)
    trace = json.loads(interactive_front(summary, "sram", "Vmin"))["data"][0]
    assert np.add(trace["y"], trace["error_y"]["array"]) == pytest.approx([100, 40])
    assert np.subtract(trace["y"], trace["error_y"]["arrayminus"]) == pytest.approx([90, 0])


def test_images_stand_above_what_became_of_them_and_the_difference():
    random = np.random.default_rng(0)
    for channels in (1, 3):
        before, after = random.uniform(-1, 1, (2, 2, channels, 4, 5))
        axes = plots.images(before, after, [7, "cat"]).axes
        for i, widest in ((0, 1), (2, 1), (4, 2)):  # rows of two
            for axis, image in zip(axes[i : i + 2], (before, after, after - before)[i // 2], strict=True):
                (picture,) = axis.get_images()
                if channels == 1:
                    assert np.allclose(picture.get_array(), image[0])
                    assert picture.get_clim() == (-widest, widest)
                else:  # matplotlib takes colours in 0..1
                    assert np.allclose(picture.get_array(), np.moveaxis(image / widest, 0, -1) / 2 + 0.5)
        assert [axis.get_title() for axis in axes] == ["7", "cat", "", "", "", ""]
        assert [axis.get_ylabel() for axis in axes] == ["input x", "", "F(x)", "", "F(x) - x", ""]


def test_a_smaller_network_is_a_point_beside_the_line_of_the_big_one():
    """Energies in µJ fall to the right; the smaller network's rows at all supplies are one."""
    table = summary_of(
        protection=["none"] * 2 + ["smaller(b)"] * 2,
        energy_chip_pj=[4e6, 2.5e6, 1e6, 1e6],
        accuracy_mean=[0.97, 0.3, 0.9, 0.9],
        accuracy_low=[0.96, 0.1, 0.9, 0.9],
        accuracy_high=[0.98, 0.5, 0.9, 0.9],
    )
    axis = plots.smaller_or_lower(table, "chip").axes[0]
    lines = lines_of(axis)
    assert lines["none"] == [(4, 97), (2.5, 30)]
    assert set(lines["smaller(b)"]) == {(1, 90)}
    assert axis.xaxis.get_inverted()


def test_of_errors_the_less_lies_above():
    """The same means as errors of 0.03 to 0.7 V."""
    volts = Scale(name="error", unit="V", higher_is_better=False)
    errors = {name: summary_of()[name] - 1 for name in ("accuracy_mean", "accuracy_low", "accuracy_high")}
    table = summary_of(clean_accuracy=-0.03, **{name: list(column) for name, column in errors.items()})
    axis = plots.energy_accuracy_front(table, "sram", volts).axes[0]
    assert sorted(lines_of(axis)["none"]) == [(0, 0.03), (36, 0.7)]
    assert axis.yaxis_inverted()
    assert axis.get_ylabel() == "Test error (V)"
    table = table.assign(voltage_activations=1.0, rails="-", network="a", accelerator="b", flip_rate=0.0)
    table = table.assign(dataset="d", curve="c", **{f"saving_{s}": table.saving_sram for s in ("chip", "system")})
    figure = json.loads(interactive_front(table, "sram", "V", volts))
    assert figure["layout"]["yaxis"]["autorange"] == "reversed"
    (fuse,) = (trace for trace in figure["data"] if trace["name"] == "fuse, iid")
    assert fuse["y"] == [0.04, 0.1]
    assert fuse["error_y"]["array"] == pytest.approx([0.01, 0.05])
    assert fuse["error_y"]["arrayminus"] == pytest.approx([0.01, 0.05])


@pytest.mark.parametrize("letters", [4, 20, 32, 44, 52])
def test_the_legend_lies_within_the_figure_however_long_the_names(letters):
    """One panel, nine names."""
    figure = plots.Figure(figsize=(5.2, 3.2), layout="constrained")
    axis = figure.subplots()
    for i in range(9):
        axis.plot([0, 1], [i, i], label=("hardened_msb:8@lstm.weight_ih_l0;" * 2)[: letters - 1] + str(i))
    plots.legend(figure)
    figure.savefig(io.BytesIO(), format="png")
    box, whole = figure.legends[0].get_window_extent(), figure.bbox
    assert box.x0 >= whole.x0
    assert box.x1 <= whole.x1

"""Are chips compared with themselves, at the same supply and at the same saving?"""

import json

import pandas as pd
import pytest
import yaml

from neuralfuse.report import paired
from neuralfuse.results.rows import COLUMNS
from neuralfuse.results.statistics import paired_difference
from neuralfuse.study.files import dump_study, load_studies, parse_study
from sram import failure
from tests.conftest import run

SAVING = {0.85: 0.2, 0.825: 0.25, 0.8: 0.3}  # of the bare network; the generator takes 0.03 of it
LEVEL = {"none": 0.0, "range": 0.1, "each": 0.08}
CHIP = ["seed", "chip"]


def rows() -> pd.DataFrame:
    """Four chips of two seeds whose accuracy falls by 0.1 a supply; a protection adds its level to each."""
    return pd.DataFrame(
        {"seed": seed, "chip": chip, "structure": "iid", "voltage": voltage, "protection": name}
        | {"saving_weight_sram": saving - 0.03 * (name != "none")}
        | {"accuracy": 0.8 - 0.1 * step + 0.03 * chip + 0.01 * seed + LEVEL[name] * (1 + seed)}
        for seed in (0, 1)
        for chip in range(4)
        for step, (voltage, saving) in enumerate(SAVING.items())
        for name in LEVEL
        if not (seed and name == "each")
    )


def test_differences_are_paired_by_chip_within_a_supply_and_means_are_over_chips():
    """Worked by hand: on chips 0 and 1 the fit gains 0.02 and 0.04, so 0.03; t(1) = 12.706, s = 0.01414: +-0.12706."""
    found = [("none", 0, 0.48), ("none", 1, 0.56), ("none", 2, 0.9), ("fit", 0, 0.5), ("fit", 1, 0.5), ("fit", 1, 0.7)]
    same = {"structure": "iid", "voltage": 0.8, "saving_weight_sram": 0.3}
    table = [{"protection": name, "chip": chip, "accuracy": value} | same for name, chip, value in found]
    table += [{**table[0], "voltage": 0.9, "accuracy": 0.8}, {**table[4], "voltage": 0.9}]  # of different chips
    line, other = paired.compare(pd.DataFrame(table)).query("protection == 'fit'").to_dict("records")
    assert [line["chips"], line["accuracy"], line["worst_chip"]] == [2, pytest.approx(0.55), 0.5]
    assert line["minus_none"] == pytest.approx(0.03)
    assert line["high_none"] - line["minus_none"] == pytest.approx(0.12706, abs=1e-5)
    assert line["better_none"] == "2 of 2"
    assert pd.isna(other["minus_none"])


def test_each_seed_has_its_difference():
    table = paired.compare(rows(), ["none", "range"], chip=CHIP, seed="seed").query("voltage == 0.8")
    line, one = (table[table.protection == name].iloc[0] for name in ("range", "each"))
    assert [line.chips, line.seeds_none, one.chips, one.seeds_range] == [8, "+10.0 +20.0", 4, "-2.0"]
    assert line.minus_none == pytest.approx(0.15)
    assert list(table)[-10:-5] == ["minus_none", "low_none", "high_none", "better_none", "seeds_none"]


def test_at_equal_saving_each_chip_is_linear_between_its_own_supplies():
    equal = paired.at_equal_saving(rows(), chip=CHIP)
    assert sorted(equal.saving.unique()) == pytest.approx([0.175, 0.2, 0.225, 0.25])  # `range` reaches 27%
    table = paired.compare(equal, ["range"], by=["structure", "saving"], chip=CHIP)
    bare = table[(table.protection == "none") & (table.saving > 0.24)].iloc[0]
    assert bare.accuracy == pytest.approx(0.8 - 0.1 + 0.045 + 0.005)  # measured there
    assert bare.minus_range == pytest.approx(0.1 * (0.03 / 0.05) - 0.15)  # 0.1 for each 5% of saving
    assert table.groupby("saving").protection.count().tolist() == [2, 3, 3, 3]  # none has a chip at 17.5%


def test_one_supply_has_no_equal_saving():
    assert paired.at_equal_saving(rows()[lambda r: r.voltage == 0.8], chip=CHIP).empty


def test_the_page_says_what_differs_and_the_figures_in_per_cent():
    table = paired.compare(rows(), chip=CHIP, seed="seed", chip_numbers=("chip", "nunique"))
    lines = paired.markdown(table, chip_numbers="{:d}", missing="{}").splitlines()
    head, _, first, second, *_ = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert head[:4] == ["supply", "protection", "chips", "accuracy, %"]
    assert head[6:] == ["- none (better on; each seed)", "weight-SRAM saving, %", "chip_numbers"]
    assert first[:3] + first[6:] == ["0.85", "none", "8", "", "20.0", "4"]
    apart = paired_difference(pd.Series([0.1, 0.2] * 4).to_numpy(), pd.Series([0.0] * 8).to_numpy())
    assert second[6] == f"+15.0 [{100 * apart.low:+.1f}, {100 * apart.high:+.1f}] (8 of 8; +10.0 +20.0)"


def test_a_name_looks_the_same_in_every_panel_and_in_the_legend():
    """The second panel lacks the first name; what costs more than it saves is named, and squeezes nothing."""
    dear = rows()[lambda r: r.protection == "each"].assign(protection="dear", saving_weight_sram=-2.0)
    both = pd.concat([rows(), dear, rows()[lambda r: r.protection != "none"].assign(structure="column")])
    figure = paired.accuracy(paired.compare(both, chip=CHIP))

    def colours(axis):
        handles, labels = axis.get_legend_handles_labels()
        return {label: handle.lines[0].get_color() for handle, label in zip(handles, labels, strict=True)}

    left, right = (colours(axis) for axis in figure.axes)
    assert set(left) == set(LEVEL)
    assert right == {name: left[name] for name in ("range", "each")}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(LEVEL)
    assert figure.axes[0].get_xlim()[0] > 0
    assert "beyond: dear, saving -200%" in figure.axes[0].texts[0].get_text()
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width


def ends(container, axis: int) -> list[list[float]]:
    """From where to where each error bar reaches."""
    return [segment[:, axis].tolist() for segment in container.lines[2][0].get_segments()]


def test_bars_reach_from_one_end_of_an_interval_to_the_other():
    """Of skewed chips the mean is not in the middle; one chip has no interval and no bar."""
    found = rows().assign(accuracy=lambda r: r.accuracy - 0.3 * ((r.chip == 0) & (r.protection == "range")))
    one = found[(found.protection == "each") & (found.chip == 0)].assign(protection="one")
    table = paired.compare(pd.concat([found, one]), chip=CHIP).query("voltage == 0.8").reset_index(drop=True)
    skewed = table[table.protection == "range"].iloc[0]
    assert skewed.accuracy - skewed.low > 1.2 * (skewed.high - skewed.accuracy)
    bars = {c.get_label(): ends(c, 1) for c in paired.accuracy(table).axes[0].containers}
    assert bars["range"] == [pytest.approx([100 * skewed.low, 100 * skewed.high])]
    (alone,) = table[table.protection == "one"].accuracy
    assert bars["one"] == [pytest.approx([100 * alone, 100 * alone])]
    same = table.assign(low=table.accuracy + 1e-17, high=table.accuracy - 1e-17)  # as sums round where all chips agree
    assert paired.accuracy(same).axes[0].containers
    (container,) = paired.differences(table, "none").axes[0].containers
    assert ends(container, 0)[0] == pytest.approx([100 * skewed.low_none, 100 * skewed.high_none])


def test_more_names_than_colours_are_told_apart_by_hollow_markers():
    names = [f"protection {i}" for i in range(len(paired.plots.COLOURS) + 1)]
    table = pd.concat([rows()[lambda r: r.protection == "none"].assign(protection=name) for name in names])
    first, *_, last = paired.accuracy(paired.compare(table, chip=CHIP)).axes[0].containers
    assert first.lines[0].get_color() == last.lines[0].get_color()
    assert (first.lines[0].get_markerfacecolor(), last.lines[0].get_markerfacecolor()) == (
        first.lines[0].get_color(),
        "none",
    )


def test_differences_have_a_dot_for_each_line():
    figure = paired.differences(paired.compare(rows(), chip=CHIP), "none")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [f"{name}, {voltage:g}" for voltage in SAVING for name in ("range", "each")]
    dots = figure.axes[0].containers[0].lines[0].get_xdata()
    assert dots[:2] == pytest.approx([15, 8])


def test_bars_are_the_intervals_which_are_not_symmetric():
    """Of one chip's large gain the interval is longer to the right."""
    found = rows()[lambda r: (r.seed == 0) & (r.voltage == 0.8)]
    found["accuracy"] += 0.2 * ((found.chip == 3) & (found.protection != "none"))
    table = paired.compare(found)
    line = table[table.protection == "range"].iloc[0]
    assert line.high_none - line.minus_none > 1.5 * (line.minus_none - line.low_none)
    bars = paired.differences(table, "none").axes[0].containers[0].lines[2][0].get_segments()
    assert any(bar[:, 0] == pytest.approx([100 * line.low_none, 100 * line.high_none]) for bar in bars)
    drawn = {bars.get_label(): bars for bars in paired.accuracy(table).axes[0].containers}["range"]
    assert drawn.lines[2][0].get_segments()[0][:, 1] == pytest.approx([100 * line.low, 100 * line.high])


def test_rates_are_those_of_the_study_s_own_curve(tmp_path):
    """A curve in a file has a name that no built-in curve has."""
    curve = failure.through("lab", [0.9, 0.8, 0.7], [1e-6, 1e-3, 0.1], nominal=0.9)
    (tmp_path / "lab.json").write_text(json.dumps(curve.to_dict()))
    content = {**STUDY, "sram": {"curve": str(tmp_path / "lab.json")}, "voltages": [0.85, 0.825, 0.8]}
    del content["variants"]
    (tmp_path / "study.yaml").write_text(dump_study(parse_study(content, "here")))
    other = {name: 0 for name in COLUMNS if name not in rows()} | {"total": 10**6, "test_images": 10**6, "curve": "lab"}
    found = rows()[lambda r: r.seed == 0].assign(**other)
    found["correct"] = found.accuracy * found.total
    found.to_csv(tmp_path / "results.csv", index=False)
    rate = paired.rows_of(tmp_path).set_index("voltage").rate
    assert rate[0.8].iloc[0] == pytest.approx(1e-3)


STUDY = {
    "name": "seeds and structures",
    "networks": [{"name": "resnet8"}],
    "voltages": [1.0, 0.85, 0.825, 0.8],
    "protections": ["none", "secded72"],
    "variants": {"a": {}, "b": {"seed": 1}, "c": {"sram": {"schedule": "resident"}}},
}


def test_a_study_s_folder_against_one_of_its_protections(tmp_path, capsys):
    """As a sweep leaves it: variants that differ by their seed alone are one lot, others are not."""
    (tmp_path / "variants.yaml").write_text(yaml.safe_dump(STUDY))
    for name, study in load_studies(tmp_path / "variants.yaml").items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.yaml").write_text(dump_study(study))
        found = rows()[lambda r: (r.seed == 0) & (r.protection != "range")].replace({"each": "secded72"})
        setting = dict(
            network="resnet8", dataset="digits", metric="accuracy", accelerator="paper", curve="ibm14", total=10**6
        )
        setting["test_images"] = setting["total"]
        setting["correct"] = found.accuracy * setting["total"]
        other = {name: 0 for name in COLUMNS if name not in {*found, *setting}}
        found.assign(**other, **setting).to_csv(tmp_path / name / "results.csv", index=False)
    assert run("report", tmp_path, "--against", "none") == 0
    assert capsys.readouterr().out == (tmp_path / "paired.md").read_text() + "\n"
    table = pd.read_csv(tmp_path / "paired.csv")
    seeds, alone = (table[table.lot == lot].dropna(subset="minus_none") for lot in ("a", "c"))
    assert (seeds.chips.tolist(), alone.chips.tolist()) == ([8, 8, 8], [4, 4, 4])
    assert seeds.seeds_none.tolist() == ["+8.0 +8.0"] * 3
    assert table.rate[0] == pytest.approx(0.00449, abs=1e-5)
    equal = pd.read_csv(tmp_path / "paired-equal-saving.csv")
    assert equal.saving.max() == pytest.approx(0.25)
    assert {path.name for path in (tmp_path / "plots").glob("paired*")} == {
        f"paired-{what}.{kind}" for what in ("accuracy", "differences") for kind in ("png", "svg", "pdf")
    }
    assert run("report", tmp_path, "--against", "hope") == 2
    assert "none, secded72, resnet8" in capsys.readouterr().err

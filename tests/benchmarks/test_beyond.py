"""Does the comparison of methods pair by chip, and does a killed run leave rows that can be gone on from?"""

import argparse

import pandas as pd
import pytest

from benchmarks.beyond import figures
from benchmarks.beyond.__main__ import KEY, MEASURED, append, applies, generic_of, plan_of, read
from benchmarks.beyond.lot import CONDITIONS, OTHERS, Plan
from benchmarks.beyond.methods import METHODS
from benchmarks.beyond.report import markdown, table
from neuralfuse.study.config import ProtectionConfig, StudyConfig
from neuralfuse.study.folder import StudyFolder


def row(method, chip, accuracy, condition="main", seed=0):
    values = dict.fromkeys(KEY + MEASURED, 1) | {"structure": "iid", "rate": 0.02, "code": "abc", "clean_accuracy": 0.9}
    return values | {"method": method, "chip": chip, "accuracy": accuracy, "condition": condition, "seed": seed}


def test_differences_are_paired_by_chip_within_a_condition():
    """Worked by hand: on chips 0 and 1 the fit gains 0.2 and 0.4, so 0.3; t(1) = 12.706, s = 0.1414: +-1.2706."""
    rows = [row("unprotected", 0, 0.3), row("unprotected", 1, 0.2), row("unprotected", 2, 0.9)]
    rows += [row("fit", 0, 0.5), row("fit", 1, 0.5, seed=0), row("fit", 1, 0.7, seed=1)]  # seeds are averaged first
    rows += [row("unprotected", 0, 0.8, "higher"), row("fit", 0, 0.7, "higher"), row("fit", 1, 0.7, "higher")]
    lines = table(pd.DataFrame(rows)).set_index(["condition", "method"])
    main, higher = lines.loc[("main", "fit")], lines.loc[("higher", "fit")]
    assert main.minus_unprotected == pytest.approx(0.3)
    assert main.high_unprotected - main.minus_unprotected == pytest.approx(1.2706, abs=1e-4)
    assert main.better_unprotected == "2 of 2"
    assert main.worst_chip == pytest.approx(0.5)
    assert higher.minus_unprotected == pytest.approx(-0.1)
    assert higher.better_unprotected == "0 of 1"
    text = markdown(table(pd.DataFrame(rows)), 0.9)
    assert "+30.0 [-97.1, +157.1]" in text


def test_a_torn_line_is_not_a_row_and_harms_no_other(tmp_path):
    path = tmp_path / "rows.csv"
    append(path, row("a", 0, 0.5))
    append(path, row("b, with a comma", 1, 0.25))
    torn = path.read_text()
    path.write_text(torn + torn.splitlines()[-1][:20])
    assert len(read(path)) == 2
    append(path, row("c", 2, 0.75))
    found = read(path)
    assert list(found.method) == ["a", "b, with a comma", "c"]
    assert list(found.accuracy) == [0.5, 0.25, 0.75]
    assert found.chip.dtype.kind == "i"  # keys compare as they were written


def test_a_row_that_two_runs_measured_counts_once(tmp_path):
    path = tmp_path / "rows.csv"
    for repeated in (row("a", 0, 0.5), row("a", 1, 0.25), row("a", 0, 0.5)):
        append(path, repeated)
    assert list(read(path).chip) == [0, 1]


def test_every_method_has_one_key():
    keys = [(method.name, method.condition) for method in METHODS]
    assert len(set(keys)) == len(keys)


def test_figures_name_methods_and_conditions_that_are_measured():
    keys = {(method.condition, method.name) for method in METHODS}
    shown = {("main", name) for name in (*figures.MAIN, *figures.SUPERVISION, *(name for _, name in figures.QUERIES))}
    shown |= {(condition, name) for rows in figures.ROBUSTNESS.values() for condition, name, _ in rows}
    assert shown <= keys
    assert {method.condition for method in METHODS} == set(CONDITIONS)
    assert {("unprotected", condition) for condition in CONDITIONS} <= {(m.name, m.condition) for m in METHODS}


def test_a_plan_leaves_out_what_it_has_no_words_or_checkpoint_for():
    secded, unets = (next(m for m in METHODS if m.name == name) for name in ("secded72", "generic UNetS"))
    plans = {form: Plan({}, {}, form, 0.02, "ibm14", "resident", {}) for form in ("iid", "paper")}
    assert applies(secded, plans["iid"])
    assert not applies(secded, plans["paper"])
    assert not applies(unets, plans["iid"])
    assert applies(unets, Plan({}, {}, "iid", 0.02, "ibm14", "resident", {}, {"UNetS": "unets.safetensors"}))


def test_gains_are_taken_on_the_chips_that_have_all_methods():
    """By hand: chips 0 and 1 have both; gains of the fit are 10 and 30 points; chip 2 has no other."""
    rows = [row("unprotected", chip, 0.2) for chip in range(3)]
    rows += [row("fit", 0, 0.3), row("fit", 1, 0.5), row("fit", 2, 1.0), row("other", 0, 0.2), row("other", 1, 0.2)]
    chips = pd.DataFrame(rows).pivot_table(index="chip", columns=["condition", "method"], values="accuracy")
    fit, other = figures.gains(chips, [("main", "fit"), ("main", "other")])
    assert fit.tolist() == pytest.approx([10, 30])
    assert other.tolist() == [0, 0]
    assert figures.gains(chips, [("main", "fit"), ("drifted", "fit")]) is None


def test_a_method_looks_the_same_in_every_panel_and_in_the_legend():
    """The second panel lacks the first method; its others must not slip into that one's colours."""
    rows = [row(method, chip, 0.5) for method in ("unprotected", "affine", "tiny") for chip in (0, 1)]
    rows += [row(method, chip, 0.5) | {"structure": "column"} for method in ("unprotected", "tiny") for chip in (0, 1)]
    figure = figures.main(table(pd.DataFrame(rows)))

    def colours(axis):
        handles, labels = axis.get_legend_handles_labels()
        return {label: handle.lines[0].get_color() for handle, label in zip(handles, labels, strict=True)}

    first, second = (colours(axis) for axis in figure.axes)
    assert set(first) == {"unprotected", "affine", "tiny"}
    assert second == {name: first[name] for name in ("unprotected", "tiny")}
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == list(first)


def test_what_costs_more_than_it_saves_is_named_and_squeezes_nothing():
    saved = {"saving_weight_sram": 0.3}
    rows = [row(method, chip, 0.5) | saved for method in ("unprotected", "tiny") for chip in (0, 1)]
    rows += [row("generic ConvL", chip, 0.6) | {"saving_weight_sram": -2} for chip in (0, 1)]
    axis = figures.main(table(pd.DataFrame(rows))).axes[0]
    assert axis.get_xlim()[0] > 0
    assert [text.get_text() for text in axis.texts] == ["beyond the axis: generic ConvL, saving -200%, accuracy 60.0%"]


@pytest.mark.parametrize("structures", [["iid"], ["iid", "column"]])
def test_the_legend_is_no_wider_than_its_figure(structures):
    rows = [row(method, chip, 0.5) | {"structure": s} for s in structures for method in figures.MAIN for chip in (0, 1)]
    figure = figures.main(table(pd.DataFrame(rows)))
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0
    assert box.x1 <= figure.bbox.width


def test_the_generic_generator_is_trained_only_for_methods_that_start_from_it():
    given = argparse.Namespace(generator="ConvS", width=8, generic=None, generic_steps=5, generic_maps=2,
                               generic_batch=4, digits=False)  # fmt: skip
    named = {method.name: method for method in METHODS}
    bare = [
        named[name] for name in ("unprotected", "affine, recalibrated", "affine of the lot", "generator from scratch")
    ]
    assert generic_of(given, bare) is None
    made = generic_of(given, [*bare, named["generic, tuned on 128 images"]])
    assert made is not None
    assert made["training"]["steps"] == 5
    given.generic = "convs.safetensors"
    assert generic_of(given, bare) == {"generator": "ConvS", "options": {"width": 8}, "checkpoint": "convs.safetensors"}


def test_generators_are_found_where_a_study_leaves_them(tmp_path):
    """Whatever is in a name, a / say."""
    files = {}
    for name in OTHERS:
        protection = ProtectionConfig(name=name, neuralfuse={"generator": "ConvS"})
        study = StudyConfig(
            name="generic", networks=({"name": "resnet14"},), voltages=(1.0,), protections=(protection,)
        )
        files[name] = StudyFolder(tmp_path, study).generator_file("resnet14", protection)
        files[name].parent.mkdir(exist_ok=True)
        files[name].touch()
    given = argparse.Namespace(digits=False, root="data", test_images=500, options="", network="resnet14", base="base",
                               generators=tmp_path / "generators", curve="ibm14", schedule="resident")  # fmt: skip
    plan = plan_of(given, "iid", 0.01, tmp_path, None)
    assert plan.others == {name: str(file) for name, file in files.items()}

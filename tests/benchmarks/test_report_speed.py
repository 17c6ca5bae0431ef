"""A study that was made up, of more protections and supplies than can be read, with names that other readers take for
something else."""

import re

import pytest

from benchmarks.speed.report_speed import made_up
from neuralfuse.report import build_report, figures, plots
from neuralfuse.results.tables import read_results, read_table
from neuralfuse.study.folder import StudyFolder

NAMES = ("[/a]", "[red]", r"$\bad$", "=1+1", "<script>", "a b", "a/../x", "con", "_x", "x:y")


@pytest.fixture(scope="module")
def large(tmp_path_factory, undrawn):
    folder = tmp_path_factory.mktemp("large") / "out"
    rows = made_up(folder, chips=3, voltages=70, protections=len(NAMES) + 1, names=NAMES)
    return folder, rows, build_report(folder)


def test_the_page_has_what_can_be_read_and_says_where_the_rest_is(large):
    folder, rows, made = large
    assert len(read_results(folder)) == rows == 3 * 70 * 11 * 2
    assert len(made.summary) == 70 * 11 * 2
    page = made.page.read_text()
    assert "3 more are in summary.csv, headline.csv, yields.csv and equal.csv" in page
    assert "Of 70 supplies at most 60 are points here" in page
    assert f"The first rows; {70 * 8 * 2 - 500} more are in summary.csv" in page
    assert "beside it: results.csv, summary.csv" in page
    headline = page.partition('id="coverage"')[0]
    kept = set(re.findall(r"<td>([^<]*)</td><td>[125]</td>", headline)) - {"column", "iid"}  # what maps are, too
    assert len(kept) == 8
    assert {"none"} < kept


def test_every_figure_is_drawn_whatever_things_are_called(large):
    folder, _, made = large
    layers, energies = (read_table(folder / f"{name}.csv") for name in ("layers", "energy"))
    study = StudyFolder.open(folder).study
    drawings = figures.drawings(folder, study, read_results(folder), made.summary, layers, energies, made.scale)
    for name, drawing in drawings.items():
        assert re.fullmatch(r"[A-Za-z0-9_.+~-]+", name)
        if not name.startswith("bank"):
            figure = drawing.draw()
            figure.draw_without_rendering()  # a name that spells a formula would be refused here
            for legend in figure.legends:
                inside = legend.get_window_extent()
                assert all(axis.get_window_extent().y0 >= inside.y1 for axis in figure.axes), name  # never over data
    drawn = plots.drawn(made.summary)
    shown = [text.get_text() for text in drawings["accuracy"].draw().legends[0].get_texts()]
    assert len(drawn) == len(plots.COLOURS)
    assert len(shown) == len(drawn) + 1  # and the clean accuracy

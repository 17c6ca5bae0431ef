"""Is the report whole and true when names are odd, chips are few, and files are gone?"""

import json
import re
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from neuralfuse.report import build, build_report, figures, headline_lines
from neuralfuse.report.compare import compare
from neuralfuse.report.front import interactive_front
from neuralfuse.results import pareto
from neuralfuse.results.rows import COLUMNS
from neuralfuse.results.tables import read_table, to_csv
from neuralfuse.study import variants
from neuralfuse.study.folder import StudyFolder
from sram.errors import InputError
from tests.conftest import TINY, Trap, run

EVIL = "</script><script>alert(1)</script>"
NAMES = ("None", "NA", "007", EVIL, "[/a]", "[red]", r"$\bad$", "=1+1", "'@x", "a/../../../x", "_x", "a\x1b[2J\rb")


def written(page: str) -> str:
    """A page without its scripts and embedded files."""
    return re.sub(r'"data:[^"]*"', '""', re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.S))


@pytest.fixture(scope="module")
def odd(tiny, tmp_path_factory, undrawn):
    """The tiny study with more protections like its own, of names that other readers take for something else."""
    folder = tmp_path_factory.mktemp("odd") / "out"
    shutil.copytree(tiny, folder)
    rows = read_table(folder / "results.csv")
    own = rows[rows.protection == "fuse"]
    every = pd.concat([rows[rows.protection == "none"], *(own.assign(protection=name) for name in NAMES)])
    (folder / "results.csv").write_text(to_csv(every), newline="")
    return folder, build_report(folder)


def test_names_that_spell_nothing_or_a_number_stay_names(odd):
    folder, made = odd
    assert list(made.summary.protection.unique()) == ["none", *NAMES]
    for name in ("summary", "headline", "equal"):
        table = read_table(folder / f"{name}.csv")
        assert set(NAMES) <= set(table.protection), name
    again = build_report(folder)  # what lies there, read back
    assert list(again.headline.protection.unique()) == ["none", *NAMES]
    assert {line[1] for line in headline_lines(again.headline)} == {"none", *NAMES}
    page = written(made.page.read_text())
    for name in ("None", "NA", "007"):
        assert page.count(f"<td>{name}</td>") >= 2 * 3 * 3  # structures, scopes, margins


def test_tables_of_variants_keep_their_names(tiny, tmp_path):
    content = yaml.safe_load(TINY.read_text()) | {"variants": {"1": {}, "NA": {}}}
    (tmp_path / variants.STUDY).write_text(yaml.safe_dump(content))
    rows = (tiny / "results.csv").read_text()
    for name, protection in (("1", "null"), ("NA", "12")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.csv").write_text(rows.replace(",fuse,", f",{protection},"))
    joined = variants.join(tmp_path)
    for table in (joined, read_table(tmp_path / "results.csv")):
        assert list(table.variant.unique()) == ["1", "NA"]
        assert list(table.protection.unique()) == ["none", "null", "12"]


def test_a_name_runs_nothing_on_the_page(odd):
    _, made = odd
    page = made.page.read_text()
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert page.count("</script>") == page.count("<script ") == 2  # plotly's and the page's own


def test_labels_of_the_plot_show_names_letter_by_letter(odd):
    _, made = odd
    found = interactive_front(made.summary, "sram", "Vmin")
    assert "<" not in found
    traces = json.loads(found)["data"]
    assert any(t["name"].startswith("&lt;/script&gt;") for t in traces)
    for trace in traces:
        assert not re.search(r"<(?!br>|/?b>)", trace["name"] + "".join(trace.get("text", [])))


def test_a_single_chip_is_shown_without_intervals(tiny_copy, undrawn):
    rows = read_table(tiny_copy / "results.csv")
    rows[rows.chip == 0].to_csv(tiny_copy / "results.csv", index=False)
    made = build_report(tiny_copy)
    page = written(made.page.read_text())
    assert "nan" not in page.lower()
    assert "]" not in "".join(sum(headline_lines(made.headline), ()))
    assert made.gains
    assert not any("nan" in line or "[" in line for line in made.gains)
    assert made.headline[["voltage_low", "voltage_high", "saving_low", "saving_high"]].isna().all(axis=None)
    assert made.headline.saving.notna().any()


def test_what_is_gone_is_made_again(tiny_copy, undrawn):
    page = tiny_copy / "report.html"
    page.unlink()
    assert run("report", tiny_copy, "--workers", 1) == 0
    before = {path: path.read_bytes() for path in (page, tiny_copy / "equal.csv", tiny_copy / "plots/yield.svg")}
    images = {path: path.read_bytes() for path in (tiny_copy / "plots").glob("images-*")}
    drawn = {path.name for path in (tiny_copy / "plots").iterdir()}
    page.write_bytes(before[page] + b"<!-- kept -->")
    assert run("report", tiny_copy, "--workers", 1) == 0
    assert page.read_bytes().endswith(b"<!-- kept -->")  # nothing is gone: nothing is made
    shutil.rmtree(tiny_copy / "plots")
    assert images
    (tiny_copy / "plots").mkdir()
    for path, content in images.items():  # made in the sweep, with the generator at hand
        path.write_bytes(content)
    assert run("report", tiny_copy, "--workers", 1) == 0
    assert {path.name for path in (tiny_copy / "plots").iterdir()} == drawn
    for path, content in before.items():
        assert path.read_bytes() == content
    (tiny_copy / "equal.csv").unlink()
    assert run("report", tiny_copy, "--workers", 1) == 0
    assert (tiny_copy / "equal.csv").is_file()


def test_processes_draw_what_one_draws(tiny, tiny_copy):
    for path in (tiny_copy / "plots").glob("[!i]*"):  # all but images, which are made in the sweep
        path.unlink()
    assert run("report", tiny_copy, "--workers", 2) == 0
    drawn = sorted((tiny_copy / "plots").iterdir())
    assert [path.name for path in drawn] == sorted(path.name for path in (tiny / "plots").iterdir())
    for path in drawn:
        assert path.read_bytes() == (tiny / "plots" / path.name).read_bytes(), path.name


def test_a_page_is_made_anew_where_anything_it_is_made_from_changed(tiny_copy, tmp_path, monkeypatch):
    """Any module, library or machine, named nowhere else; what lies beside them changes nothing."""
    study = StudyFolder.open(tiny_copy).study
    stamps = [build._stamp(tiny_copy, study)]
    assert build._stamp(tiny_copy, study) == stamps[0]
    for package in ("neuralfuse", "simulator", "sram"):
        shutil.copytree(Path(str(resources.files(package))), tmp_path / package)
    monkeypatch.setattr(build.resources, "files", lambda package: tmp_path / package)
    (tmp_path / "sram" / "__pycache__").mkdir(exist_ok=True)
    (tmp_path / "sram" / "__pycache__" / "kernels.loop-1.py311.nbi").write_bytes(b"compiled meanwhile")
    assert build._stamp(tiny_copy, study) == stamps[0]
    for later in ("neuralfuse/report/later.py", "sram/data/later.csv"):
        (tmp_path / later).write_text("")
        stamps.append(build._stamp(tiny_copy, study))
    monkeypatch.setattr(build.metadata, "version", lambda name: "999")
    stamps.append(build._stamp(tiny_copy, study))
    stamps.append(build._stamp(tiny_copy, study.model_copy(update={"accelerators": ("edge",)})))
    (tiny_copy / "layers.csv").write_text((tiny_copy / "layers.csv").read_text() + "\n")
    stamps.append(build._stamp(tiny_copy, study))
    assert len(set(stamps)) == len(stamps)


def results_of(folder, accuracy: dict[str, list[float]]):
    """Two chips alike at 1.0, 0.9 and 0.8, accuracy of each protection; 0.95 without faults."""
    rows = [
        dict.fromkeys(COLUMNS, 0)
        | dict.fromkeys(pareto.SETTING, "x")
        | {
            "protection": name,
            "voltage": v,
            "chip": chip,
            "accuracy": a,
            "correct": 100 * a,
            "correct_clean": 95,
            "correct_both": min(100 * a, 95),
            "clean_accuracy": 0.95,
            "total": 100,
            "test_images": 100,
        }
        | {f"saving_{scope}": 1 - v**2 for scope in pareto.SCOPES}
        for name, values in accuracy.items()
        for v, a in zip((1.0, 0.9, 0.8), values, strict=True)
        for chip in (0, 1)
    ]
    folder.mkdir()
    pd.DataFrame(rows).to_csv(folder / "results.csv", index=False)
    return folder


def test_compared_studies_keep_what_holds_nowhere_and_everywhere(tmp_path):
    a = results_of(tmp_path / "a", {"none": [0.1, 0.1, 0.1], "fuse": [0.95, 0.95, 0.95]})
    b = results_of(tmp_path / "b", {"none": [0.95, 0.95, 0.85], "lost": [0.0, 0.0, 0.0]})
    table = compare([a, b, a]).set_index(["protection", "points"])
    assert list(table.columns[-4:]) == [f"{what} {folder}" for what in ("voltage", "saving_pct") for folder in (a, b)]
    assert list(table.index.get_level_values(0).unique()) == ["none", "fuse", "lost"]
    cells = table.iloc[:, -4:].loc[[("none", 5.0), ("fuse", 5.0), ("lost", 5.0)]].to_numpy().tolist()
    assert cells == [
        ["none swept", "0.850", "-", "27.5"],
        ["≤ 0.800", "-", "36.0", "-"],
        ["-", "none swept", "-", "-"],
    ]
    nowhere = results_of(tmp_path / "c", {"none": [0.1, 0.1, 0.1]})
    assert len(compare([nowhere])) == 3


def test_pictures_of_a_folder_from_elsewhere_are_not_unpickled(tmp_path):
    evil = np.array([Trap(tmp_path / "sprung")], dtype=object)
    np.savez(tmp_path / "evil.npz", original=evil, changed=evil, labels=evil)
    with pytest.raises(InputError, match="evil"):
        figures._images(tmp_path / "evil.npz")
    assert not (tmp_path / "sprung").exists()

"""Do the study files say what the committed rows are of?"""

import pytest

from benchmarks import tables
from neuralfuse.results.statistics import DIFFERENCE, paired_difference
from neuralfuse.results.tables import read_table
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.files import load_studies
from sram import protection

STUDIES = sorted((tables.HERE / "studies").glob("*.yaml"))
MEASURED = {  # results of `methods`: the study that says how
    "cifar10": "resnet14_methods",
    "resnet18_methods": "resnet18_methods",
    "resnet18_checkpoint": "resnet18_methods",
    "vgg19": "vgg19_methods",
    "vgg19_methods": "vgg19_methods",
}
# What was tried and is not recommended (its code is at commit 1d3c854, as the READMEs say); and layers are chosen anew
# for each kind of maps and rate.
TRIED = r"prior|of the lot|another chip|higher supply|canaries|recalibrated|hardened by layer"


def points(study: StudyConfig) -> set[tuple[str, str, float]]:
    """(structure or the paper's mapping, name, supply) of everything that a study measures."""
    names = ["unprotected" if p.name == "none" else p.name for p in study.protections]
    names += [network.name for network in study.networks]
    maps = ["paper"] if study.sram.schedule == "paper" else study.sram.structures
    return {(structure, name, voltage) for structure in maps for name in names for voltage in study.voltages}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_file_is_one(path):
    for study in load_studies(path).values():
        for found in study.protections:
            if "@" not in "".join(found.sram):  # of single layers; what they are called is the network's business
                protection.parse(found.sram or "none")


@pytest.mark.parametrize(("results", "study"), MEASURED.items(), ids=list(MEASURED))
def test_the_study_has_what_was_measured(results, study):
    rows = read_table(tables.RESULTS / "beyond" / results / "rows.csv")
    rows = rows[(rows.condition == "main") & ~rows.method.str.contains(TRIED)]
    asked = set().union(*map(points, load_studies(tables.HERE / "studies" / f"{study}.yaml").values()))
    chips = rows.groupby(["structure", "method", "voltage"]).chip.nunique()
    measured = set(chips[chips >= 10].index)
    assert measured
    assert measured <= asked


@pytest.mark.parametrize("name", tables.FOLDERS)
def test_each_folder_says_where_it_comes_from(name):
    text = (tables.RESULTS / name / "README.md").read_text()
    assert "benchmarks/studies/" in text or "1d3c854" in text


def test_what_a_fit_gains_by_seeing_all_memories_is_what_the_rows_say():
    rows = read_table(tables.RESULTS / "fit_rails" / "results.csv")
    chips = rows.pivot_table(index="chip", columns="protection", values="accuracy")
    text = (tables.HERE.parent / "docs" / "which-rails.md").read_text()
    assert len(chips) == 20
    for name in ("NeuralFuse", "affine"):
        seen, alone = (chips[f"{name}, {what}"].to_numpy() for what in ("all", "weights"))
        gain = paired_difference(seen, alone, within=DIFFERENCE)
        said = f"from {100 * alone.mean():.1f}% to {100 * seen.mean():.1f}%, by {100 * gain.mean:.1f} points "
        assert said + f"[{100 * gain.low:.1f}, {100 * gain.high:.1f}]" in text

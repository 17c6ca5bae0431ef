"""Is every figure that a page prints the one that its rows give? (docs/figures.yaml says which rows.)"""

import importlib.util
import re

import pytest

from tests.conftest import ROOT

spec = importlib.util.spec_from_file_location("make_findings", ROOT / "docs" / "make_findings.py")
findings = importlib.util.module_from_spec(spec)
spec.loader.exec_module(findings)

PAGE = "docs/findings/04-one-chip.md"


@pytest.mark.parametrize("page", findings.SPEC["pages"])
def test_a_page_prints_what_its_rows_give(page):
    text = (ROOT / page).read_text()
    assert findings.made(page, text) == (text, [])


def test_every_finding_is_checked_and_in_the_index():
    pages = {f"docs/findings/{page.name}" for page in (ROOT / "docs" / "findings").glob("*.md")}
    assert pages <= set(findings.SPEC["pages"])
    index = (ROOT / "docs" / "findings" / "index.md").read_text()
    assert pages == {"docs/findings/index.md"} | {
        f"docs/findings/{name}" for name in re.findall(r"\]\((.*\.md)\)", index)
    }


@pytest.mark.parametrize(
    ("printed", "false", "complaint"),
    [
        ("wins 7.1 points [4.6, 9.8]", "wins 7.2 points [4.6, 9.8]", "should say 7.1, 4.6, 9.8"),
        ("| 61.4 [57.0, 64.5] |", "| 61.5 [57.0, 64.5] |", "the table is not that of the data"),
        ("It is the chip, not the steps", "It is the chip, by 3.2 points", "nothing accounts for"),
        ("another chip's transform loses", "another chip's transform drops", "nowhere"),
    ],
)
def test_a_false_figure_is_named(printed, false, complaint):
    text = (ROOT / PAGE).read_text()
    assert printed in text
    made, wrong = findings.made(PAGE, text.replace(printed, false))
    assert any(complaint in line for line in wrong)
    if "should" in complaint or "table" in complaint:
        assert made == text


def test_a_selection_without_rows_an_ambiguous_one_and_an_empty_column_say_so():
    with pytest.raises(LookupError, match=r"no row in beyond/cifar10/rows\.csv"):
        findings.measures("cifar10: no such method")
    with pytest.raises(LookupError, match="rows where one is meant"):
        findings.measures("equal_cifar: none")
    columns = {"accuracy": "{accuracy:.1f}", "misspelt": "{acuracy:.1f}"}
    with pytest.raises(LookupError, match="fills a cell of 'misspelt'"):
        findings.table({"columns": columns, "rows": {"affine": "iid: affine"}})

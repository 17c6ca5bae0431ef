"""Fills the figures of pages from committed results, as docs/figures.yaml says; `--check` compares instead.

A figure is a sentence with blanks, "wins {gain:.1f} points [{gain_low:.1f}, {gain_high:.1f}]", and the rows that fill
them. A table is that for each cell, between `<!-- table -->` and `<!-- end -->`. Every other number of a page has to be
among its `given` ones or the `conditions` of all pages; one that nothing accounts for is an error.
"""

import re
import sys
from functools import cache
from pathlib import Path

import pandas as pd
import yaml

from neuralfuse.results.statistics import mean_interval, paired_difference
from sram.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
SPEC = yaml.safe_load((ROOT / "docs" / "figures.yaml").read_text())
NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?"
FREE = re.compile(rf"(?<![\w.,-]){NUMBER}(?![\w-])")
BLANK = re.compile(r"\{(\w+):?([^}]*)\}")
TABLE = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- end -->)", re.S)
NO_PROSE = re.compile(r"```.*?```|^    [^\n]*|`[^`\n]*`|\]\([^)]*\)|<!-- table -->.*?<!-- end -->", re.S | re.M)
SHARES = ("clean", "saving_weight_sram", "saving_sram", "saving_system")
GAINS = ("gain", "gain_low", "gain_high", "loss", "loss_low", "loss_high", "better", "pairs")


@cache
def read(file: str) -> pd.DataFrame:
    """A CSV of results; of a text file its lines: `line` is the label, n1, n2, ... the numbers behind it."""
    path = ROOT / "benchmarks" / "results" / file
    if path.suffix == ".csv":
        return pd.read_csv(path)
    lines = []
    for at, line in enumerate(path.read_text().splitlines(), 1):
        label, *rest = re.split(r":?\s{2,}|: ", line.strip(), maxsplit=1)
        found = re.findall(rf"(?<![\w.]){NUMBER}(?:e[-+]\d+)?", rest[0] if rest else line)
        numbers = {f"n{i}": float(n.replace(",", "")) for i, n in enumerate(found, 1)}
        lines.append({"at": at, "line": label, **numbers})
    return pd.DataFrame(lines)


@cache
def chosen(selection: str) -> tuple[pd.DataFrame, dict]:
    """Rows of "source: name | query | ...", and that source."""
    first, *queries = selection.split(" | ")
    name, _, method = first.partition(": ")
    source = SPEC["sources"][name]
    rows = read(source["file"])
    if method:
        rows = rows[rows[source["name"]] == method]
    for query in [*([source["rows"]] if "rows" in source else []), *queries]:
        rows = rows.query(query)
    if rows.empty:
        raise LookupError(f"docs/figures.yaml: no row in {source['file']} is {selection!r}")
    return rows, source


@cache
def measures(of: str, against: str | None = None) -> dict[str, float]:
    """What a blank may name. Of rows with chips: accuracies and savings in percent, gains in points, 95% of the mean
    over chips (seeds of one chip are averaged first). Of other rows: the columns of the only one, or their sums in
    percent of those of `against`."""
    rows, source = chosen(of)
    if "chip" not in rows:
        return _columns(rows, against, source.get("times", 1))
    unit = source.get("unit", ["chip"])
    own = 100 * rows.groupby(unit).accuracy.mean()
    e = mean_interval(own.to_numpy())
    found = {"accuracy": e.mean, "low": e.low, "high": e.high, "std": e.std, "worst": own.min(), "chips": len(own)}
    if "clean_accuracy" in rows:  # of all test images, whatever a row's own are
        rows = rows.rename(columns={"clean_accuracy": "clean"})
    elif "total" in rows:
        rows = rows.assign(clean=rows.correct_clean / rows.total)
    found |= {name: 100 * rows[name].mean() for name in SHARES if name in rows}
    if against and not chosen(against)[0].equals(chosen(of)[0]):
        both = pd.concat([own, 100 * chosen(against)[0].groupby(unit).accuracy.mean()], axis=1, join="inner")
        d = paired_difference(both.iloc[:, 0].to_numpy(), both.iloc[:, 1].to_numpy())
        better = (both.iloc[:, 0] > both.iloc[:, 1]).sum()
        found |= dict(zip(GAINS, (d.mean, d.low, d.high, -d.mean, -d.high, -d.low, better, len(both)), strict=True))
    return found


def _columns(rows: pd.DataFrame, against: str | None, times: float) -> dict[str, float]:
    numbers = times * rows.select_dtypes("number")
    if against:
        return (100 * numbers.sum() / chosen(against)[0].select_dtypes("number").sum()).to_dict()
    if len(rows) > 1:
        raise LookupError(f"docs/figures.yaml: {len(rows)} rows where one is meant:\n{rows}")
    return numbers.iloc[0].dropna().to_dict()


def filled(says: str, of: str, against: str | None = None) -> list[str]:
    """The blanks of a sentence, filled. A half is rounded away from zero, whatever the last bits of a sum."""
    found = measures(of, against)
    return [format(round(found[name], 9) * (1 + 1e-12), kind or ".0f") for name, kind in BLANK.findall(says)]


def table(spec: dict) -> str:
    """Markdown. A cell is empty where rows are not there, or would be compared with themselves."""
    columns = {head: cell if isinstance(cell, dict) else {"says": cell} for head, cell in spec["columns"].items()}
    grid = {}
    for label, row in spec["rows"].items():
        row = row if isinstance(row, dict) else {"of": row}
        grid[label] = [_cell(cell, {"against": spec.get("against"), **row}) for cell in columns.values()]
    for name, cells in [*grid.items(), *zip(columns, zip(*grid.values(), strict=True), strict=True)]:
        if not any(cells):
            raise LookupError(f"docs/figures.yaml: no row of results fills a cell of {name!r}")
    lines = [["", *columns], ["---"] * (len(columns) + 1), *([label, *cells] for label, cells in grid.items())]
    return "".join(f"| {' | '.join(cell.strip() for cell in line)} |\n" for line in lines)


def _cell(cell: dict, row: dict) -> str:
    """`of` and `against` name a selection of the row's, or are one, with ROW for the row's own."""
    of, against = (row.get(name, name) for name in (cell.get("of", "of"), cell.get("against", "against")))
    of, against = (name and name.replace("ROW", row["of"]) for name in (of, against))
    try:
        values = iter(filled(cell["says"], of, against))
    except LookupError:
        return ""
    return BLANK.sub(lambda _: next(values), cell["says"])


def sentence(says: str, text: str) -> re.Match | None:
    """Where a page says this, whatever the numbers and wherever the lines break."""
    parts = [re.escape(part) for part in BLANK.sub("\0", says).split("\0")]
    return re.search(re.sub(r"(?:\\?\s)+", r"\\s+", f"({NUMBER})".join(parts)), text)


def made(page: str, text: str) -> tuple[str, list[str]]:
    """A page as the data have it, and what was wrong with the one given."""
    spec, wrong = SPEC["pages"][page], []
    if "table" in spec:
        text, was = TABLE.sub(lambda _: table(spec["table"]), text), text
        wrong += [f"{page}: the table is not that of the data"] if was != text else []
    for figure in spec.get("figures", []):
        values, found = filled(**figure), sentence(figure["says"], text)
        if found is None:
            wrong.append(f"{page}: nowhere {figure['says']!r}")
        elif list(found.groups()) != values:
            wrong.append(f"{page}: {found[0]!r} should say {', '.join(values)}")
            for i in reversed(range(len(values))):
                text = text[: found.start(i + 1)] + values[i] + text[found.end(i + 1) :]
    return text, wrong + [
        f"{page}: nothing accounts for the number in {number!r}" for number in unaccounted(page, text)
    ]


def unaccounted(page: str, text: str) -> list[str]:
    """The numbers of a page's prose that are in no blank and that nobody gave, with the words around them."""
    prose = NO_PROSE.sub(lambda part: " " * len(part[0]), text)
    spec, spans = SPEC["pages"][page], []
    for figure in spec.get("figures", []):
        if found := sentence(figure["says"], text):
            spans += [found.span(i) for i in range(1, len(found.groups()) + 1)]
    for given in [*SPEC["conditions"], *map(re.escape, spec.get("given", []))]:
        spans += [found.span() for found in re.finditer(given, text)]
    numbers = [number.span() for number in FREE.finditer(prose)]
    loose = [(a, b) for a, b in numbers if not any(start <= a and b <= end for start, end in spans)]
    return [" ".join(prose[max(0, a - 30) : b + 20].split()) for a, b in loose]


def main() -> int:
    pages = {page: (ROOT / page).read_text() for page in SPEC["pages"]}
    found = {page: made(page, text) for page, text in pages.items()}
    if "--check" not in sys.argv:
        for page, (text, _) in found.items():
            if text != pages[page]:
                write_atomic(ROOT / page, text)
        found = {page: made(page, text) for page, (text, _) in found.items()}
    wrong = [line for _, lines in found.values() for line in lines]
    print("\n".join(wrong), file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())

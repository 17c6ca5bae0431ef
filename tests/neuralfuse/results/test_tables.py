"""Are the names of a table read as they were written, and computed by no spreadsheet?"""

import csv
import io

import pandas as pd
from hypothesis import example, given, settings
from hypothesis import strategies as st

from neuralfuse.results.tables import read_table, to_csv

names = st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])) | st.text("'=+-@\t\r\n\",a", min_size=1)


@settings(max_examples=50, deadline=None)
@given(st.lists(names, min_size=1, max_size=5))
@example(["=1+1", "'=1+1", "''=1+1", "'", "a\rb", "-1", "NA", "007"])
def test_names_come_back_and_none_is_a_formula(tmp_path_factory, found):
    table = pd.DataFrame({"protection": found, "layer": found[::-1], "voltage": -1.5})
    text = to_csv(table)
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_bytes(text.encode())
    pd.testing.assert_frame_equal(read_table(path), table, check_dtype=False)
    if "\0" not in text:
        for row in csv.DictReader(io.StringIO(text, newline="")):
            assert not row["protection"].startswith(("=", "+", "-", "@", "\t", "\r"))


def test_ordinary_tables_are_written_as_pandas_writes_them():
    table = pd.DataFrame({"network": ["a,b", "it's", None, "x=1"], "change": [-1.0, 2.5, float("nan"), 0.0],
                          "seeds": ["-1.0, +0.5", "", "-", "+1"]})  # fmt: skip
    assert to_csv(table) == table.to_csv(index=False)

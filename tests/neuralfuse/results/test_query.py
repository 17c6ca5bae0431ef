"""Are rows chosen by what a text says, and is nothing else done?"""

import pandas as pd
import pytest

from neuralfuse.results.query import rows
from sram.errors import InputError
from tests.conftest import run

TABLE = pd.DataFrame(
    {"chip": [0, 1, 2, 3], "voltage": [1.0, 0.9, 0.8, -0.5], "network": ["a", "b", "a", "c"], "ok": [True, False] * 2}
)


@pytest.mark.parametrize(
    "text",
    [
        "voltage < 0.85",
        "voltage <= 0.9 and network == 'a'",
        'network == "a" or network == "c"',
        "not (chip > 1)",
        "(voltage < 0.95) & (chip != 1)",
        "~(chip == 0) | ok",
        "0.8 <= voltage < 1",
        "network in ['a', 'b']",
        "chip not in (0, 3)",
        "voltage == -0.5",
        "chip > voltage",
        "ok and not chip == 2",
        "ok == True",
        "1 < 2",
    ],
)
def test_as_pandas_has_it(text):
    try:
        expected = TABLE.query(text, engine="python")
    except (KeyError, ValueError):  # of constants alone it takes True for a label
        expected = TABLE
    pd.testing.assert_frame_equal(rows(TABLE, text), expected)


@pytest.mark.parametrize(
    "text",
    [
        "@pd.read_csv('x')",
        "__import__('os').system('true')",
        "network.str.len() > 0",
        "network.map(print) == 1",
        "chip.__class__ == 1",
        "voltage",
        "volts < 1",
        "chip + 1 == 2",
        "2 ** 2 ** 100 > chip",
        "chip < 'a'",
        "chip in 3",
        "3 in [chip]",
        "chip in [[1]]",
        "chip == [1]",
        "chip is None",
        "(lambda: 1)() == chip",
        "[x for x in chip] == 1",
        "chip == f'{1}'",
        "x := 3",
        "chip < ",
        "",
        "(" * 300 + "chip < 1" + ")" * 300,
        "not " * 5000 + "ok",
        "-" * 900 + "1 < chip",
    ],
)
def test_what_is_no_comparison_is_one_message(text):
    with pytest.raises(InputError, match="comparisons of columns"):
        rows(TABLE, text)


def test_a_query_on_the_command_line_runs_nothing(tiny, tmp_path, capsys):
    mark = tmp_path / "ran"
    for text in (f"@pd.io.common.os.system('touch {mark}')", f"@__builtins__.open('{mark}', 'w')"):
        assert run("results", tiny, "--query", text) == 2
        assert "comparisons of columns" in capsys.readouterr().err
    assert not mark.exists()

"""Is a name shown letter by letter, whatever it spells?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from sram.names import plot_label, printable

names = st.text() | st.text(alphabet="$\\_{}^a[]/%\x1b\n\r\0\u202e")


@given(names)
def test_what_is_printed_is_one_line_that_moves_no_cursor(name):
    shown = printable(name)
    assert len(shown.splitlines()) == bool(shown)
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in shown)
    assert printable(shown) == shown
    shown.encode()


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="_$")))
def test_ordinary_names_stay_as_they_are(name):
    assert plot_label(name) == printable(name) == name


@given(names)
def test_matplotlib_takes_no_name_for_a_formula(name):
    text = Figure().text(0, 0, plot_label(name))
    assert text._preprocess_math(text.get_text()) == ((" " if name.startswith("_") else "") + printable(name), False)


@pytest.mark.parametrize("name", [r"$\bad$", "$", r"\$x$", "_hidden", "$x^$", "a\0b"])
def test_a_name_is_drawn_and_stands_in_the_legend(name):
    figure = Figure()
    axis = figure.subplots()
    axis.plot([0, 1], label=plot_label(name))
    axis.set(title=f"{plot_label(name)} at 0.8 $V_{{min}}$")  # beside a formula of the figure's own
    assert len(axis.legend().get_texts()) == 1
    figure.draw_without_rendering()

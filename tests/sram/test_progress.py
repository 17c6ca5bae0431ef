"""Does a long step say how far it is, on a terminal and elsewhere?"""

import io

import pytest

from sram import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "shown"), [(Terminal, "3/3"), (io.StringIO, "net: 3/3 loss 0.25")])
def test_a_bar_and_a_line_have_title_count_and_figures(stream, shown, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("sys.stderr", stream())
    with progress.steps() as say:
        advance = say("net")
        advance(3, 3, {"loss": 0.25})
    text = progress.sys.stderr.getvalue()
    assert shown in text
    assert "net" in text
    assert "loss 0.25" in text
    with progress.steps(quiet=True) as say:
        say("net")(3, 3, {})
    assert progress.sys.stderr.getvalue() == text

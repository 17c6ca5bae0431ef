"""Does `neuralfuse curve` list, show and fit, and refuse mistakes with one line and status 2?"""

import json

import pytest

from neuralfuse.cli import main
from sram.failure import curve, read


@pytest.fixture
def run(capsys):
    def run(*arguments: str, status: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["curve", *arguments])
        out, err = capsys.readouterr()
        assert ended.value.code == status, err
        if status:
            assert len(err.strip().splitlines()) == 1
        return out + err

    return run


def test_list_names_every_curve_and_node(run):
    text = run("list")
    for name in ("ibm14", "kc705b", "vc707", "Vmin", "28nm", "illustrative"):
        assert name in text


def test_show_tabulates_plots_and_writes(run, tmp_path):
    plot, out = tmp_path / "c.svg", tmp_path / "c.json"
    text = run("show", "ibm14", "--voltage", "0.8333", "--probability", "1e-9", "--plot", str(plot), "--out", str(out))
    assert "1.042e-02" in text
    assert "1.0372" in text
    assert "beyond the data" in text
    assert plot.read_text().startswith("<?xml")
    assert read(out) == curve("ibm14")


def test_fit_writes_a_curve_that_show_reads(run, tmp_path):
    counts, out, plot = (tmp_path / name for name in ("chip.csv", "chip.json", "chip.png"))
    counts.write_text("voltage,faulty_cells,cells\n0.60,2,1000000\n0.55,130,1000000\n0.50,5500,1000000\n")
    text = run("fit", str(counts), "--out", str(out), "--plot", str(plot), "--name", "mine")
    assert "mu 0.3849 V, sigma 0.0453 V" in text
    assert plot.read_bytes()[1:4] == b"PNG"
    assert json.loads(out.read_text())["name"] == "mine"
    assert "5.498e-03" in run("show", str(out), "--voltage", "0.5")


MISTAKES = """show ibm13
show absent.json
show ibm14 --clock 2
show 28nm --corner xx
show ibm14 --plot c.bmp
show ibm14 --out c.txt
fit absent.csv"""


@pytest.mark.parametrize("arguments", MISTAKES.splitlines())
def test_mistakes(run, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(*arguments.split(), status=2)
    assert not list(tmp_path.iterdir())

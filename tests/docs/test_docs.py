"""Does every command and snippet on the pages work? They run here in the order of each page, in an empty folder.

Studies are made tiny first (two chips, forty digits, a step or two of training): what is asked is whether the words on
the page work, not what comes out.
"""

import re
import shlex
import shutil
import socket
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import typer
import yaml

from neuralfuse import networks
from neuralfuse.cli import app
from neuralfuse.results import pareto
from neuralfuse.results.choice import ACROSS, choices
from neuralfuse.results.rows import COLUMNS
from simulator.accelerator import accelerator
from simulator.array.cycles import simulate
from simulator.energy import energy
from simulator.readers.read import trace
from sram import faultmap
from sram.geometry import Geometry
from tests.conftest import ROOT, run

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
SLOW = {"README.md"} | {f"docs/{page}.md" for page in (
    "calibrate-one-chip", "choose-a-protection", "first-answer", "install", "models/accelerator", "reproduce",
    "tutorials/accelerator", "tutorials/cluster", "tutorials/curve", "what-a-generator-does", "which-point",
    "findings/15-protections-on-digits", "findings/16-clustered-cells",
)}  # fmt: skip
NAMED = re.compile(r"# ([\w-]+\.(yaml|py))\b")
SHELL = ("neuralfuse", "python", "python3", "make", "pytest", "pip", "cp", "NEURALFUSE_SECRET=", "#SBATCH")

# What does not run here, by the words it begins with, and why. The options of neuralfuse commands are checked all the
# same. (Benchmarks are named in sentences only: their options are looked for in their source.)
NOT_RUN = {
    "neuralfuse sweep study.yaml --out /shared/out/study --dask": "needs a scheduler; test_sweep_collect.py has one",
    "neuralfuse sweep study.yaml --out out/part-$SLURM_ARRAY_TASK_ID": "a job array sets the variable",
    "cp -r out/study out/part-$SLURM_ARRAY_TASK_ID": "a job array sets the variable",
    "NEURALFUSE_SECRET=": "needs a board; test_device_cli.py serves with a secret",
    "neuralfuse calibrate study.yaml --chip tcp:board": "needs a board; test_inloop.py tunes on a device",
    "make": "would run this test",
    "pip install": "changes the environment",
    "#SBATCH": "a scheduler reads it",
}
NOT_EXECUTED = {
    "class PynqChip": "needs a board; test_device_docs.py plays one",
    "SLURMCluster(": "needs a cluster; test_sweep_collect.py runs a local one",
}


def blocks(page):
    """(language, text) of fenced and indented blocks, in order; an indented one is "sh"."""
    out, fence, lines, before = [], None, [], ""
    for line in [*page.read_text().splitlines(), ""]:
        if fence is None and (opening := re.match(r"```([\w{}-]*)$", line)):
            out += [("sh", "\n".join(lines))] if lines else []
            fence, lines = opening[1], []
        elif fence is not None and line == "```":
            out.append((fence, "\n".join(lines)))
            fence, lines = None, []
        elif fence is not None:
            lines.append(line)
        elif line.startswith("    ") and (lines or not before.strip() or before.startswith("#")):
            lines.append(line[4:])
        elif lines and line.strip():
            out.append(("sh", "\n".join(lines)))
            lines = []
        before = line
    if lines:
        out.append(("sh", "\n".join(lines)))
    return out


def commands(text):
    return [line for line in text.splitlines() if line.startswith(SHELL)]


def tiny(study):
    """The same study, small: every kind of thing that it names is still there."""
    data = study.get("dataset", {}).get("name", "")
    study = {**study, "chips": {} if "map" in study.get("sram", {}) else {"evaluation": 2}}
    study["dataset"] = {"name": data if ":" in data else "digits", "test_images": 40}
    swept = study.get("rails", {}) if "voltages" not in study else study
    for key in swept if swept is not study else ["voltages"]:
        swept[key] = sorted({max(swept[key]), min(swept[key])}, reverse=True)
    small = []
    for network in study["networks"]:
        network = {key: value for key, value in network.items() if key != "training"}
        if network["name"] in networks.NETWORKS:
            network |= {"name": "resnet8", "options": {"width": 4}}
        if "checkpoint" not in network and not network["name"].endswith((".pt2", ".onnx")):
            network["training"] = {"epochs": 1, "flip": False, "shift": 0}
        small.append(network)
    study["networks"] = small
    for protection in study.get("protections", []):
        if isinstance(protection, dict) and "neuralfuse" in protection:
            fuse = protection["neuralfuse"]
            fuse |= {"options": {"width": 2}, "training": {"steps": 2, "maps": 1, "batch": 8}}
    return study


def write(text, folder):
    """A block whose first line is `# name.ext` becomes that file."""
    named = NAMED.match(text)
    if not named:
        return
    if named[2] == "yaml" and "networks" in (content := yaml.safe_load(text)):
        text = yaml.safe_dump(tiny(content), sort_keys=False)
    (folder / named[1]).write_text(text)


def command_at(words):
    """(the click command that these words begin with, the words left over)."""
    found = typer.main.get_command(app)
    while hasattr(found, "commands") and words and not words[0].startswith("--"):
        assert words[0] in found.commands, f"no such command: neuralfuse {words[0]}"
        found, words = found.commands[words[0]], words[1:]
    return found, words


def check_options(words):
    """Whether every option is one of the command."""
    found, rest = command_at(words)
    known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in rest if word.startswith("--") and word.split("=")[0] not in {*known, "--help"}]
    assert not unknown, f"neuralfuse {' '.join(words)}"


def check_unrun(line):
    words = [word for word in shlex.split(line, comments=True) if not word.startswith("NEURALFUSE_SECRET=")]
    if "neuralfuse" in words:
        check_options(words[words.index("neuralfuse") + 1 :])
    elif words[:2] == ["python", "-m"]:
        place = ROOT / words[2].replace(".", "/")
        source = (place / "__main__.py" if place.is_dir() else place.with_suffix(".py")).read_text()
        assert all(f'"{word}"' in source for word in words if word.startswith("--"))
    elif words and words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
    elif words and words[0] == "pytest":
        assert all((ROOT / word).exists() for word in words[1:])


class Folder:
    """An empty folder with what the pages take for granted: a study, a SCALE-Sim network, an array, maps."""

    def __init__(self, path):
        self.path, self.servers, self.names = path, [], {}
        shutil.copy(ROOT / "tests" / "data" / "tiny_study.yaml", path / "study.yaml")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = str(free.getsockname()[1])
        for study in (ROOT / "docs" / "gallery").glob("*.yaml"):
            (path / "docs" / "gallery").mkdir(parents=True, exist_ok=True)
            content = tiny(yaml.safe_load(study.read_text()))
            (path / "docs" / "gallery" / study.name).write_text(yaml.safe_dump(content))
        (path / "net.csv").write_text("Layer,H,W,FH,FW,C,N,S\none,8,8,3,3,2,4,1,\n")
        (path / "array.cfg").write_text(
            "[general]\nrun_name = a\n[architecture_presets]\nArrayHeight : 8\nArrayWidth : 8\nIfmapSramSzkB : 64\n"
            "FilterSramSzkB : 64\nOfmapSramSzkB : 64\nIfmapOffset : 0\nFilterOffset : 10000000\n"
            "OfmapOffset : 20000000\nDataflow : ws\nBandwidth : 10\n[run_presets]\nInterfaceBandwidth : CALC\n"
        )
        for number, name in enumerate(("chip", "a", "b", "chip7")):
            size = 1024 * (256 if name == "chip7" else 80)  # the weight buffer of `paper`, under which it is calibrated
            made = faultmap.generate(number, Geometry.of_capacity(size), "ibm14", voltage_floor=0.8)
            faultmap.save(made, path / f"{name}.npz")
        cells = np.random.default_rng(0).choice(1 << 20, 50, replace=False)
        lines = [f"{c % 890},{c % 512},{c % 16},0.{53 + c % 3}" for c in cells]
        (path / "measured.csv").write_text("bank,row,column,voltage\n" + "\n".join(dict.fromkeys(lines)) + "\n")

    def prepare(self, page):
        """The files that blocks of the page are, and a model file where it speaks of one and does not write it."""
        for language, text in blocks(page):
            if language in ("yaml", "python"):
                write(text, self.path)
        if "mine.onnx" in page.read_text() and '"mine.onnx"' not in page.read_text():
            network = networks.build("resnet8", width=4).eval()
            torch.onnx.export(network, (torch.zeros(1, 3, 32, 32),), str(self.path / "mine.onnx"), dynamo=False)

    def shell(self, line):
        line = line.replace("7533", self.port)
        if any(line.startswith(words) for words in NOT_RUN):
            return check_unrun(line)
        words = shlex.split(line, comments=True)
        if words[0] == "cp":
            return shutil.copytree(words[2], words[3])
        assert words[0] == "neuralfuse", line
        check_options(words[1:])
        if words[1:3] == ["device", "serve"]:
            command = [sys.executable, "-m", *words]
            self.servers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            return self.servers[-1].stdout.readline()
        if words[1:3] == ["device", "characterize"]:
            words += ["--voltages", "0.86,0.84,0.83,0.82,0.81,0.80", "--repeats", "1"]
        parallel = ("sweep", "sensitivity", "optimize", "yield", "explain")
        if words[1] in parallel and not {"--workers", "--dry-run"} & set(words):
            words += ["--workers", "1"]
        with pytest.MonkeyPatch.context() as patch:
            if words[1] == "sweep":  # its figures and page take longer than it does; `report` makes them once
                patch.setattr("neuralfuse.report.build_report", lambda folder, executor: None)
                patch.setattr("neuralfuse.cli.study._print_report", lambda made: None)
            assert run(*words[1:]) == 0, line

    def python(self, text):
        """Page by page in one namespace, as a reader would; trainings are short."""
        text = re.sub(r"\b(steps|epochs)=\d+", r"\1=2", text).replace("7533", self.port)
        exec(compile(text, "page", "exec"), self.names)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Folder(tmp_path)
    yield made
    for server in made.servers:
        server.terminate()
        server.wait(20)


def pages(slow=()):
    """All pages, named; those in `slow` take up to a minute."""
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        yield pytest.param(page, id=name, marks=[pytest.mark.slow] if name in slow else [])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", list(pages(slow=SLOW)))
def test_a_page_does_what_it_says(page, folder):
    folder.prepare(page)
    for language, text in blocks(page):
        if language == "sh":
            for line in commands(text):
                folder.shell(line)
        elif language == "yaml":
            yaml.safe_load(text)
        elif language == "python" and not NAMED.match(text) and not any(words in text for words in NOT_EXECUTED):
            folder.python(text)


@pytest.mark.parametrize("page", list(pages()))
def test_commands_in_a_sentence_exist_and_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for code in re.findall(r"`neuralfuse ([^`]+)`", text):
        for each in code.split("|"):
            words = each.split()
            if words and words[0].isalpha() and words[0].islower():
                check_options(words)
    for code in re.findall(r"`(python -m benchmarks[^`]+|pytest [^`]+)`", text):
        check_unrun(code)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_exception_is_still_needed():
    lines = [line for page in PAGES for language, text in blocks(page) if language == "sh" for line in commands(text)]
    for words in NOT_RUN:
        assert any(line.startswith(words) for line in lines), words
    snippets = [text for page in PAGES for language, text in blocks(page) if language == "python"]
    for words in NOT_EXECUTED:
        assert any(words in text for text in snippets), words


@pytest.mark.parametrize("script", ["make_api", "make_reference"])
def test_generated_pages_are_those_of_the_code(script):
    made = subprocess.run([sys.executable, ROOT / "docs" / f"{script}.py", "--check"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


def columns_on_the_page(table):
    """Names in the first cells of one table of columns.md, in backticks."""
    page = (ROOT / "docs" / "reference" / "columns.md").read_text()
    section = re.search(rf"^## {re.escape(table)}\n(.*?)(?=^## |\Z)", page, re.M | re.S)[1]
    return {name for row in re.findall(r"^\| (`.*?) \|", section, re.M) for name in re.findall(r"`([^`]+)`", row)}


SETTING = {*pareto.SETTING, "protection"}


def test_the_columns_page_has_the_columns_of_the_code():
    points = [(chip, name, volts) for chip in (0, 1) for name in ("none", "fuse") for volts in (1.0, 0.5)]
    rows = pd.DataFrame([dict.fromkeys(COLUMNS, 1.0)] * len(points))
    rows[["chip", "protection", "voltage"]] = points
    rows["accuracy"] = rows.voltage - rows.chip
    summary = pareto.per_million_parameters(pareto.summarise(rows), {"fuse": 5})
    tables = {"results.csv": rows, "summary.csv": summary, "headline.csv": pareto.headline(rows)}
    for name, table in (tables | {"equal.csv": pareto.at_equal(rows)}).items():
        said = columns_on_the_page(name) | (set() if name == "results.csv" else SETTING | {"voltage", "scope"})
        assert set(table) - said == set(), name
        assert columns_on_the_page(name) - set(table) == set(), name
    assert columns_on_the_page("choice.csv") == set(choices(summary)) - set(ACROSS)


def test_the_columns_page_has_the_columns_of_the_layers():
    columns = {"network", "accelerator"}
    for machine in ("paper", "eyeriss"):
        counts = simulate(trace(networks.build("resnet8", in_channels=1), (1, 16, 16)), accelerator(machine))
        columns |= {*counts.frame(), *energy(counts).frame()}
    assert columns == columns_on_the_page("layers.csv")


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    sphinx = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", ROOT / "docs", tmp_path]
    made = subprocess.run(sphinx, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr

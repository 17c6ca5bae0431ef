"""Tables, figures and page of a results folder, written beside it."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, fields
from functools import partial
from importlib import metadata, resources
from pathlib import Path

import pandas as pd

from neuralfuse.report import plots, wording
from neuralfuse.report.figures import Drawing, drawings, drawn_elsewhere
from neuralfuse.report.page import Shown, Tables, render
from neuralfuse.results import pareto
from neuralfuse.results.choice import choices
from neuralfuse.results.scale import Scale
from neuralfuse.results.tables import read_results, read_table, to_csv
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.folder import StudyFolder
from simulator.accelerator import accelerator
from sram.files import write_atomic


@dataclass(frozen=True)
class Report:
    """What was written, and the tables behind it."""

    page: Path
    figures: dict[str, list[Path]]
    summary: pd.DataFrame
    headline: pd.DataFrame
    choice: pd.DataFrame
    unit: str  # of voltages
    rails: str  # that are lowered
    drawn: list[str]  # protections that figures, page and terminal show
    gains: list[str]  # one sentence for each protection: where it helps most
    yields: list[str]  # one sentence for each protection: how low most chips may go
    warning: str  # how often the intervals of lowest supplies hold the truth
    scale: Scale  # of the metric


def build_report(folder: str | Path, executor: Executor | None = None) -> Report:
    """Write summary, headline, yields, equal and choice.csv, plots/* (PNG, SVG, PDF) and report.html into `folder`.

    An executor draws the figures beside the tables that are computed here.
    """
    folder = Path(folder)
    results = read_results(folder)
    studied = StudyFolder.open(folder)
    study, provenance, scale = studied.study, studied.provenance(), studied.scale
    layers, energies = read_table(studied.layers_file), read_table(studied.energy_file)
    stamp = _stamp(folder, study)
    tables = _unchanged(folder, stamp, results)
    fresh = tables is None
    summary = _summary(results, provenance, scale) if tables is None else tables.summary
    drawn = drawings(folder, study, results, summary, layers, energies, scale)
    captions = {name: drawing.caption for name, drawing in drawn.items()} | drawn_elsewhere(folder, scale)
    figures = {name: [folder / "plots" / f"{name}.{kind}" for kind in plots.KINDS] for name in captions}
    gone = [name for name in drawn if fresh or not all(path.is_file() for path in figures[name])]
    draw: list[Callable[[], None]] = [partial(_draw, drawn[name], folder / "plots", name) for name in gone]
    if executor is not None:
        draw = [executor.submit(one).result for one in draw]
    if tables is None:
        tables = _tables(results, summary, layers, energies, provenance, scale)
        for name in ("summary", "headline", "yields", "equal", "choice"):
            write_atomic(folder / f"{name}.csv", to_csv(getattr(tables, name)))
    for done in draw:
        done()
    page = folder / "report.html"
    if fresh or gone:
        shown = {name: Shown(caption, figures[name][0]) for name, caption in captions.items()}
        write_atomic(page, render(study, tables, provenance, shown, folder, stamp, scale))
    headline, unit = tables.headline, study.curve.unit
    chosen = plots.drawn(summary)
    few = {
        name: table[table.protection.isin(chosen)] for name, table in (("gains", summary), ("yields", tables.yields))
    }
    gains, yields = wording.gain_lines(few["gains"], unit, scale), wording.yield_lines(few["yields"], unit, scale)
    return Report(
        page,
        figures,
        summary,
        headline,
        tables.choice,
        unit,
        provenance["notes"]["supply"],
        chosen,
        gains,
        yields,
        wording.held(int(summary.chips.min())),
        scale,
    )


def _draw(drawing: Drawing, folder: Path, name: str) -> None:
    plots.save(drawing.draw(), folder, name)


def _summary(results: pd.DataFrame, provenance: Mapping, scale: Scale) -> pd.DataFrame:
    summary = pareto.summarise(results, scale=scale)
    summary = pareto.per_million_parameters(summary, provenance.get("parameters", {}))
    return with_volts(summary, provenance.get("volts_per_unit", {}))


def _tables(
    results: pd.DataFrame,
    summary: pd.DataFrame,
    layers: pd.DataFrame,
    energies: pd.DataFrame,
    provenance: Mapping,
    scale: Scale,
) -> Tables:
    volts = provenance.get("volts_per_unit", {})
    headline, yields = (with_volts(table(results, scale=scale), volts) for table in (pareto.headline, pareto.yields))
    choice = with_volts(choices(summary, scale=scale), volts)
    return Tables(results, summary, headline, yields, pareto.at_equal(results, scale), layers, energies, choice)


def with_volts(table: pd.DataFrame, per_unit: Mapping[str, float]) -> pd.DataFrame:
    """The table with a column `volts` behind `voltage`: on the weight rail of the row's accelerator."""
    volts = table.voltage * table.accelerator.map(lambda name: per_unit.get(name, 1.0))
    table.insert(table.columns.get_loc("voltage") + 1, "volts", volts)  # type: ignore[arg-type]
    return table


def _stamp(folder: Path, study: StudyConfig) -> str:
    """Hash of everything that the tables, figures and page are made from: what lies in the folder, what its study names
    outside of it, and the code, all of the three packages and the versions of what they require."""
    named = [study.curve.to_dict(), [asdict(accelerator(name)) for name in study.accelerators]]
    total = hashlib.sha256(json.dumps([named, _versions()], default=str).encode())
    sources = [path for package in ("sram", "simulator", "neuralfuse") for path in _files(package)]
    inputs = [folder / name for name in ("results.csv", "layers.csv", "energy.csv", "provenance.json", "study.yaml")]
    inputs += [
        *folder.glob("sensitivity.csv"),
        *folder.glob("each_chip_shares.csv"),
        *sorted((folder / "images").glob("*.npz")),
    ]
    for path in sources + inputs:
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()[:16]


def _files(package: str) -> list[Path]:
    """All that a package is made of, its data too."""
    found = Path(str(resources.files(package))).rglob("*")  # caches of Python and numba are not what it is made of
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)


def _versions() -> list[str]:
    """Of the libraries."""
    needed = [
        re.match(r"[\w.-]+", line) for line in metadata.requires("neuralfuse-sim") or () if "extra ==" not in line
    ]
    return [f"{found[0]} {metadata.version(found[0])}" for found in needed if found]


def _unchanged(folder: Path, stamp: str, results: pd.DataFrame) -> Tables | None:
    """The tables that lie in the folder, if they and its page were made from these very inputs and none is gone."""
    page = folder / "report.html"
    paths = {field.name: folder / f"{field.name}.csv" for field in fields(Tables)}
    if not all(path.is_file() for path in (page, *paths.values())):
        return None
    with page.open(encoding="utf-8") as file:
        if f'content="{stamp}"' not in file.read(1000):
            return None
    return Tables(**{"results": results} | {n: read_table(p) for n, p in paths.items() if n != "results"})

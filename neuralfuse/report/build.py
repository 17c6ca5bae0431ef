"""Tables and figures of a results folder, written beside it."""

import hashlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from importlib.resources import files
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import simulator.plots
from neuralfuse.report import plots
from neuralfuse.report.page import Tables, render
from neuralfuse.report.wording import (
    chip_share,
    few_chips,
    in_volts,
    interval,
    saving,
    saving_interval,
    supply,
    supply_interval,
)
from neuralfuse.results import pareto
from neuralfuse.results.rows import COLUMNS, possible
from neuralfuse.results.tables import NAMES, read_table, to_csv
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.file_names import slug
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.memory import chip_map
from simulator.plots import components_figure
from sram import curveplots, mapplots
from sram.errors import InputError
from sram.files import write_atomic


@dataclass(frozen=True)
class Report:
    """What was written, and the tables behind it."""

    page: Path
    figures: dict[str, list[Path]]
    summary: pd.DataFrame
    headline: pd.DataFrame
    unit: str  # of voltages
    gains: list[str]  # one sentence for each protection: where it helps most
    yields: list[str]  # one sentence for each protection: how low most chips may go
    warning: str  # of too few chips; empty where there are enough


def read_results(folder: str | Path) -> pd.DataFrame:
    """results.csv of a folder."""
    path = Path(folder) / "results.csv"
    if not path.is_file():
        raise InputError(folder, "results", path.name, "a folder filled by `neuralfuse sweep`")
    results = read_table(path)
    if missing := [name for name in COLUMNS if name not in results]:
        raise InputError(path, "column", missing[0], "a table with it, as `neuralfuse sweep` writes it")
    if results.empty:
        raise InputError(path, "rows", 0, "at least one finished task; run the sweep first")
    _check_values(results, path)
    return results


def _check_values(results: pd.DataFrame, path: Path) -> None:
    """Refuse the first value that no task can have had."""
    again = "what a task can have found; `neuralfuse sweep` writes the table anew from rows/"
    numbers = [name for name in COLUMNS if name not in NAMES]
    for name in numbers:
        if not pd.api.types.is_numeric_dtype(results[name]):
            bad = results[name][pd.to_numeric(results[name], errors="coerce").isna()]
            raise InputError(path, name, bad.iloc[0] if len(bad) else results[name].iloc[0], again)
    off = (results.accuracy - results.correct / results.total).abs() > 1e-9
    for name, fine in (possible(results) | {"accuracy": ~off}).items():
        if not fine.all():
            raise InputError(path, name, results[name][~fine].iloc[0].item(), again)


def build_report(folder: str | Path) -> Report:
    """Write summary, headline, yields and equal.csv, plots/* (PNG, SVG, PDF) and report.html into `folder`."""
    folder = Path(folder)
    results = read_results(folder)
    stamp = _stamp(folder)
    studied = StudyFolder.open(folder)
    study, provenance = studied.study, studied.provenance()
    unit = provenance["voltage_unit"]
    layers = read_table(folder / "layers.csv")
    if (made := _unchanged(folder, stamp, study, results, layers, unit)) is not None:
        return made
    volts = provenance.get("volts_per_unit", {})
    summary = with_volts(
        pareto.per_million_parameters(pareto.summarise(results), provenance.get("parameters", {})), volts
    )
    headline = pd.concat([pareto.headline(results, scope) for scope in pareto.SCOPES], ignore_index=True)
    headline = with_volts(headline, volts)
    write_atomic(folder / "summary.csv", to_csv(summary))
    equal, yields = pareto.at_equal(results), with_volts(pareto.yields(results), volts)
    write_atomic(folder / "equal.csv", to_csv(equal))
    write_atomic(folder / "headline.csv", to_csv(headline))
    write_atomic(folder / "yields.csv", to_csv(yields))
    drawings = _drawings(folder, study, results, summary, layers, unit)
    figures = {name: plots.save(draw(), folder / "plots", name) for name, draw in drawings.items()}
    figures |= _drawn_elsewhere(folder)
    tables = Tables(results, summary, headline, yields, equal, layers)
    page = write_atomic(folder / "report.html", render(study, tables, provenance, figures, folder, stamp))
    return _report(page, figures, summary, headline, yields, unit)


def with_volts(table: pd.DataFrame, per_unit: Mapping[str, float]) -> pd.DataFrame:
    """The table with a column `volts` behind `voltage`: on the weight rail of the row's accelerator."""
    volts = table.voltage * table.accelerator.map(lambda name: per_unit.get(name, 1.0))
    table.insert(table.columns.get_loc("voltage") + 1, "volts", volts)  # type: ignore[arg-type]
    return table


def _report(
    page: Path, figures: dict[str, list[Path]], summary: pd.DataFrame, headline: pd.DataFrame, yields: pd.DataFrame,
    unit: str,
) -> Report:  # fmt: skip
    words = gain_lines(summary, unit), yield_lines(yields, unit), few_chips(int(summary.chips.min()))
    return Report(page, figures, summary, headline, unit, *words)


# What a page shows follows from these, its folder aside: it is made anew where one of them changed.
SHOWN_BY = ("neuralfuse.report", "neuralfuse.results")
DRAWN_BY = (curveplots, mapplots, simulator.plots)


def _stamp(folder: Path) -> str:
    """Hash of everything that the tables, figures and page are made from, this code included."""
    sources = [path for shown in SHOWN_BY for path in Path(str(files(shown))).glob("**/*")]
    sources += [Path(str(drawn.__file__)) for drawn in DRAWN_BY]
    inputs = [folder / name for name in ("results.csv", "layers.csv", "provenance.json", "study.yaml")]
    inputs += [*folder.glob("sensitivity.csv"), *sorted((folder / "images").glob("*.npz"))]
    total = hashlib.sha256()
    for path in sorted(p for p in sources if p.suffix in {".py", ".j2", ".js"}) + inputs:
        total.update(path.read_bytes())
    return total.hexdigest()[:16]


def _unchanged(
    folder: Path, stamp: str, study: StudyConfig, results: pd.DataFrame, layers: pd.DataFrame, unit: str
) -> Report | None:
    """The report that lies in the folder, if it was made from these very inputs and no table or figure is gone."""
    page = folder / "report.html"
    if not all(path.is_file() for path in [page, *(folder / f"{field.name}.csv" for field in fields(Tables))]):
        return None
    with page.open(encoding="utf-8") as file:
        if f'content="{stamp}"' not in file.read(1000):
            return None
    summary, headline = read_table(folder / "summary.csv"), read_table(folder / "headline.csv")
    names = _drawings(folder, study, results, summary, layers, unit)
    figures = {name: [folder / "plots" / f"{name}.{kind}" for kind in plots.KINDS] for name in names}
    if not all(path.is_file() for paths in figures.values() for path in paths):
        return None
    figures |= _drawn_elsewhere(folder)
    return _report(page, figures, summary, headline, read_table(folder / "yields.csv"), unit)


def _drawings(
    folder: Path, study: StudyConfig, results: pd.DataFrame, summary: pd.DataFrame, layers: pd.DataFrame, unit: str
) -> dict[str, Callable[[], Figure]]:
    """Every figure of the folder by name, not drawn yet: what is asked first comes first."""
    drawings: dict[str, Callable[[], Figure]] = {}
    chosen = plots.drawn(summary)
    summary, results = (table[table.protection.isin(chosen)] for table in (summary, results))
    keys = [key for key in pareto.SETTING if key != "structure"]
    groups = list(summary.groupby(keys, sort=False))
    for key, part in groups:
        tag = "" if len(groups) == 1 else "-" + slug(*map(str, key))
        drawings[f"accuracy{tag}"] = partial(plots.accuracy_against_voltage, part, unit)
        for scope in pareto.SCOPES:
            drawings[f"pareto-{scope}{tag}"] = partial(plots.energy_accuracy_front, part, scope)
        rows = results.set_index(keys).loc[[key]].reset_index()
        for scope in pareto.SCOPES:
            drawings[f"attainment-{scope}{tag}"] = partial(plots.attainment, rows, scope)
        drawings[f"yield{tag}"] = partial(plots.yield_against_voltage, part, 5.0, unit)
    if len(groups) > 1:
        beside = summary.assign(setting=[", ".join(key) for key in summary[keys].astype(str).to_numpy()])
        drawings["settings"] = partial(plots.settings_front, beside)
    for (network, accelerator), part in layers.groupby(["network", "accelerator"], sort=False):
        title = f"{network} on {accelerator}, nominal supply"
        drawings[f"layers-{slug(network, accelerator)}"] = partial(_energy_by_layer, part, title)
    drawings["failure-curve"] = partial(plots.failure_curve, results, study.curve)
    for structure in study.forms:
        drawings[f"bank-{slug(structure)}"] = partial(_bank, folder, study, structure)
    for path in sorted((folder / "images").glob("*.npz")):
        drawings[f"images-{path.stem}"] = partial(_images, path)
    return drawings


def _drawn_elsewhere(folder: Path) -> dict[str, list[Path]]:
    """Figures of `neuralfuse sensitivity`."""
    return {
        path.stem: [path.with_suffix(f".{kind}") for kind in plots.KINDS]
        for path in sorted((folder / "plots").glob("sensitivity-*.png"))
    }


def _images(path: Path) -> Figure:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            original, changed, labels = (arrays[name] for name in ("original", "changed", "labels"))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise InputError(path, "images", str(error)[:200], "as they were written; delete it and sweep again") from None
    return plots.images(original, changed, labels.tolist())


def _energy_by_layer(layers: pd.DataFrame, title: str) -> Figure:
    layers = layers[:-1]  # without the totals
    components = {name.removesuffix("_pj"): layers[name].to_numpy() for name in layers if name.endswith("_pj")}
    return components_figure(layers.layer.tolist(), components, "system", title)


def _bank(folder: Path, study: StudyConfig, structure: str) -> Figure:
    """Chip 0 of the first network's memory, at the swept voltage where nearest to one cell in a hundred is faulty."""
    network = study.networks[0]
    geometry = StudyFolder(folder, study).placement(network.name, study.accelerators[0]).geometry
    curve = study.curve
    voltage = min(study.voltages, key=lambda v: abs(np.log(max(float(curve.probability(v)), 1e-300) / 0.01)))
    return mapplots.show(chip_map(study, geometry, structure, 0, study.voltage_floor), voltage)


def headline_lines(headline: pd.DataFrame, scope: str = "weight_sram") -> list[tuple[str, ...]]:
    """Rows of the table that the command line prints: setting, protection, points, voltage, saving in per cent."""
    lines: list[tuple[str, ...]] = []
    for row in pareto.labelled(headline[headline.scope == scope]).itertuples():
        found = (supply(row) + supply_interval(row), saving(row) + saving_interval(row))
        lines.append((row.setting, row.protection, f"{row.points:g}", *found))
    return lines


def yield_lines(yields: pd.DataFrame, unit: str, points: float = 5.0, share: float = 0.9) -> list[str]:
    """How low `share` of the chips may go and stay within so many points of clean, in words."""
    rows = pareto.labelled(yields[(yields.points == points) & (yields["share"] == share)])
    return [f"{row.protection}, {row.setting} maps: {chip_share(row, unit)}" for row in rows.itertuples()]


def gain_lines(summary: pd.DataFrame, unit: str) -> list[str]:
    """Where each protection gains most over the unprotected network on the same chips, in words."""
    if "gain_mean" not in summary:
        return []
    lines = []
    gained = pareto.labelled(summary).dropna(subset=["gain_mean"])
    for (setting, protection), rows in gained.groupby(["setting", "protection"], sort=False):
        best = rows.loc[rows.gain_mean.idxmax()]
        lines.append(
            f"{protection}, {setting} maps: at {best.voltage:g} {unit}{in_volts(best)} "
            f"{100 * best.accuracy_mean:.1f}% against "
            f"{100 * (best.accuracy_mean - best.gain_mean):.1f}% unprotected, paired gain {100 * best.gain_mean:.1f} "
            f"points{interval(100 * best.gain_low, 100 * best.gain_high)} over {best.chips} chips"
        )
    return lines

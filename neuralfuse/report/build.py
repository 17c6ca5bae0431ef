"""Tables and figures of a results folder, written beside it."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from neuralfuse import pareto, plots
from neuralfuse.config import StudyConfig, load_study
from neuralfuse.report.page import render
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


def read_results(folder: str | Path) -> pd.DataFrame:
    """results.csv of a folder."""
    path = Path(folder) / "results.csv"
    if not path.is_file():
        raise InputError(folder, "results", path.name, "a folder filled by `neuralfuse sweep`")
    results = pd.read_csv(path)
    if results.empty:
        raise InputError(path, "rows", 0, "at least one finished task; run the sweep first")
    return results


def build_report(folder: str | Path) -> Report:
    """Write summary.csv, headline.csv, plots/*.png and *.svg, and report.html into `folder`."""
    folder = Path(folder)
    results = read_results(folder)
    study = load_study(folder / "study.yaml")
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    layers = pd.read_csv(folder / "layers.csv")
    summary = pareto.summarise(results)
    headline = pd.concat([pareto.headline(results, scope) for scope in pareto.SCOPES], ignore_index=True)
    write_atomic(folder / "summary.csv", summary.to_csv(index=False))
    write_atomic(folder / "headline.csv", headline.to_csv(index=False))
    figures = _figures(folder, study, results, summary, layers, provenance["voltage_unit"])
    page = write_atomic(
        folder / "report.html", render(study, results, summary, headline, layers, provenance, figures, folder)
    )
    unit = provenance["voltage_unit"]
    return Report(page, figures, summary, headline, unit, gain_lines(summary, unit))


def _figures(
    folder: Path, study: StudyConfig, results: pd.DataFrame, summary: pd.DataFrame, layers: pd.DataFrame, unit: str
) -> dict[str, list[Path]]:
    out = folder / "plots"
    figures = {}
    keys = [key for key in pareto.SETTING if key != "structure"]
    groups = list(summary.groupby(keys, sort=False))
    for key, part in groups:
        tag = "" if len(groups) == 1 else "-" + "-".join(str(k) for k in key)
        for scope in pareto.SCOPES:
            name = f"pareto-{scope}{tag}"
            figures[name] = plots.save(plots.energy_accuracy_front(part, scope), out, name)
        name = f"accuracy{tag}"
        figures[name] = plots.save(plots.accuracy_against_voltage(part, unit), out, name)
        name = f"yield{tag}"
        figures[name] = plots.save(plots.yield_against_voltage(part, 5.0, unit), out, name)
    for (network, accelerator), part in layers.groupby(["network", "accelerator"], sort=False):
        name = f"layers-{network}-{accelerator}"
        figures[name] = plots.save(plots.energy_by_layer(part), out, name)
    for path in sorted(out.glob("images-*.png")):  # drawn when the generator was at hand
        figures[path.stem] = [path, path.with_suffix(".svg")]
    return figures


def headline_lines(headline: pd.DataFrame, unit: str, scope: str = "weight_sram") -> list[tuple[str, ...]]:
    """Rows of the table that the command line prints: structure, protection, points, voltage, saving."""
    lines = []
    for row in headline[headline.scope == scope].itertuples():
        bound = "≤ " if row.censored else ""
        if pd.isna(row.voltage):
            lines.append((row.structure, row.protection, f"{row.points:g}", "not at any swept voltage", "-"))
            continue
        lines.append(
            (
                row.structure,
                row.protection,
                f"{row.points:g}",
                f"{bound}{row.voltage:.3f} {unit} [{row.voltage_low:.3f}, {row.voltage_high:.3f}]",
                f"{100 * row.saving:.1f}% [{100 * row.saving_low:.1f}, {100 * row.saving_high:.1f}]",
            )
        )
    return lines


def gain_lines(summary: pd.DataFrame, unit: str) -> list[str]:
    """Where each protection gains most over the unprotected network on the same chips, in words."""
    if "gain_mean" not in summary:
        return []
    lines = []
    for (structure, protection), rows in summary.dropna(subset=["gain_mean"]).groupby(
        ["structure", "protection"], sort=False
    ):
        best = rows.loc[rows.gain_mean.idxmax()]
        lines.append(
            f"{protection}, {structure} maps: at {best.voltage:g} {unit} {100 * best.accuracy_mean:.1f}% against "
            f"{100 * (best.accuracy_mean - best.gain_mean):.1f}% unprotected, paired gain {100 * best.gain_mean:.1f} "
            f"points [{100 * best.gain_low:.1f}, {100 * best.gain_high:.1f}] over {best.chips} chips"
        )
    return lines

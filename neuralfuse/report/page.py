"""One HTML page that works offline: plots to hover, tables to sort, every setting and source, CSV to download."""

import base64
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from neuralfuse.report.plots import COLOURS, SCOPE_LABEL, looks
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
from neuralfuse.results.statistics import MARGIN_COVERAGE, MEAN_COVERAGE
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.files import dump_study

SHOWN = {
    "network": "network",
    "accelerator": "accelerator",
    "protection": "protection",
    "structure": "structure",
    "voltage": "voltage",
    "volts": "volts",
    "chips": "chips",
    "accuracy_mean": "accuracy (%)",
    "accuracy_low": "95% low",
    "accuracy_high": "95% high",
    "accuracy_worst_chip": "worst chip (%)",
    "gain_mean": "paired gain (points)",
    "gain_low": "gain low",
    "gain_high": "gain high",
    "yield": "yield within 5 points (%)",
    "cell_fault_rate": "cell fault rate",
    "flip_rate": "bit flip rate",
    "saving_weight_sram": "saving, weight SRAM (%)",
    "saving_sram": "saving, SRAM (%)",
    "saving_system": "saving, system (%)",
}
DASHES, SYMBOLS = ("solid", "dot", "dash", "dashdot", "longdash"), ("circle", "square", "diamond", "cross", "x")
_PERCENT = ("accuracy", "gain", "yield", "saving")


@dataclass(frozen=True)
class Tables:
    """What the page shows, as docs/reference/columns.md has it."""

    results: pd.DataFrame
    summary: pd.DataFrame
    headline: pd.DataFrame
    yields: pd.DataFrame
    equal: pd.DataFrame
    layers: pd.DataFrame


def render(
    study: StudyConfig,
    tables: Tables,
    provenance: dict[str, Any],
    figures: dict[str, list[Path]],
    folder: Path,
    stamp: str,
) -> str:
    """The page as text. Figures are embedded, the plotly script is inlined, nothing is fetched."""
    environment = Environment(loader=PackageLoader("neuralfuse.report"), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html.j2").render(
        study=study,
        stamp=stamp,
        study_yaml=dump_study(study),
        unit=provenance["voltage_unit"],
        plotly=get_plotlyjs(),
        fronts=[interactive_front(tables.summary, scope, provenance["voltage_unit"]) for scope in pareto.SCOPES],
        scopes=SCOPE_LABEL,
        headline=_headline(tables.headline, provenance["voltage_unit"]),
        yields=_yields(tables.yields, provenance["voltage_unit"]),
        mean_coverage=MEAN_COVERAGE,
        margin_coverage=MARGIN_COVERAGE,
        warning=few_chips(int(tables.summary.chips.min())),
        equal=_equal(tables.equal),
        table=_table(tables.summary),
        layers=_layer_table(tables.layers),
        figures={name: _data_uri(paths[0]) for name, paths in figures.items()},
        downloads={f"{field.name}.csv": _csv_uri(folder / f"{field.name}.csv") for field in fields(tables)},
        provenance=provenance,
        chips=int(tables.summary.chips.max()),
        networks=", ".join(
            f"{name} ({100 * pareto.clean_accuracy(rows):.2f}% without faults)"
            for name, rows in tables.results.groupby("network", sort=False)
        ),
        hypervolumes=_hypervolumes(tables.results),
    )


def interactive_front(summary: pd.DataFrame, scope: str, unit: str) -> dict[str, Any]:
    """Plotly figure: saving against accuracy, error bars over chips; hovering names the point's settings.

    `json` holds no `<` and may stand within a script element. Plotly reads labels as HTML: names in them are escaped.
    """
    figure = go.Figure()
    look = looks(list(summary.protection.unique()))
    summary = pareto.labelled(summary)
    settings = list(summary.setting.unique())
    for (setting, protection), rows in summary.groupby(["setting", "protection"], sort=False):
        rows, place = rows.sort_values("voltage", ascending=False), settings.index(setting)
        text = [
            f"<b>{_label(r.protection)}</b>, {_label(r.structure)} maps<br>"
            f"{r.voltage:g} {unit}{in_volts(r)}, {r.chips} chips<br>"
            f"accuracy {100 * r.accuracy_mean:.1f}%{interval(100 * r.accuracy_low, 100 * r.accuracy_high)}<br>"
            f"saving {100 * getattr(r, f'saving_{scope}'):.1f}%<br>"
            f"cells faulty {r.cell_fault_rate:.2g}, bits wrong {r.flip_rate:.2g}<br>"
            f"{_label(r.network)}, {_label(r.accelerator)}"
            for r in rows.itertuples()
        ]
        up = (100 * (rows.accuracy_high.clip(upper=1) - rows.accuracy_mean)).fillna(0)
        down = (100 * (rows.accuracy_mean - rows.accuracy_low.clip(lower=0))).fillna(0)
        whiskers = {"type": "data", "symmetric": False, "array": up.tolist(), "arrayminus": down.tolist()}
        figure.add_scatter(
            x=(100 * rows[f"saving_{scope}"]).tolist(),
            y=(100 * rows.accuracy_mean).tolist(),
            error_y=whiskers | {"thickness": 1, "width": 2},
            mode="lines+markers",
            name=_label(f"{protection}, {setting}"),
            text=text,
            hovertemplate="%{text}<extra></extra>",
            line={
                "color": look[protection]["color"],
                "dash": DASHES[place % len(DASHES)],
                "width": 1.5,
            },
            marker={"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 7},
        )
    for setting, part in summary.groupby("setting", sort=False):
        best = pareto.front(part, scope)
        figure.add_scatter(
            x=(100 * best[f"saving_{scope}"]).tolist(),
            y=(100 * best.accuracy_mean).tolist(),
            mode="lines",
            line={"color": COLOURS[0], "width": 6, "shape": "vh"},
            opacity=0.2,
            name=_label(f"front, {setting}"),
            hoverinfo="skip",
        )
    figure.update_layout(
        xaxis_title=f"Energy saving per inference (%), {SCOPE_LABEL[scope]}",
        yaxis_title="Test accuracy (%)",
        template="plotly_white",
        height=460,
        margin={"l": 60, "r": 10, "t": 20, "b": 50},
        legend={"orientation": "h", "y": -0.2},
    )
    return {"scope": scope, "json": figure.to_json().replace("<", "\\u003c")}  # </script> would end the script


def _label(name: str) -> str:
    """A name as plotly shows it letter by letter; it knows the entities of & < >, and not those of quotation marks."""
    return escape(name, quote=False)


def _headline(headline: pd.DataFrame, unit: str) -> list[dict[str, Any]]:
    return [
        {
            "scope": row.scope,
            "setting": row.setting,
            "protection": row.protection,
            "points": f"{row.points:g}",
            "voltage": supply(row, f" {unit}") + supply_interval(row),
            "saving": saving(row) + saving_interval(row),
        }
        for row in pareto.labelled(headline).itertuples()
    ]


def _yields(yields: pd.DataFrame, unit: str) -> list[dict[str, Any]]:
    return [
        {"setting": row.setting, "protection": row.protection, "found": chip_share(row, unit)}
        for row in pareto.labelled(yields).itertuples()
    ]


def _equal(equal: pd.DataFrame) -> list[dict[str, str]]:
    """Cells for each scope, fault maps and protection: one for each equal accuracy, one for each equal saving."""
    rows = []
    groups = pareto.labelled(equal).groupby(["scope", "setting", "protection"], sort=False)
    for (scope, setting, protection), part in groups:
        cells = {"scope": scope, "setting": setting, "protection": protection}
        for what in ("saving", "accuracy"):
            found = part[part.gain_in == what]
            cells[what] = "; ".join(
                f"at {100 * r.at:.1f}%: {100 * r.gain:+.1f}{interval(100 * r.gain_low, 100 * r.gain_high, '+.1f')}"
                for r in found.itertuples()
            )
        rows.append(cells)
    return rows


def _table(summary: pd.DataFrame) -> dict[str, Any]:
    alike = {key for key in ("network", "accelerator") if summary[key].nunique() == 1}
    columns = [name for name in SHOWN if name in summary.columns and name not in alike]
    rows = []
    for record in summary[columns].to_dict("records"):
        cells = []
        for name in columns:
            value = record[name]
            if isinstance(value, str):
                cells.append((value, value))
            elif pd.isna(value):
                cells.append(("", "–"))
            elif name.startswith(_PERCENT):
                cells.append((value, f"{100 * value:.1f}"))
            elif name.endswith("_rate"):
                cells.append((value, f"{value:.2e}" if value else "0"))
            else:
                cells.append((value, f"{value:g}"))
        rows.append(cells)
    return {"columns": [SHOWN[name] for name in columns], "rows": rows}


def _layer_table(layers: pd.DataFrame) -> dict[str, Any]:
    rows = [
        [(v, v) if isinstance(v, str) else (v, f"{v:,.6g}") for v in record]
        for record in layers.fillna("").itertuples(index=False)
    ]
    return {"columns": list(layers.columns), "rows": rows}


def _hypervolumes(results: pd.DataFrame) -> list[dict[str, str]]:
    rows = []
    for setting, group in pareto.labelled(results).groupby("setting", sort=False):
        for protection, part in group.groupby("protection", sort=False):
            cells = {"setting": setting, "protection": protection}
            for scope in pareto.SCOPES:
                volume = pareto.hypervolume(part, scope)
                cells[scope] = f"{volume.mean:.3f}{interval(volume.low, volume.high, '.3f')}"
            rows.append(cells)
    return rows


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _csv_uri(path: Path) -> str:
    return "data:text/csv;base64," + base64.b64encode(path.read_bytes()).decode()

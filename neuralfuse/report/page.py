"""One HTML page that works offline: plots to hover, tables to sort, every setting and source, CSV to download."""

import base64
import gzip
import json
from dataclasses import dataclass, fields
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from neuralfuse.report.plots import COLOURS, SCOPE_LABEL, drawn, looks
from neuralfuse.report.wording import (
    caption,
    chip_share,
    few_chips,
    in_volts,
    interval,
    saving,
    saving_interval,
    supply,
    supply_interval,
    verdict,
)
from neuralfuse.results import pareto
from neuralfuse.results.statistics import MARGIN_COVERAGE, MEAN_COVERAGE
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.files import dump_study
from simulator.accelerator import accelerator
from simulator.workload import TOTALS

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
MOST_ROWS = 2000  # of a table on the page
MOST_BYTES = 1_000_000  # of a table within the page
WIDEST = 1100  # pixels of a figure on the page; plots/ has it sharper
LAYERS = ("layer", "kind", "dataflow", "macs", "cycles", "stall_cycles", "utilization_pct")
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


def _plotly() -> str:
    """The script that the package plotly ships, as gzip in base64: 2 MB where the text is 5; a browser unpacks it."""
    script = (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(script, mtime=0)).decode()


def render(
    study: StudyConfig,
    tables: Tables,
    provenance: dict[str, Any],
    figures: dict[str, list[Path]],
    folder: Path,
    stamp: str,
) -> str:
    """The page as text. Figures are embedded, plotly's script is inlined, compressed, nothing is fetched."""
    unit = provenance["voltage_unit"]
    summary, shown = tables.summary, drawn(tables.summary)
    plotted = summary[summary.protection.isin(shown)]
    files_here = [folder / f"{field.name}.csv" for field in fields(tables)]
    figure_groups = _figures(figures)
    environment = Environment(loader=PackageLoader("neuralfuse.report"), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html.j2").render(
        study=study,
        stamp=stamp,
        study_yaml=dump_study(study),
        unit=unit,
        verdict=verdict(pareto.labelled(tables.headline), unit),
        machines=_machines(tables.layers),
        undrawn=summary.protection.nunique() - len(shown),
        plotly=_plotly(),
        fronts=[interactive_front(plotted, scope, unit) for scope in pareto.SCOPES],
        scopes=SCOPE_LABEL,
        headline=_headline(tables.headline, unit),
        yields=_yields(tables.yields, unit),
        mean_coverage=MEAN_COVERAGE,
        margin_coverage=MARGIN_COVERAGE,
        warning=few_chips(int(tables.summary.chips.min())),
        equal=_equal(tables.equal),
        table=_table(summary[:MOST_ROWS]),
        more_rows=max(0, len(summary) - MOST_ROWS),
        layers=_layer_table(tables.layers),
        first_figures=figure_groups[0],
        figures=figure_groups[1],
        downloads={path.name: _csv_uri(path) for path in files_here if path.stat().st_size <= MOST_BYTES},
        beside=[path.name for path in files_here if path.stat().st_size > MOST_BYTES],
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
    traces: list[dict[str, Any]] = []

    def add(**trace: Any) -> None:
        traces.append({"type": "scatter", **trace})

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
        add(
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
        add(
            x=(100 * best[f"saving_{scope}"]).tolist(),
            y=(100 * best.accuracy_mean).tolist(),
            mode="lines",
            line={"color": COLOURS[0], "width": 6, "shape": "vh"},
            opacity=0.2,
            name=_label(f"front, {setting}"),
            hoverinfo="skip",
        )
    axis = {"gridcolor": "#ebf0f8", "zerolinecolor": "#d0d7de"}
    layout = {
        "xaxis": axis | {"title": {"text": f"Energy saving per inference (%), {SCOPE_LABEL[scope]}"}},
        "yaxis": axis | {"title": {"text": "Test accuracy (%)"}},
        "hovermode": "closest",
        "height": 460 + 20 * (len(traces) // 3),
        "margin": {"l": 60, "r": 10, "t": 20, "b": 50},
        "legend": {"orientation": "h", "y": -0.2},
    }
    found = json.dumps({"data": traces, "layout": layout})
    return {"scope": scope, "json": found.replace("<", "\\u003c")}  # </script> would end the script


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


def _machines(layers: pd.DataFrame) -> list[dict[str, str]]:
    """A card for each network, or generator before it, on each accelerator: the machine, and one inference on it."""
    cards = []
    for row in layers[layers.layer.isin(TOTALS)].itertuples():
        machine = accelerator(row.accelerator)
        seconds = row.cycles / machine.clock_hz
        sizes = (machine.ifmap_buffer, machine.weight_buffer, machine.ofmap_buffer)
        cards.append(
            {
                "network": row.network,
                "accelerator": row.accelerator,
                "array": f"{machine.array_rows} x {machine.array_cols}, {machine.dataflow}",
                "buffers": " / ".join(f"{size.capacity_bytes / 1024:g}" for size in sizes),
                "clock": f"{machine.clock_hz / 1e6:g}",
                "ms": f"{1e3 * seconds:.4g}",
                "rate": f"{1 / seconds:,.4g}" if seconds else "-",
                **{scope: f"{getattr(row, f'scope_{scope}_pj') / 1e6:.4g}" for scope in pareto.SCOPES},
            }
        )
    return cards


def _figures(figures: dict[str, list[Path]]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Accuracy against supply, and all else; the fronts of the page itself stand for those in plots/."""
    first: list[dict[str, str]] = []
    others: list[dict[str, str]] = []
    for name, paths in figures.items():
        if not name.startswith("pareto-"):
            one = {"caption": caption(name), "uri": _data_uri(paths[0])}
            (first if name.startswith("accuracy") else others).append(one)
    return first, others


def _layer_table(layers: pd.DataFrame) -> dict[str, Any]:
    alike = [name for name in ("network", "accelerator") if layers[name].nunique() > 1]
    scopes = [f"scope_{scope}_pj" for scope in pareto.SCOPES]
    layers = layers[[*alike, *LAYERS, *scopes]][:MOST_ROWS]
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
    """A figure in few colours and no wider than a page: a fifth of its bytes."""
    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((WIDEST, 10 * WIDEST))
    buffer = BytesIO()
    small.quantize(96).save(buffer, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _csv_uri(path: Path) -> str:
    return "data:text/csv;base64," + base64.b64encode(path.read_bytes()).decode()

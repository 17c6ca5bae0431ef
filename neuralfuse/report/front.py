"""The front of the page: a figure of plotly in which a point names its settings."""

import json
from html import escape
from typing import Any

import pandas as pd

from neuralfuse.report.plots import COLOURS, looks
from neuralfuse.report.wording import SCOPE_LABEL, in_volts
from neuralfuse.results import pareto
from neuralfuse.results.scale import ACCURACY, Scale
from sram.names import printable

DASHES, SYMBOLS = ("solid", "dot", "dash", "dashdot", "longdash"), ("circle", "square", "diamond", "cross", "x")
MOST_POINTS = 60  # of a line
AXIS = {"gridcolor": "#ebf0f8", "zerolinecolor": "#d0d7de"}


def interactive_front(summary: pd.DataFrame, scope: str, unit: str, scale: Scale = ACCURACY) -> str:
    """A plotly figure as JSON: saving against accuracy, error bars over chips; hovering names the point's settings.

    The text holds no `<` and may stand within a script element. Plotly reads labels as HTML: names in them are escaped.
    Of more than MOST_POINTS supplies every so-manieth is a point; the fronts are of all.
    """
    look, summary = looks(list(summary.protection.unique())), pareto.labelled(summary)
    places = {setting: i for i, setting in enumerate(summary.setting.unique())}
    traces = []
    for (setting, protection), rows in summary.groupby(["setting", "protection"], sort=False):
        rows = rows.sort_values("voltage", ascending=False)[:: -(-len(rows) // MOST_POINTS)]
        mean, place = scale.shown(rows.accuracy_mean), places[setting]
        ends = [scale.shown(rows[f"accuracy_{end}"].clip(*scale.bounds)) for end in ("low", "high")]
        below, above = ends if scale.higher_is_better else ends[::-1]
        whiskers = {
            "array": (above - mean).fillna(0).tolist(),
            "arrayminus": (mean - below).fillna(0).tolist(),
        }
        traces.append(
            {
                **_trace(f"{protection}, {setting}", rows, scope, scale),
                "error_y": {"type": "data", "symmetric": False, "thickness": 1, "width": 2, **whiskers},
                "mode": "lines+markers",
                "text": [_hover(point, scope, unit, scale) for point in rows.itertuples()],
                "hovertemplate": "%{text}<extra></extra>",
                "line": {"color": look[protection]["color"], "dash": DASHES[place % len(DASHES)], "width": 1.5},
                "marker": {"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 7},
            }
        )
    for setting, part in summary.groupby("setting", sort=False):
        line = {"color": COLOURS[0], "width": 6, "shape": "vh"}
        front = _trace(f"front, {setting}", pareto.front(part, scope), scope, scale)
        traces.append(front | {"mode": "lines", "line": line, "opacity": 0.2, "hoverinfo": "skip"})
    layout = {
        "xaxis": AXIS | {"title": {"text": f"Energy saving per inference (%), {SCOPE_LABEL[scope]}"}},
        "yaxis": AXIS | {"title": {"text": scale.axis}} | ({} if scale.higher_is_better else {"autorange": "reversed"}),
        "hovermode": "closest",
        "height": 460 + 20 * (len(traces) // 3),
        "margin": {"l": 60, "r": 10, "t": 20, "b": 50},
        "legend": {"orientation": "h", "y": -0.2},
    }
    return json.dumps({"data": traces, "layout": layout}).replace("<", "\\u003c")  # </script> would end the script


def _trace(name: str, rows: pd.DataFrame, scope: str, scale: Scale) -> dict[str, Any]:
    x, y = (100 * rows[f"saving_{scope}"]).round(4), scale.shown(rows.accuracy_mean).round(4)
    return {"type": "scatter", "x": x.tolist(), "y": y.tolist(), "name": _label(name)}


def _hover(point: Any, scope: str, unit: str, scale: Scale) -> str:
    return (
        f"<b>{_label(point.protection)}</b>, {_label(point.structure)} maps<br>"
        f"{point.voltage:g} {unit}{in_volts(point)}, {point.chips} chips<br>"
        f"{_label(scale.name)} {_label(scale.text(point.accuracy_mean, point.accuracy_low, point.accuracy_high))}<br>"
        f"saving {100 * getattr(point, f'saving_{scope}'):.1f}%<br>"
        f"cells faulty {point.cell_fault_rate:.2g}, bits wrong {point.flip_rate:.2g}<br>"
        f"{_label(point.network)}, {_label(point.accelerator)}"
    )


def _label(name: str) -> str:
    """A name as plotly shows it letter by letter; it knows the entities of & < >, and not those of quotation marks."""
    return escape(printable(name), quote=False)

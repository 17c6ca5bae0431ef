"""One HTML page that works offline: plots to hover, tables to sort, every setting and source, CSV to download."""

import base64
import gzip
from dataclasses import dataclass, fields, replace
from functools import cached_property
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from neuralfuse.report import wording
from neuralfuse.report.front import MOST_POINTS, interactive_front
from neuralfuse.report.plots import drawn
from neuralfuse.report.wording import SCOPE_LABEL, interval
from neuralfuse.results import pareto, statistics
from neuralfuse.results.scale import Scale
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.files import dump_study
from simulator.accelerator import accelerator
from simulator.workload import TOTALS
from sram.names import printable

SHOWN = {  # columns of summary.csv: what they are called, how they are written
    "network": ("network", "{}"),
    "accelerator": ("accelerator", "{}"),
    "protection": ("protection", "{}"),
    "structure": ("structure", "{}"),
    "voltage": ("voltage", "{:g}"),
    "volts": ("volts", "{:g}"),
    "rails": ("rails beside the weights", "{}"),
    "chips": ("chips", "{}"),
    "images": ("images a chip", "{:.0f}"),
    "accuracy_mean": ("accuracy (%)", "{:z.1%}"),
    "accuracy_low": ("95% low", "{:z.1%}"),
    "accuracy_high": ("95% high", "{:z.1%}"),
    "accuracy_worst_chip": ("worst chip (%)", "{:z.1%}"),
    "gain_mean": ("paired gain (points)", "{:z.1%}"),
    "gain_low": ("gain low", "{:z.1%}"),
    "gain_high": ("gain high", "{:z.1%}"),
    "yield": ("yield within 5 points (%)", "{:z.1%}"),
    "cell_fault_rate": ("cell fault rate", "{:.2e}"),
    "flip_rate": ("bit flip rate", "{:.2e}"),
    "saving_weight_sram": ("saving, weight SRAM (%)", "{:z.1%}"),
    "saving_sram": ("saving, SRAM (%)", "{:z.1%}"),
    "saving_chip": ("saving, chip (%)", "{:z.2%}"),
    "saving_system": ("saving, system (%)", "{:z.2%}"),
}
LAYERS = ["layer", "kind", "dataflow", "macs", "cycles", "stall_cycles", "utilization_pct"]
LAYERS += [f"scope_{scope}_pj" for scope in pareto.SCOPES]
MOST_ROWS = 500  # of a table on the page
MOST_BYTES = 300_000  # of a table within the page
SCALE = 0.53  # of a figure on the page: two panels fill its width; plots/ has it sharper
Cells = list[dict[str, str]]  # a table as it is written: heads and texts


@dataclass(frozen=True)
class Tables:
    """What the page shows, as docs/reference/columns.md has it."""

    results: pd.DataFrame
    summary: pd.DataFrame
    headline: pd.DataFrame
    yields: pd.DataFrame
    equal: pd.DataFrame
    layers: pd.DataFrame
    energy: pd.DataFrame
    choice: pd.DataFrame


@dataclass(frozen=True)
class Shown:
    """A figure that was drawn."""

    caption: str
    png: Path

    @cached_property
    def _small(self) -> Image.Image:
        with Image.open(self.png) as image:
            width, height = (max(1, round(SCALE * side)) for side in image.size)
            return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)

    @property
    def width(self) -> int:
        """On the page, pixels."""
        return self._small.width

    @property
    def uri(self) -> str:
        """The figure itself, no larger than the page shows it, in 256 colours, rare ones too: a fifth of its bytes."""
        buffer = BytesIO()
        self._small.quantize(256, Image.Quantize.MAXCOVERAGE).save(buffer, "png")
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def render(
    study: StudyConfig,
    tables: Tables,
    provenance: dict[str, Any],
    figures: dict[str, Shown],
    folder: Path,
    stamp: str,
    scale: Scale,
) -> str:
    """The page as text. Figures are embedded, plotly's script is inlined, compressed, nothing is fetched."""
    unit, every = provenance["voltage_unit"], tables.summary.protection.nunique()
    written = [folder / f"{field.name}.csv" for field in fields(tables)]
    chosen = drawn(tables.summary)
    alone = tables.headline.rails.nunique() == 1  # nothing but the weights is lowered
    few = {
        field.name: table[table.protection.isin(chosen)]
        for field in fields(tables)
        if "protection" in (table := getattr(tables, field.name))
    }
    tables = replace(tables, **few)
    loader = PackageLoader("neuralfuse.report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["printable"] = printable
    return environment.get_template(
        "report.html.j2"
    ).render(
        study=study,
        stamp=stamp,
        study_yaml=dump_study(study),
        unit=unit,
        first_scope="weight_sram" if alone else "chip",
        verdicts=wording.choice_lines(tables.choice, unit, scale=scale)
        + (wording.verdicts(tables.headline, unit, scale) if alone else []),
        machines=_machines(tables.layers),
        undrawn=every - len(chosen),
        thinned=study.voltages if len(study.voltages) > MOST_POINTS else (),
        most_points=MOST_POINTS,
        plotly=_plotly(),
        fronts={scope: interactive_front(tables.summary, scope, unit, scale) for scope in pareto.SCOPES},
        scopes=SCOPE_LABEL,
        scale=scale,
        choices=wording.choice_cells(tables.choice, unit, scale),
        headline={scope: _headline(part, unit, scale) for scope, part in tables.headline.groupby("scope", sort=False)},
        yields=_yields(tables.yields, unit, scale),
        sampled=bool((tables.results.total < tables.results.test_images).any()),
        equal={scope: _equal(part, scale) for scope, part in tables.equal.groupby("scope", sort=False)},
        coverage=_coverage(),
        warning=wording.held(int(tables.summary.chips.min())),
        points=_points(tables.summary[:MOST_ROWS], scale),
        more_points=max(0, len(tables.summary) - MOST_ROWS),
        layers=_layers(tables.layers[:MOST_ROWS]),
        more_layers=max(0, len(tables.layers) - MOST_ROWS),
        first_figures=[one for name, one in figures.items() if name.startswith("accuracy")],
        figures=[one for name, one in figures.items() if not name.startswith(("accuracy", "pareto"))],  # it has fronts
        downloads={path.name: _csv_uri(path) for path in written if path.stat().st_size <= MOST_BYTES},
        beside=[path.name for path in written if path.stat().st_size > MOST_BYTES],
        provenance=provenance,
        supplies=_supplies(provenance, unit)[:MOST_ROWS],
        sources=_sources(provenance),
        chips=int(tables.summary.chips.max()),
        networks=", ".join(
            f"{name} ({_clean(pareto.clean_accuracy(rows), scale)} without faults)"
            for name, rows in tables.results.groupby("network", sort=False)
        ),
        hypervolumes=_hypervolumes(tables.results) if scale.share else [],  # there is no area from 0 of errors
    )


def _clean(score: float, scale: Scale) -> str:
    return f"{100 * score:.2f}%" if scale.share else scale.text(score)


def _plotly() -> str:
    """The script that the package plotly ships, as gzip in base64: 2 MB where the text is 5; a browser unpacks it."""
    script = (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(script, mtime=0)).decode()


def _csv_uri(path: Path) -> str:
    return "data:text/csv;base64," + base64.b64encode(path.read_bytes()).decode()


def _machines(layers: pd.DataFrame) -> Cells:
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
                "array, dataflow": f"{machine.array_rows} x {machine.array_cols}, {machine.dataflow}",
                "buffers: inputs / weights / outputs (KiB)": " / ".join(f"{b.capacity_bytes / 1024:g}" for b in sizes),
                "clock (MHz)": f"{machine.clock_hz / 1e6:g}",
                "ms an inference": f"{1e3 * seconds:.4g}",
                "inferences a second": f"{float(f'{1 / seconds:.4g}'):,.16g}" if seconds else "–",
                **{f"µJ, {SCOPE_LABEL[s]}": f"{getattr(row, f'scope_{s}_pj') / 1e6:.4g}" for s in pareto.SCOPES},
            }
        )
    return cards


def _hypervolumes(results: pd.DataFrame) -> Cells:
    rows = []
    labelled = pareto.labelled(pareto.whole(results))
    for (setting, protection), part in labelled.groupby(["setting", "protection"], sort=False):
        found = {label: pareto.hypervolume(part, scope) for scope, label in SCOPE_LABEL.items()}
        texts = {label: wording.finely(volume.mean, volume.low, volume.high) for label, volume in found.items()}
        rows.append({"fault maps": setting, "protection": protection, **texts})
    return rows


def _headline(headline: pd.DataFrame, unit: str, scale: Scale) -> Cells:
    heads = (
        "fault maps",
        "protection",
        f"within ({scale.unit})",
        f"lowest supply ({unit}) [95%]",
        "energy saving (%) [95%]",
    )
    return [dict(zip(heads, line, strict=True)) for line in wording.headline_lines(headline)]


def _yields(yields: pd.DataFrame, unit: str, scale: Scale) -> Cells:
    return [
        {"fault maps": row.setting, "protection": row.protection, "supply": wording.chip_share(row, unit, scale)}
        for row in pareto.labelled(yields).itertuples()
    ]


def _equal(equal: pd.DataFrame, scale: Scale) -> Cells:
    """Of one scope, for each fault maps and protection: the gains at each equal accuracy, and at each equal saving."""
    rows = []
    for (setting, protection), part in pareto.labelled(equal).groupby(["setting", "protection"], sort=False):
        cells = {"fault maps": setting, "protection": protection}
        heads = f"energy saving at equal {scale.name}", f"{scale.name} at equal saving"
        signed = f"+{scale.form}"
        for what, head, each, form in (
            ("saving", heads[0], 100, "+.1f"),
            ("accuracy", heads[1], scale.per_score, signed),
        ):
            cells[head] = "; ".join(
                f"at {scale.text(r.at) if what == 'saving' else f'{100 * r.at:.1f}%'}: {each * r.gain:{form}}"
                f"{interval(each * r.gain_low, each * r.gain_high, form)}"
                for r in part[part.gain_in == what].itertuples()
            )
        rows.append(cells)
    return rows


def _points(summary: pd.DataFrame, scale: Scale) -> Cells:
    alike = {key for key in ("network", "accelerator", "rails", "images") if summary[key].nunique() == 1}
    columns = {name: how for name, how in _shown(scale).items() if name in summary and name not in alike}
    if not scale.share:
        scores = [name for name in columns if name.startswith("accuracy_")]
        summary = summary.assign(**{name: scale.shown(summary[name]) for name in scores})
    return [
        {
            head: "–" if pd.isna(record[name]) else form.format(record[name]).removesuffix("%")
            for name, (head, form) in columns.items()
        }
        for record in summary[list(columns)].to_dict("records")
    ]


def _shown(scale: Scale) -> dict[str, tuple[str, str]]:
    """SHOWN, as a metric's scores are written; the bounds of an error change places."""
    if scale.share:
        return SHOWN
    found = {
        name: (head, "{:.4g}" if name.startswith(("accuracy", "gain")) else how) for name, (head, how) in SHOWN.items()
    }
    ends = ("95% low", "95% high") if scale.higher_is_better else ("95% high", "95% low")
    heads = dict(zip(("accuracy_low", "accuracy_high"), ends, strict=True))
    heads |= {
        "accuracy_mean": scale.head,
        "accuracy_worst_chip": "worst chip",
        "gain_mean": f"paired gain ({scale.unit})",
    }
    heads |= {"yield": f"yield within {scale.within(scale.margins[-1])} (%)"}
    return {name: (heads.get(name, head), how) for name, (head, how) in found.items()}


def _layers(layers: pd.DataFrame) -> Cells:
    several = [name for name in ("network", "accelerator") if layers[name].nunique() > 1]
    records = layers[[*several, *LAYERS]].fillna("").to_dict("records")
    return [{str(k): v if isinstance(v, str) else f"{v:,.6g}" for k, v in record.items()} for record in records]


def _supplies(provenance: dict[str, Any], unit: str) -> Cells:
    return [
        {
            "supply": f"{found['voltage']} {unit}",
            **{f"volts on {name}": f"{volts:.4f}" for name, volts in found["volts"].items()},
            "cell fault rate by the curve": f"{found['cell_fault_rate']:.2e}",
            "": "beyond the curve's data" if found["extrapolated"] else "",
        }
        for found in provenance.get("supplies", ())
    ]


def _sources(provenance: dict[str, Any]) -> Cells:
    heads = {"name": "energy figure", "value": "value", "unit": "unit", "node": "node, supply", "source": "source"}
    return [{head: entry[key] for key, head in heads.items()} for entry in provenance["energy_sources"]]


def _coverage() -> Cells:
    """How often intervals hold the truth."""
    return [
        {"95% interval of": what, "chips": str(chips)}
        | dict(zip(statistics.LOTS, map("{}%".format, found), strict=True))
        for what, by_chips in statistics.COVERAGE.items()
        for chips, found in by_chips.items()
    ]

"""Which figures a results folder has: each with a caption in words, and how it is drawn."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from neuralfuse.report import plots, railplots
from neuralfuse.report.wording import SCOPE_LABEL
from neuralfuse.results import pareto
from neuralfuse.results.scale import Scale
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.file_names import slug
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.memory import chip_map
from neuralfuse.study.supplies import curve_of_role
from simulator.plots import components_figure
from sram import mapplots
from sram.errors import InputError

ACCURACY = "{Metric} against supply: mean over chips with its 95% band, one panel for each kind of fault maps"
MAP = (
    "Mean {metric} over the supplies of weights and activations, the best of other supplies and clocks, for at most "
    f"{railplots.MOST_PANELS} protections; framed: within {{narrow}} of clean"
)
ALL_POINTS = "Energy saved against {metric}, means over chips: the front of each protection over all operating points"
RAILS = "Energy of one inference by rail and component, at operating points of the study"
FRONT = "Energy saved against {metric}, mean over chips with its 95% band"
SMALLER = (
    "A bigger network at low supply, or a smaller one at nominal? {Metric} against the energy of one inference, "
    "mean over chips with its 95% band"
)
ATTAINED = "Energy saved against {metric}, chip by chip: what half of the chips reach, and 5% to 95% of them"
YIELD = "Share of chips that stay within {wide} of clean, with its exact 95% interval"
SETTINGS = "Networks, accelerators and curves in one plot: the best that any protection reaches"
ENERGY = "Energy of one inference by layer, at nominal supply"
CURVE = (
    "Share of faulty cells against supply: the curve, dotted beyond its data, and the chips that were made from it, "
    f"mean and all of them, at {plots.MOST_SUPPLIES} supplies at the most"
)
BANK = "One bank of chip 0, which cells are faulty; how they gather in columns; their share against supply"
IMAGES = "Test images, what the generator makes of them, and the difference"
OWN = "Each chip's own lowest supply: how many chips have which, and the share that holds, with its exact 95% interval"
SENSITIVITY = "{Metric} {lost} the faults of one layer, or one bit, at a time"


@dataclass(frozen=True)
class Drawing:
    """A figure that is not drawn yet."""

    caption: str
    draw: Callable[[], Figure]


def drawings(
    folder: Path,
    study: StudyConfig,
    results: pd.DataFrame,
    summary: pd.DataFrame,
    layers: pd.DataFrame,
    energies: pd.DataFrame,
    scale: Scale,
) -> dict[str, Drawing]:
    """Every figure of the folder by the name of its file: what is asked first comes first."""
    found: dict[str, Drawing] = {}
    unit, chosen = study.curve.unit, plots.drawn(summary)
    summary, results = (table[table.protection.isin(chosen)] for table in (summary, results))
    keys = [key for key in pareto.SETTING if key not in ("structure", "rails")]
    groups = list(summary.groupby(keys, sort=False))
    for key, part in groups:
        tag, of = ("", "") if len(groups) == 1 else ("-" + slug(*map(str, key)), f" ({', '.join(map(str, key))})")
        if part.rails.nunique() > 1:
            found |= _of_rails(part, (unit, curve_of_role(study, "activations").unit), tag, of, scale)
            continue
        rows = pareto.whole(results[(results[keys] == list(key)).all(axis=1)])
        one_by_one = part[part["yield"].notna()]  # without those of which samples were measured
        found[f"accuracy{tag}"] = Drawing(
            _said(ACCURACY, scale) + of, partial(plots.accuracy_against_voltage, part, unit, scale)
        )
        for what, caption, draw, table, scopes in (
            ("pareto", FRONT, plots.energy_accuracy_front, part, pareto.SCOPES),
            ("attainment", ATTAINED, plots.attainment, rows, ("weight_sram", "chip")),
        ):
            for scope, label in ((scope, SCOPE_LABEL[scope]) for scope in scopes if len(table)):
                found[f"{what}-{scope}{tag}"] = Drawing(
                    f"{_said(caption, scale)}; {label}{of}", partial(draw, table, scope, scale)
                )
        found |= _of_smaller(study, part, tag, of, scale)
        if len(one_by_one):
            found[f"yield{tag}"] = Drawing(
                _said(YIELD, scale) + of, partial(plots.yield_against_voltage, one_by_one, unit, scale)
            )
    if len(groups) > 1:
        beside = summary.assign(setting=[", ".join(key) for key in summary[keys].astype(str).to_numpy()])
        found["settings"] = Drawing(SETTINGS, partial(plots.settings_front, beside, scale=scale))
    for (network, machine), part in energies.groupby(["network", "accelerator"], sort=False):
        of = f"{network} on {machine}"
        draw = partial(railplots.energy_by_rail, part, of)
        found[f"energy-{slug(network, machine)}"] = Drawing(f"{RAILS} ({of})", draw)
    for (network, machine), part in layers.groupby(["network", "accelerator"], sort=False):
        of = f"{network} on {machine}"
        found[f"layers-{slug(network, machine)}"] = Drawing(f"{ENERGY} ({of})", partial(_energy_by_layer, part, of))
    found["failure-curve"] = Drawing(CURVE, partial(plots.failure_curve, results, study.curve))
    for form in study.forms:
        found[f"bank-{slug(form)}"] = Drawing(f"{BANK} ({form} maps)", partial(_bank, folder, study, form))
    for path in sorted((folder / "images").glob("*.npz")):
        found[f"images-{path.stem}"] = Drawing(f"{IMAGES} ({path.stem})", partial(_images, path))
    return found


def _said(caption: str, scale: Scale) -> str:
    """A caption with what is measured, and its margins."""
    narrow, *_, wide = map(scale.within, scale.margins)
    lost = "lost to" if scale.higher_is_better else "added by"
    return caption.format(metric=scale.name, Metric=scale.name.capitalize(), narrow=narrow, wide=wide, lost=lost)


def _of_smaller(study: StudyConfig, part: pd.DataFrame, tag: str, of: str, scale: Scale) -> dict[str, Drawing]:
    """Figures of networks at nominal supply in place of the big one at low supply, and beside it."""
    second = {found.name: found for found in study.protections if found.second is not None}
    if not any(second[name].smaller for name in second.keys() & set(part.protection)):
        return {}
    rows, scopes = part[part.protection.isin(["none", *second])], ("weight_sram", "chip")
    draw = {scope: partial(plots.smaller_or_lower, rows, scope, scale) for scope in scopes}
    return {
        f"accuracy-energy-{scope}{tag}": Drawing(f"{_said(SMALLER, scale)}; {SCOPE_LABEL[scope]}{of}", draw[scope])
        for scope in scopes
    }


def _of_rails(part: pd.DataFrame, units: tuple[str, str], tag: str, of: str, scale: Scale) -> dict[str, Drawing]:
    """Figures of points that differ in more than the supply of the weights."""
    found = {}
    if min(part.voltage.nunique(), part.voltage_activations.nunique()) > 1:
        for form in part.structure.unique():
            draw = partial(railplots.supply_map, part, units, form, scale)
            found[f"accuracy-map-{slug(form)}{tag}"] = Drawing(f"{_said(MAP, scale)} ({form} maps){of}", draw)
    for scope, label in SCOPE_LABEL.items():
        draw = partial(railplots.rails_front, part, scope, scale)
        found[f"pareto-{scope}{tag}"] = Drawing(f"{_said(ALL_POINTS, scale)}; {label}{of}", draw)
    return found


def drawn_elsewhere(folder: Path, scale: Scale) -> dict[str, str]:
    """Names and captions of the figures of `neuralfuse yield` and `sensitivity` that lie in a folder."""
    found = {}
    for start, caption in (("own-supply", OWN), ("sensitivity", _said(SENSITIVITY, scale))):
        for path in sorted((folder / "plots").glob(f"{start}*.png")):
            of = path.stem.removeprefix(start).lstrip("-")
            found[path.stem] = f"{caption} ({of})" if of else caption
    return found


def _images(path: Path) -> Figure:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            original, changed, labels = (arrays[name] for name in ("original", "changed", "labels"))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise InputError(path, "images", str(error)[:200], "as they were written; delete it and sweep again") from None
    return plots.images(original, changed, labels.tolist())


def _energy_by_layer(layers: pd.DataFrame, of: str) -> Figure:
    layers = layers[:-1]  # without the totals
    components = {name.removesuffix("_pj"): layers[name].to_numpy() for name in layers if name.endswith("_pj")}
    return components_figure(layers.layer.tolist(), components, "system", f"{of}, nominal supply")


def _bank(folder: Path, study: StudyConfig, structure: str) -> Figure:
    """Chip 0 of the first network's memory, at the swept voltage where nearest to one cell in a hundred is faulty."""
    geometry = StudyFolder(folder, study).placement(study.networks[0].name, study.accelerators[0]).geometry
    rate = np.maximum(study.curve.probability(np.array(study.voltages)), 1e-300)
    voltage = study.voltages[int(np.abs(np.log(rate / 0.01)).argmin())]
    figure = mapplots.show(chip_map(study, geometry, structure, 0, study.voltage_floor), voltage)
    figure.axes[2].xaxis.set_inverted(True)  # supplies fall to the right in all figures
    return figure

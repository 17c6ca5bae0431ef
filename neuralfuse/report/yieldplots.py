"""Figure of a lot whose chips each have a lowest supply of their own."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neuralfuse.report.plots import RC, legend, looks, shown, supply_label
from neuralfuse.results.scale import ACCURACY

MOST_TICKS = 12


def own_supplies(shares: pd.DataFrame, unit: str, points: float) -> Figure:
    """How many chips have each supply as their own lowest one, above the share that holds there with its exact 95%
    interval; a column for each structure. `shares`: rows of each_chip_shares.csv of one network on one accelerator."""
    table = shown(shares)
    look, parts = looks(list(table.protection.unique())), list(table.groupby("structure", sort=False))
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(5.2 * len(parts), 5.6), layout="constrained")
        axes = figure.subplots(2, len(parts), squeeze=False, sharex="col", sharey="row")
        for (counted, share), (structure, part) in zip(axes.T, parts, strict=True):
            supplies = np.sort(part.voltage.unique())[::-1]
            for i, (name, style) in enumerate(look.items()):
                rows = part[part.protection == name].sort_values("voltage", ascending=False)
                if len(rows):
                    at = np.searchsorted(-supplies, -rows.voltage)
                    _bars(counted, rows, at, (i, len(look)), style["color"])
                    whiskers = np.stack([rows.share - rows.share_low, rows.share_high - rows.share])
                    label = {"label": name, "markersize": 4, "linewidth": 1.3, "capsize": 2}
                    share.errorbar(at, 100 * rows.share, 100 * whiskers, **label | style)
            counted.set_title(f"{structure} fault maps")
            ticks = list(range(0, len(supplies), -(-len(supplies) // MOST_TICKS)))
            names = [f"{supplies[i]:g}" for i in ticks]
            nowhere = bool((part.groupby("protection").own.sum() < part.chips.iloc[0]).any())
            share.set_xticks([-1] * nowhere + ticks, ["higher"] * nowhere + names, fontsize=7)
            share.set_xlabel(supply_label(unit).replace("SRAM", "Weight-SRAM"))
        axes[0, 0].set_ylabel("Chips with this lowest supply")
        axes[0, 0].yaxis.set_major_locator(MaxNLocator(integer=True))
        axes[1, 0].set_ylabel(f"Chips within {ACCURACY.within(points)} of clean (%)")
        axes[1, 0].set_ylim(-2, 102)
        legend(figure)
    return figure


def _bars(axis: Axes, rows: pd.DataFrame, at: np.ndarray, place: tuple[int, int], colour: str) -> None:
    """Chips by their own supply; those that hold at none stand left of the highest, hatched."""
    width = 0.8 / place[1]
    shift = (place[0] - (place[1] - 1) / 2) * width
    axis.bar(at + shift, rows.own, width, color=colour)
    nowhere = int(rows.chips.iloc[0] - rows.own.sum())
    if nowhere:
        axis.bar(-1 + shift, nowhere, width, color="white", edgecolor=colour, hatch="///")

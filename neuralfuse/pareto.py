"""From the rows of results.csv to the tables that people read: summaries over chips, margins, fronts, attainment."""

from collections.abc import Sequence

import moocore
import numpy as np
import pandas as pd

from neuralfuse.statistics import (
    Estimate,
    bootstrap_indices,
    bootstrap_interval,
    chip_yield,
    margin,
    paired_difference,
    t_interval,
)

SCOPES = ("weight_sram", "sram", "system")
SETTING = ["network", "dataset", "accelerator", "curve", "structure"]  # within one setting protections are compared
MARGINS = (1.0, 2.0, 5.0)


def settings(results: pd.DataFrame) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """The rows of each setting, in the order of the file."""
    return [(dict(zip(SETTING, key, strict=True)), group) for key, group in results.groupby(SETTING, sort=False)]


def accuracy_matrix(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of one protection in one setting: voltages falling (v,), chips (c,), accuracy (c, v).

    Only chips that were measured at every voltage are kept, so that a column is always the mean over the same chips;
    an adaptive run may have fewer of them than a single point has.
    """
    table = rows.pivot(index="chip", columns="voltage", values="accuracy").sort_index(axis=1, ascending=False).dropna()
    return table.columns.to_numpy(float), table.index.to_numpy(), table.to_numpy(float)


def clean_accuracy(rows: pd.DataFrame) -> float:
    """Accuracy of the bare network without a fault."""
    return float(rows.correct_clean.iloc[0] / rows.total.iloc[0])


def summarise(results: pd.DataFrame, points: float = 5.0) -> pd.DataFrame:
    """One row per setting, protection and voltage: accuracy over chips with both intervals, yield, worst chip, rates,
    energy, savings, and the paired difference to the unprotected network (`gain_*`).

    `yield` is the share of chips within `points` accuracy points of clean.
    """
    table = []
    for setting, group in settings(results):
        clean = clean_accuracy(group)
        bare = group[group.protection == "none"].set_index(["voltage", "chip"]).accuracy
        for (protection, voltage), rows in group.groupby(["protection", "voltage"], sort=False):
            accuracy = rows.accuracy.to_numpy()
            t, boot = t_interval(accuracy), bootstrap_interval(accuracy, resamples=2000)
            good = chip_yield(accuracy, clean - points / 100)
            record: dict = {
                **setting,
                "protection": protection,
                "voltage": voltage,
                "chips": t.chips,
                "clean_accuracy": clean,
                "accuracy_mean": t.mean,
                "accuracy_std": t.std,
                "accuracy_low": t.low,
                "accuracy_high": t.high,
                "accuracy_bootstrap_low": boot.low,
                "accuracy_bootstrap_high": boot.high,
                "accuracy_worst_chip": accuracy.min(),
                "accuracy_q10": np.quantile(accuracy, 0.1),
                "accuracy_median": np.median(accuracy),
                "accuracy_q90": np.quantile(accuracy, 0.9),
                "yield": good.mean,
                "yield_low": good.low,
                "yield_high": good.high,
            }
            keys = pd.MultiIndex.from_frame(rows[["voltage", "chip"]])
            if protection != "none" and len(bare) and keys.isin(bare.index).all():
                gain = paired_difference(accuracy, bare.loc[keys].to_numpy())
                record |= {"gain_mean": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
            for name in ("cell_fault_rate", "flip_rate"):
                record[name] = rows[name].mean()
            for name in [f"energy_{s}_pj" for s in SCOPES] + [f"saving_{s}" for s in SCOPES] + ["cycles"]:
                record[name] = rows[name].iloc[0]
            table.append(record)
    return pd.DataFrame(table)


def headline(results: pd.DataFrame, scope: str = "weight_sram", points: Sequence[float] = MARGINS) -> pd.DataFrame:
    """Lowest voltage, and saving there, at which accuracy stays within so many points of clean: per setting,
    protection."""
    table = []
    for setting, group in settings(results):
        for protection, rows in group.groupby("protection", sort=False):
            voltages, _, accuracy = accuracy_matrix(rows)
            saving = rows.groupby("voltage")[f"saving_{scope}"].first().loc[voltages].to_numpy()
            for within in points:
                found = margin(voltages, accuracy, saving, clean_accuracy(group), within)
                table.append({**setting, "protection": protection, "scope": scope, **found.__dict__})
    return pd.DataFrame(table)


def front(summary: pd.DataFrame, scope: str = "weight_sram") -> pd.DataFrame:
    """Of one setting's summary: the rows that no other beats in both mean accuracy and energy saving.

    >>> table = pd.DataFrame({"saving_sram": [0.1, 0.2, 0.15], "accuracy_mean": [0.9, 0.8, 0.7]})
    >>> front(table, "sram").index.tolist()
    [0, 1]
    """
    values = summary[[f"saving_{scope}", "accuracy_mean"]].to_numpy(float)
    return summary[moocore.is_nondominated(values, maximise=True)].sort_values(f"saving_{scope}")


def chip_points(rows: pd.DataFrame, scope: str) -> tuple[np.ndarray, np.ndarray]:
    """(saving, accuracy) of every chip and voltage (n, 2), and the chip that each row is of (n,)."""
    return rows[[f"saving_{scope}", "accuracy"]].to_numpy(float), rows.chip.to_numpy()


def attainment(rows: pd.DataFrame, scope: str, percentiles: Sequence[float] = (5, 50, 95)) -> dict[float, np.ndarray]:
    """The fronts that so many per cent of the chips reach or beat, each as (saving, accuracy) corners, saving rising.

    Each chip has a front of its own; their empirical attainment function is the band (Fonseca, Grunert da Fonseca
    2010).
    """
    points, chips = chip_points(rows, scope)
    _, sets = np.unique(chips, return_inverse=True)
    order = np.argsort(sets, kind="stable")  # the rows of one chip must stand together
    surfaces = moocore.eaf(-points[order], sets[order] + 1, percentiles=list(percentiles))
    result = {}
    for percentile in percentiles:
        surface = -surfaces[surfaces[:, 2] == percentile][:, :2]
        result[percentile] = surface[np.argsort(surface[:, 0])]
    return result


def hypervolume(rows: pd.DataFrame, scope: str) -> Estimate:
    """Area under each chip's front of saving (from 0) and accuracy (from 0), mean over chips with a t interval."""
    points, chips = chip_points(rows, scope)
    volumes = [moocore.hypervolume(points[chips == chip], ref=[0.0, 0.0], maximise=True) for chip in np.unique(chips)]
    return t_interval(np.array(volumes))


def accuracy_at_saving(rows: pd.DataFrame, scope: str, saving: float) -> Estimate:
    """Mean accuracy over chips where the energy saving is `saving`, linear between voltages; NaN outside the sweep."""
    voltages, _, accuracy = accuracy_matrix(rows)
    savings = rows.groupby("voltage")[f"saving_{scope}"].first().loc[voltages].to_numpy()  # rises as the voltage falls
    if not savings.min() <= saving <= savings.max():
        return Estimate(float("nan"), float("nan"), float("nan"), float("nan"), len(accuracy))
    return t_interval(np.array([np.interp(saving, savings, chip) for chip in accuracy]))


def saving_difference(
    treated: pd.DataFrame, control: pd.DataFrame, scope: str, accuracy: float, resamples: int = 2000
) -> Estimate:
    """Energy saving at equal mean accuracy, treated minus control, paired bootstrap over the chips that both share."""
    curves = []
    for rows in (treated, control):
        voltages, chips, matrix = accuracy_matrix(rows)
        savings = rows.groupby("voltage")[f"saving_{scope}"].first().loc[voltages].to_numpy()
        curves.append((savings, chips, matrix))
    common = np.intersect1d(curves[0][1], curves[1][1])

    def saving_at(which: int, picked: np.ndarray) -> float:
        savings, chips, matrix = curves[which]
        mean = matrix[np.searchsorted(chips, common)][picked].mean(axis=0)
        fails = np.flatnonzero(mean < accuracy)
        if len(fails) == 0:
            return float(savings[-1])
        i = int(fails[0])
        if i == 0:
            return float(savings[0])
        share = (mean[i - 1] - accuracy) / (mean[i - 1] - mean[i])
        return float(savings[i - 1] + share * (savings[i] - savings[i - 1]))

    draws = bootstrap_indices(len(common), resamples, seed=0)
    samples = np.array([saving_at(0, d) - saving_at(1, d) for d in draws])
    everyone = np.arange(len(common))
    low, high = np.quantile(samples, [0.025, 0.975])
    mean = saving_at(0, everyone) - saving_at(1, everyone)
    return Estimate(mean, float(samples.std(ddof=1)), float(low), float(high), len(common))

"""From the rows of results.csv to the tables that people read: summaries over chips, margins, fronts, attainment."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import moocore
import numpy as np
import pandas as pd

from neuralfuse.results.statistics import (
    DIFFERENCE,
    SHARE,
    Estimate,
    chip_margin,
    chip_yield,
    crossings,
    margin,
    mean_interval,
    mean_over_chips,
    paired_difference,
)

SCOPES = ("weight_sram", "sram", "system")
SETTING = ["network", "dataset", "accelerator", "curve", "structure"]  # within one setting protections are compared
MARGINS = (1.0, 2.0, 5.0)


def settings(results: pd.DataFrame) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """The rows of each setting, in the order of the file."""
    return [(dict(zip(SETTING, key, strict=True)), group) for key, group in results.groupby(SETTING, sort=False)]


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column `setting`: its structure, behind whatever else of SETTING there is more than one of.

    >>> rows = pd.DataFrame({"network": ["a", "b"], "structure": "iid", **dict.fromkeys(SETTING[1:4], "x")})
    >>> list(labelled(rows).setting), list(labelled(rows[:1]).setting)
    (['a, iid', 'b, iid'], ['iid'])
    """
    varying = [key for key in SETTING[:-1] if table[key].nunique() > 1]
    words = [", ".join(map(str, row)) for row in table[[*varying, SETTING[-1]]].itertuples(index=False)]
    return table.assign(setting=words)


def accuracy_matrix(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of one protection in one setting: voltages falling (v,), chips (c,), accuracy (c, v).

    Only chips that were measured at every voltage are kept, so that a column is always the mean over the same chips;
    an adaptive run may have fewer of them than a single point has.
    """
    voltages, chips, table = _matrix(rows, "accuracy")
    kept = ~np.isnan(table).any(axis=1)
    return voltages, chips[kept], table[kept]


def _matrix(rows: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voltages falling (v,), chips rising (c,), the column as (c, v), NaN where not measured; pandas' own pivot takes
    most of the time of a report with hundreds of protections."""
    minus, at = np.unique(-rows.voltage.to_numpy(float), return_inverse=True)
    chips, of = np.unique(rows.chip.to_numpy(), return_inverse=True)
    table = np.full((len(chips), len(minus)), np.nan)
    table[of, at] = rows[column].to_numpy(float)
    return -minus, chips, table


def saving_matrix(rows: pd.DataFrame, scope: str, voltages: np.ndarray, chips: np.ndarray) -> np.ndarray:
    """Of one protection in one setting: energy saving of these chips at these voltages (c, v).

    Chips differ where a protection gives each a supply of its own, as canaries do.
    """
    swept, measured, table = _matrix(rows, f"saving_{scope}")
    return table[np.searchsorted(measured, chips)][:, np.searchsorted(-swept, -voltages)]


def clean_accuracy(rows: pd.DataFrame) -> float:
    """Accuracy of the bare network without a fault."""
    return float(rows.correct_clean.iloc[0] / rows.total.iloc[0])


def summarise(results: pd.DataFrame, points: float = 5.0) -> pd.DataFrame:
    """One row per setting, protection and voltage: accuracy over chips with its interval, yield, worst chip, rates,
    energy, savings and cycles as means over chips, and the paired difference to the unprotected network (`gain_*`).

    `yield` is the share of chips within `points` accuracy points of clean.
    """
    table = []
    numbers = ["accuracy", "bare", "cell_fault_rate", "flip_rate", *(f"energy_{scope}_pj" for scope in SCOPES)]
    numbers += [f"saving_{scope}" for scope in SCOPES]
    for setting, group in settings(results):
        clean = clean_accuracy(group)
        bare = group[group.protection == "none"].set_index(["voltage", "chip"]).accuracy.rename("bare")
        group = group.join(bare, on=["voltage", "chip"])
        for (protection, voltage), rows in group.groupby(["protection", "voltage"], sort=False):
            values = rows[numbers].to_numpy(float)
            accuracy, unprotected = values[:, 0], values[:, 1]
            mean, quantiles = mean_interval(accuracy, within=SHARE), np.quantile(accuracy, (0.1, 0.5, 0.9))
            good = chip_yield(accuracy, clean - points / 100)
            record: dict = {
                **setting,
                "protection": protection,
                "voltage": voltage,
                "chips": mean.chips,
                "clean_accuracy": clean,
                "accuracy_mean": mean.mean,
                "accuracy_std": mean.std,
                "accuracy_low": mean.low,
                "accuracy_high": mean.high,
                "accuracy_worst_chip": accuracy.min(),
                **dict(zip(("accuracy_q10", "accuracy_median", "accuracy_q90"), quantiles, strict=True)),
                "yield": good.mean,
                "yield_low": good.low,
                "yield_high": good.high,
            }
            if protection != "none" and not np.isnan(unprotected).any():
                gain = paired_difference(accuracy, unprotected, within=DIFFERENCE)
                record |= {"gain_mean": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
            record |= dict(zip(numbers[2:], mean_over_chips(values[:, 2:]), strict=True))
            table.append(record | {"cycles": mean_over_chips(rows.cycles.to_numpy())})
    return pd.DataFrame(table)


def per_million_parameters(summary: pd.DataFrame, parameters: Mapping[str, int]) -> pd.DataFrame:
    """The summary with `parameters` of each protection's transform, and the points won back per million of them
    (Sun et al., arXiv 2306.16869, table 3); NaN without a transform."""
    if "gain_mean" not in summary:
        return summary
    count = summary.protection.map(dict(parameters)).astype(float)
    return summary.assign(parameters=count, gain_points_per_million_parameters=100e6 * summary.gain_mean / count)


def headline(results: pd.DataFrame, scope: str = "weight_sram", points: Sequence[float] = MARGINS) -> pd.DataFrame:
    """Lowest voltage, and mean saving there, at which accuracy stays within so many points of clean: per setting,
    protection."""
    table = []
    for setting, group in settings(results):
        for protection, rows in group.groupby("protection", sort=False):
            voltages, chips, accuracy = accuracy_matrix(rows)
            saving = mean_over_chips(saving_matrix(rows, scope, voltages, chips))
            for within in points:
                found = margin(voltages, accuracy, saving, clean_accuracy(group), within)
                table.append({**setting, "protection": protection, "scope": scope, **found.__dict__})
    return pd.DataFrame(table)


SHARES = (0.5, 0.9)  # of chips


def yields(results: pd.DataFrame, points: Sequence[float] = MARGINS, shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """Lowest swept voltage at which at least so many chips stay within so many points of clean, with an interval that
    is exact for any lot (`chip_margin`): per setting, protection, points, share."""
    table = []
    for setting, group in settings(results):
        for protection, rows in group.groupby("protection", sort=False):
            voltages, _, accuracy = accuracy_matrix(rows)
            for within in points:
                for share in shares:
                    found = chip_margin(voltages, accuracy, clean_accuracy(group), within, share)
                    table.append({**setting, "protection": protection, **found.__dict__})
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
    """Area under each chip's front of saving (from 0) and accuracy (from 0), mean over chips with its interval."""
    points, chips = chip_points(rows, scope)
    order = np.argsort(chips, kind="stable")
    fronts = np.split(points[order], np.flatnonzero(np.diff(chips[order])) + 1)
    volumes = [moocore.hypervolume(front, ref=[0.0, 0.0], maximise=True) for front in fronts]
    return mean_interval(np.array(volumes))


@dataclass(frozen=True)
class Trade:
    """One protection in one setting at one scope: what its chips reach for what it saves."""

    voltages: np.ndarray  # falling (v,)
    chips: np.ndarray  # numbers, rising (c,)
    accuracy: np.ndarray  # (c, v)
    savings: np.ndarray  # (c, v)

    @property
    def saving(self) -> np.ndarray:
        """Mean over the chips at each voltage (v,)."""
        return mean_over_chips(self.savings)

    @classmethod
    def of(cls, rows: pd.DataFrame, scope: str) -> "Trade":
        """From the rows of results.csv of one protection in one setting."""
        voltages, chips, accuracy = accuracy_matrix(rows)
        return cls(voltages, chips, accuracy, saving_matrix(rows, scope, voltages, chips))

    def among(self, chips: np.ndarray) -> "Trade":
        """Only these chips."""
        kept = np.searchsorted(self.chips, chips)
        return Trade(self.voltages, chips, self.accuracy[kept], self.savings[kept])

    def accuracy_at(self, saving: float) -> np.ndarray:
        """Accuracy of each chip (c,) where the supply first falls so far that this is saved on average, linear between
        voltages; NaN outside the sweep."""
        mean = self.saving
        enough = np.flatnonzero(mean >= saving)
        if len(enough) == 0 or (enough[0] == 0 and mean[0] > saving):
            return np.full(len(self.chips), np.nan)
        i = max(int(enough[0]), 1)
        share = (saving - mean[i - 1]) / (mean[i] - mean[i - 1])
        return self.accuracy[:, i - 1] + share * (self.accuracy[:, i] - self.accuracy[:, i - 1])

    def saving_at(self, accuracy: float, means: np.ndarray) -> np.ndarray:
        """Mean saving at the lowest voltage where a mean accuracy, each of `means` (n, v), holds, (n,); that of the
        highest voltage where it holds nowhere."""
        lowest = crossings(self.voltages, means, accuracy)
        return np.interp(lowest, self.voltages[::-1], self.saving[::-1])


def accuracy_at_saving(rows: pd.DataFrame, scope: str, saving: float) -> Estimate:
    """Mean accuracy over chips where the energy saving is `saving`, linear between voltages; NaN outside the sweep."""
    return mean_interval(Trade.of(rows, scope).accuracy_at(saving), within=SHARE)


def accuracy_difference(treated: pd.DataFrame, control: pd.DataFrame, scope: str, saving: float) -> Estimate:
    """Accuracy at equal energy saving, treated minus control, paired over the chips that both share; NaN outside one of
    the sweeps."""
    return _accuracy_between(*_on_the_same_chips(treated, control, scope), saving)


def _accuracy_between(ours: Trade, theirs: Trade, saving: float) -> Estimate:
    return paired_difference(ours.accuracy_at(saving), theirs.accuracy_at(saving), within=DIFFERENCE)


def saving_difference(treated: pd.DataFrame, control: pd.DataFrame, scope: str, accuracy: float) -> Estimate:
    """Energy saving at equal mean accuracy, treated minus control, over the chips that both share; NaN where they share
    none, NaN bounds where they share one.

    The interval is that of the jackknife's pseudo-values (Tukey, 1958): what each chip adds to the difference.
    """
    return saving_between(*_on_the_same_chips(treated, control, scope), accuracy)


def saving_between(ours: Trade, theirs: Trade, accuracy: float) -> Estimate:
    """`saving_difference` of two protections on the same chips."""
    chips, nan = len(ours.chips), float("nan")

    def all_of(trade: Trade) -> np.ndarray:
        return mean_over_chips(trade.accuracy)[None]

    def all_but_one(trade: Trade) -> np.ndarray:
        return (chips * all_of(trade) - trade.accuracy) / (chips - 1)

    def difference(means: Callable[[Trade], np.ndarray]) -> np.ndarray:
        return ours.saving_at(accuracy, means(ours)) - theirs.saving_at(accuracy, means(theirs))

    mean = float(difference(all_of)[0])
    if chips == 1:
        return Estimate(mean, nan, nan, nan, 1)
    without = difference(all_but_one)
    found = mean_interval(chips * mean - (chips - 1) * without)
    return Estimate(mean, found.std, mean + found.low - found.mean, mean + found.high - found.mean, chips)


def _on_the_same_chips(treated: pd.DataFrame, control: pd.DataFrame, scope: str) -> tuple[Trade, Trade]:
    ours, theirs = Trade.of(treated, scope), Trade.of(control, scope)
    common = np.intersect1d(ours.chips, theirs.chips)
    return ours.among(common), theirs.among(common)


EQUAL_SAVINGS = (0.1, 0.2, 0.3, 0.4, 0.5)


def at_equal(results: pd.DataFrame) -> pd.DataFrame:
    """Each protection against the unprotected network: energy saving at equal accuracy (`at`: accuracy, 1, 2 and 5
    points below clean), accuracy at equal energy (`at`: energy saving); every setting and scope, paired over chips.

    Energies no voltage of both was swept at are left out, and protections that share no chip with the unprotected
    network.
    """
    table = []
    for setting, group in settings(results):
        control, clean = group[group.protection == "none"], clean_accuracy(group)
        if control.empty:
            continue
        for protection, rows in group[group.protection != "none"].groupby("protection", sort=False):
            for scope in SCOPES:
                pair = _on_the_same_chips(rows, control, scope)
                below = [clean - points / 100 for points in MARGINS]
                found = [("saving", accuracy, saving_between(*pair, accuracy)) for accuracy in below]
                found += [("accuracy", saving, _accuracy_between(*pair, saving)) for saving in EQUAL_SAVINGS]
                for what, at, gain in found:
                    record = {"protection": protection, "scope": scope, "gain_in": what, "at": at}
                    record |= {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high, "chips": gain.chips}
                    table.append(setting | record)
    columns = [*SETTING, "protection", "scope", "gain_in", "at", "gain", "gain_low", "gain_high", "chips"]
    return pd.DataFrame(table, columns=columns).dropna(subset=["gain"]).reset_index(drop=True)

"""What a protection reaches for what it saves: accuracy and energy saving of each chip at each voltage, and how two
protections differ where both save, or reach, the same."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from neuralfuse.results.statistics import Estimate, crossings, mean_over_chips, student


@dataclass(frozen=True)
class Trade:
    """One protection in one setting at one scope."""

    voltages: np.ndarray  # falling (v,)
    chips: np.ndarray  # numbers, rising (c,)
    accuracy: np.ndarray  # (c, v)
    savings: np.ndarray  # (c, v); chips differ where a protection gives each a supply of its own, as canaries do

    @classmethod
    def of(cls, rows: pd.DataFrame, scope: str) -> "Trade":
        """From the rows of results.csv of one protection in one setting."""
        return cls.at_scopes(rows, scope)[scope]

    @classmethod
    def at_scopes(cls, rows: pd.DataFrame, *scopes: str) -> "dict[str, Trade]":
        """The same at each of `scopes`.

        Only chips that were measured at every voltage are kept, so that a column is always the mean over the same
        chips; an adaptive run may have fewer of them than a single point has. (pandas' own pivot would take most of the
        time of a report with hundreds of protections.)
        """
        minus, at = np.unique(-rows.voltage.to_numpy(float), return_inverse=True)
        chips, of = np.unique(rows.chip.to_numpy(), return_inverse=True)

        def matrix(column: str) -> np.ndarray:
            table = np.full((len(chips), len(minus)), np.nan)
            table[of, at] = rows[column].to_numpy(float)
            return table

        accuracy = matrix("accuracy")
        kept = ~np.isnan(accuracy).any(axis=1)
        return {scope: cls(-minus, chips[kept], accuracy[kept], matrix(f"saving_{scope}")[kept]) for scope in scopes}

    @property
    def saving(self) -> np.ndarray:
        """Mean over the chips at each voltage (v,)."""
        return mean_over_chips(self.savings)

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


def on_the_same_chips(ours: Trade, theirs: Trade) -> tuple[Trade, Trade]:
    """Both among the chips that they share."""
    common = np.intersect1d(ours.chips, theirs.chips)
    return ours.among(common), theirs.among(common)


def saving_between(ours: Trade, theirs: Trade, accuracy: float) -> Estimate:
    """Energy saving at equal mean accuracy, ours minus theirs, on the same chips; NaN where there are none, NaN bounds
    for one.

    The interval is Student's of the jackknife's pseudo-values (Tukey, 1958), what each chip adds to the difference.
    Their skewness is that of the bends of lines between voltages: to correct for it makes the interval cover less.
    """
    chips, nan = len(ours.chips), float("nan")
    if chips == 0:
        return Estimate(nan, nan, nan, nan, 0)

    def difference(less: bool) -> np.ndarray:
        """Over all chips (1,), or without each of them in turn (c,)."""
        found = []
        for trade in (ours, theirs):
            mean = mean_over_chips(trade.accuracy)[None]
            found.append(trade.saving_at(accuracy, (chips * mean - trade.accuracy) / (chips - 1) if less else mean))
        return found[0] - found[1]

    mean = float(difference(less=False)[0])
    if chips == 1:
        return Estimate(mean, nan, nan, nan, 1)
    spread = float((chips * mean - (chips - 1) * difference(less=True)).std(ddof=1))
    half = student(0.975, chips - 1) * spread / chips**0.5
    return Estimate(mean, spread, mean - half, mean + half, chips)

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

    def lowest(self, accuracy: float, means: np.ndarray) -> np.ndarray:
        """The lowest voltage where a mean accuracy, each of `means` (n, v), holds, (n,); the highest one where it holds
        nowhere."""
        return crossings(self.voltages, means, accuracy)

    def saving_at(self, voltages: np.ndarray) -> np.ndarray:
        """Mean saving at these voltages (n,), linear between those of the sweep."""
        return np.interp(voltages, self.voltages[::-1], self.saving[::-1])


def on_the_same_chips(ours: Trade, theirs: Trade) -> tuple[Trade, Trade]:
    """Both among the chips that they share."""
    common = np.intersect1d(ours.chips, theirs.chips)
    return ours.among(common), theirs.among(common)


def saving_between(accuracy: float, *pairs: tuple[Trade, Trade]) -> list[Estimate]:
    """Energy saving at equal mean accuracy, ours minus theirs, on the same chips: for each pair of these, which
    differ in the scope of their savings alone. NaN where there are no chips, NaN bounds for one.

    The interval is Student's of the jackknife's pseudo-values (Tukey, 1958), what each chip adds to the difference.
    Their skewness is that of the bends of lines between voltages: to correct for it makes the interval cover less.
    """
    chips, nan = len(pairs[0][0].chips), float("nan")
    if chips == 0:
        return [Estimate(nan, nan, nan, nan, 0)] * len(pairs)
    lowest = []  # over all chips, and without each of them in turn
    for trade in pairs[0]:
        mean = mean_over_chips(trade.accuracy)[None]
        without = (chips * mean - trade.accuracy) / max(chips - 1, 1)
        lowest.append(trade.lowest(accuracy, np.concatenate([mean, without])))
    found = []
    for ours, theirs in pairs:
        mean, *without = ours.saving_at(lowest[0]) - theirs.saving_at(lowest[1])
        spread = float((chips * mean - (chips - 1) * np.array(without)).std(ddof=1)) if chips > 1 else nan
        half = student(0.975, chips - 1) * spread / chips**0.5
        found.append(Estimate(float(mean), spread, float(mean) - half, float(mean) + half, chips))
    return found

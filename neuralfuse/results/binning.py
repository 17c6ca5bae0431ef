"""What it saves to sort chips by the lowest supply that each holds at: one supply for all, bins, each its own.

Chips are counted by level: how many supplies of a falling row each holds at, 0 of them for a chip that holds nowhere. A
chip of level k may run at any of the first k supplies, and runs at the one of least energy.
"""

from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
MOST_BINS = 4
CONFIDENCE = 0.95
AT_ONCE = 2**22  # numbers in memory, of all lots x supplies x supplies


@dataclass(frozen=True)
class Binned:
    """Chips sorted into bins. `bins` None: each chip at a supply of its own."""

    bins: int | None
    supplies: tuple[int, ...]  # of each bin, which of the row; () where each chip has its own
    chips: int  # that are kept: those that hold at the one supply
    energy_pj: float  # mean over them, of an inference
    saved: float  # share of what the one supply takes
    low: float  # 95%, over lots of so many chips: NaN where some would have no supply for the share
    high: float


def one_supply(counts: np.ndarray, share: float) -> np.ndarray:
    """The lowest supply at which at least a share of the chips hold, which of the row (m,); -1 where there is none.
    `counts` (m, k + 1): chips by level, of m lots.

    >>> one_supply(np.array([[1, 0, 4, 15]]), 0.95).tolist(), one_supply(np.array([[2, 0, 18]]), 0.95).tolist()
    ([1], [-1])
    """
    hold = counts[:, ::-1].cumsum(axis=1)[:, ::-1]  # at so many supplies or more
    return (hold >= share * counts.sum(axis=1, keepdims=True) - 1e-9).sum(axis=1) - 2


def binned(
    counts: np.ndarray, energy_pj: np.ndarray, share: float, most: int = MOST_BINS, seed: int = 0
) -> list[Binned]:
    """One supply for all, bins up to so many, and each chip its own, of the chips that hold at the lowest supply at
    which a `share` of them do; [] where there is none.

    `counts` (k + 1,): chips by level; `energy_pj` (k,): of an inference at each supply, falling. Bins are the best for
    these chips, by dynamic programming; so they are in each lot that is drawn from them for the interval (percentile
    bootstrap, Efron 1979).

    >>> found = binned(np.array([0, 4, 0, 6]), np.array([10.0, 9.0, 6.0]), share=1.0)
    >>> [(each.bins, each.supplies, each.energy_pj) for each in found[:2]], round(found[-1].saved, 2)
    ([(1, (0,), 10.0), (2, (0, 2), 7.6)], 0.24)
    """
    counts, energy_pj = np.asarray(counts), np.asarray(energy_pj, dtype=float)
    chips = int(counts.sum())
    first = int(one_supply(counts[None], share)[0])
    if first < 0:
        return []
    cheapest = np.minimum.accumulate(energy_pj)  # at a supply or above, which leakage may make the better one
    spent, begins = _spent(counts[None], cheapest, share, most)
    lots = np.random.default_rng(seed).multinomial(chips, counts / chips, RESAMPLES)
    parts = np.array_split(lots, -(-lots.size * len(energy_pj) // AT_ONCE))
    again = np.concatenate([_spent(part, cheapest, share, most)[0] for part in parts], axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(1 - again / again[:1], [tail, 1 - tail], axis=1)
    found = []
    for row, bins in enumerate([*range(1, most + 1), None]):
        supplies = tuple(int(energy_pj[: i + 1].argmin()) for i in begins[row])
        energy, saved = float(spent[row, 0]), float(1 - spent[row, 0] / spent[0, 0])
        kept = int(counts[first + 1 :].sum())
        found.append(Binned(bins, supplies, kept, energy, saved, float(low[row]), float(high[row])))
    return found


def _spent(counts: np.ndarray, energy: np.ndarray, share: float, most: int) -> tuple[np.ndarray, list[list[int]]]:
    """Mean energy of the kept chips of m lots (most + 2, m), at most so many bins and each its own; and the supplies at
    which the bins of the first lot begin. NaN for lots without a supply for the share. `energy` (k,) never rises."""
    lots, k = len(counts), len(energy)
    first = one_supply(counts, share)
    none = first < 0
    first = np.where(none, 0, first)
    kept = np.where(np.arange(k) >= first[:, None], counts[:, 1:], 0)  # by the lowest supply that a chip holds at
    before = np.concatenate([np.zeros((lots, 1), int), kept.cumsum(axis=1)], axis=1)  # chips (lots, k + 1)
    # What a bin costs that begins at supply i, for its chips before supply j; an empty one costs nothing.
    cost = energy[:, None] * (before[:, None, :] - before[:, :-1, None]).astype(float)
    cost = np.where(np.arange(k + 1) >= np.arange(k)[:, None], cost, np.inf)
    least = np.full((lots, k + 1), np.inf)
    least[np.arange(lots), first] = 0.0
    found, choices = [], []
    for _ in range(most):
        total = least[:, :-1, None] + cost
        choices.append(total[0].argmin(axis=0))
        least = total.min(axis=1)
        found.append(least[:, -1])
    mean = np.array([*found, kept @ energy]) / np.where(none, 1, before[:, -1])
    mean[:, none] = np.nan
    return mean, [_begins(choices[:bins], before[0]) for bins in range(1, most + 1)] + [[]]


def _begins(choices: list[np.ndarray], before: np.ndarray) -> list[int]:
    """Where bins with chips in them begin, from the last one back."""
    end, found = len(before) - 1, []
    for choice in reversed(choices):
        begin = int(choice[end])
        found += [begin] if before[end] > before[begin] else []
        end = begin
    return found[::-1]

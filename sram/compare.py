"""What one fault map looks like at a voltage, and how two of them differ."""

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from sram.errors import InputError
from sram.faultmap import FaultMap
from sram.inject import FLIP


@dataclass(frozen=True)
class Spread:
    """Faulty cells per group (column, row or bank of the whole memory)."""

    groups: int
    with_faults: int
    most: int
    variance_to_mean: float  # 1 where faults fall independently; nan without faults

    @staticmethod
    def of(counts: np.ndarray) -> "Spread":
        """The spread of counts int64[groups]."""
        mean = float(counts.mean())
        ratio = float(counts.var()) / mean if mean else float("nan")
        return Spread(counts.size, int(np.count_nonzero(counts)), int(counts.max()), ratio)


@dataclass(frozen=True)
class MapStatistics:
    """One chip at one voltage. Rates are shares of all cells, `curve_rate` is what the failure curve expects."""

    voltage: float
    cells: int
    faulty: int
    cell_fault_rate: float
    curve_rate: float
    flip_rate: float
    stuck_at_one: float  # share of the stuck cells; nan without any
    columns: Spread
    rows: Spread
    banks: Spread
    worst_tenth_of_banks: float  # share of the faults that it holds; nan without faults
    words_with_faults: float  # share of all words
    words_with_two_or_more: float
    adjacent_rows: float  # `adjacent_ratio`


@dataclass(frozen=True)
class Comparison:
    """Two maps of the same geometry at one voltage.

    `jaccard` is the share of cells faulty in both among those faulty in either; `jaccard_by_chance` what independent
    maps of these sizes would have. `same_kind` is the share of the common cells that fail the same way.
    `column_correlation` is Pearson's between the faults per column. Chi-square tests whether faults per column are
    distributed alike (columns with 0, 1, 2... faults, classes under 10 columns pooled): a small `p_value` says no.
    Columns count as independent, so clustering by bank makes the p-value a little too small.
    """

    a: MapStatistics
    b: MapStatistics
    both: int
    jaccard: float
    jaccard_by_chance: float
    b_given_a: float
    a_given_b: float
    same_kind: float
    column_correlation: float
    chi_square: float
    dof: int
    p_value: float


def per_column(fault_map: FaultMap, voltage: float) -> np.ndarray:
    """Faulty cells of each physical column, int64[banks, columns]."""
    geometry = fault_map.geometry
    bank, _, column = geometry.bank_row_column(fault_map.at(voltage).cell)
    counts = np.bincount(bank * geometry.columns + column, minlength=geometry.banks * geometry.columns)
    return counts.reshape(geometry.banks, geometry.columns)


def statistics(fault_map: FaultMap, voltage: float) -> MapStatistics:
    """Counts and clustering of the cells faulty at this voltage. Raises InputError below the map's floor.

    >>> from sram.faultmap import generate
    >>> from sram.geometry import Geometry
    >>> s = statistics(generate(0, Geometry(32), "ibm14", "column", voltage_floor=0.8), 0.8)
    >>> s.columns.groups, s.columns.variance_to_mean > 5, s.rows.variance_to_mean < 2
    (2048, True, True)
    """
    geometry = fault_map.geometry
    faults = fault_map.at(voltage)
    faulty = len(faults.cell)
    columns = per_column(fault_map, voltage)
    rows = np.bincount(faults.cell // geometry.columns, minlength=geometry.banks * geometry.rows)
    banks = columns.sum(axis=1)
    word, _ = geometry.word_bit(faults.cell)
    per_word = np.unique(word, return_counts=True)[1]
    stuck = faults.kind[faults.kind != FLIP]
    worst = np.sort(banks)[::-1][: -(-geometry.banks // 10)].sum()
    return MapStatistics(
        voltage=voltage,
        cells=geometry.cells,
        faulty=faulty,
        cell_fault_rate=faulty / geometry.cells,
        curve_rate=float(fault_map.curve.probability(voltage)),
        flip_rate=fault_map.flip_rate(voltage),
        stuck_at_one=float(stuck.mean()) if len(stuck) else float("nan"),
        columns=Spread.of(columns),
        rows=Spread.of(rows),
        banks=Spread.of(banks),
        worst_tenth_of_banks=float(worst / faulty) if faulty else float("nan"),
        words_with_faults=len(per_word) / geometry.words,
        words_with_two_or_more=int((per_word >= 2).sum()) / geometry.words,
        adjacent_rows=adjacent_ratio(fault_map, voltage),
    )


def pairs_apart(fault_map: FaultMap, voltage: float, rows: int) -> np.ndarray:
    """Pairs of faulty cells of one column that lie so many rows apart, int64[banks]."""
    geometry = fault_map.geometry
    bank, row, column = geometry.bank_row_column(fault_map.at(voltage).cell)
    place = (bank * geometry.columns + column) * (geometry.rows + rows) + row
    return np.bincount(bank[np.isin(place + rows, place)], minlength=geometry.banks)


def adjacent_ratio(fault_map: FaultMap, voltage: float) -> float:
    """How many times as often neighbouring rows of a column fail together as if its faults were shuffled.

    1 where cells of a column fail independently; nan where no column has two faults. Of n faults in one of r rows,
    shuffled, n (n - 1) / r pairs are neighbours.
    """
    n = per_column(fault_map, voltage).ravel()
    by_chance = float((n * (n - 1)).sum()) / fault_map.geometry.rows
    return _share(int(pairs_apart(fault_map, voltage, 1).sum()), by_chance)


def compare(a: FaultMap, b: FaultMap, voltage: float) -> Comparison:
    """Overlap, column statistics and a chi-square of two maps. Raises InputError unless geometry and unit agree."""
    if a.geometry != b.geometry:
        raise InputError("compare", "geometry", b.geometry, f"that of the first map, {a.geometry}")
    if a.curve.unit != b.curve.unit:
        raise InputError("compare", "unit", b.curve.unit, f"that of the first map, {a.curve.unit!r}")
    of_a, of_b = a.at(voltage), b.at(voltage)
    _, in_a, in_b = np.intersect1d(of_a.cell, of_b.cell, assume_unique=True, return_indices=True)
    both, either = len(in_a), len(of_a.cell) + len(of_b.cell) - len(in_a)
    by_chance = len(of_a.cell) * len(of_b.cell) / a.geometry.cells
    columns_a, columns_b = per_column(a, voltage).ravel(), per_column(b, voltage).ravel()
    chi_square, dof = _two_sample(columns_a, columns_b)
    varies = columns_a.std() > 0 and columns_b.std() > 0
    return Comparison(
        a=statistics(a, voltage),
        b=statistics(b, voltage),
        both=both,
        jaccard=_share(both, either),
        jaccard_by_chance=_share(by_chance, len(of_a.cell) + len(of_b.cell) - by_chance),
        b_given_a=_share(both, len(of_a.cell)),
        a_given_b=_share(both, len(of_b.cell)),
        same_kind=_share(int((of_a.kind[in_a] == of_b.kind[in_b]).sum()), both),
        column_correlation=float(np.corrcoef(columns_a, columns_b)[0, 1]) if varies else float("nan"),
        chi_square=chi_square,
        dof=dof,
        p_value=float(chdtrc(dof, chi_square)) if dof else 1.0,
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _two_sample(a: np.ndarray, b: np.ndarray) -> tuple[float, int]:
    """Chi-square and degrees of freedom of two samples of counts, equally many of them: sum (x - y)^2 / (x + y)."""
    top = int(max(a.max(), b.max())) + 1
    x, y = np.bincount(a, minlength=top).astype(float), np.bincount(b, minlength=top).astype(float)
    classes: list[list[float]] = []
    for more_x, more_y in zip(x[::-1], y[::-1], strict=True):  # from the fullest columns down: the rare classes pool
        if classes and sum(classes[-1]) < 10:
            classes[-1][0] += more_x
            classes[-1][1] += more_y
        else:
            classes.append([more_x, more_y])
    pooled = np.array(classes)
    if len(pooled) > 1 and pooled[-1].sum() < 10:  # where most columns have faults, the emptiest are rare too
        pooled = np.vstack([pooled[:-2], pooled[-2] + pooled[-1]])
    return float(((pooled[:, 0] - pooled[:, 1]) ** 2 / pooled.sum(axis=1)).sum()), len(pooled) - 1

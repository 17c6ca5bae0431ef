"""Failure curves from counts: binomial maximum likelihood in probit, with confidence bands."""

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc, log_ndtr, ndtr, ndtri

from sram.errors import InputError
from sram.failure import FailureCurve, Probit

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FaultCounts:
    """Faulty cells among the cells tested at each voltage, voltages rising: float64[n] each."""

    voltage: Array
    faulty: Array
    cells: Array

    @property
    def same_cells(self) -> bool:
        """True where every voltage tested as many cells: one memory, swept, whose faulty cells are nested."""
        return bool((self.cells == self.cells[0]).all())


@dataclass(frozen=True, eq=False)
class CurveFit:
    """A fitted curve, what it was fitted to, and how sure it is.

    `covariance` belongs to the coefficients of (1, x, x^2), x = (v - centre) / (high - low). `chi_square` on `dof`
    degrees of freedom is Pearson's; `p_value` how often chance alone would exceed it.
    """

    curve: FailureCurve
    counts: FaultCounts
    covariance: Array
    chi_square: float
    dof: int

    @property
    def line(self) -> Probit:
        """The fitted mu, sigma and quadratic term."""
        assert isinstance(self.curve.shape, Probit)
        return self.curve.shape

    @property
    def p_value(self) -> float:
        """How often chance alone would exceed `chi_square`; 1 without degrees of freedom."""
        return float(chdtrc(self.dof, self.chi_square)) if self.dof else 1.0

    @property
    def dispersion(self) -> float:
        """Variance over binomial variance, at least 1; the bands are widened by its root (McCullagh and Nelder)."""
        return max(1.0, self.chi_square / self.dof) if self.dof else 1.0

    def z_error(self, v: ArrayLike) -> Array:
        """Standard error of z at v."""
        line = self.line
        x = (np.asarray(v, dtype=np.float64) - line.centre) / (line.high - line.low)
        basis = _basis(x, len(self.covariance))
        return np.sqrt(np.einsum("...i,ij,...j", basis, self.covariance, basis) * self.dispersion)

    def band(self, v: ArrayLike, confidence: float = 0.95) -> tuple[Array, Array]:
        """(low, high) probability at v: pointwise interval of this memory's curve, computed in z, any shape of v."""
        margin = ndtri(0.5 + confidence / 2) * self.z_error(v)
        z = self.curve.z(v)
        return ndtr(z - margin), ndtr(z + margin)


def _basis(x: Array, terms: int) -> Array:
    """(..., terms): 1, x, x^2, the parabola going straight on beyond |x| = 1/2 as the curve does."""
    inside = np.clip(x, -0.5, 0.5)
    return np.stack([np.ones_like(x), x, inside * (2 * x - inside)][:terms], axis=-1)


def read_counts(path: str | os.PathLike) -> FaultCounts:
    """Counts from a CSV file with the columns voltage, faulty_cells, cells; lines that start with # are skipped."""
    columns = ("voltage", "faulty_cells", "cells")
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, "file", str(error)[:80], "a readable CSV file") from None
    reader = csv.DictReader(line for line in lines if line.strip() and not line.startswith("#"))
    try:
        rows, names = list(reader), list(reader.fieldnames or [])
    except csv.Error as error:
        raise InputError(path, "file", str(error)[:80], "a readable CSV file") from None
    if not rows or not set(columns) <= set(names):
        raise InputError(path, "columns", names or "none", f"{', '.join(columns)}, with commas between, and rows below")
    values = np.empty((len(rows), 3))
    for i, row in enumerate(rows):
        if any(row.get(None, [])):  # DictReader's key for what is left over, as of decimal commas
            raise InputError(path, f"row {i + 1}", f"{len(names) + len(row[None])} values", f"{len(names)} in each")
        for j, column in enumerate(columns):
            try:
                values[i, j] = float(row[column])
            except (TypeError, ValueError):
                raise InputError(path, f"{column}, row {i + 1}", row[column], "a number") from None
    return counts(values[:, 0], values[:, 1], values[:, 2], where=path)


def counts(voltage: ArrayLike, faulty: ArrayLike, cells: ArrayLike, where: object = "counts") -> FaultCounts:
    """Counts in rising voltage; one number of `cells` holds for all. InputError unless 0 <= faulty <= cells, whole."""
    v, k, n = (np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in (voltage, faulty, cells))
    n = np.broadcast_to(n, v.shape) if len(n) == 1 else n
    if not len(v) == len(k) == len(n):
        raise InputError(where, "length", (len(v), len(k), len(n)), "as many faulty and cells as voltages")
    for i in range(len(v)):
        if not (np.isfinite(v[i]) and 0 <= k[i] <= n[i] and n[i] > 0 and k[i] % 1 == 0 and n[i] % 1 == 0):
            allowed = "whole numbers with 0 <= faulty_cells <= cells and cells > 0, a finite voltage"
            raise InputError(where, f"row {i + 1}", (float(v[i]), float(k[i]), float(n[i])), allowed)
    order = np.argsort(v, kind="stable")
    return FaultCounts(v[order], k[order], n[order])


def fit(
    name: str,
    data: FaultCounts,
    *,
    quadratic: bool = False,
    unit: str = "V",
    nominal: float = 1.0,
    source: str = "",
    node_nm: float | None = None,
) -> CurveFit:
    """The probit curve under which the counts are most likely; `quadratic` lets it bend.

    Voltages without a fault count too. The estimate treats voltages as independent; its covariance does not: where
    every voltage tested the same cells, a cell that fails at one voltage fails at every lower one, so the counts of two
    voltages share faults (the covariance is the sandwich of the two, Huber 1967). Raises InputError where the counts do
    not determine a falling curve, and where the same cells are counted twice at one voltage.

    >>> data = counts([0.60, 0.55, 0.50], [2, 130, 5500], 1_000_000)
    >>> found = fit("mine", data)
    >>> round(found.curve.shape.mu, 3), round(found.curve.shape.sigma, 4)
    (0.385, 0.0453)
    """
    terms = 3 if quadratic else 2
    repeated = data.voltage[1:][data.voltage[1:] == data.voltage[:-1]]
    if data.same_cells and len(repeated):
        # A second count of the same cells is not another sample, and which of two that differ holds is not for us.
        allowed = "each voltage once: of one memory a single count, of several memories the sums of faulty_cells, cells"
        raise InputError(name, "voltage", float(repeated[0]), allowed)
    informative = np.unique(data.voltage[(data.faulty > 0) & (data.faulty < data.cells)])
    if len(informative) < terms:
        allowed = f"faults, but not in every cell, at {terms} voltages at least"
        raise InputError(name, "voltages", informative.tolist(), allowed)
    low, high = float(data.voltage[0]), float(data.voltage[-1])
    basis = _basis((data.voltage - (low + high) / 2) / (high - low), terms)
    beta = _maximise(basis, data)
    slope, bend = beta[1] / (high - low), (beta[2] if quadratic else 0.0) / (high - low) ** 2
    if slope >= 0:
        raise InputError(name, "faulty_cells", data.faulty.tolist(), "more faults at lower voltages")
    sigma = -1 / slope
    shape = Probit(float((low + high) / 2 + sigma * beta[0]), float(sigma), float(bend), low, high)
    chi_square, classes = _pearson(basis @ beta, data)
    curve = FailureCurve(name, shape, unit, nominal, source, node_nm)
    return CurveFit(curve, data, _covariance(basis, data, beta), chi_square, max(classes - terms, 0))


def _mills(z: Array) -> Array:
    """phi(z) / Phi(z), by logarithms so that it holds far into the tail."""
    return np.exp(-0.5 * z**2 - 0.5 * np.log(2 * np.pi) - log_ndtr(z))


def _log_likelihood(z: Array, data: FaultCounts) -> float:
    return float(data.faulty @ log_ndtr(z) + (data.cells - data.faulty) @ log_ndtr(-z))


def _maximise(basis: Array, data: FaultCounts) -> Array:
    """Fisher scoring with step halving; the log likelihood is concave, so there is one maximum."""
    start = ndtri((data.faulty + 0.5) / (data.cells + 1))
    beta = np.linalg.lstsq(basis, start, rcond=None)[0]
    best = _log_likelihood(basis @ beta, data)
    for _ in range(100):
        z = basis @ beta
        up, down = _mills(z), _mills(-z)
        score = basis.T @ (data.faulty * up - (data.cells - data.faulty) * down)
        step = np.linalg.solve((basis * (data.cells * up * down)[:, None]).T @ basis, score)
        for _ in range(40):
            value = _log_likelihood(basis @ (beta + step), data)
            if value >= best:
                break
            step /= 2
        else:
            break
        beta, best = beta + step, value
        if np.abs(step).max() < 1e-12 * (1 + np.abs(beta).max()):
            break
    return beta


def _covariance(basis: Array, data: FaultCounts, beta: Array) -> Array:
    """Covariance of the coefficients before widening, from the covariance of the counts."""
    z, n = basis @ beta, data.cells
    p, works, up, down = ndtr(z), ndtr(-z), _mills(z), _mills(-z)
    if data.same_cells:  # nested: cov(k_i, k_j) = n p (1 - p') with p the smaller of the two
        spread = n[0] * np.minimum.outer(p, p) * np.minimum.outer(works, works)
    else:
        spread = np.diag(n * p * works)
    bread = np.linalg.inv((basis * (n * up * down)[:, None]).T @ basis)
    gain = basis * (up + down)[:, None]  # d score / d count
    return bread @ gain.T @ spread @ gain @ bread


def _pearson(z: Array, data: FaultCounts) -> tuple[float, int]:
    """Pearson's chi-square, and of how many independent counts; those that cannot be but what they are do not count.

    Nested counts are independent only in their steps: the cells that fail at a voltage and at no higher one, and those
    that never fail, are a multinomial sample.
    """
    n = data.cells
    p, works = ndtr(z), ndtr(-z)
    if data.same_cells:
        # Each share from the side on which it does not cancel: 1 - p rounds to 0 long before the tail is empty.
        step = np.where(z[:-1] > 0, np.diff(works), -np.diff(p))
        expected = n[0] * np.concatenate([works[:1], step, p[-1:]])
        steps = np.concatenate([n[:1] - data.faulty[:1], -np.diff(data.faulty), data.faulty[-1:]])
        possible = expected > 0
        chi_square = ((steps - expected)[possible] ** 2 / expected[possible]).sum()
        return float(chi_square), int(possible.sum()) - 1
    variance = n * p * works
    possible = variance > 0
    return float(((data.faulty - n * p)[possible] ** 2 / variance[possible]).sum()), int(possible.sum())

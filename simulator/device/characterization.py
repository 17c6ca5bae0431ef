"""What the readings of a chip say: polarity, repeatability, rates with intervals, a failure curve, a fault map,
columns."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from simulator.device.protocol import DeviceInfo
from simulator.device.readings import PATTERNS, Reading, stored_bit
from sram import curvefit
from sram.geometry import Geometry
from sram.structure import Structure
from sram.weakcells import NOISE_REACH, FaultMap


@dataclass(frozen=True, eq=False)
class Characterization:
    """Readings at falling voltages, `repeats` of each pattern. What they say is in the properties and `columns`."""

    info: DeviceInfo
    repeats: int
    readings: tuple[Reading, ...]

    @property
    def geometry(self) -> Geometry:
        """The device's memory."""
        return self.info.geometry

    @property
    def voltages(self) -> NDArray[np.float64]:
        """Voltages of the readings, float64[voltages], falling."""
        return np.array([reading.voltage for reading in self.readings])

    @cached_property
    def cell(self) -> NDArray[np.int64]:
        """Every cell that ever read wrong, rising; int64[n]."""
        cells = np.concatenate([np.empty(0, np.int64), *(reading.cell for reading in self.readings)])
        cells.sort(kind="stable")  # a merge of sorted runs
        return cells[np.diff(cells, prepend=-1) > 0]

    @cached_property
    def wrong(self) -> NDArray[np.uint16]:
        """Wrong reads of `cell` by voltage and pattern; uint16[n, voltages, 4]."""
        wrong = np.zeros((len(self.cell), len(self.readings), len(PATTERNS)), np.uint16)
        for i, reading in enumerate(self.readings):
            wrong[np.searchsorted(self.cell, reading.cell), i] = reading.wrong
        return wrong

    @cached_property
    def kind(self) -> NDArray[np.uint8]:
        """Polarity of `cell`: 0 stuck at 0 (wrong where 1 is stored), 1 stuck at 1, 2 flip (wrong either way);
        uint8[n]."""
        ones = self._stored_one
        total = self.wrong.sum(axis=1, dtype=np.int64)
        with_one, with_zero = (total * ones).sum(axis=1), (total * ~ones).sum(axis=1)
        flip = 2 * np.minimum(with_one, with_zero) > np.maximum(with_one, with_zero)
        return np.where(flip, 2, with_zero > with_one).astype(np.uint8)

    @cached_property
    def share(self) -> NDArray[np.float64]:
        """Share of the reads that could show the fault of `cell` and did; float64[n, voltages]."""
        shown = np.zeros(self.wrong.shape[:2])
        for p in range(len(PATTERNS)):
            shown += self.wrong[:, :, p] * self._shows[:, p, None]
        return shown / self._chances[:, None]

    @property
    def repeatability(self) -> NDArray[np.float64]:
        """Share of wrong reads, float64[n], at the highest voltage where `cell` fails more often than not; 1 steady."""
        fails = self.share > 0.5
        first = fails.argmax(axis=1)
        return np.where(fails.any(axis=1), np.take_along_axis(self.share, first[:, None], axis=1)[:, 0], 0.0)

    @property
    def faulty(self) -> NDArray[np.int64]:
        """Cells that fail more often than not at each voltage; int64[voltages]."""
        return (self.share > 0.5).sum(axis=0)

    @property
    def flip_rate(self) -> NDArray[np.float64]:
        """Share of all bits read, over patterns and repeats, that were wrong at each voltage; float64[voltages]."""
        reads = self.geometry.cells * self.repeats * len(PATTERNS)
        return np.array([reading.wrong.sum(dtype=np.int64) / reads for reading in self.readings])

    @property
    def company_only(self) -> int:
        """Cells that read wrong under a checkerboard and never under a solid pattern."""
        total = self.wrong.sum(axis=1, dtype=np.int64)
        return int(((total[:, :2].sum(axis=1) == 0) & (total[:, 2:].sum(axis=1) > 0)).sum())

    def interval(self, confidence: float = 0.95) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(low, high) of the cell fault rate at each voltage: Clopper and Pearson, Biometrika 26, 1934."""
        k, n, tail = self.faulty, self.geometry.cells, (1 - confidence) / 2
        low = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, tail), 0.0)
        return low, np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), 1 - tail), 1.0)

    def fit(self) -> curvefit.CurveFit:
        """The failure curve under which the counts are most likely. InputError unless two voltages have faults."""
        counts = curvefit.counts(self.voltages, self.faulty, self.geometry.cells, where=self.info.title)
        unit, nominal = self.info.voltage_unit, self.info.voltage_nominal
        source = f"characterized: {self.info.name}, {self.info.memory}"
        return curvefit.fit(self.info.title, counts, unit=unit, nominal=nominal, source=source)

    def noise_voltage(self) -> float:
        """Standard deviation of a cell's critical voltage from read to read; 0 where no cell is intermittent.

        For a normal threshold of width w the area under p (1 - p) over voltage is w / sqrt(pi); p (1 - p) is
        estimated without bias by k (r - k) / (r (r - 1)). Cells whose change lies wholly within the voltages read
        are averaged.
        """
        whole = (self.share[:, 0] == 0) & (self.share[:, -1] == 1)
        if self.repeats < 2 or len(self.readings) < 2 or not whole.any():
            return 0.0
        p, reads = self.share[whole], self._chances[whole][:, None]
        spread = p * (1 - p) * reads / (reads - 1)
        widths = -np.gradient(self.voltages)
        return float(np.sqrt(np.pi) * (spread * widths).sum(axis=1).mean())

    def fault_map(self) -> FaultMap:
        """The chip as a FaultMap down to the lowest voltage read.

        A cell's critical voltage is the mean of its threshold (Spearman and Karber): the middle between the last
        voltage where it reads right and the first where it fails if it is steady, so within half a step of the
        truth. Repeatability becomes `noise`.
        """
        voltages, width = self.voltages, self.noise_voltage()
        middle = np.concatenate([voltages[:1], (voltages[:-1] + voltages[1:]) / 2])
        if len(voltages) > 1:
            middle[0] += (voltages[0] - voltages[1]) / 2
            last = voltages[-1] - (voltages[-2] - voltages[-1]) / 2
        else:
            last = voltages[-1]
        rise = np.diff(self.share, axis=1, prepend=0.0)
        critical = (rise @ middle + (1 - self.share[:, -1]) * last).astype(np.float32)
        floor = float(voltages[-1])
        keep = np.flatnonzero(critical > floor - NOISE_REACH * width)
        keep = keep[np.lexsort((self.cell[keep], -critical[keep]))]
        return FaultMap(
            geometry=self.geometry,
            curve=self.fit().curve,
            structure=Structure(),
            chip=0,
            seed=0,
            voltage_floor=floor,
            cell=self.cell[keep],
            critical_voltage=critical[keep],
            kind=self.kind[keep],
            noise=np.full(len(keep), width, np.float32) if width else None,
        )

    def columns(self) -> dict[str, float]:
        """How faults at the lowest voltage gather in physical columns, and for contrast in rows and banks.

        Variance to mean is 1 for cells that fail independently; column structure raises it.
        """
        g = self.geometry
        cell = self.cell[self.share[:, -1] > 0.5]
        bank, row, column = g.bank_row_column(cell)
        by_column = np.bincount(bank * g.columns + column, minlength=g.banks * g.columns)
        by_row = np.bincount(bank * g.rows + row, minlength=g.banks * g.rows)
        by_bank = np.bincount(bank, minlength=g.banks)
        return {
            "faulty_cells": float(len(cell)),
            "column_variance_to_mean": _dispersion(by_column),
            "row_variance_to_mean": _dispersion(by_row),
            "clean_columns_share": float((by_column == 0).mean()),
            "clean_banks_share": float((by_bank == 0).mean()),
            "worst_column_faults": float(by_column.max()),
            "worst_tenth_of_columns_share": _worst_tenth(by_column),
        }

    @cached_property
    def _stored_one(self) -> NDArray[np.bool_]:
        """Whether each pattern stores a 1 in `cell`; bool[n, 4]."""
        return np.stack([stored_bit(self.geometry, self.cell, p) for p in range(len(PATTERNS))], axis=1)

    @cached_property
    def _shows(self) -> NDArray[np.bool_]:
        """Whether each pattern can show the fault of `cell`; bool[n, 4]."""
        kind = self.kind[:, None]
        return (kind == 2) | (self._stored_one == (kind == 0))

    @property
    def _chances(self) -> NDArray[np.int64]:
        return self._shows.sum(axis=1, dtype=np.int64) * self.repeats


def _dispersion(counts: NDArray[np.int64]) -> float:
    return float(counts.var() / counts.mean()) if counts.any() else 0.0


def _worst_tenth(counts: NDArray[np.int64]) -> float:
    worst = np.sort(counts)[::-1][: max(1, len(counts) // 10)]
    return float(worst.sum() / counts.sum()) if counts.any() else 0.0

"""Does a characterisation find the hidden chip, whole and cell for cell, and nothing else?"""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from simulator.device import readings as patterns
from simulator.device.characterization import Characterization
from simulator.device.characterize import characterize, parse_voltages, steps_down
from simulator.device.protocol import DeviceInfo
from simulator.device.readings import PATTERNS, Reading
from simulator.device.simulated import SimulatedChip
from sram import faultmap
from sram.errors import InputError
from sram.geometry import Geometry
from sram.memory import Chip, Memory

GEOMETRY = Geometry(8, rows=128, columns=64, word_bits=32)
STEP = 0.01
VOLTAGES = np.arange(1.0, 0.7495, -STEP)


def hidden(noise=0.0, seed=3, **options):
    return Chip(11, seed).fault_map(Memory(GEOMETRY, "ibm14", **options), 0.74, noise=noise)


def read(fault_map, **options):
    with SimulatedChip(fault_map, voltage_step=STEP) as chip:
        return characterize(chip, **{"voltages": VOLTAGES, "repeats": 3, "stop_rate": 1.0, **options})


@pytest.mark.parametrize("options", [{}, {"structure": "column", "stuck_at_one": 0.9}, {"mode": "flip"}])
def test_the_recovered_map_is_the_hidden_one_within_a_step(options):
    truth, found = hidden(**options), read(hidden(**options))
    recovered = found.fault_map()
    assert recovered.noise is None
    assert (found.repeatability == 1).all()
    for voltage in found.voltages:
        assert set(recovered.at(voltage).cell) == set(truth.at(voltage).cell)
    n = truth.count(recovered.voltage_floor)
    assert len(recovered) == n > 1000
    true_order, order = np.argsort(truth.cell[:n]), np.argsort(recovered.cell)
    assert (recovered.cell[order] == truth.cell[:n][true_order]).all()
    assert (recovered.kind[order] == truth.kind[:n][true_order]).all()
    error = recovered.critical_voltage[order].astype(float) - truth.critical_voltage[:n][true_order]
    assert np.abs(error).max() <= STEP / 2 + 1e-6


def test_the_recovered_map_is_a_map_like_any_other(tmp_path):
    recovered = read(hidden()).fault_map()
    loaded = faultmap.load(faultmap.save(recovered, tmp_path / "map.npz"))  # load checks order and ranges
    assert loaded.count(0.8) == recovered.count(0.8)
    with SimulatedChip(recovered, voltage_step=STEP) as copy, SimulatedChip(hidden(), voltage_step=STEP) as chip:
        for device in (copy, chip):
            device.write(0, np.arange(device.info.words, dtype=np.uint64))
            device.set_voltage(0.8)
        assert (copy.read(0, copy.info.words) == chip.read(0, chip.info.words)).all()


def test_rates_are_those_of_the_map_and_the_curve_that_of_the_chip():
    truth, found = hidden(), read(hidden())
    assert found.faulty.tolist() == [truth.count(voltage) for voltage in found.voltages]
    low, high = found.interval()
    rate = found.faulty / GEOMETRY.cells
    assert ((low <= rate) & (rate <= high)).all()
    assert found.flip_rate[-1] == pytest.approx(truth.flip_rate(found.voltages[-1]), rel=1e-12)
    fit = found.fit()
    curve = truth.curve
    for voltage in (0.78, 0.82, 0.86):
        low, high = fit.band(voltage, confidence=0.9999)  # one false alarm in three thousand runs of this test
        assert low < curve.probability(voltage) < high


def test_intervals_hold_the_true_rate_as_often_as_they_say():
    """Clopper-Pearson intervals are exact: of 95% ones at most 5% miss, here counted over all outcomes, not drawn."""
    info = SimulatedChip(hidden()).info
    for rate in (1e-4, 0.003):
        missed = 0.0
        for k in range(int(rate * GEOMETRY.cells) + 200):
            weight = binom.pmf(k, GEOMETRY.cells, rate)
            if weight > 1e-9:
                reading = Reading(0.8, np.arange(k), np.ones((k, 4), np.uint16))
                low, high = Characterization(info, 1, (reading,)).interval()
                missed += weight * (not low[0] <= rate <= high[0])
        assert 0.01 < missed <= 0.05


def test_noise_and_repeatability_of_intermittent_cells():
    truth = hidden(noise=0.3)
    found = read(truth, repeats=16)
    width = found.noise_voltage()
    assert width == pytest.approx(float(truth.noise.mean()), rel=0.1)
    recovered = found.fault_map()
    both, mine, theirs = np.intersect1d(recovered.cell, truth.cell, return_indices=True)
    inside = (truth.critical_voltage[theirs] > 0.80) & (truth.critical_voltage[theirs] < 0.95)
    error = recovered.critical_voltage[mine][inside] - truth.critical_voltage[theirs][inside]
    assert len(error) > 200
    assert abs(error.mean()) < 0.1 * width
    # Spearman-Karber from r reads (two patterns show a stuck cell) a step s apart has variance w s / (sqrt(pi) r).
    assert error.std() < 2 * np.sqrt(width * STEP / np.sqrt(np.pi) / 32)
    assert len(both) > 0.95 * truth.count(0.78)
    assert (found.repeatability < 1).any()


def test_fewer_reads_never_invent_cells():
    truth = hidden(noise=0.2)
    found = read(truth, repeats=2)
    assert set(found.cell) <= set(truth.cell)


def test_column_statistics_tell_structures_apart():
    iid, column = read(hidden()).columns(), read(hidden(structure="column")).columns()
    assert iid["column_variance_to_mean"] == pytest.approx(1, abs=0.3)  # 512 columns: sd 0.06
    assert column["column_variance_to_mean"] > 3
    assert column["row_variance_to_mean"] < 2
    assert column["worst_tenth_of_columns_share"] > 1.5 * iid["worst_tenth_of_columns_share"]


@given(
    st.builds(
        Geometry,
        banks=st.integers(1, 3),
        rows=st.integers(1, 5),
        columns=st.sampled_from([8, 16, 24, 32]),
        word_bits=st.just(8),
    ),
    st.sampled_from(range(4)),
)
@settings(max_examples=60, deadline=None)
def test_patterns_are_what_they_say(geometry, pattern):
    words = patterns.pattern_words(geometry, pattern, 0, geometry.words)
    cell = np.arange(geometry.cells)
    word, bit = geometry.word_bit(cell)
    stored = (words[word] >> bit.astype(np.uint64)) & np.uint64(1)
    assert (stored == patterns.stored_bit(geometry, cell, pattern)).all()
    if pattern >= 2:  # neighbours in a row and in a column differ
        plane = stored.reshape(geometry.banks, geometry.rows, geometry.columns)
        assert (plane[:, :, 1:] != plane[:, :, :-1]).all()
        assert (plane[:, 1:] != plane[:, :-1]).all()
    part = patterns.pattern_words(geometry, pattern, geometry.words // 2, geometry.words - geometry.words // 2)
    assert (part == words[geometry.words // 2 :]).all()


def test_a_memory_of_several_blocks_reads_like_one_of_one(monkeypatch):
    whole = read(hidden(), voltages=[0.8])
    monkeypatch.setattr(patterns, "BLOCK_CELLS", 7000)
    parts = read(hidden(), voltages=[0.8])
    assert len(patterns.blocks(GEOMETRY)) > 5
    assert (whole.cell == parts.cell).all()
    assert (whole.wrong == parts.wrong).all()


class Coupled(SimulatedChip):
    """A cell that reads wrong only if its neighbour to the left stores the opposite."""

    def fetch(self, address, count):
        words = super().fetch(address, count)
        word, bit = 9, 4
        if self.voltage < 0.9 and address <= word < address + count:
            row = self.stored[word // 2 * 2 : word // 2 * 2 + 2]
            left = row[0] >> np.uint64(bit)  # the same bit of slot 0 lies to the left of slot 1
            mine = self.stored[word] >> np.uint64(bit)
            if (left ^ mine) & np.uint64(1):
                words[word - address] ^= np.uint64(1 << bit)
        return words


def test_cells_that_fail_in_company_only_are_counted():
    quiet = dataclasses.replace(hidden(), cell=np.empty(0, np.int64), critical_voltage=np.empty(0, np.float32))
    quiet = dataclasses.replace(quiet, kind=np.empty(0, np.uint8))
    with Coupled(quiet, voltage_step=STEP) as chip:
        found = characterize(chip, [0.95, 0.85], repeats=2)
    assert found.cell.tolist() == [GEOMETRY.cell(9, 4)]
    assert found.company_only == 1
    assert found.kind.tolist() == [2]


def test_it_stops_above_the_rate_and_not_before():
    found = read(hidden(), stop_rate=0.02)
    rate = found.faulty / GEOMETRY.cells
    assert (rate[:-1] <= 0.02).all()
    assert rate[-1] > 0.02


class Dying(SimulatedChip):
    """Fails for good after a number of reads."""

    left = 40

    def fetch(self, address, count):
        self.left -= 1
        if self.left < 0:
            raise ConnectionError("gone")
        return super().fetch(address, count)


def test_a_run_that_was_cut_off_goes_on(tmp_path):
    whole = read(hidden())
    with pytest.raises(ConnectionError), Dying(hidden(), voltage_step=STEP) as chip:
        characterize(chip, VOLTAGES, repeats=3, folder=tmp_path)
    stored = sorted(tmp_path.glob("reading_*.npz"))
    assert len(stored) == 3  # 40 reads are three voltages of 12 and a bit
    times = [path.stat().st_mtime_ns for path in stored]
    again = read(hidden(), folder=tmp_path)
    assert [path.stat().st_mtime_ns for path in stored] == times
    assert (again.cell == whole.cell).all()
    assert (again.wrong == whole.wrong).all()


def test_another_chip_in_the_same_folder_is_refused(tmp_path):
    read(hidden(), folder=tmp_path, voltages=[0.85, 0.82])
    with pytest.raises(InputError, match="read before"):
        read(hidden(seed=4), folder=tmp_path, voltages=[0.85, 0.82, 0.8])
    with pytest.raises(InputError, match="settings"):
        read(hidden(), folder=tmp_path, repeats=4)
    (tmp_path / "reading_0.850000.npz").write_bytes(b"PK nonsense")
    with pytest.raises(InputError, match="delete it"):
        read(hidden(), folder=tmp_path, voltages=[0.85, 0.8])


def test_the_device_is_left_at_nominal_and_bad_settings_are_refused():
    with SimulatedChip(hidden(), voltage_step=STEP) as chip:
        characterize(chip, [0.8], repeats=1)
        assert chip.voltage == chip.info.voltage_nominal
        wrong = (
            ({"voltages": []}, "at least one voltage"),
            ({"voltages": [0.2]}, "voltage = 0.2"),
            ({"repeats": 0}, "repeats = 0"),
            ({"stop_rate": 0.0}, "stop_rate = 0.0"),
        )
        for options, says in wrong:
            with pytest.raises(InputError, match=says):
                characterize(chip, **{"voltages": [0.8], **options})
        assert chip.info.geometry == GEOMETRY
    assert len(PATTERNS) == 4


@pytest.mark.parametrize(
    ("nominal", "lowest", "step", "last"),
    [
        (1.0, 0.504, 0.01, 0.51),
        (1.0, 0.496, 0.01, 0.5),
        (0.9, 0.5, 0.025, 0.5),
        (1.0, 0.7, 0.1, 0.7),
        (1.0, 1.0, 0.1, 1.0),
    ],
)
def test_without_a_list_every_step_within_the_range_is_read(nominal, lowest, step, last):
    info = DeviceInfo("chip", 1, 512, 64, 64, "V", nominal, lowest, step)
    found = steps_down(info, parse_voltages(None, info))
    assert (found[0], found[-1]) == (nominal, last)
    assert len(found) == info.steps + 1 == round((nominal - last) / step) + 1


@given(st.integers(1, 10**6), st.floats(1e-7, 0.1), st.floats(0, 0.999))
def test_the_lowest_step_is_within_every_range(count, step, rest):
    nominal = 0.1 + (count + rest) * step
    info = DeviceInfo("chip", 1, 512, 64, 64, "V", nominal, 0.1, step)
    assert abs(info.steps - count) <= 1  # a rest of nearly 0 or 1 is rounded
    bottom = max(info.voltage_lowest, nominal - info.steps * step)
    assert info.reached(bottom) == round(nominal - info.steps * step, 12)


def test_a_chip_without_faults_has_no_curve():
    with pytest.raises(InputError, match="at 2 voltages at least"):
        read(hidden(), voltages=[1.0]).fault_map()

"""Is a fault map nested, a pure function of its inputs, and distributed as its curve and structure say?"""

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import binom, chi2, multivariate_normal, norm

from sram import failure, faultmap, random
from sram import faultmap_kernels as kernels
from sram.errors import InputError
from sram.failure import Interpolated
from sram.geometry import Geometry
from sram.memory import Chip, Memory
from sram.structure import Structure, voltage_table

IBM = failure.curve("ibm14")
EVERYTHING = Structure(die=0.05, bank=0.1, smooth=0.1, column=0.2, row=0.1, column_tail=0.05)
AND_RUNS = replace(EVERYTHING, run=0.2)


def same(a, b, count=None):
    """Two maps hold the same cells, voltages and kinds (in their first `count`)."""
    pairs = ((a.cell, b.cell), (a.critical_voltage, b.critical_voltage), (a.kind, b.kind))
    return all(np.array_equal(x[:count], y[:count]) for x, y in pairs)


geometries = st.builds(
    Geometry,
    banks=st.integers(1, 5),
    rows=st.integers(1, 70),
    columns=st.sampled_from([8, 16, 24]),
    word_bits=st.just(8),
)
shares = st.floats(0, 0.19)
structures = (
    st.builds(Structure, die=shares, bank=shares, smooth=shares, column=shares, row=shares)
    | st.builds(Structure, column=st.floats(0.1, 0.9), column_tail=st.floats(0, 0.1))
    | st.builds(
        Structure, column=st.floats(0.1, 0.5), column_tail=st.floats(0, 0.1), row=shares, run=st.floats(0.05, 0.3)
    )
    | st.builds(Structure, run=st.floats(0.05, 0.9))
)


@settings(max_examples=60, deadline=None)
@given(
    geometry=geometries,
    structure=structures,
    floor=st.floats(0.4, 0.95),
    more=st.floats(0, 0.2),
    chip=st.integers(0, 2**32 - 1),
    mode=st.sampled_from(["stuck", "flip"]),
)
def test_maps_are_nested_and_a_lower_floor_only_adds_cells(geometry, structure, floor, more, chip, mode):
    high = floor + more
    low_map = faultmap.generate(chip, geometry, IBM, structure, voltage_floor=floor, mode=mode)
    high_map = faultmap.generate(chip, geometry, IBM, structure, voltage_floor=high, mode=mode)
    assert len(high_map) == low_map.count(high)
    assert same(high_map, low_map, len(high_map))
    assert set(low_map.at(high).cell) <= set(low_map.at(floor).cell)
    assert (np.diff(low_map.critical_voltage) <= 0).all()
    assert len(np.unique(low_map.cell)) == len(low_map)
    assert low_map.at(high).cell.base is not None  # a view


@settings(max_examples=25, deadline=None)
@given(geometry=geometries, structure=structures, chip=st.integers(0, 9), cut=st.integers(0, 4))
def test_the_last_banks_of_a_die_can_be_made_alone(geometry, structure, chip, cut):
    cut = min(cut, geometry.banks - 1)
    whole = faultmap.generate(chip, geometry, IBM, structure, voltage_floor=0.7)
    last = Memory(replace(geometry, banks=geometry.banks - cut), IBM, structure, first_bank=cut)
    part = Chip(chip).fault_map(last, 0.7)
    inside = whole.cell >= cut * geometry.cells_per_bank
    assert np.array_equal(part.cell, whole.cell[inside] - cut * geometry.cells_per_bank)
    assert np.array_equal(part.critical_voltage, whole.critical_voltage[inside])
    assert np.array_equal(part.kind, whole.kind[inside])
    assert np.array_equal(Chip(chip).dense(last, 0.7), part.dense(0.7))


@settings(max_examples=40, deadline=None)
@given(geometry=geometries, structure=structures | st.just(Structure(bank=0.3)), voltage=st.floats(0.3, 1.0))
def test_dense_maps_hold_the_same_cells(geometry, structure, voltage):
    fault_map = faultmap.generate(7, geometry, IBM, structure, voltage_floor=min(voltage, 0.6))
    assert np.array_equal(faultmap.dense(7, geometry, IBM, structure, voltage=voltage), fault_map.dense(voltage))


def test_banks_that_need_gigabytes_are_refused():
    """Independent cells are marked bank by bank; where columns differ, column by column, and a bank may be larger."""
    huge = Geometry(1, rows=512, columns=2**18)
    with pytest.raises(InputError, match=r"geometry = .* at most 67108864 cells"):
        faultmap.generate(0, huge, IBM, voltage_floor=1.0)
    assert len(faultmap.generate(0, huge, IBM, "column", voltage_floor=0.9)) > 1000


def test_threads_do_not_change_a_map():
    memory = Memory(Geometry(600), IBM, EVERYTHING)
    maps = [Chip(1).fault_map(memory, 0.87, threads=threads) for threads in (1, 2, 5)]
    assert all(same(maps[0], other) for other in maps)
    assert len(maps[0]) > 1000


def rings_twin(words, leaves):
    """Times at which `leaves` clocks ring, float64[leaves], from the first of them all down the tree of halves."""
    uniform = [kernels.uniform(high, low) for high, low in words]
    first = np.array([-kernels.log(uniform[0]) / leaves])
    while len(first) < leaves:
        node = np.arange(len(first), 2 * len(first))
        wait = np.array([-kernels.log(uniform[k]) for k in node]) * 2 * len(first) / leaves
        left = np.array([words[k][1] & 1 for k in node], bool)
        first = np.column_stack([np.where(left, first, first + wait), np.where(left, first + wait, first)]).ravel()
    return first


def runs_twin(totals, place, column, bank, key, structure, table):
    """The weak cells of a column with runs, {cell: critical voltage}: every clock of its tree, down to the leaves."""
    runs = 2 ** math.ceil(math.log2((len(totals) + 3) / 4))
    words = [kernels.philox(k, column, bank, int(random.Stream.RUN), *key) for k in range(4 * runs)]
    skipped = int(words[0][1]) % 4
    run = np.repeat(rings_twin([w[:2] for w in words], runs), 4)[skipped:]
    cell = rings_twin([w[2:] for w in words], 4 * runs)[skipped:]
    found = {}
    for i, total in enumerate(totals):
        own = [kernels.normal_at(clock[i], random.times()) for clock in (run, cell)]
        total = total + structure.run**0.5 * own[0] + structure.cell**0.5 * own[1]
        voltage = np.float32(kernels.voltage_of(total, table))
        if float(voltage) > table.floor:
            found[place[i]] = voltage
    return found


def slow_twin(chip, geometry, curve, structure, floor):
    """The Poisson process of the kernel's docstring, cell by cell, in plain Python: {cell: critical voltage}."""
    table = kernels.Table(*voltage_table(curve, structure, floor), floor, 0.0)
    times, key = random.times(), (0, chip)
    across = max(1, round((geometry.banks * geometry.rows / geometry.columns) ** 0.5))
    scale = kernels.Scale(
        structure.die**0.5, structure.bank**0.5, structure.smooth**0.5, 0.0, 0.0, 0.0, structure.cell**0.5
    )
    by_column = structure.column + structure.row + structure.run > 0
    found = {}
    for bank in range(geometry.banks):
        in_bank = kernels.bank_term(bank, across, -(-geometry.banks // across), scale, key, times)
        columns = random.normals(geometry.columns, random.Stream.COLUMN, chip=chip, bank=bank)
        rows = random.normals(geometry.rows, random.Stream.ROW, chip=chip, bank=bank)
        for region in range(geometry.columns if by_column else 1):
            if by_column:
                place = [(bank * geometry.rows + r) * geometry.columns + region for r in range(geometry.rows)]
                z = columns[region]
                heavy = z * math.exp(structure.tail * z * z / 2)
                totals = in_bank + structure.column_scale * heavy + structure.row**0.5 * rows
                if structure.run:
                    found |= runs_twin(totals, place, region, bank, key, structure, table)
                    continue
            else:
                place = [bank * geometry.cells_per_bank + i for i in range(geometry.cells_per_bank)]
                totals = np.full(len(place), in_bank)
            time, rang, draw = 0.0, set(), 0
            while len(rang) < len(place) and draw < 40 * len(place):
                x0, x1, x2, x3 = kernels.philox(draw, region, bank, int(random.Stream.CELL), *key)
                draw += 1
                time -= kernels.log(kernels.uniform(x0, x1)) / len(place)
                i = int(kernels.uniform(x2, x3) * len(place))
                if i in rang:
                    continue
                rang.add(i)
                total = totals[i] + structure.cell**0.5 * kernels.normal_at(time, times)
                voltage = np.float32(kernels.voltage_of(total, table))
                if float(voltage) > floor:
                    found[place[i]] = voltage
    return found


@pytest.mark.parametrize(
    "structure",
    [Structure(), Structure(column=0.4, column_tail=0.02), EVERYTHING, Structure(run=0.4), AND_RUNS],
    ids=str,
)
def test_kernel_equals_its_slow_twin(structure):
    geometry = Geometry(2, rows=40, columns=16, word_bits=8)
    fast = faultmap.generate(5, geometry, IBM, structure, voltage_floor=0.75)
    slow = slow_twin(5, geometry, IBM, structure, 0.75)
    assert sorted(slow) == sorted(fast.cell)
    assert len(slow) > 50
    # exp of the C library against the kernel's series: the last bit of a float32 may round the other way.
    expected = np.array([slow[cell] for cell in fast.cell])
    assert np.abs(fast.critical_voltage - expected).max() <= np.spacing(np.float32(1))


@pytest.mark.parametrize("voltage", [0.75, 0.79, 0.83, 0.87])
def test_counts_of_independent_cells_are_binomial(voltage):
    # 200 chips, chi-square of the counts in ten equally likely classes; false alarm 1e-3 per voltage, fixed seed.
    geometry = Geometry(1)
    counts = [faultmap.generate(c, geometry, IBM, voltage_floor=voltage, seed=11).count(voltage) for c in range(200)]
    p = float(IBM.probability(voltage))
    edges = binom.ppf(np.linspace(0, 1, 11)[1:-1], geometry.cells, p)
    chance = np.diff([0, *binom.cdf(edges, geometry.cells, p), 1])
    seen = np.bincount(np.searchsorted(edges, counts), minlength=10)
    statistic = ((seen - 200 * chance) ** 2 / (200 * chance)).sum()
    assert statistic < chi2.isf(1e-3, 9)


@pytest.mark.parametrize(
    "structure",
    [
        Structure(column=0.46, bank=0.046),
        Structure(column=0.4, column_tail=0.1),
        Structure(row=0.4),
        EVERYTHING,
        Structure(run=0.8),
        AND_RUNS,
    ],
    ids=["normal", "heavy column", "row", "everything", "runs", "everything and runs"],
)
def test_mean_over_chips_follows_the_curve_whatever_the_structure(structure):
    # Each mean within 4 standard errors (between chips) of the curve: false alarm 1e-3 over the 18 comparisons.
    geometry = Geometry(4, rows=64, columns=64, word_bits=64)
    maps = [faultmap.generate(c, geometry, IBM, structure, voltage_floor=0.75, seed=3) for c in range(600)]
    for voltage in (0.75, 0.8, 0.84):
        rates = np.array([m.cell_fault_rate(voltage) for m in maps])
        error = rates.std(ddof=1) / math.sqrt(len(rates))
        assert abs(rates.mean() - IBM.probability(voltage)) < 4 * error


def pairs(counts, size):
    """Share of ordered pairs within groups of `size` cells that fail together, from the groups' counts."""
    return (counts * (counts - 1.0)).sum() / (len(counts) * size * (size - 1.0))


def test_cells_of_a_column_and_of_a_row_fail_together_as_often_as_their_shares_say():
    structure, voltage = Structure(column=0.3, row=0.15), 0.8
    z = float(IBM.z(voltage))
    geometry = Geometry(2000, rows=32, columns=32, word_bits=32)
    faulty = faultmap.generate(0, geometry, IBM, structure, voltage_floor=voltage).dense(voltage)
    for axis, share in ((1, 0.3), (2, 0.15)):
        expected = multivariate_normal.cdf([z, z], cov=[[1, share], [share, 1]])
        counts = faulty.sum(axis=axis)
        each = np.array([pairs(c, 32) for c in counts])  # one estimate per bank
        error = each.std(ddof=1) / math.sqrt(len(each))
        assert abs(each.mean() - expected) < 4 * error
        assert error < 0.05 * expected  # the test can tell


def test_neighbouring_rows_fail_together_as_often_as_their_run_says():
    """Rows 1 to 3 apart are in one run three times, twice, once out of four, rows 4 apart never. Four standard errors
    each, over banks."""
    structure, voltage = Structure(column=0.2, run=0.3), 0.8
    z = float(IBM.z(voltage))
    apart_fail, together_fail = (multivariate_normal.cdf([z, z], cov=[[1, r], [r, 1]]) for r in (0.2, 0.5))
    faulty = faultmap.generate(0, Geometry(2000, 32, 32, 32), IBM, structure, voltage_floor=voltage).dense(voltage)
    for apart in range(1, 5):
        expected = together_fail + (apart_fail - together_fail) * apart / 4
        each = (faulty[:, apart:] & faulty[:, :-apart]).mean(axis=(1, 2))
        error = each.std(ddof=1) / math.sqrt(len(each))
        assert abs(each.mean() - expected) < 4 * error
        assert error < 0.05 * expected


def test_smooth_field_has_unit_variance_and_is_alike_next_door_only():
    times, scale = random.times(), kernels.Scale(0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    field = np.array(
        [[kernels.bank_term(b, 16, 16, scale, (9, chip), times) for b in range(256)] for chip in range(400)]
    )
    # Each variance has a standard error of sqrt(2 / 400) = 0.07 of itself; five of those.
    assert np.abs(field.var(axis=0) - 1).max() < 0.36
    assert abs(field.var() - 1) < 0.05
    correlation = np.corrcoef(field.T)
    assert correlation[0, 1] > 0.9  # next bank
    assert abs(correlation[0, 255]) < 0.2  # opposite corner: four standard errors of 1 / sqrt(400)


def test_table_of_voltages_is_as_good_as_float32_on_a_curved_curve():
    curved = failure.FailureCurve("c", Interpolated((0.7, 0.75, 0.85, 1.0), (0.5, -0.9, -2.5, -5.8)), "V", 1.0, "test")
    low, per_step, voltages = voltage_table(curved, Structure(), 0.72)
    table = kernels.Table(low, per_step, voltages, 0.72, 0.72)
    latent = np.random.default_rng(0).uniform(0, 8, 4000)
    got = np.array([kernels.voltage_of(x, table) for x in latent])
    assert np.abs(got - curved.critical_voltage(latent)).max() < 3e-8
    exact = kernels.Table(*voltage_table(IBM, Structure(), 0.72), 0.72, 0.72)
    assert np.abs([kernels.voltage_of(x, exact) for x in latent] - IBM.critical_voltage(latent)).max() < 1e-14


def test_words_with_two_or_more_faulty_cells_at_one_percent():
    # 1 - 0.99^64 - 64 * 0.01 * 0.99^63 = 13.46%, why SECDED alone does not help there.
    voltage = float(IBM.voltage(0.01))
    faulty = faultmap.dense(0, Geometry(400), IBM, voltage=voltage)
    words = faulty.reshape(-1, 64)
    share = (words.sum(axis=1) >= 2).mean()
    assert abs(share - 0.1346) < 4 * math.sqrt(0.1346 * 0.8654 / len(words))


def test_polarity_has_its_bias_and_stays_when_the_floor_moves():
    fault_map = Chip(2).fault_map(Memory(Geometry(64), IBM, stuck_at_one=0.8), 0.8)
    n, ones = len(fault_map), int(fault_map.kind.sum())
    assert abs(ones - 0.8 * n) < 4 * math.sqrt(0.16 * n)
    assert set(np.unique(fault_map.kind)) == {0, 1}
    for share, kinds in ((0.0, {0}), (1.0, {1})):
        assert set(Chip(2).fault_map(Memory(Geometry(8), IBM, stuck_at_one=share), 0.8).kind) == kinds
    flips = faultmap.generate(2, Geometry(64), IBM, voltage_floor=0.8, mode="flip")
    assert set(flips.kind) == {2}
    assert np.array_equal(flips.cell, fault_map.cell)
    assert flips.flip_rate(0.8) == flips.cell_fault_rate(0.8) == 2 * fault_map.flip_rate(0.8)


# First 16 digits of the SHA-256 over cells, critical voltages and kinds (little-endian): must not change, ever.
GOLDEN = {
    "iid": (Memory(Geometry(16)), 0.8, {}, "cbecf3005e2c322d"),
    "column": (Memory(Geometry(16), "kc705b", "column", stuck_at_one=0.75), 0.5, {}, "ac6d0ffb3d89efdf"),
    "everything, seed 7": (Memory(Geometry(16), "vc707", EVERYTHING, "flip"), 0.5, {}, "805b827b2eaa8c31"),
    "column_runs": (Memory(Geometry(16), "kc705b", "column_runs"), 0.5, {}, "a7c6db6f6b16152b"),
    "intermittent": (Memory(Geometry(16), "ibm14", "column"), 0.85, {"noise": 0.1}, "9687d7790ec99284"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_maps(name):
    memory, floor, options, expected = GOLDEN[name]
    m = Chip(42, 7 if "seed 7" in name else 0).fault_map(memory, floor, **options)
    arrays = m.cell.astype("<i8"), m.critical_voltage.astype("<f4"), m.kind
    assert len(m) > 1000
    assert hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()[:16] == expected


def test_reads_of_an_intermittent_map_average_to_their_probability():
    voltage, epochs = 0.8, 400
    m = faultmap.generate(1, Geometry(4), IBM, voltage_floor=voltage, noise=0.15)
    p = m.access_probability(voltage)
    hits = np.zeros(m.geometry.cells, np.int64)
    for epoch in range(epochs):
        np.add.at(hits, m.at(voltage, epoch).cell, 1)
    hits = hits[m.cell[: len(p)]]
    marginal = (p > 0.02) & (p < 0.98)
    assert marginal.sum() > 500
    assert (hits[p == 1] == epochs).all()
    # Standardised deviations: sum of squares is chi-square with one degree per cell; false alarm 2e-3, two-sided.
    z = (hits - epochs * p)[marginal] / np.sqrt(epochs * p * (1 - p))[marginal]
    assert chi2.ppf(1e-3, len(z)) < (z**2).sum() < chi2.isf(1e-3, len(z))
    assert m.at(voltage, 5).cell.tolist() == m.at(voltage, 5).cell.tolist() != m.at(voltage, 6).cell.tolist()


@pytest.mark.parametrize("epoch", [-1, 2**32])
def test_an_access_is_a_word_of_32_bits(epoch):
    m = faultmap.generate(1, Geometry(1), IBM, voltage_floor=0.8, noise=0.15)
    assert len(m.at(0.8, 2**32 - 1).cell)
    with pytest.raises(InputError, match=f"epoch = {epoch}"):
        m.at(0.8, epoch)


def test_one_access_of_an_intermittent_map_follows_the_curve_and_is_nested():
    counts = {voltage: [] for voltage in (0.78, 0.82)}
    for chip in range(50):
        m = faultmap.generate(chip, Geometry(2), IBM, voltage_floor=0.78, noise=0.15)
        high, low = (set(m.at(v, epoch=3).cell) for v in (0.82, 0.78))
        assert high <= low
        counts[0.82].append(len(high))
        counts[0.78].append(len(low))
    for voltage, seen in counts.items():
        expected = 50 * m.geometry.cells * float(IBM.probability(voltage))
        assert abs(sum(seen) - expected) < 4 * math.sqrt(expected)
    # Without an epoch: cells that fail more often than not, a steady prefix.
    steady = 50 * m.geometry.cells * float(ndtr(IBM.z(0.82) / math.sqrt(1 - 0.15**2)))
    chips = [faultmap.generate(c, Geometry(2), IBM, voltage_floor=0.8, noise=0.15).count(0.82) for c in range(50)]
    assert abs(sum(chips) - steady) < 4 * math.sqrt(steady)


@pytest.mark.parametrize("share", [0.07, 0.15])
def test_noise_width_is_a_share_of_the_spread_between_cells(share):
    m = faultmap.generate(1, Geometry(1), IBM, voltage_floor=0.8, noise=share)
    assert np.allclose(m.noise, share * 0.0553, rtol=2e-2)  # sigma of ibm14 in units of Vmin


def test_voltages_below_the_floor_are_refused():
    m = faultmap.generate(0, Geometry(1), IBM, voltage_floor=0.8)
    for ask in (m.count, m.at, m.cell_fault_rate, m.flip_rate, m.dense, m.access_probability):
        with pytest.raises(InputError, match=r"at least 0\.8 Vmin"):
            ask(0.7999)
        with pytest.raises(InputError, match="voltage = nan"):
            ask(float("nan"))
    assert m.count(0.8) == len(m)
    assert m.count(5.0) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"chip": -1},
        {"seed": 2**32},
        {"mode": "open"},
        {"noise": 1.0},
        {"voltage_floor": 0.0},
        {"structure": "rows"},
        {"curve": "ibm7"},
    ],
    ids=str,
)
def test_wrong_inputs_are_refused(wrong):
    arguments = {"chip": 0, "geometry": Geometry(4), "curve": "ibm14", "voltage_floor": 0.8} | wrong
    with pytest.raises(InputError, match=str(next(iter(wrong)))[:4]):
        faultmap.generate(**arguments)


@pytest.mark.parametrize("wrong", [{"stuck_at_one": 1.1}, {"mode": "open"}, {"first_bank": -1}], ids=str)
def test_wrong_memories_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Memory(Geometry(4), **wrong)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"column": 1.2}, "column = 1.2"),
        ({"column": -0.1}, "column = -0.1"),
        ({"column": 0.5, "row": 0.5}, "less than 1"),
        ({"column_tail": 0.01}, "with a column share"),
        ({"run": 1.0}, "sum of shares = 1.0"),
    ],
)
def test_wrong_structures_are_refused(wrong, says):
    with pytest.raises(InputError, match=says):
        Structure(**wrong)


@settings(max_examples=50, deadline=None)
@given(geometry=geometries, data=st.data())
def test_word_and_bit_are_the_inverse_of_cell(geometry, data):
    cell = np.array(data.draw(st.lists(st.integers(0, geometry.cells - 1), min_size=1)))
    word, bit = geometry.word_bit(cell)
    assert (geometry.cell(word, bit) == cell).all()
    assert (geometry.cell(word, bit.astype(np.uint8)) == cell).all()
    assert word.max() < geometry.words
    assert bit.max() < geometry.word_bits
    # Interleaved: the slots of one bit are neighbours in the row.
    assert geometry.cell(0, 1) == geometry.column_mux


@pytest.mark.parametrize("wrong", [{"banks": 0}, {"rows": 1.5}, {"columns": 65}, {"banks": 2**20}])
def test_wrong_geometries_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Geometry(**{"banks": 1} | wrong)


def test_latent_thresholds_are_those_of_the_curve():
    # One cell in a thousand is weaker than the 0.999 quantile, whatever the unit.
    for name in failure.curve_names():
        curve = failure.curve(name)
        assert curve.z(curve.voltage(1e-3)) == pytest.approx(norm.ppf(1e-3), abs=1e-9)


@pytest.mark.parametrize("structure", ["iid", "column", "bank=0.1,column=0.2,smooth=0.1,run=0.1"])
def test_the_first_banks_alone_are_those_of_the_whole_map(structure):
    memory = Memory(Geometry(banks=9), structure=structure, first_bank=2)
    whole, first = (Chip(3, 5).fault_map(memory, 0.8, banks=banks) for banks in (None, 4))
    inside = whole.cell < 4 * memory.geometry.cells_per_bank
    assert 0 < inside.sum() < len(whole)
    for name in ("cell", "kind", "critical_voltage"):
        np.testing.assert_array_equal(getattr(first, name), getattr(whole, name)[inside])

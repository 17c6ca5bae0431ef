"""Do protections do what their hardware does, on maps and on words, and cost what they cost?"""

from dataclasses import replace
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from sram import faultmap, mapfile
from sram.errors import InputError
from sram.geometry import Geometry
from sram.memory import Chip, Memory, side_by_side
from sram.protection import (
    Boost,
    Canary,
    HardenedMsb,
    Interleave,
    Layout,
    Masking,
    Overhead,
    Protection,
    Secded,
    Spares,
    Stage,
    WordFaults,
    check_protection,
    faulty_word_share,
    parse,
    repair,
    word_faults,
)
from sram.protection.kernels import greedy_lines
from sram.protection.spec import KINDS
from sram.protection.words import Region
from sram.structure import Structure

MEMORY = Geometry(banks=32)
ONE_PERCENT = 0.8333  # Vmin; ibm14 gives 1.04 % there
ALL = ["secded72", "secded39", "spare_columns:1", "spare_rows:2", "spares:1x1", "hardened_msb:2", "canary:8"]
ALL += ["boost:0.04", "interleave:4", "bit_masking", "word_masking", "secded72+spare_columns:1+boost:0.03+canary:4"]


def chip_of(structure="iid", chip=0, geometry=MEMORY, floor=0.79, **more):
    return faultmap.generate(chip, geometry, "ibm14", structure, voltage_floor=floor, **more)


def test_words_with_two_faulty_cells_at_one_percent():
    """13.46 % of 64-bit words hold two or more faulty cells at a cell fault rate of 1 %: SECDED alone is useless there.

    False alarm: three standard errors of 1e6 words, 0.3 %.
    """
    expected = 1 - 0.99**64 - 64 * 0.01 * 0.99**63
    assert expected == pytest.approx(0.1346, abs=5e-5)
    geometry = Geometry(banks=2048)
    chip = chip_of(geometry=geometry, floor=0.83)
    v = float(chip.curve.voltage(0.01))
    share = faulty_word_share(geometry, chip.at(v), at_least=2)
    assert abs(share - expected) < 3 * (expected * (1 - expected) / geometry.words) ** 0.5


def test_secded_leaves_the_words_with_two_errors():
    """Of random data read through stuck cells, the words left wrong are those with two or more cells that disagree: at
    rate p and random data an error has rate p / 2 in each of 72 cells. False alarm 0.3 %, three standard errors."""
    geometry = Geometry(banks=512)
    chip = chip_of(geometry=geometry, floor=0.83)
    v = float(chip.curve.voltage(0.01))
    protected = parse("secded72").map(chip)
    faults = word_faults(protected.geometry, protected.at(v))
    stored = np.random.default_rng(5).integers(2**64, size=len(faults.word), dtype=np.uint64)
    wrong = (parse("secded72").read(stored, faults) != stored).sum() / geometry.words
    # Of two errors, both in check bits leave the data right: 28 of 2556 pairs. Three or more: nearly always wrong data.
    q = 0.005
    two = binom.pmf(2, 72, q) * (1 - comb(8, 2) / comb(72, 2))
    more = binom.sf(2, 72, q)
    error = (two / geometry.words) ** 0.5
    assert two - 3 * error < wrong < two + more + 3 * error


def test_the_list_has_every_kind():
    named = {item.partition(":")[0] for spec in ALL for item in spec.split("+")}
    assert named == set(KINDS) - {"none"}


@pytest.mark.parametrize("spec", [*ALL, "none"])
def test_built_in_protections_keep_to_the_contract(spec):
    check_protection(parse(spec))


def test_the_contract_holds_in_words_of_32_bits_by_layers_and_for_optimal_repair():
    check_protection(parse("secded39+spare_columns:1"), Geometry(banks=4, columns=64, word_bits=32))
    layout = Layout(8, regions=(Region("stem", 0, 1000, 0.5, 0.1), Region("head", 1000, 50, 0.5, 0.9)))
    check_protection(parse("hardened_msb:1;8@stem", layout))
    check_protection(parse("spares:1x2:optimal"), Geometry(banks=4, rows=16))


def test_chains_act_in_the_order_of_their_hardware():
    """Ties (stages shared by two kinds) would be broken by their names."""
    kinds = {Secded, Spares, HardenedMsb, Canary, Boost, Interleave, Masking}
    assert len({kind.stage for kind in kinds}) == len(kinds) == len(Stage)
    chain = parse("word_masking+interleave:4+boost:0.03+canary:4+spare_rows:1+secded72+hardened_msb:1")
    assert chain.spec == "hardened_msb:1+secded72+spare_rows:1+canary:4+boost:0.03+interleave:4+word_masking"


class Broken(Protection):
    """A protection that does what it is given."""

    def __init__(self, spec="none", **methods):
        self.text = spec
        for name, method in methods.items():
            setattr(self, name, method)

    @property
    def spec(self):
        return self.text

    @property
    def words_as_stored(self):
        return "correct" not in vars(self)


def backwards(fault_map):
    """The weakest cell last."""
    return replace(fault_map, cell=fault_map.cell[::-1], critical_voltage=fault_map.critical_voltage[::-1].copy())


def never_the_same(fault_map, calls=iter(range(1000))):  # noqa: B008
    return repair.select(fault_map, np.arange(len(fault_map)) % 7 != next(calls) % 7)


def steady(fault_map):
    return replace(repair.select(fault_map, fault_map.critical_voltage > fault_map.voltage_floor), noise=None)


def in_place(fault_map):
    fault_map.kind[:] = 0
    return fault_map


def one_bit_wrong(stored, seen, faults, row, data_bits):
    seen ^= np.uint64(1)


@pytest.mark.parametrize(
    ("made", "rule"),
    [
        (Broken(map=backwards), "out of order"),
        (Broken(map=never_the_same), "each time"),
        (Broken(map=in_place), "stays as it is"),
        (Broken(map=steady), "intermittent"),
        (Broken(map=lambda m: replace(m, chip=m.chip + 1)), "of its chip"),
        (Broken(map=lambda m: repair.widened(m, 8)), "the geometry stays"),
        (Broken(overhead=lambda m: Overhead(energy=1.5)), "source"),
        (Broken(overhead=lambda m: Overhead(energy=float("nan"), source="x")), "finite"),
        (Broken(overhead=lambda m: Overhead(nominal_reads=2.0, source="x")), "from 0 to 1"),
        (Broken(overhead=lambda m: Overhead(access_width=0.0, source="x")), "positive"),
        (Broken(overhead=lambda m: Overhead(access_cycles=-1, source="x")), "negative"),
        (Broken(correct=one_bit_wrong), "without a fault"),
        (Broken(correct=lambda stored, seen, *_: stored.fill(0)), "what is stored"),
        (Broken("nothing"), "'nothing'"),
        (Broken("secded72+boost:0.04+none"), "takes the text"),
    ],
)
def test_broken_protections_are_caught(made, rule):
    with pytest.raises((AssertionError, InputError), match=rule):
        check_protection(made)


@pytest.mark.parametrize("spec", ALL)
def test_intermittent_maps_stay_intermittent(spec):
    chip = chip_of("column", geometry=Geometry(banks=8), noise=0.1)
    protected = parse(spec).map(chip)
    mapfile.check(protected, spec)
    assert protected.noise is not None
    p = protected.access_probability(0.82)
    for epoch in range(2):  # 4.5 standard errors, 24 times: a false alarm of 2e-4; the seed is fixed
        assert abs(len(protected.at(0.82, epoch=epoch).cell) - p.sum()) < 4.5 * (p * (1 - p)).sum() ** 0.5
    added = protected.noise[~np.isin(protected.critical_voltage, chip.critical_voltage)]
    assert added == pytest.approx(0.1 * chip.curve.shape.sigma, rel=0.01)


@pytest.mark.parametrize("spec", [spec for spec in ALL if "spare" not in spec and "canary" not in spec])
def test_weak_cells_do_not_depend_on_how_far_down_the_map_goes(spec):
    """A lower floor adds cells at the end (where lines are chosen at the floor, the choice may change)."""
    high, low = (parse(spec).map(chip_of("column", floor=floor)) for floor in (0.81, 0.79))
    n = low.count(0.82)
    assert high.count(0.82) == n
    assert (high.cell[:n] == low.cell[:n]).all()


def test_spare_columns_repair_column_maps_and_not_iid_ones():
    """On KC705-B one spare column per block repairs 90 % of the faults (reference), on
    independent cells next to none."""
    geometry = Geometry(banks=890, rows=1024, columns=16, word_bits=16)
    share = {}
    for name in ("column", "iid"):
        chip = faultmap.generate(1, geometry, "kc705b", name, voltage_floor=0.53)
        share[name] = 1 - len(parse("spare_columns:1").map(chip)) / len(chip)
    assert 0.75 < share["column"] < 0.95
    assert share["iid"] < 0.5


def lines_covered(row, column, rows, columns) -> int:
    return sum(r in rows or c in columns for r, c in zip(row, column, strict=True))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_repair_against_all_choices(seed):
    """Optimal repair covers as much as the best of all choices of lines; greedy at most that, and at least one half."""
    random = np.random.default_rng(seed)
    cells = random.choice(49, size=int(random.integers(1, 20)), replace=False)
    row, column = cells // 7, cells % 7
    rows, columns = (int(n) for n in random.integers(0, 3, size=2))
    best = max(
        lines_covered(row, column, set(r), set(c))
        for r in combinations(range(7), rows)
        for c in combinations(range(7), columns)
    )
    covered = []
    for choose in (greedy_lines, repair.optimal_lines):
        chosen = np.zeros(7, np.bool_), np.zeros(7, np.bool_)
        choose(row, column, 7, 7, rows, columns, *chosen)
        assert chosen[0].sum() <= rows
        assert chosen[1].sum() <= columns
        covered.append(lines_covered(row, column, *(set(np.flatnonzero(x)) for x in chosen)))
    assert covered[1] == best
    assert best / 2 <= covered[0] <= best
    if not rows or not columns:
        assert covered[0] == best  # one kind of line: greedy is optimal


def test_repaired_lines_hold_their_spare_instead():
    """Two weak columns and one spare row: by hand, with spares that have no weak cell."""
    chip = chip_of(geometry=Geometry(1, 8, 8, 8), floor=1.0)
    assert len(chip) == 0
    cell = np.array([3, 11, 19, 27, 40, 41, 42, 63])  # column 3 of rows 0-3; row 5, columns 0-2; row 7, column 7
    voltage = np.linspace(1.2, 1.1, 8).astype(np.float32)
    chip = replace(chip, cell=cell, critical_voltage=voltage, kind=np.zeros(8, np.uint8))
    assert parse("spare_columns:1").map(chip).cell.tolist() == [40, 41, 42, 63]
    assert parse("spare_rows:1").map(chip).cell.tolist() == [3, 11, 19, 27, 63]
    assert parse("spares:1x1").map(chip).cell.tolist() == [63]
    assert parse("spares:1x2:optimal").map(chip).cell.tolist() == []


def test_spares_are_as_weak_as_other_cells():
    """At a cell fault rate of 20 % a spare column of 512 cells is no better than the column it replaces, on average:
    repair gains only what picking the worst of 64 gains."""
    chip = chip_of(floor=0.75)
    repaired = parse("spare_columns:1").map(chip)
    counts = np.bincount(chip.geometry.bank_row_column(chip.cell)[0] * 64 + chip.cell % 64, minlength=2048)
    worst = counts.reshape(32, 64).max(axis=1)
    removed = len(chip) - len(repaired)
    assert 0 < removed < (worst - counts.mean()).sum() + 3 * (32 * counts.mean()) ** 0.5


@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize("structure", ["iid", "column"])
def test_memories_of_one_die_have_spare_cells_of_their_own(structure, block):
    """Not those of the memory that comes first on the die, nor cells that fail with those of the memory itself."""
    first, second, third = side_by_side([Memory(Geometry(banks), structure=structure) for banks in (6, 4, 4)])
    maps = [Chip(5).fault_map(memory, 0.8) for memory in (first, second, third)]
    assert [m.first_bank for m in maps] == [0, 6, 10]
    added = [repair.extra_cells(m, 512, 64, block) for m in maps]  # as many columns as there are, to compare draws
    moved = repair.extra_cells(replace(maps[1], first_bank=0), 512, 64, block)
    alone = repair.extra_cells(Chip(5).fault_map(Memory(Geometry(6), structure=structure), 0.8), 512, 64, block)
    assert np.array_equal(added[0].line, alone.line)  # what comes later on the die changes nothing

    def pattern(cells):  # of four banks
        inside = cells.line < 4 * 512
        return set(zip(cells.line[inside].tolist(), cells.column[inside].tolist(), strict=True))

    patterns = [pattern(cells) for cells in (*added, moved)]
    own = [set(zip(*(each.tolist() for each in divmod(m.cell[m.cell < 4 * 2**15], 64)), strict=True)) for m in maps]
    for one, other in [*combinations(patterns, 2), *((a, b) for a in own for b in patterns[1:3])]:
        expected = len(one) * len(other) / (4 * 2**15)
        assert len(one & other) < max(4 * expected, 60)  # the same draws have all of them in common
    assert min(map(len, patterns)) > 300


def test_a_map_keeps_its_place_on_the_die(tmp_path):
    chip = Chip(1).fault_map(Memory(Geometry(2), first_bank=3), 0.8, noise=0.1)
    kept = faultmap.load(mapfile.save(chip, tmp_path / "map.npz"))
    assert kept.first_bank == parse("secded72").map(kept).first_bank == 3
    assert "first_bank" not in mapfile.header(replace(chip, first_bank=0))
    fails = [set(m.at(0.82, epoch=1).cell.tolist()) for m in (kept, replace(kept, first_bank=0))]
    assert fails[0] != fails[1]  # what fails now and then does so cell by cell of the die


def test_hardened_bits_do_not_fail_and_others_do():
    chip = chip_of()
    for order in ("lsb_first", "interleaved"):
        layout = Layout(8, order)
        hard = HardenedMsb(2, layout).map(chip)
        _, bit = MEMORY.word_bit(hard.cell)
        weight_bit = np.empty(64, np.int64)
        weight_bit[layout.positions(64)] = np.arange(8)
        assert weight_bit[bit].max() == 5
        _, before = MEMORY.word_bit(chip.cell)
        assert len(hard) == (weight_bit[before] < 6).sum()


def test_layers_keep_the_bits_that_their_rules_say():
    """Every weak cell by brute force: kept unless among the top bits of the layer whose words it lies in."""
    chip = chip_of()
    regions = (Region("stem", 0, 1000, 0.5, 0.1), Region("body.0", 1000, 5000, 0.3, 0.6), Region("head", 7000, 9, 0, 0))
    for order in ("lsb_first", "interleaved"):
        layout = Layout(8, order, regions)
        shield = parse("hardened_msb:1;8@stem,head;3@body.*;2@*0", layout)
        bits = np.ones(MEMORY.words, np.int64)
        bits[:1000] = bits[7000:7009] = 8
        bits[1000:6000] = 3
        word, bit = MEMORY.word_bit(chip.cell)
        place = np.argsort(layout.positions(64).ravel())[bit] % 8  # significance
        expected = chip.cell[place < 8 - bits[word]]
        np.testing.assert_array_equal(shield.map(chip).cell, expected)
        cost = shield.overhead(chip)
        assert cost.nominal_reads == pytest.approx((0.5 * 8 + 0.3 * 3 + 0.2 * 1) / 8)
        assert cost.nominal_writes == pytest.approx((0.1 * 8 + 0.6 * 3 + 0.3 * 1) / 8)
        assert cost.nominal_cells == pytest.approx(bits.mean() / 8)
    only = parse("hardened_msb:2@head", layout)
    kept = only.map(chip).cell
    assert set(chip.cell) - set(kept) == set(chip.cell[(word >= 7000) & (word < 7009) & (place >= 6)])
    assert only.overhead(chip).nominal_cells == pytest.approx(9 * 2 / 8 / MEMORY.words)
    everywhere = parse("hardened_msb:3@*", Layout(8, regions=regions)).map(chip).cell
    inside = (word < 6000) | ((word >= 7000) & (word < 7009))
    np.testing.assert_array_equal(everywhere[np.isin(everywhere, chip.cell[~inside])], chip.cell[~inside])


def test_layers_have_to_be_there():
    with pytest.raises(InputError, match="layer = 'stem' is not allowed; allowed: body, head"):
        parse("hardened_msb:1@stem", Layout(regions=(Region("body", 0, 4, 1, 1), Region("head", 4, 1, 0, 0))))
    for unlocated in (parse("hardened_msb:1;8@stem"), parse("hardened_msb:8@stem+secded72")):
        assert unlocated.needs_regions
        with pytest.raises(InputError, match="share memory words"):
            unlocated.map(chip_of())
    assert not parse("hardened_msb:1+secded72").needs_regions


def test_boost_is_a_shift_of_the_supply():
    chip = chip_of()
    boosted = parse("boost:0.04").map(chip)
    for v in (0.75, 0.80, 0.85):
        assert boosted.count(v) == pytest.approx(chip.count(v + 0.04), abs=2)  # float32 rounding of the shifted voltage
    assert boosted.voltage_floor == pytest.approx(0.75)
    with pytest.raises(InputError, match="voltage"):
        boosted.count(0.74)


def test_canaries_make_banks_alike():
    """Banks that differ (bank share 0.5) have equal faults where their canary is, and cost more supply."""
    chip = chip_of(Structure(bank=0.5), geometry=Geometry(banks=16), floor=0.70)
    before = np.bincount(chip.at(0.76).cell // 32768, minlength=16)
    canary = Canary(cells=int(0.05 * 32768))
    steady, cost = canary.apply(chip)
    v = float(steady.critical_voltage[16 * canary.cells - 1])
    after = np.bincount(steady.at(v).cell // 32768, minlength=16)
    assert after.std() < 0.02 * before.std()
    offset = canary.offsets(chip)
    assert offset.min() == 0
    assert cost.read_scale(v, 1.0) == pytest.approx(np.mean((v + offset) ** 2))


def test_canaries_depend_on_the_floor_only_where_a_bank_has_too_few_weak_cells_and_say_so():
    geometry = Geometry(banks=16)
    deep, shallow, empty = (chip_of(geometry=geometry, floor=floor) for floor in (0.79, 0.83, 0.93))
    canary = Canary(cells=8)
    assert (canary.offsets(deep) == canary.offsets(shallow)).all()
    assert canary.overhead(deep) == canary.overhead(shallow)
    few = int((np.bincount(empty.cell // 32768, minlength=16) < 8).sum())
    assert few > 0
    assert (canary.offsets(empty) != canary.offsets(deep)).any()
    assert f"{few} of 16 banks" in canary.overhead(empty).source
    assert "0.93" in canary.overhead(empty).source


def test_interleaving_moves_every_bit_of_a_bank_to_another_word():
    chip = chip_of("column", geometry=Geometry(banks=8))
    spread = Interleave(4).map(chip)
    assert len(spread) == len(chip)
    g = chip.geometry
    every = np.arange(g.cells)
    falling = np.linspace(0.99, 0.8, g.cells).astype(np.float32)
    whole = replace(chip, cell=every, critical_voltage=falling, kind=np.zeros(g.cells, np.uint8))
    assert (np.sort(Interleave(4).map(whole).cell) == every).all()  # a permutation
    # Bank 1 alone faulty: its bits now lie in the words of banks 0 to 3, sixteen in each.
    bank = slice(g.cells_per_bank, 2 * g.cells_per_bank)
    weak = replace(whole, cell=every[bank], critical_voltage=falling[bank], kind=whole.kind[bank])
    word, _ = g.word_bit(Interleave(4).map(weak).cell)
    assert np.bincount(word, minlength=g.words).tolist() == [16] * (4 * 512) + [0] * (4 * 512)


def test_masking_by_hand():
    """-3 = 11111101 with bits 1 and 6 wrong, 5 with its sign wrong, 64 with bit 6 lost, 7 untouched."""
    layout = Layout(8)
    stored = layout.pack(np.array([[-3, 5, 64, 7, 0, 0, 0, 0]]), 64)
    bits = np.array([1, 6, 8 + 7, 16 + 6], np.uint8)
    faults = WordFaults(np.array([0]), np.array([0, 4]), bits, np.full(4, 2, np.uint8))
    assert layout.unpack(parse("none").read(stored, faults), 64)[0].tolist()[:4] == [-65, -123, 0, 7]
    assert layout.unpack(Masking(False).read(stored, faults), 64)[0].tolist()[:4] == [0, 0, 0, 7]
    # Bits take the sign's value: -3 with bits 1 and 6 set to 1 is -1; 64 with bit 6 cleared is 0.
    assert layout.unpack(Masking(True).read(stored, faults), 64)[0].tolist()[:4] == [-1, 0, 0, 7]


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_bit_masking_rounds_towards_zero(seed):
    """Where the sign is right, a masked weight has its sign and is no larger in size (Minerva's reason for it)."""
    random = np.random.default_rng(seed)
    weights = random.integers(-128, 128, size=(10, 8))
    layout = Layout(8)
    bits = np.sort(random.choice(64, size=12, replace=False)).astype(np.uint8)
    bits = bits[bits % 8 < 7]
    faults = WordFaults(
        np.array([0]), np.array([0, len(bits)]), bits, random.integers(0, 3, len(bits)).astype(np.uint8)
    )
    row = np.zeros(10, np.int64)
    seen = layout.unpack(Masking(True).read(layout.pack(weights, 64), faults, row), 64)
    assert (np.abs(seen + (seen < 0)) <= np.abs(weights + (weights < 0))).all()
    assert ((seen < 0) == (weights < 0)).all()


def test_weights_read_through_a_reused_word():
    """Two contents pass through one faulty word, one of them with an empty slot."""
    words = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9], np.int8)
    faults = WordFaults(np.array([4]), np.array([0, 2]), np.array([1, 57], np.uint8), np.array([1, 0], np.uint8))
    weight = np.array([[0, 1, 2, 3, 4, 5, 6, 7], [8, -1, -1, -1, -1, -1, -1, -1]])
    changed, value = parse("none").read_weights(words, weight, faults, np.array([0, 0]), Layout(8))
    # Bit 1 of slot 0 stuck at 1: 1 -> 3 and 9 -> 11. Bit 57 is bit 1 of slot 7, stuck at 0: 8 has it clear already.
    assert changed.tolist() == [0, 8]
    assert value.tolist() == [3, 11]
    changed, _ = parse("secded72").read_weights(words, weight, faults, np.array([0, 0]), Layout(8))
    assert changed.size == 0


def test_overheads():
    """By hand: cells and accessed cells of each."""
    chip = chip_of()
    cost = {spec: parse(spec).overhead(chip) for spec in ALL}
    assert cost["secded72"].storage == 72 / 64
    assert cost["secded39"].storage == 78 / 64
    assert cost["spare_columns:1"].energy == 65 / 64
    assert cost["spare_rows:2"] == Overhead(storage=514 / 512, source=cost["spare_rows:2"].source)
    assert float(cost["hardened_msb:2"].read_scale(0.8, 1.0)) == pytest.approx(0.75 * 0.64 + 0.25)
    assert float(cost["boost:0.04"].read_scale(0.8, 1.0)) == pytest.approx(0.84**2)
    both = parse("secded72+spare_columns:1").overhead(chip)
    assert both.storage == pytest.approx(73 / 64)  # the spare serves 72 columns
    assert all(c.source for c in cost.values())


@pytest.mark.parametrize(
    ("spec", "energy"),
    [
        ("hardened_msb:4+secded72", 0.5 + 0.625 * 0.8333**2),  # 32 of 72 bits at nominal voltage
        ("hardened_msb:4+spare_columns:2", 0.5 + (0.5 + 2 / 64) * 0.8333**2),
        ("hardened_msb:4+secded72+spare_columns:2", (32 + (40 + 2) * 0.8333**2) / 64),
        ("hardened_msb:4+spare_rows:2", 0.5 + 0.5 * 0.8333**2),  # spare rows have hardened columns as well
        ("hardened_msb:4+bit_masking", 1.128 * (0.5 + 0.5 * 0.8333**2)),  # Razor is energy, no cells
        ("hardened_msb:4+interleave:4", 4 * (0.5 + 0.5 * 0.8333**2)),
    ],
)
def test_cells_added_to_a_word_are_not_hardened(spec, energy):
    """By hand, in cells of the 64-bit word: hardened ones at nominal voltage, all others at 0.8333 of it."""
    assert float(parse(spec).overhead(chip_of()).read_scale(0.8333, 1.0)) == pytest.approx(energy, rel=1e-12)


def test_words_of_32_bits():
    """(39, 32) on a memory of 32-bit words: 39 columns, faults in data and check bits, wrong widths refused."""
    geometry = Geometry(banks=64, rows=512, columns=64, word_bits=32)
    protected = parse("secded39").map(chip_of(geometry=geometry, floor=0.83))
    assert (protected.geometry.word_bits, protected.geometry.columns) == (39, 78)
    faults = word_faults(protected.geometry, protected.at(0.84))
    _, bit = protected.geometry.word_bit(protected.cell)
    assert set(bit.tolist()) == set(range(39))
    stored = np.random.default_rng(2).integers(2**32, size=len(faults.word), dtype=np.uint64)
    seen = parse("secded39").read(stored, faults, data_bits=32)
    assert (seen[faults.per_word == 1] == stored[faults.per_word == 1]).all()
    assert (seen != stored).any()
    assert seen.max() < 2**32
    with pytest.raises(InputError, match="multiple of 64"):
        parse("secded72").map(chip_of(geometry=geometry))
    with pytest.raises(InputError, match="64 bits"):
        parse("none").read(stored, faults, data_bits=128)


@pytest.mark.parametrize(("word_bits", "dtype"), [(256, np.uint8), (512, np.uint16)])
def test_words_of_hundreds_of_bits(word_bits, dtype):
    """Every bit of a word comes back, those above 255 too."""
    geometry = Geometry(banks=1, rows=2, columns=2 * word_bits, word_bits=word_bits)
    every = faultmap.Faults(np.arange(geometry.cells), np.zeros(geometry.cells, np.uint8))
    found = word_faults(geometry, every)
    assert found.bit.dtype == dtype
    assert (found.bit.reshape(4, word_bits) == np.arange(word_bits)).all()
    with pytest.raises(InputError, match="64 bits"):
        parse("none").read(np.zeros(4, np.uint64), found, data_bits=word_bits)


def test_every_spec_comes_back_from_its_text():
    rules = ["hardened_msb:1;8@stem.*,head;2@stages.0.*", "hardened_msb:8@head"]
    for spec in [*ALL, *rules, "spares:1x2:optimal", "none"]:
        assert parse(parse(spec).spec).spec == parse(spec).spec
    assert parse("boost:0.04+secded72").spec == parse("secded72+boost:0.04").spec
    assert parse([]).spec == "none"
    assert parse("none+secded72").spec == "secded72"
    assert parse("boost:0.04+hardened_msb:2+spare_rows:1").words_as_stored
    assert not parse("secded72").words_as_stored


@pytest.mark.parametrize(
    ("texts", "allowed"),
    [
        ("sec secded72+", "none, secded72, secded39"),
        ("secded72:1", "secded72$"),
        ("boost", "boost:VOLTAGE$"),
        ("boost:x", "a number, in the unit of the curve"),
        ("boost:-1 boost:nan", "a positive voltage"),
        ("spare_rows:0", "one at least"),
        ("spare_rows:-1", "a whole number"),
        ("hardened_msb:9 hardened_msb:0 hardened_msb:9@a", "1 to 8"),
        ("hardened_msb:2.5 hardened_msb: hardened_msb:1@ hardened_msb:@a hardened_msb:1@a,,b", "BITS@LAYER"),
        ("hardened_msb:1;2", "one number of bits"),
        ("spares:1 spares:1x1:best", "ROWSxCOLUMNS"),
        ("interleave:1", "at least 2"),
        ("canary:0", "at least 1"),
        ("secded72+secded39", "each kind of protection once"),
    ],
)
def test_wrong_texts_are_refused(texts, allowed):
    for text in texts.split():
        with pytest.raises(InputError, match=f"allowed: .*{allowed}"):
            parse(text)

"""Do SRAM protections act in a study as they do on paper: exact on the data, costed on the chip?"""

import numpy as np
import pytest

from neuralfuse import networks
from neuralfuse.chips.cost import scopes
from neuralfuse.chips.stored import layout_of, store
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.study.config import SramConfig
from neuralfuse.study.memory import memory_of
from simulator.accelerator import accelerator, with_weight_rail
from simulator.array.cycles import simulate
from simulator.energy import energy
from simulator.operating_point import NOMINAL, OperatingPoint, Supply
from simulator.placement import place
from simulator.readers.read import trace
from sram import protection
from sram.geometry import Geometry
from sram.memory import Chip
from sram.protection import Overhead

VOLTAGE = 0.82  # 1.9% of the cells
LOW = OperatingPoint((Supply("weights", 0.8),))


@pytest.fixture(scope="module")
def bench():
    network = networks.build("resnet8", in_channels=1, width=4)
    workload = trace(network, (1, 16, 16))
    faulty = FaultyNetwork(network)
    machine = with_weight_rail(accelerator("paper"))
    placed = place(workload, machine, Geometry.of_capacity(64 * 1024))
    chips = [
        Chip(1, 5).fault_map(memory_of(SramConfig(), placed.geometry, form), VOLTAGE) for form in ("column", "iid")
    ]
    return faulty, placed, chips, workload, machine


def words_read(faulty, stored_chip, voltage=VOLTAGE):
    faulty.set_faults(*stored_chip.faults(voltage))
    words = faulty.words.copy()
    faulty.restore()
    return words


def wrong(faulty, words) -> int:
    return int((words != faulty.clean_words).sum())


def test_none_equals_the_plain_injection(bench):
    faulty, placed, chips, *_ = bench
    for raw in chips:
        bare = store(raw, placed, faulty, protection.parse("none"))
        hits = placed.hits(raw.at(VOLTAGE).cell)
        faulty.write_faults(_translated(faulty, placed, hits), raw.at(VOLTAGE).kind)
        expected = faulty.words.copy()
        faulty.restore()
        np.testing.assert_array_equal(words_read(faulty, bare), expected)
        assert wrong(faulty, expected) > 50


def _translated(faulty, placed, hits):
    return type(hits)(hits.fault, faulty.numbering(placed.tensors).words(hits.weight), hits.bit)


def test_secded_word_by_word(bench):
    """Words with one wrong data bit come back right unless one of their 8 check bits is wrong too: 1.9% of the cells
    are faulty and half of those disagree with their bit, so (1 - 0.0095)^8 = 92.7% of about 500 words; 4 sigma are
    4.7%. Words with two wrong data bits and right check bits come back as they lie in the cells."""
    faulty, placed, chips, *_ = bench
    raw = chips[1]
    read = words_read(faulty, store(raw, placed, faulty, protection.parse("secded72")))
    bare = words_read(faulty, store(raw, placed, faulty, protection.parse("none")))
    numbering = faulty.numbering(placed.tensors)
    ones, fixed, twos, kept = 0, 0, 0, 0
    for held in placed.contents(np.arange(placed.geometry.words))[1]:
        index = numbering.words(held[held >= 0])
        errors = int(np.bitwise_count((bare[index] ^ faulty.clean_words[index]).view(np.uint8)).sum())
        ones += errors == 1
        fixed += errors == 1 and bool((read[index] == faulty.clean_words[index]).all())
        twos += errors == 2
        kept += errors == 2 and bool((read[index] == bare[index]).all())
    assert ones > 150
    assert abs(fixed / ones - 0.927) < 4 * (0.927 * 0.073 / ones) ** 0.5
    assert kept / twos > 0.8


def test_word_masking_zeroes_exactly_the_wrong_weights(bench):
    faulty, placed, chips, *_ = bench
    bare = words_read(faulty, store(chips[0], placed, faulty, protection.parse("none")))
    masked = words_read(faulty, store(chips[0], placed, faulty, protection.parse("word_masking")))
    expected = np.where(bare != faulty.clean_words, 0, faulty.clean_words)
    np.testing.assert_array_equal(masked, expected)


def test_hardened_bits_stay_right(bench):
    faulty, placed, chips, *_ = bench
    read = words_read(faulty, store(chips[1], placed, faulty, protection.parse("hardened_msb:2")))
    difference = (read ^ faulty.clean_words).view(np.uint8)
    assert (difference & 0b1100_0000 == 0).all()
    assert difference.any()


def test_hardened_layers_are_the_layers_of_the_network(bench):
    """Whole layers at nominal voltage read as stored, all others do not; their reads are a share of the energy that
    the layers' own counts give."""
    faulty, placed, chips, workload, machine = bench
    counts = simulate(workload, machine)
    layout = layout_of(placed, counts)
    assert layout_of(placed).regions == ()
    shield = protection.parse("hardened_msb:8@stem*,head", layout)
    read = words_read(faulty, store(chips[1], placed, faulty, shield))
    bare = words_read(faulty, store(chips[1], placed, faulty, protection.parse("none")))
    hardened = np.zeros(len(read), bool)
    for layer in faulty.layer_table:
        kept = layer.name.startswith(("stem", "head"))
        hardened[layer.offset : layer.offset + layer.size] = kept
    assert (bare != faulty.clean_words)[hardened].any()
    np.testing.assert_array_equal(read, np.where(hardened, faulty.clean_words, bare))
    frame = counts.frame().set_index("layer").drop("total")
    words = frame.weight_sram_reads_64bit_words
    share = words[words.index.str.startswith(("stem", "head"))].sum() / words.sum()
    cost = shield.apply(chips[1])[1]
    assert 0 < share < 1
    assert cost.nominal_reads == pytest.approx(share)
    assert cost.nominal_cells == pytest.approx(
        sum(-(-layer.size // 8) for layer in faulty.layer_table if layer.name.startswith(("stem", "head")))
        / placed.geometry.words
    )
    machine = counts.accelerator
    low, kept = (scopes(energy(counts, LOW), machine, LOW, {"weight_buffer": c}) for c in (Overhead(), cost))
    assert kept["weight_sram"] / low["weight_sram"] == pytest.approx((share + (1 - share) * 0.64) / 0.64)
    assert low["sram"] < kept["sram"] < scopes(energy(counts), machine, NOMINAL)["sram"]


def test_layers_that_pass_through_a_buffer_have_no_words_of_their_own(bench):
    *_, workload, machine = bench
    through = place(workload, machine, Geometry(banks=1, rows=64))
    assert through.residencies > 1
    assert layout_of(through, simulate(workload, machine)).regions == ()


def test_spare_columns_help_where_faults_cluster(bench):
    faulty, placed, chips, *_ = bench
    left = {}
    for form, raw in zip(("column", "iid"), chips, strict=True):
        before = raw.count(VOLTAGE)
        spared = store(raw, placed, faulty, protection.parse("spare_columns:2"))
        left[form] = spared.map.count(VOLTAGE) / before
    assert left["column"] < 0.75 * left["iid"]


def test_every_content_of_every_word_is_seen_once(bench):
    """`contents` of all words is the whole stream: every weight, each in the cells that `locate` names."""
    _, placed, *_ = bench
    row, weight = placed.contents(np.arange(placed.geometry.words))
    held = weight[weight >= 0]
    np.testing.assert_array_equal(np.sort(held), np.arange(placed.weights))
    rng = np.random.default_rng(0)
    for i in rng.integers(0, len(row), 50):
        slots = np.flatnonzero(weight[i] >= 0)
        for slot in slots[:1]:
            word, _ = placed.geometry.word_bit(placed.locate(int(weight[i, slot]), 0))
            assert row[i] in word


def test_overheads_enter_the_energy(bench):
    _, placed, chips, workload, machine = bench
    spent = energy(simulate(workload, machine), LOW)

    def behind(spec: str, buffer: str = "weight_buffer") -> dict:
        overhead = protection.parse(spec).apply(chips[0])[1]
        return scopes(spent, machine, LOW, {buffer: overhead})

    plain, coded = scopes(spent, machine, LOW), behind("secded72")
    assert plain == behind("none") == {scope: spent.scope_pj(scope) for scope in plain}
    assert coded["weight_sram"] / plain["weight_sram"] == pytest.approx(72 / 64)
    more = {scope: coded[scope] - plain[scope] for scope in plain}
    assert more["sram"] == pytest.approx(more["chip"])
    assert more["sram"] == pytest.approx(more["system"])
    assert more["sram"] > more["weight_sram"] > 0
    hard = behind("hardened_msb:2")
    assert hard["weight_sram"] / plain["weight_sram"] == pytest.approx((0.75 * 0.64 + 0.25) / 0.64)
    boosted = behind("boost:0.05")
    assert boosted["weight_sram"] / plain["weight_sram"] == pytest.approx((0.85 / 0.8) ** 2)
    inputs = behind("secded72", "ifmap_buffer")
    assert inputs["weight_sram"] == plain["weight_sram"]
    of_inputs = sum(pj.sum() for part, pj in spent.parts.items() if part.owner == "ifmap_buffer")
    assert inputs["sram"] - plain["sram"] == pytest.approx(of_inputs / 8)
    assert layout_of(placed).weight_bits == 8


@pytest.mark.parametrize("spec", ["secded72", "bit_masking", "word_masking", "spare_columns:1"])
def test_a_memory_without_a_fault_reads_as_stored(bench, spec):
    faulty, placed, _, _, _ = bench
    stored = store(
        Chip(1, 5).fault_map(memory_of(SramConfig(), placed.geometry, "iid"), 1.2),
        placed,
        faulty,
        protection.parse(spec),
    )
    assert stored.raw.count(1.3) == 0
    assert wrong(faulty, words_read(faulty, stored, 1.3)) == 0

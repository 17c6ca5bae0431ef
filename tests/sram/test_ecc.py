"""Are the SECDED codes what they claim to be: all single errors corrected, all double errors detected?"""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sram.errors import InputError
from sram.protection import Layout, Secded, WordFaults, ecc, parse
from sram.protection.kernels import secded as secded_kernel


def flips(codewords: list[tuple[int, ...]]) -> WordFaults:
    """One faulty word for each tuple of flipped bits."""
    start = np.cumsum([0, *map(len, codewords)])
    bit = np.array([b for bits in codewords for b in bits], np.uint8)
    return WordFaults(np.arange(len(codewords)), start, bit, np.full(len(bit), 2, np.uint8))


def decode(block_bits: int, stored: np.ndarray, faults: WordFaults, data_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Words read and whether an error was detected and left."""
    seen = parse("none").read(stored, faults, data_bits=data_bits)
    code = ecc.secded(block_bits)
    detected = np.zeros(len(stored), np.bool_)
    secded_kernel(
        stored,
        np.arange(len(stored)),
        *faults[1:],
        code.masks,
        code.position,
        block_bits,
        data_bits,
        seen,
        detected,
    )
    return seen, detected


@pytest.mark.parametrize("block_bits", [64, 32])
def test_every_single_error_is_corrected_and_every_double_error_detected(block_bits):
    random = np.random.default_rng(7)
    n = block_bits + ecc.CHECK_BITS[block_bits]
    singles, doubles = list(combinations(range(n), 1)), list(combinations(range(n), 2))
    for stored_word in [0, 2**block_bits - 1, int(random.integers(2**63)) % 2**block_bits]:
        stored = np.full(len(singles), stored_word, np.uint64)
        seen, detected = decode(block_bits, stored, flips(singles), block_bits)
        assert (seen == stored).all()
        assert not detected.any()
        stored = np.full(len(doubles), stored_word, np.uint64)
        faults = flips(doubles)
        seen, detected = decode(block_bits, stored, faults, block_bits)
        assert detected.all()
        assert (seen == parse("none").read(stored, faults, data_bits=block_bits)).all()  # passed on as read


@pytest.mark.parametrize("block_bits", [64, 32])
def test_code_over_gf2_by_galois(block_bits):
    """Generator and parity-check matrix fit, and any three columns of H are independent: distance at least four."""
    galois = pytest.importorskip("galois")
    code = ecc.secded(block_bits)
    H = galois.GF2(code.parity_check_matrix())
    data, checks = block_bits, code.check_bits
    G = galois.GF2.Zeros((data, data + checks))
    G[:, :data] = galois.GF2.Identity(data)
    G[:, data:] = H[:, :data].T
    assert not (G @ H.T).any()
    random = np.random.default_rng(3)
    for word in random.integers(2, size=(50, data)):
        expected = galois.GF2(word) @ G
        number = sum(int(b) << i for i, b in enumerate(word))
        found = [code.check(number) >> j & 1 for j in range(checks)]
        assert found == np.asarray(expected[data:]).tolist()
    columns = [int("".join(map(str, np.asarray(H[:, i]))), 2) for i in range(data + checks)]
    assert len(set(columns)) == len(columns)
    assert 0 not in columns
    pairs = {a ^ b for a, b in combinations(columns, 2)}
    assert not pairs & set(columns)  # no three columns add up to zero


@pytest.mark.parametrize(("block_bits", "ones"), [(64, 216), (32, 103)])
def test_parity_trees_are_hsiaos_minimum(block_bits, ones):
    """Hsiao (1970), table of minimum-odd-weight-column codes: 216 ones for (72, 64), 103 for (39, 32)."""
    H = ecc.secded(block_bits).parity_check_matrix()
    assert H.sum() == ones
    assert np.ptp(H.sum(axis=1)) <= 1


@given(
    data=st.integers(0, 2**64 - 1),
    bits=st.lists(st.integers(0, 71), min_size=1, max_size=6, unique=True),
    kinds=st.lists(st.integers(0, 2), min_size=6, max_size=6),
)
def test_stuck_cells_that_agree_with_the_data_are_no_errors(data, bits, kinds):
    """Twin in plain Python: write data and check bits, read through the faults, decode by trying every single bit."""
    code = ecc.secded(64)
    written = data | code.check(data) << 64
    read = written
    for b, kind in zip(bits, kinds, strict=False):
        read = [read & ~(1 << b), read | 1 << b, read ^ 1 << b][kind]

    def valid(word: int) -> bool:
        return code.check(word & 2**64 - 1) == word >> 64

    if not valid(read):
        fixes = [read ^ 1 << b for b in range(72) if valid(read ^ 1 << b)]
        read = fixes[0] if fixes else read
    order = np.argsort(bits)
    bit, kind = np.array(bits, np.uint8)[order], np.array(kinds[: len(bits)], np.uint8)[order]
    faults = WordFaults(np.array([0]), np.array([0, len(bits)]), bit, kind)
    found = Secded(64).read(np.array([data], np.uint64), faults)
    assert int(found[0]) == read & 2**64 - 1


def test_two_blocks_of_a_64_bit_word_are_corrected_apart():
    """(39, 32) twice: an error in each half is corrected; check bits of block c are bits 64 + 7 c onwards."""
    stored = np.array([0x0123456789ABCDEF], np.uint64)
    for bits in [(0, 63), (31, 32), (5, 71), (64, 71), (70, 77)]:
        assert Secded(32).read(stored, flips([bits]))[0] == stored[0]
    assert Secded(32).read(stored, flips([(0, 1)]))[0] == stored[0] ^ np.uint64(3)


def test_other_widths_are_refused():
    with pytest.raises(InputError, match="64 or 32"):
        ecc.secded(16)


@pytest.mark.parametrize("order", ["lsb_first", "msb_first", "interleaved"])
@pytest.mark.parametrize("weight_bits", [8, 16, 6, 2])
def test_layout_packs_and_unpacks(order, weight_bits):
    layout = Layout(weight_bits, order)
    half = 2 ** (weight_bits - 1)
    weights = np.random.default_rng(1).integers(-half, half, size=(20, 64 // weight_bits))
    assert (layout.unpack(layout.pack(weights, 64), 64) == weights).all()

"""Do faults change exactly the bits they should?"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sram import inject
from sram.errors import InputError


def test_hand_worked_words():
    words = np.array([0, -1, 0b0101, -128, 127], np.int8)
    inject.apply(
        words,
        np.array([0, 1, 2, 3, 4]),
        np.array([7, 0, 1, 7, 7], np.uint8),
        np.array([1, 0, 2, 0, 2], np.uint8),
    )
    assert words.tolist() == [-128, -2, 0b0111, 0, -1]


@settings(max_examples=100, deadline=None)
@given(data=st.data(), dtype=st.sampled_from([np.int8, np.int16]))
def test_kernel_equals_its_slow_twin(data, dtype):
    bits = 8 * np.dtype(dtype).itemsize
    words = np.array(data.draw(st.lists(st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), min_size=1)), dtype)
    faults = data.draw(
        st.lists(st.tuples(st.integers(0, len(words) - 1), st.integers(0, bits - 1), st.integers(0, 2)), max_size=30)
    )
    weight, bit, kind = (np.array([f[i] for f in faults], t) for i, t in enumerate((np.int64, np.uint8, np.uint8)))
    expected = [int(word) & (2**bits - 1) for word in words]
    for w, b, k in faults:
        expected[w] = [expected[w] & ~(1 << b), expected[w] | (1 << b), expected[w] ^ (1 << b)][k]
    inject.apply(words, weight, bit, kind)
    assert [int(word) & (2**bits - 1) for word in words] == expected


def test_stuck_faults_can_be_applied_twice_and_flips_undo_themselves():
    rng = np.random.default_rng(0)
    before = rng.integers(-128, 128, 1000).astype(np.int8)
    weight, bit = rng.permutation(1000)[:300], rng.integers(0, 8, 300).astype(np.uint8)
    stuck = rng.integers(0, 2, 300).astype(np.uint8)
    once = before.copy()
    inject.apply(once, weight, bit, stuck)
    twice = once.copy()
    inject.apply(twice, weight, bit, stuck)
    assert (once == twice).all()
    assert 100 < (once != before).sum() < 200  # about half of the stuck cells show
    flipped = before.copy()
    for _ in range(2):
        inject.apply(flipped, weight, bit, np.full(300, inject.FLIP, np.uint8))
    assert (flipped == before).all()


@pytest.mark.parametrize(
    ("weight", "bit", "kind"), [([3], [0], [0]), ([-1], [0], [0]), ([0], [8], [0]), ([0], [0], [3]), ([0, 1], [0], [0])]
)
def test_faults_outside_the_words_are_refused(weight, bit, kind):
    words = np.zeros(3, np.int8)
    with pytest.raises(InputError, match="inject"):
        inject.apply(words, np.array(weight), np.array(bit, np.uint8), np.array(kind, np.uint8))
    assert (words == 0).all()


@pytest.mark.parametrize("words", [np.zeros(3), np.zeros((2, 2), np.int8), np.zeros(3, np.uint8)])
def test_only_flat_signed_words_are_taken(words):
    with pytest.raises(InputError, match="int8"):
        inject.apply(words, np.array([0]), np.array([0], np.uint8), np.array([0], np.uint8))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), bits=st.integers(2, 8), many=st.booleans())
def test_rereading_for_chip_after_chip_equals_a_fresh_start(data, bits, many):
    # 3000 words in runs of scale; few faults go the way of scattered writes, many the way of a whole pass, which
    # writes eight values at a time wherever the array begins and a run ends.
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    level = 2 ** (bits - 1)
    clean = rng.integers(-level, level, 3000).astype(np.int8)
    starts = np.array([0, *sorted(data.draw(st.sets(st.integers(1, 2999), max_size=40)))])
    scale = rng.random(len(starts)).astype(np.float32)
    factor = np.repeat(scale, np.diff([*starts, 3000]))
    whole = np.full(3016, -1, data.draw(st.sampled_from([np.float32, np.float64])))
    offset = data.draw(st.integers(0, 15))
    values = whole[offset : offset + 3000]
    values[:] = clean * factor
    stored = inject.StoredWords(clean, values, starts, scale, bits)
    for _ in range(3):
        k = int(rng.integers(30, 300) if many else rng.integers(0, 11))
        weight, bit = rng.integers(0, 3000, k), rng.integers(0, bits, k).astype(np.uint8)
        kind = rng.integers(0, 3, k).astype(np.uint8)
        stored.set_faults(weight, bit, kind)
        expected = clean.copy()
        inject.apply(expected, weight, bit, kind)
        expected = ((expected.astype(np.int64) & (2 * level - 1)) ^ level) - level  # sign bit of `bits`
        assert (stored.words == expected).all()
        assert (values == stored.words * factor).all()  # products in float32, whatever holds them
        assert (np.delete(whole, np.s_[offset : offset + 3000]) == -1).all()  # nothing beside them is touched


def test_rereading_with_faults_outside_changes_nothing():
    values, one_scale = np.ones(10, np.float32), (np.array([0]), np.ones(1, np.float32))
    stored = inject.StoredWords(np.ones(10, np.int8), values, *one_scale, bits=4)
    for weight, bit in ((10, 0), (0, 4)):
        faults = np.array([0, weight]), np.array([1, bit], np.uint8), np.ones(2, np.uint8)
        with pytest.raises(InputError, match="fault 1"):
            stored.set_faults(*faults)
    assert (values == 1).all()
    assert (stored.words == 1).all()


def test_strided_values_are_refused():
    with pytest.raises(InputError, match="contiguous"):
        inject.StoredWords(np.zeros(4, np.int8), np.zeros(8, np.float32)[::2], np.array([0]), np.ones(1, np.float32))

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

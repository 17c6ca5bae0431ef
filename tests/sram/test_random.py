"""Are the random numbers the published ones, exact where they must be, and the same on every machine?"""

import hashlib
import math

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import kstest

from sram import random
from sram import random_kernels as kernels
from sram.errors import InputError
from sram.random import Stream

# Known answers for philox4x32 with 10 rounds, from the authors' Random123 distribution (kat_vectors).
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_gives_the_published_words(counter, key, words):
    assert " ".join(f"{word:08x}" for word in kernels.philox(*counter, *key)) == words


def test_series_agree_with_the_c_library_to_two_ulp():
    rng = np.random.default_rng(1)
    positive = np.concatenate([rng.random(5000), 10 ** rng.uniform(-300, 300, 5000)])
    assert np.allclose([kernels.log(x) for x in positive], np.log(positive), rtol=5e-16, atol=0)
    x = np.concatenate([rng.uniform(-1, 1, 5000), rng.uniform(-600, 600, 5000)])
    assert np.allclose([kernels.expm1(v) for v in x], np.expm1(x), rtol=5e-16, atol=0)


def test_normal_of_time_is_the_exact_quantile_and_its_table_is_as_good_as_stated():
    time = 10 ** np.random.default_rng(2).uniform(-17, 1.7, 20000)
    exact = np.where(time < 0.5, -ndtri(-np.expm1(-time)), ndtri(np.exp(-time)))
    assert np.abs([kernels.normal_of_time(t) for t in time] - exact).max() < 2e-15 * 40
    error = np.abs([kernels.normal_at(t, random.times()) for t in time] - exact)
    assert error[time < np.log(2)].max() < 7e-8
    assert error.max() < 3e-7


def test_uniform_reaches_neither_end():
    assert kernels.uniform(np.uint64(0), np.uint64(0)) == 2.0**-53
    assert kernels.uniform(np.uint64(2**32 - 1), np.uint64(2**32 - 1)) == 1 - 2.0**-53


def test_streams_are_uniform_normal_and_do_not_repeat_each_other():
    # Kolmogorov-Smirnov at 1e-3 each, three tests: false alarm 0.3%, fixed seeds.
    assert kstest(random.uniforms(20000, Stream.CELL, seed=7, chip=3), "uniform").pvalue > 1e-3
    normal = random.normals(20000, Stream.COLUMN, seed=7, chip=3)
    assert kstest(normal, "norm").pvalue > 1e-3
    others = [
        random.normals(20000, Stream.ROW, seed=7, chip=3),
        random.normals(20000, Stream.COLUMN, seed=8, chip=3),
        random.normals(20000, Stream.COLUMN, seed=7, chip=4),
        random.normals(20000, Stream.COLUMN, seed=7, chip=3, bank=1),
    ]
    # |r| sqrt(n) is standard normal: 4.5 sigma in four tests is a false alarm of 3e-5.
    assert max(abs(np.corrcoef(normal, other)[0, 1]) for other in others) < 4.5 / math.sqrt(20000)


def test_bits_are_the_same_on_every_machine():
    # Made on x86-64 with glibc; the functions use only operations that IEEE 754 rounds in one way.
    digest = hashlib.sha256(random.times().tobytes() + random.normals(1000, Stream.BANK, seed=1).tobytes()).hexdigest()
    assert digest[:16] == "cdb798ad298f0704"


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5])
def test_seeds_outside_32_bits_are_refused(seed):
    with pytest.raises(InputError, match="seed"):
        random.uniforms(1, Stream.CELL, seed=seed)


def test_element_i_of_a_stream_has_the_counter_i():
    """Philox (index, item, bank, stream) under the key (seed, chip): the words as in the known answers above."""
    words = [kernels.philox(i, 0, 9, int(Stream.ROW), 5, 6)[:2] for i in range(4)]
    expected = [kernels.uniform(np.uint64(a), np.uint64(b)) for a, b in words]
    assert random.uniforms(4, Stream.ROW, seed=5, chip=6, bank=9).tolist() == expected
    assert random.normals(4, Stream.ROW, seed=5, chip=6, bank=9) == pytest.approx(ndtri(expected), abs=4e-7)

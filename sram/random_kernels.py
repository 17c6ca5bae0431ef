"""Counter-based random numbers in arithmetic that gives the same bits on every machine.

Only integer operations and + - * / sqrt on float64 are used, which IEEE 754 rounds in one way only (and numba, without
fastmath, neither reorders nor fuses). The logarithm and exponential of the C library differ in their last bit between
platforms and would make a fault map depend on where it was made; hence the two short series below.
"""

import numpy as np

from sram.jit import jit, jit_inline

M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
LOW = np.uint64(0xFFFFFFFF)
B32 = np.uint64(32)
# Bits of 1.0, of 2^52, and the mantissa: casts by hand, because processors before AVX-512 have no vector cast.
ONE, TWO52, MANTISSA = np.uint64(0x3FF0000000000000), np.uint64(0x4330000000000000), np.uint64(0x000FFFFFFFFFFFFF)
LN2_HIGH, LN2_LOW = (
    6.93147180369123816490e-01,
    1.90821492927058770002e-10,
)  # high part: 33 bits, so that k * high is exact
# A table of normal variates against time: 2^TIME_BITS steps per octave, from 2^TIME_LOW to 2^TIME_HIGH.
TIME_BITS, TIME_LOW, TIME_HIGH = 10, -60, 6
TIME_SHIFT = np.int64(52 - TIME_BITS)
TIME_FIRST = np.int64((TIME_LOW + 1023) << TIME_BITS)
TIME_REST = np.int64((1 << (52 - TIME_BITS)) - 1)
TIME_UNIT = 2.0 ** (TIME_BITS - 52)


@jit_inline
def philox(c0, c1, c2, c3, k0, k1):
    """Philox4x32-10 (Salmon et al., SC 2011): a counter of four and a key of two 32-bit words -> four words.

    The words are held in uint64, so that a product needs no cast.
    """
    c0, c1, c2, c3 = np.uint64(c0), np.uint64(c1), np.uint64(c2), np.uint64(c3)
    k0, k1 = np.uint64(k0), np.uint64(k1)
    for _ in range(10):
        a, b = c0 * M0, c2 * M1
        c0, c1, c2, c3 = (b >> B32) ^ c1 ^ k0, b & LOW, (a >> B32) ^ c3 ^ k1, a & LOW
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return c0, c1, c2, c3


@jit_inline
def uniform(high, low):
    """Two 32-bit words -> the middle of one of 2^52 cells of (0, 1): never 0, never 1, symmetric about 1/2."""
    bits = (((np.uint64(high) << B32) | np.uint64(low)) >> np.uint64(12)) | ONE
    return np.uint64(bits).view(np.float64) - (1.0 - 2.0**-53)  # from [1, 2); exact


@jit_inline
def log(x):
    """Natural logarithm of a positive normal float64, to 1 ulp or so: x = m 2^e, log m = 2 atanh((m - 1) / (m + 1))."""
    bits = np.float64(x).view(np.uint64)
    m = np.uint64((bits & MANTISSA) | ONE).view(np.float64)
    exponent = np.uint64((bits >> np.uint64(52)) | TWO52).view(np.float64) - (2.0**52 + 1023.0)
    large = m > 1.4142135623730951
    m = 0.5 * m if large else m
    exponent = exponent + 1.0 if large else exponent
    s = np.divide(m - 1.0, m + 1.0)  # a plain / checks for zero, which keeps this from being vectorised
    # |s| <= 0.1716, so the terms below s^21 / 21 are under 1e-17
    q = s * s
    series = 1.0 / 19.0
    series = series * q + 1.0 / 17.0
    series = series * q + 1.0 / 15.0
    series = series * q + 1.0 / 13.0
    series = series * q + 1.0 / 11.0
    series = series * q + 1.0 / 9.0
    series = series * q + 1.0 / 7.0
    series = series * q + 1.0 / 5.0
    series = series * q + 1.0 / 3.0
    return exponent * LN2_HIGH + (exponent * LN2_LOW + (2.0 * s * q * series + 2.0 * s))


@jit_inline
def expm1(x):
    """exp(x) - 1 for -700 < x < 700: Taylor series on |r| <= ln(2) / 2 after taking out 2^k."""
    k = np.floor(x * 1.4426950408889634 + 0.5)
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    series = 1.0 / 6227020800.0
    series = series * r + 1.0 / 479001600.0
    series = series * r + 1.0 / 39916800.0
    series = series * r + 1.0 / 3628800.0
    series = series * r + 1.0 / 362880.0
    series = series * r + 1.0 / 40320.0
    series = series * r + 1.0 / 5040.0
    series = series * r + 1.0 / 720.0
    series = series * r + 1.0 / 120.0
    series = series * r + 1.0 / 24.0
    series = series * r + 1.0 / 6.0
    series = series * r + 0.5
    series = r + r * r * series
    power = np.int64((np.int64(k) + np.int64(1023)) << np.int64(52)).view(np.float64)
    return power * series + (power - 1.0)


@jit
def _central(q):
    """Normal quantile of 1/2 + q, |q| <= 0.425 (Wichura, Applied Statistics 37, 1988: algorithm AS 241, PPND16)."""
    r = 0.180625 - q * q
    top = 2.5090809287301226727e3
    top = top * r + 3.3430575583588128105e4
    top = top * r + 6.7265770927008700853e4
    top = top * r + 4.5921953931549871457e4
    top = top * r + 1.3731693765509461125e4
    top = top * r + 1.9715909503065514427e3
    top = top * r + 1.3314166789178437745e2
    top = top * r + 3.3871328727963666080e0
    low = 5.2264952788528545610e3
    low = low * r + 2.8729085735721942674e4
    low = low * r + 3.9307895800092710610e4
    low = low * r + 2.1213794301586595867e4
    low = low * r + 5.3941960214247511077e3
    low = low * r + 6.8718700749205790830e2
    low = low * r + 4.2313330701600911252e1
    low = low * r + 1.0
    return q * top / low


@jit
def _tail(minus_log_p):
    """How far above 0 a normal variate lies that is exceeded with probability p <= 0.075, from -log p (AS 241)."""
    r = np.sqrt(minus_log_p)
    if r <= 5.0:
        r -= 1.6
        top = 7.74545014278341407640e-4
        top = top * r + 2.27238449892691845833e-2
        top = top * r + 2.41780725177450611770e-1
        top = top * r + 1.27045825245236838258e0
        top = top * r + 3.64784832476320460504e0
        top = top * r + 5.76949722146069140550e0
        top = top * r + 4.63033784615654529590e0
        top = top * r + 1.42343711074968357734e0
        low = 1.05075007164441684324e-9
        low = low * r + 5.47593808499534494600e-4
        low = low * r + 1.51986665636164571966e-2
        low = low * r + 1.48103976427480074590e-1
        low = low * r + 6.89767334985100004550e-1
        low = low * r + 1.67638483018380384940e0
        low = low * r + 2.05319162663775882187e0
        low = low * r + 1.0
        return top / low
    r -= 5.0
    top = 2.01033439929228813265e-7
    top = top * r + 2.71155556874348757815e-5
    top = top * r + 1.24266094738807843860e-3
    top = top * r + 2.65321895265761230930e-2
    top = top * r + 2.96560571828504891230e-1
    top = top * r + 1.78482653991729133580e0
    top = top * r + 5.46378491116411436990e0
    top = top * r + 6.65790464350110377720e0
    low = 2.04426310338993978564e-15
    low = low * r + 1.42151175831644588870e-7
    low = low * r + 1.84631831751005468180e-5
    low = low * r + 7.86869131145613259100e-4
    low = low * r + 1.48753612908506148525e-2
    low = low * r + 1.36929880922735805310e-1
    low = low * r + 5.99832206555887937690e-1
    low = low * r + 1.0
    return top / low


@jit
def normal_of_time(t):
    """The normal variate that is exceeded with probability 1 - exp(-t): large for small t, falling as t grows."""
    if t < 0.07796154146971184:  # -log(1 - 0.075)
        return _tail(-log(-expm1(-t)))
    if t > 2.5902671654458267:  # -log(0.075)
        return -_tail(t)
    return -_central(-0.5 - expm1(-t))


@jit
def fill_times(out):
    """The normal variate at each step's time, into out float64[steps + 1]."""
    for i in range(out.size):
        bits = np.int64((TIME_FIRST + i) << TIME_SHIFT)
        out[i] = normal_of_time(bits.view(np.float64))


@jit_inline
def normal_at(time, times):
    """normal_of_time by linear interpolation, ten times faster and as reproducible.

    Within 7e-8 for the weaker half of the cells (times below log 2), 3e-7 for the strongest. Times beyond the table's
    ends, which come with probability 1e-18, count as the nearest step.
    """
    bits = np.float64(time).view(np.int64)
    i = min(max((bits >> TIME_SHIFT) - TIME_FIRST, 0), times.size - 2)
    return times[i] + np.float64(bits & TIME_REST) * TIME_UNIT * (times[i + 1] - times[i])


@jit
def one_normal(index, bank, stream, key, times):
    """The normal variate of (index, 0, bank, stream)."""
    k0, k1 = key
    x0, x1, _, _ = philox(index, np.int64(0), bank, stream, k0, k1)
    return normal_at(-log(uniform(x0, x1)), times)


@jit
def fill_normals(out, bank, stream, key, times):
    """Normal variates into out float64[n], element i from (i, 0, bank, stream)."""
    k0, k1 = key
    for i in range(out.size):
        x0, x1, _, _ = philox(i, np.int64(0), bank, stream, k0, k1)
        out[i] = -log(uniform(x0, x1))
    for i in range(out.size):
        out[i] = normal_at(out[i], times)


@jit
def fill_uniforms(out, bank, stream, key):
    """Uniform variates into out float64[n], element i from (i, 0, bank, stream)."""
    k0, k1 = key
    for i in range(out.size):
        x0, x1, _, _ = philox(i, np.int64(0), bank, stream, k0, k1)
        out[i] = uniform(x0, x1)

"""The two ways in which this project compiles a loop."""

import numba

# nogil: sweeps run in threads too. cache: the second process starts in milliseconds.
# No fastmath: NaN and the order of sums are part of a result.
jit = numba.njit(cache=True, nogil=True)
jit_parallel = numba.njit(cache=True, nogil=True, parallel=True)

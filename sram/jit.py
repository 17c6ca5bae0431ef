"""The ways in which this project compiles a loop."""

import numba

# nogil: sweeps run in threads too. cache: the second process starts in milliseconds.
# No fastmath: NaN and the order of sums are part of a result.
jit = numba.njit(cache=True, nogil=True)
jit_parallel = numba.njit(cache=True, nogil=True, parallel=True)
# For short functions of innermost loops: left to itself LLVM calls some of them, at ten times their own cost.
jit_inline = numba.njit(cache=True, nogil=True, forceinline=True)

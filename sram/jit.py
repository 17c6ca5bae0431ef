"""The ways in which this project compiles a loop."""

import functools
import os
from collections.abc import Callable
from typing import Any

import numba

from sram.cache import trusted


def _compiler(**options: Any) -> Callable[[Callable], Any]:
    """numba.njit with a cache on disk, so that the second process starts in milliseconds; without one where no folder
    may be written, or others may write the one that is used: numba unpickles what lies there."""

    def compiled(function: Callable) -> Any:
        try:
            found = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # numba knows no folder
            return numba.njit(**options)(function)
        if _trusted_folder(found.stats.cache_path, function.__code__.co_filename):
            return found
        return numba.njit(**options)(function)

    return compiled


@functools.cache
def _trusted_folder(folder: str, source: str) -> bool:
    """A folder, and what numba loads from it."""
    with os.scandir(folder) as entries:
        files = [entry.path for entry in entries if entry.name.endswith((".nbi", ".nbc"))]
    return trusted(folder, source) and all(trusted(file, source) for file in files)


# nogil: sweeps run in threads too.
# No fastmath: NaN and the order of sums are part of a result.
jit = _compiler(nogil=True)
jit_parallel = _compiler(nogil=True, parallel=True)
# For short functions of innermost loops: left to itself LLVM calls some of them, at ten times their own cost.
jit_inline = _compiler(nogil=True, forceinline=True)

"""Is freed memory kept where the C library can do it, and is its absence no error?"""

import ctypes
import subprocess
import sys

import pytest

from neuralfuse.sweep.allocator import keep_freed_memory

COUNT = """
import resource, sys
import torch
from neuralfuse.sweep.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else True
for i in range(40):
    x = torch.ones(2**20)
    if i == 9:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    x = torch.ones(2**23) + 1
    del x
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_taken(how: str) -> int:
    command = [sys.executable, "-c", COUNT, how]
    kept, faults = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert kept == "True"
    return int(faults)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_freed_blocks_are_not_taken_from_the_system_again():
    """30 turns of two blocks of 32 MB, 16,384 pages a turn where they come anew. Kept, none as a rule; but a run was
    seen to take 32,768, as if the heap had grown by two turns: hence against a process that keeps nothing."""
    assert pages_taken("keep") < pages_taken("leave") / 8


def test_another_c_library_is_no_error(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory() is False

"""Hashes of plain values."""

import hashlib
import json

# Part of every task's key. Bumped by hand in a commit after which some result differs (the golden rows of
# tests/neuralfuse/sweep/test_golden.py then do, too), and never for anything else: rows outlive releases.
RESULTS_VERSION = 3


def digest(value: object) -> str:
    """First 16 hex digits of the SHA-256 of canonical JSON.

    >>> digest({"b": 1, "a": [2.5]}) == digest({"a": [2.5], "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

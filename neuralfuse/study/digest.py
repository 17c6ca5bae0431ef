"""Hashes of plain values."""

import hashlib
import json
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

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


def given(value: object) -> object:
    """A record as plain values, without the fields that are as their defaults and without notes.

    Hashed in place of the whole record, so that a field that comes later, with a default that changes no result, leaves
    the keys of rows what they were.

    >>> from sram.structure import Structure
    >>> given([Structure(), Structure(column=0.5)])
    [{}, {'column': 0.5}]
    """
    if is_dataclass(value) and not isinstance(value, type):
        own = {field.name: getattr(value, field.name) for field in fields(value) if field.name != "note"}
        return {name: given(inner) for name, inner in own.items() if inner != _default(value, name)}
    if isinstance(value, dict):
        return {key: given(inner) for key, inner in value.items()}
    return [given(inner) for inner in value] if isinstance(value, list | tuple) else value


def _default(record: Any, name: str) -> object:
    field = next(field for field in fields(record) if field.name == name)
    if "unnamed" in field.metadata:  # the default that rows were written with before it became another
        return field.metadata["unnamed"]
    return field.default if field.default_factory is MISSING else field.default_factory()

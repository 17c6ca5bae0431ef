"""JSON records of a study's folder, each with the digest of what it says: one that was damaged is not read."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from neuralfuse.study.digest import digest
from sram.errors import InputError
from sram.files import write_atomic

AS_WRITTEN = "as it was written; delete it, and the next run makes it anew"


def write(path: Path, record: dict[str, Any]) -> Path:
    """Write a record.

    >>> import tempfile
    >>> path = write(Path(tempfile.mkdtemp()) / "a.json", {"step": 3})
    >>> read(path)
    {'step': 3}
    >>> _ = path.write_text(path.read_text().replace("3", "4"))
    >>> read(path)
    Traceback (most recent call last):
    ...
    sram.errors.InputError: ...a.json: content = 'damaged' is not allowed; allowed: as it was written; delete it, ...
    """
    return write_atomic(path, json.dumps({"content": digest(record), **record}, indent=1))


def read(path: Path, required: Iterable[str] = ()) -> dict[str, Any]:
    """What `write` wrote. InputError where it is missing, damaged, or without a required key."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(path, "file", "missing", "one in a folder that a study was run in") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(path, "content", str(error)[:200], AS_WRITTEN) from None
    if not isinstance(record, dict):
        raise InputError(path, "content", type(record).__name__, AS_WRITTEN)
    for key in required:
        if key not in record:
            raise InputError(path, key, None, AS_WRITTEN)
    content = record.pop("content", None)  # None: of a release that wrote no digest
    if content is not None and content != _digest(record):
        raise InputError(path, "content", "damaged", AS_WRITTEN)
    return record


def _digest(record: dict[str, Any]) -> str | None:
    try:
        return digest(record)
    except ValueError:  # NaN, which was never written
        return None

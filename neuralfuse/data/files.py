"""A missing dataset gets one message that says where its files go."""

from pathlib import Path

from sram.errors import InputError


def need(root: Path, relative: str, what: str) -> Path:
    """Return root/relative, or say what is missing and what to put there."""
    path = root / relative
    if not path.exists():
        raise InputError("data", "root", str(root), f"a folder that holds {what}; {relative} is missing")
    return path

"""Archives of arrays from files that may come from anybody: no more is unpacked than a file of its size may hold."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

MOST_BYTES, MOST_TIMES = 2**28, 4  # a small file may unpack to so much, a larger one to so many times its size


def checked(content: bytes) -> zipfile.ZipFile:
    """The zip archive of these bytes. ValueError where it would unpack to far more; zipfile.BadZipFile for no archive.

    Members say their size, and no more of one is ever read than it says.

    >>> file = io.BytesIO()
    >>> with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
    ...     archive.writestr("zeros", bytes(2**28 + 1))
    >>> checked(file.getvalue())
    Traceback (most recent call last):
    ...
    ValueError: an archive of ... bytes that unpacks to 268435457, more than 268435456
    """
    archive = zipfile.ZipFile(io.BytesIO(content))
    total, most = sum(member.file_size for member in archive.infolist()), max(MOST_BYTES, MOST_TIMES * len(content))
    if total > most:
        raise ValueError(f"an archive of {len(content)} bytes that unpacks to {total}, more than {most}")
    return archive


def arrays(path: str | os.PathLike) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an .npz file, nothing unpickled. OSError where it cannot be read; of damaged bytes the readers of
    zip and npy raise whatever they stumble over, ValueError for what is too large."""
    content = Path(path).read_bytes()
    with checked(content):
        pass
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}

"""Files are written whole or not at all: a temporary name beside the target, then a rename."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from sram.errors import InputError

Content = bytes | str | Callable[[BinaryIO], object]


def write_atomic(path: str | os.PathLike, content: Content) -> Path:
    """Write `content` (bytes, text, or a function that writes to an open binary file) to `path` in one step.

    A reader, or a process that is killed at any moment, sees the old file or the new one, never a part; once it is
    written it outlives a power cut. A link stays one: its target is written. What is no file (a device, a pipe) is
    written to, not replaced; InputError for a pipe that nobody reads.

    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> write_atomic(folder / "a.txt", "hello").read_text()
    'hello'
    >>> [p.name for p in folder.iterdir()]
    ['a.txt']
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        _write_through(path, content)
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    make_folder(target.parent)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            _fill(file, content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes private files; results are as readable as any other
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(target.parent)
    return path


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; their entries are on disk when this returns."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in missing:
        sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Put a folder's entries on disk: without it, a new file may have no name after a power cut."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have no such call for folders
            raise
    finally:
        os.close(handle)


def _fill(file: BinaryIO, content: Content) -> None:
    if callable(content):
        content(file)
    else:
        file.write(content.encode() if isinstance(content, str) else content)


def _write_through(path: Path, content: Content) -> None:
    """Write to what is no file. What makes the content may seek in it: it is made whole first."""
    with tempfile.TemporaryFile() as made:
        _fill(made, content)
        made.seek(0)
        try:
            handle = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))  # an unread pipe blocks for ever
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise InputError(path, "file", "a pipe or socket", "one that is being read") from None
            raise
        os.set_blocking(handle, True)
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(made, file)

"""Advisory locks between processes. Each ends with the process that holds it, however that ends.

On a file system without locks everybody gets what he asks for: work may then be done twice, never wrongly, for files
are written whole (`sram.files`).
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_NONE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def _opened(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)


def _taken(lock: Callable[[], None]) -> bool:
    """Whether `lock`, which does not wait, got its lock."""
    try:
        lock()
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        if error.errno not in _NONE:
            raise
    return True


@contextmanager
def alone(path: Path, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Inside the block no other process is in one for the same path; `waiting` is called where one is now."""
    handle = _opened(path)
    try:
        if not _taken(lambda: fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)):
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def together(path: Path) -> Iterator[None]:
    """Inside the block the path is in use; any number of processes may be."""
    handle = _opened(path)
    try:
        _taken(lambda: fcntl.flock(handle, fcntl.LOCK_SH))
        yield
    finally:
        os.close(handle)


def in_use(path: Path) -> bool:
    """Whether a process is in a block of `together`.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run"
    >>> with together(path):
    ...     in_use(path)
    True
    >>> in_use(path)
    False
    """
    handle = _opened(path)
    try:
        return not _taken(lambda: fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB))
    finally:
        os.close(handle)


class Claims:
    """Numbers below 2^62, each claimed by one process at a time: a byte of one file stands for each."""

    def __init__(self, path: Path):
        self._handle = _opened(path)

    def take(self, number: int) -> bool:
        """Claim a number; False where another process has it."""
        return _taken(lambda: fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number))

    def give_back(self, number: int) -> None:
        """Let others have it."""
        _taken(lambda: fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, number))

    def close(self) -> None:
        """Give all back."""
        os.close(self._handle)

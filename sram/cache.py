"""Where what was computed is kept from run to run, and what of it may be loaded."""

import os
import stat
from pathlib import Path


def cache_folder() -> Path:
    """Where computed curves and built chips are kept: $XDG_CACHE_HOME/neuralfuse, by default ~/.cache/neuralfuse."""
    home = os.path.expanduser("~")
    cache = os.environ.get("XDG_CACHE_HOME") or Path(os.devnull if home == "~" else home) / ".cache"  # ~: no home
    return Path(cache) / "neuralfuse"


def trusted(path: str | os.PathLike, source: str | os.PathLike = __file__) -> bool:
    """Whether nobody could have put this file or folder here who may not change `source`, the code it was made from.

    It belongs to this user, to root or to the owner of `source`, and no one else may write it: no others, and no group
    but a user's own, unless they may write `source` too. What is not there is not trusted.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> trusted(folder), os.chmod(folder, 0o777), trusted(folder)
    (True, None, False)
    """
    if os.name != "posix":  # users have folders of their own elsewhere
        return Path(path).exists()
    try:
        found, code = os.stat(path), os.stat(source)
    except OSError:
        return False
    loose = found.st_mode & ~code.st_mode & stat.S_IWOTH
    own_group = found.st_gid == found.st_uid or (code.st_mode & stat.S_IWGRP and code.st_gid == found.st_gid)
    if found.st_mode & stat.S_IWGRP and not own_group:
        return False
    return not loose and found.st_uid in (os.getuid(), 0, code.st_uid)

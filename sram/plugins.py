"""What users add under a name of their own: `package.module:callable`, or an entry point of an installed package.

Importing a module runs it, so a name in a file may import no more than what its reader has opened: files beside the
study that was read, modules that the user named, and this project's own.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sram.errors import InputError

OWN = ("sram", "simulator", "neuralfuse")
_opened: dict[str, None] = {}  # names of packages and modules
_folders: list[Path] = []  # of studies; the one opened last is looked at first


def allow_imports(*names: str) -> None:
    """Let `module:callable` in studies import these packages or modules, and all that lies in them.

    What --allow-import says on the command line. InputError for what is no name of a module.

    >>> allow_imports("math")
    >>> imported("math:sqrt", "protection")(4)
    2.0
    """
    for name in names:
        if not _is_module(name):
            raise InputError(
                "imports", "--allow-import", name, "the name of a package or module, such as mine.networks"
            )
        _opened[name] = None


def allow_folder(folder: Path) -> None:
    """The same for the Python files of a folder: that of a study, whose networks may lie beside it."""
    folder = folder.resolve()
    _folders[:] = [*(other for other in _folders if other != folder), folder]


def allowed() -> list[str]:
    """What is open now, for `with_allowed` in another process."""
    return [*_opened, *map(str, _folders)]


def with_allowed(opened: Iterable[str], call: Callable[..., Any], *arguments: Any) -> Any:
    """`call(*arguments)` in a worker, to which the same is open as to the process that sent it."""
    for name in opened:
        allow_imports(name) if _is_module(name) else allow_folder(Path(name))
    return call(*arguments)


def imported(path: str, what: str) -> Callable[..., Any]:
    """The callable that `package.module:callable` names; InputError of the object `what` if there is none.

    Nothing is imported but what is open: `allow_imports` and `allow_folder` say what is.

    >>> imported("os:system", "network")
    Traceback (most recent call last):
    ...
    sram.errors.InputError: network: name = 'os:system' is not allowed; allowed: ... with --allow-import os ...
    """
    module, _, name = path.partition(":")
    if not (_is_module(module) and name.isidentifier()):
        raise InputError(what, "name", path, "an importable package.module:callable")
    _check_open(module, path, what)
    try:
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever the module does when it is run
        reason = f"{type(error).__name__}: {error}"
        raise InputError(what, "name", path, f"an importable package.module:callable ({reason})") from error
    borrowed = _within(module, OWN) and not _within(getattr(found, "__module__", None) or "", OWN)
    if not callable(found) or (borrowed and not _within(module, _opened)):
        raise InputError(what, "name", path, f"a callable that {module} defines")
    return found


def _is_module(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _within(module: str, names: Iterable[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def _check_open(module: str, path: str, what: str) -> None:
    """InputError unless a module may be imported; a folder that holds it is then on Python's path."""
    if _within(module, (*OWN, *_opened)):
        return
    top = module.partition(".")[0]
    folder = next((f for f in reversed(_folders) if (f / f"{top}.py").is_file() or (f / top).is_dir()), None)
    if folder is None:
        allowed = (
            f"a module that lies beside the study; another runs with --allow-import {module}"
            f" (in Python: sram.allow_imports({module!r}))"
        )
        raise InputError(what, "name", path, allowed)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # last: it hides no module of others
        importlib.invalidate_caches()
    places = _places(top)
    if not any(place.is_relative_to(folder) for place in places):
        raise InputError(what, "name", path, f"{top} in {folder} by another name: Python knows one in {places[0]}")


def _places(top: str) -> list[Path]:
    """Where Python finds a module or package."""
    try:
        found = importlib.util.find_spec(top)
    except ValueError:  # __main__ has none
        found = None
    if found is None:
        return [Path("nowhere")]
    places = found.submodule_search_locations or [found.origin or "nowhere"]
    return [Path(place).resolve() for place in places]


def installed(group: str, name: str) -> Callable[..., Any] | None:
    """What an installed package offers as entry point `name` of `group`; None if no package does."""
    from importlib.metadata import entry_points

    found = next(iter(entry_points(group=group, name=name)), None)
    try:
        return None if found is None else found.load()
    except (ImportError, AttributeError) as error:
        raise InputError(group, "name", name, f"an entry point that can be loaded ({error})") from None


def names(group: str) -> list[str]:
    """The entry points of a group."""
    from importlib.metadata import entry_points

    return sorted(entry_points(group=group).names)


def sources(made: Callable[..., Any], *modules: str) -> list[str]:
    """Paths of the Python files that define `made`: of its own module, and of others by which it was reached.

    >>> [path.rpartition("/")[2] for path in sources(imported)]
    ['plugins.py']
    """
    found = [getattr(sys.modules.get(name), "__file__", None) for name in (*modules, getattr(made, "__module__", ""))]
    return list(dict.fromkeys(path for path in found if path is not None))

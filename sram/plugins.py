"""What users add under a name of their own: `package.module:callable`, or an entry point of an installed package."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

from sram.errors import InputError


def imported(path: str, what: str) -> Callable[..., Any]:
    """The callable that `package.module:callable` names; InputError of the object `what` if there is none.

    >>> imported("math:sqrt", "protection")(4)
    2.0
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(what, "name", path, f"an importable package.module:callable ({error})") from None


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

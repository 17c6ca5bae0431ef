"""Mappings of a study that become arguments of a function: looked up in its signature before anything runs."""

import inspect
from collections.abc import Callable, Collection, Mapping

from sram.errors import InputError


def check_options(build: Callable, options: Mapping[str, object], key: str, free: Collection[str] = ()) -> None:
    """Refuse options that `build` is called with by the study itself: all that it names, less `free`."""
    for name in inspect.signature(build).parameters:
        if name in options and name not in free:
            raise InputError("study", f"{key}.{name}", options[name], "options of its own; the study sets this one")

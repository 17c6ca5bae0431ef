"""Mappings of a study that become arguments of a function: looked up in its signature before anything runs."""

import inspect
import math
from collections.abc import Callable, Collection, Mapping

from neuralfuse.training.settings import DECAYS, PRECISIONS
from sram.errors import InputError

# What YAML can say, by the annotation that takes it; what is of any other type the program gives itself.
_TYPES: dict[object, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a finite number"),
    float | None: ((int, float, type(None)), "a finite number or null"),
    bool: ((bool,), "true or false"),
    str: ((str,), "a text"),
}
_AT_LEAST_ONE = {"steps", "epochs", "batch", "maps"}  # the other numbers may be 0
_ONE_OF: dict[str, Collection[str]] = {"decay": DECAYS, "precision": PRECISIONS}


def check_arguments(
    function: Callable,
    given: Mapping[str, object],
    key: str,
    set_here: Collection[str],
    needed: Collection[str] = (),
    beside: Collection[str] = (),
) -> None:
    """Refuse what `function` cannot be called with, and the arguments `set_here`, which the program gives it.

    `beside`: keys that may stand beside those given, checked elsewhere.

    >>> from neuralfuse.training.network import train_network
    >>> check_arguments(train_network, {"epochs": "many"}, "networks.n.training", {"seed"})
    Traceback (most recent call last):
    ...
    sram.errors.InputError: study: networks.n.training.epochs = 'many' is not allowed; allowed: a whole number
    """
    signature = inspect.signature(function).parameters
    takes = {name: p.annotation for name, p in signature.items() if p.annotation in _TYPES and name not in set_here}
    for name, value in given.items():
        if name not in takes:
            raise InputError("study", f"{key}.{name}", value, "only the keys " + ", ".join(sorted({*takes, *beside})))
        types, allowed = _TYPES[takes[name]]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise InputError("study", f"{key}.{name}", value, allowed)
        if isinstance(value, int | float) and bool not in types:
            least = int(name in _AT_LEAST_ONE)
            if not (math.isfinite(value) and value >= least):
                raise InputError("study", f"{key}.{name}", value, f"{allowed}, {least} or more")
        if name in _ONE_OF and value not in _ONE_OF[name]:
            raise InputError("study", f"{key}.{name}", value, "one of " + ", ".join(_ONE_OF[name]))
    for name in needed:
        if name not in given:
            raise InputError("study", f"{key}.{name}", None, "this key is required")


def check_options(build: Callable, options: Mapping[str, object], key: str, free: Collection[str] = ()) -> None:
    """Refuse options that `build` is called with by the study itself: all that it names, less `free`."""
    for name in inspect.signature(build).parameters:
        if name in options and name not in free:
            raise InputError("study", f"{key}.{name}", options[name], "options of its own; the study sets this one")

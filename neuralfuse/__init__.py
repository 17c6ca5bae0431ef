"""What learns, and the end-to-end study: quantised networks, generators, training, sweeps, reports."""

from typing import Any

from sram.lazy import attach

_find, __dir__, __all__ = attach(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name != "__version__":
        return _find(name)
    from importlib.metadata import version

    return version("neuralfuse-sim")

"""What learns, and the end-to-end study: quantised networks, generators, training, sweeps, reports.

>>> import neuralfuse as nf
>>> study = nf.Study("mine", networks=["resnet8"], voltages=[1.0, 0.85, 0.8], protections=["none", "secded72"])
>>> study.voltage_floor
0.8

`nf.sweep(study, "out/mine")` then runs it and returns its rows, `nf.report("out/mine")` draws them. `dir(nf)` lists the
public names; each is loaded when it is first used. `sweep` and `report` are packages as well as functions: both
`nf.sweep(study, out)` and `from neuralfuse.sweep.run import run_study` work.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def _refuse_namesakes() -> None:
    """Python may look in the user's folder first: ImportError where something else there has a name of ours, one line
    in place of it for `python -m neuralfuse`."""
    for name in ("sram", "simulator"):
        found = find_spec(name)
        if found is not None and found.origin and Path(found.origin).parents[1] != Path(__file__).parents[1]:
            allowed = "rename it, or run the command `neuralfuse` in place of `python -m neuralfuse`"
            text = f"{found.origin} hides the package `{name}` of neuralfuse: {allowed}"
            if sys.argv[:1] == ["-m"]:
                print(f"neuralfuse: {text}", file=sys.stderr)
                raise SystemExit(2)
            raise ImportError(text)


_refuse_namesakes()

from sram.lazy import attach  # noqa: E402

_find, __dir__, __all__ = attach(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name != "__version__":
        return _find(name)
    from importlib.metadata import version

    return version("neuralfuse-sim")

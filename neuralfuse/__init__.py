"""What learns, and the end-to-end study: quantised networks, generators, training, sweeps, reports.

>>> import neuralfuse as nf
>>> study = nf.Study("mine", networks=["resnet8"], voltages=[1.0, 0.85, 0.8], protections=["none", "secded72"])
>>> study.voltage_floor
0.8

`nf.sweep(study, "out/mine")` then runs it and returns its rows, `nf.report("out/mine")` draws them. `dir(nf)` lists the
public names; each is loaded when it is first used. `sweep` and `report` are packages as well as functions: both
`nf.sweep(study, out)` and `from neuralfuse.sweep.run import run_study` work.
"""

from typing import Any

from sram.lazy import attach

_find, __dir__, __all__ = attach(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name != "__version__":
        return _find(name)
    from importlib.metadata import version

    return version("neuralfuse-sim")

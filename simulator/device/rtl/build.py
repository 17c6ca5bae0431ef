"""Verilator: SystemVerilog to a shared library, once for each set of sources and parameters."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from simulator.device.protocol import DeviceError
from sram.cache import cache_folder, trusted

HERE = Path(__file__).parent
SOURCES = ("chip.sv", "weight_sram.sv", "os_array.sv", "ws_array.sv", "chip.cpp")
VERILATE = ("--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "-Wno-fatal", "-Wno-WIDTH")
RUNTIME = ("verilated.cpp", "verilated_threads.cpp", "verilated_dpi.cpp")


def available() -> bool:
    """Whether Verilator and a C++ compiler are installed."""
    return bool(shutil.which("verilator") and shutil.which("g++") and shutil.which("make"))


@cache
def version() -> str:
    """The first line of `verilator --version`. DeviceError where it is missing."""
    if not available():
        raise DeviceError("the RTL device needs verilator, g++ and make (apt-get install verilator g++ make)")
    return _call("verilator", "--version").strip()


def library(parameters: dict[str, int]) -> Path:
    """The shared library of the chip with these parameters, built if it is not in the cache.

    The cache is neuralfuse/rtl in XDG_CACHE_HOME (else ~/.cache); a library is named by a hash of the sources,
    parameters, Verilator's version and options, so that a changed source is never served from it. A library or a cache
    that others may write is not used: the chip is built for this run alone. DeviceError where a build fails.
    """
    digest = hashlib.sha256(repr((version(), VERILATE, sorted(parameters.items()))).encode())
    for source in (*SOURCES, "build.py"):
        digest.update((HERE / source).read_bytes())
    return _cached(f"{digest.hexdigest()[:32]}.so", lambda folder: _build(folder, parameters))


def _cached(name: str, make: Callable[[Path], Path]) -> Path:
    folder = cache_folder() / "rtl"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not trusted(folder) or not (trusted(folder / name) or os.access(folder, os.W_OK)):
        folder = Path(_folder_of_this_run().name)
    target = folder / name
    if not trusted(target):
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = make(Path(scratch))
            made.chmod(0o700)
            os.replace(made, target)  # in one step: two builders at once do no harm
    return target


@cache
def _folder_of_this_run() -> tempfile.TemporaryDirectory[str]:
    """Removed as the process ends."""
    return tempfile.TemporaryDirectory(prefix="neuralfuse-rtl-")


def _build(folder: Path, parameters: dict[str, int]) -> Path:
    sources = [str(HERE / source) for source in SOURCES if source.endswith(".sv")]
    values = [f"-G{name}={value}" for name, value in parameters.items()]
    _call("verilator", *VERILATE, "--top", "chip", "--Mdir", str(folder), *values, *sources)
    # Only what runs every cycle is worth the optimiser's time.
    slow = sorted(path for path in folder.glob("Vchip*.cpp") if "Slow" in path.name)
    fast = sorted(path for path in folder.glob("Vchip*.cpp") if "Slow" not in path.name)
    objects = [_compile(folder, "slow", slow, "-O0"), _compile(folder, "fast", [*fast, HERE / "chip.cpp"], "-O3")]
    runtime = [_include() / name for name in RUNTIME]
    name = hashlib.sha256(version().encode()).hexdigest()[:32] + ".o"
    objects.append(_cached(name, lambda scratch: _compile(scratch, "runtime", runtime, "-O1")))
    _call("g++", "-shared", "-o", str(folder / "chip.so"), *map(str, objects), "-lpthread")
    return folder / "chip.so"


def _compile(folder: Path, name: str, sources: list[Path], optimise: str) -> Path:
    """One object of all sources together: Verilator's headers are long, and read once this way."""
    unit, done = folder / f"{name}.cc", folder / f"{name}.o"
    unit.write_text("".join(f'#include "{source}"\n' for source in sources))
    includes = [f"-I{folder}", f"-I{_include()}", f"-I{_include() / 'vltstd'}"]
    _call("g++", optimise, "-fPIC", "-c", *includes, str(unit), "-o", str(done))
    return done


@cache
def _include() -> Path:
    return Path(_call("verilator", "--getenv", "VERILATOR_ROOT").strip()) / "include"


def _call(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise DeviceError(f"{command[0]} failed: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout

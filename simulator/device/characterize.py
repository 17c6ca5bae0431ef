"""Read a chip at falling voltages; every finished voltage is kept, and a run that was cut off goes on."""

import itertools
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np

from simulator.device.characterization import Characterization
from simulator.device.protocol import DeviceInfo, DeviceMemory
from simulator.device.readings import PATTERNS, Reading, blocks, read_voltage
from sram import archive
from sram.errors import InputError
from sram.files import write_atomic

SAME_CHIP = 0.5  # share of the faults seen before that must be there again when a run is taken up

Progress = Callable[[int, int, dict[str, float]], None]


def steps_down(info: DeviceInfo, voltages: Sequence[float]) -> list[float]:
    """The device's own steps nearest to these voltages, falling, each once."""
    if not len(voltages):
        raise InputError("characterize", "voltages", "none", "at least one voltage")
    return sorted({info.reached(voltage) for voltage in voltages}, reverse=True)


def parse_voltages(text: str | None, info: DeviceInfo) -> list[float]:
    """Voltages of a comma-separated list; None is every step from nominal down. InputError.

    A step is worth its time only where cells fail: give a list to skip the quiet part.
    """
    if text is None:
        # max: the last step may lie a rounding error below the lowest voltage
        steps = (info.voltage_nominal - i * info.voltage_step for i in range(info.steps + 1))
        return [max(voltage, info.voltage_lowest) for voltage in steps]
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError("characterize", "voltages", text, "numbers with commas between them") from None


def characterize(
    device: DeviceMemory,
    voltages: Sequence[float],
    repeats: int = 8,
    stop_rate: float = 0.2,
    folder: str | Path | None = None,
    progress: Progress = lambda done, total, figures: None,
) -> Characterization:
    """Read `device`, or another memory of one, at these voltages from the highest down; stops below the first where
    more than stop_rate of the cells fail.

    With a `folder` every finished voltage is stored there, and a run that was cut off goes on where it was.
    InputError where the folder is of another device or other settings, or where the faults seen before are not there
    any more. The memory is overwritten; it is left at nominal voltage.
    """
    if not 1 <= repeats <= 1 << 14:
        raise InputError("characterize", "repeats", repeats, "1 to 16384")
    if not 0 < stop_rate <= 1:
        raise InputError("characterize", "stop_rate", stop_rate, "a share of the cells in (0, 1]")
    planned = steps_down(device.info, voltages)
    store = _Store(Path(folder), device.info, repeats) if folder is not None else None
    geometry = device.info.geometry
    each = len(blocks(geometry)) * len(PATTERNS)
    readings = [] if store is None else store.finished(planned)
    if readings:
        check_same_chip(device, readings[-1])
    while len(readings) < len(planned) and not (readings and len(readings[-1].cell) > stop_rate * geometry.cells):
        voltage = planned[len(readings)]
        figures = {"voltage": voltage, "weak cells": len(readings[-1].cell) if readings else 0}
        advance = _advance(progress, len(readings) * each, len(planned) * each, figures)
        reading = read_voltage(device, voltage, repeats, advance)
        if store is not None:
            store.save(reading)
        readings.append(reading)
    progress(len(planned) * each, len(planned) * each, {"weak cells": len(readings[-1].cell)})
    return Characterization(device.info, repeats, tuple(readings))


def _advance(progress: Progress, done: int, total: int, figures: dict[str, float]) -> Callable[[], None]:
    steps = itertools.count(done + 1)
    return lambda: progress(next(steps), total, figures)


def check_same_chip(device: DeviceMemory, reading: Reading) -> None:
    """InputError unless most faults of a stored reading are there again."""
    if not len(reading.cell):
        return
    now = read_voltage(device, reading.voltage, 1).cell
    again = np.isin(reading.cell, now).mean()
    if again < SAME_CHIP:
        allowed = f"the chip that was read before: of its faults at {reading.voltage:g} {again:.0%} are there"
        raise InputError("characterize", "device", device.info.title, allowed)


class _Store:
    """Finished voltages in a folder: settings.json and one .npz a voltage."""

    def __init__(self, folder: Path, info: DeviceInfo, repeats: int):
        self.folder = folder
        settings = {"device": asdict(info), "repeats": repeats, "patterns": PATTERNS}
        text = json.dumps(settings, indent=1)
        path = folder / "settings.json"
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise InputError(path, "settings", "another device or other repeats", "the same, or a new folder")
        write_atomic(path, text)

    def _path(self, voltage: float) -> Path:
        return self.folder / f"reading_{voltage:.6f}.npz"

    def save(self, reading: Reading) -> None:
        def content(file: BinaryIO) -> None:
            np.savez_compressed(file, voltage=reading.voltage, cell=reading.cell, wrong=reading.wrong)

        write_atomic(self._path(reading.voltage), content)

    def finished(self, planned: list[float]) -> list[Reading]:
        """The stored readings of the first voltages planned, up to the first that is missing."""
        stored = itertools.takewhile(Path.exists, map(self._path, planned))
        return [self._load(path) for path in stored]

    def _load(self, path: Path) -> Reading:
        try:
            found = archive.arrays(path)
            return Reading(float(found["voltage"]), found["cell"], found["wrong"])
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(path, "content", str(error)[:80], "a reading written by this program; delete it") from None

"""Calibrated protections fitted to one chip, measured on it, and the best of them picked."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from neuralfuse.analysis import one_chip
from neuralfuse.analysis.one_chip import Fitted, Say
from neuralfuse.quantized import checkpoint
from neuralfuse.results.tables import to_csv
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.file_names import slug
from neuralfuse.study.files import load_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.prepare import prepare
from neuralfuse.sweep.bench import Bench
from neuralfuse.training.loop import threads
from neuralfuse.transforms.generators import NeuralFuse
from simulator.device.characterize import characterize
from simulator.device.protocol import Device
from sram import faultmap
from sram.errors import InputError
from sram.faultmap import FaultMap
from sram.files import write_atomic
from sram.progress import steps


@dataclass(frozen=True, eq=False)
class Calibration:
    """What was tried on a chip and what was picked.

    table: a row for each candidate, with the fields of `neuralfuse.analysis.one_chip.Fitted`. transforms: the fitted
    one of each candidate, in eval mode: images in, images for the network out.
    """

    table: pd.DataFrame
    best: Fitted
    transforms: dict[str, NeuralFuse]
    path: Path  # transform.safetensors of the best

    @property
    def transform(self) -> NeuralFuse:
        """That of the best candidate."""
        return self.transforms[self.best.protection]


def calibrate(
    study: StudyConfig | str | Path,
    chip: FaultMap | Device | str | Path,
    out: str | Path,
    protection: str | None = None,
    voltage: float | None = None,
    least_saving: float | None = None,
    known: FaultMap | None = None,
    quiet: bool = False,
) -> Calibration:
    """Fit a study's calibrated protections to one chip, measure them on test images, and pick the most accurate.

    Parameters
    ----------
    study: with one network; a `neuralfuse.Study` or a study file. Without calibrated protections four are tried.
    chip: a fault map, its file, the folder of `neuralfuse device characterize`, or an open device.
    out: folder of calibration.csv, transform.safetensors, transform.json and transforms/.
    protection: the name of one of the study's; all of them if left out.
    voltage: supply of the weight memory, in the unit of the study's curve; the study's lowest if left out.
    least_saving: share of the weight memory's energy that what is picked has to save.
    known: the map of a device, if it is characterised already; else its cells are read first.
    quiet: without progress on stderr.

    Raises
    ------
    InputError: a mistake in the study, a voltage below the map's, or a saving that no candidate reaches.
    """
    wanted = one_chip.candidates(study if isinstance(study, StudyConfig) else load_study(study), protection)
    at, folder = wanted.voltage_floor if voltage is None else voltage, Path(out)
    found = map_of(chip) if isinstance(chip, str | Path) else chip
    if isinstance(found, FaultMap):
        one_chip.check_unit(wanted, found.curve.unit)
        found.count(at)  # refuses voltages below the map's before anything is trained
    rows, transforms = [], {}
    with steps(quiet) as say, threads(1):
        prepared = StudyFolder(folder / "study", wanted)
        prepare(prepared, say)
        bench = Bench(prepared)
        if isinstance(found, Device) and known is None:
            known = read_cells(found, at, folder, say)
        for candidate in wanted.protections:
            if isinstance(found, FaultMap):
                fitted, made = one_chip.fit_to_map(bench, candidate, found, at, say)
            else:
                assert known is not None
                fitted, made = one_chip.fit_to_device(bench, candidate, found, known, at, say)
            rows.append(fitted)
            transforms[candidate.name] = made
            assert candidate.neuralfuse is not None
            record = asdict(fitted) | {"chip": _name(chip)}
            _keep(_file(folder, candidate.name), made, record, candidate.neuralfuse.bits)
    table = pd.DataFrame([asdict(row) for row in rows])
    write_atomic(folder / "calibration.csv", to_csv(table))
    best = one_chip.best(rows, least_saving)
    path = write_atomic(folder / "transform.safetensors", _file(folder, best.protection).read_bytes())
    write_atomic(folder / "transform.json", pd.Series(asdict(best) | {"chip": _name(chip)}).to_json(indent=1))
    return Calibration(table, best, transforms, path)


def map_of(chip: str | Path) -> FaultMap:
    """The map in a file, or in the folder of a characterisation."""
    path = Path(chip)
    if path.is_dir():
        path = path / "map.npz"
    if path.suffix != ".npz":
        allowed = "MAP.npz, a folder with one, or a device: simulated:MAP.npz, rtl:MAP.npz, tcp:HOST:PORT, driver:M:C"
        raise InputError("calibrate", "--chip", str(chip), allowed)
    return faultmap.load(path)


def read_cells(device: Device, voltage: float, folder: Path, say: Say) -> FaultMap:
    """Read a device's cells down to a little below `voltage`, for canaries lie on both sides of it; keeps map.npz."""
    info = device.info
    lowest = max(info.voltage_lowest, voltage - 2 * info.voltage_step)
    planned = np.arange(info.voltage_nominal, lowest - info.voltage_step / 2, -info.voltage_step)
    found = characterize(device, planned.tolist(), 4, 1.0, folder / "readings", say(f"read {info.name}")).fault_map()
    faultmap.save(found, folder / "map.npz")
    return found


def _name(chip: FaultMap | Device | str | Path) -> str:
    if isinstance(chip, FaultMap):
        return f"chip {chip.chip}"
    return chip.info.name if isinstance(chip, Device) else str(chip)


def _file(folder: Path, protection: str) -> Path:
    return folder / "transforms" / f"{slug(protection)}.safetensors"


def _keep(path: Path, made: NeuralFuse, record: dict, bits: int | None) -> None:
    if bits is None:  # measured with floats, kept as floats
        checkpoint.save(path, made.generator.state_dict(), record | {"bits": None})
    else:
        checkpoint.save_network(path, made.generator, record, bits)

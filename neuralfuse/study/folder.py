"""A study's folder: what was asked, and what is known so far.

No other module knows what lies where. Results of two studies never mix: a folder belongs to the study that it was
made for, and only voltages, chips, protections and how it is computed may change.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuralfuse.chips.cost import NONE, Overheads
from neuralfuse.chips.memory import for_words
from neuralfuse.results.rows import Result, Rows
from neuralfuse.results.scale import ACCURACY, Scale
from neuralfuse.results.tables import to_csv
from neuralfuse.study import records
from neuralfuse.study.config import ProtectionConfig, StudyConfig
from neuralfuse.study.cost import Cost, cost_of, with_second
from neuralfuse.study.digest import digest
from neuralfuse.study.file_names import generator_file, slug
from neuralfuse.study.files import dump_study, load_study
from neuralfuse.study.memory import place_weights
from neuralfuse.study.rails import Role
from neuralfuse.study.supplies import machine_of, roles_of
from simulator.accelerator import accelerator
from simulator.array.cycles import Counts, simulate, with_all_weights
from simulator.device.program import Program
from simulator.operating_point import NOMINAL, OperatingPoint
from simulator.placement import Placement
from simulator.workload import Layer, Workload
from sram import locks
from sram.errors import InputError
from sram.files import write_atomic

if TYPE_CHECKING:  # a report needs no torch
    from torch import nn

    from neuralfuse.transforms.generators import NeuralFuse

LOCKS = ".locks"
_SHOWN = ("stamp", "voltage_unit", "versions", "notes", "energy_sources")  # of a prepared folder


@dataclass(frozen=True)
class StudyFolder:
    """The study in a folder, or one that is to be run there (`claim`).

    Networks and accelerators go by their names in the study. A workload, and counts, are of a network or, with the name
    of a protection, of the generator that it puts before the network.
    """

    path: Path
    study: StudyConfig

    @classmethod
    def open(cls, path: str | Path) -> "StudyFolder":
        """A folder that a study was trained or run in; InputError for any other."""
        path = Path(path)
        file = path / "study.yaml"
        if not file.is_file():
            raise InputError(path, "folder", file.name + " missing", "one that a study was trained or run in")
        return cls(path, load_study(file))

    @property
    def claimed(self) -> bool:
        """Whether there is a study in the folder: this one or another."""
        return (self.path / "study.yaml").is_file()

    def check(self) -> None:
        """Refuse a folder that is neither this study's nor new. Writes nothing."""
        if self.claimed:
            _check_same(self.study, StudyFolder.open(self.path).study, self.path)
        else:
            check_empty(self.path)

    def claim(self) -> None:
        """Make the folder this study's, or refuse it: another's, or one where a process runs this study with other
        voltages, chips or protections. Writes study.yaml. Where other processes may do the same: inside `alone`."""
        self.check()
        mine = self._run_lock
        if any(locks.in_use(lock) for lock in mine.parent.glob("run-*") if lock != mine):
            allowed = "one at a time: a process runs this study there with other voltages, chips or protections"
            raise InputError(self.path, "--out", self.study.name, allowed)
        write_atomic(self.path / "study.yaml", dump_study(self.study))

    @contextmanager
    def alone(self, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Inside the block no other process prepares the folder; `waiting` is called where one does now."""
        self.check()  # nothing is written into a folder that is another's
        with self.in_use(), locks.alone(self.path / LOCKS / "preparing", waiting):
            yield

    def in_use(self) -> AbstractContextManager[None]:
        """Inside the block no other process may claim the folder for a study that differs."""
        self.check()
        return locks.together(self._run_lock)

    @property
    def _run_lock(self) -> Path:
        return self.path / LOCKS / f"run-{digest(dump_study(self.study))}"

    def network_file(self, network: str) -> Path:
        """The trained network, its weights rounded to words."""
        return self.path / "networks" / f"{slug(network)}.safetensors"

    def network(self, network: str) -> "nn.Module":
        """A network with its words as weights."""
        from neuralfuse.quantized import checkpoint
        from neuralfuse.study.data import build_network

        built = build_network(self.study.network(network), self.study)
        checkpoint.load_network(built, self.network_file(network))
        return built.eval()

    def program_file(self, network: str) -> Path:
        """A network as a device runs it."""
        return self.path / "networks" / f"{slug(network)}.program.json"

    def program(self, network: str) -> Program:
        """A network as a device runs it, its activations' units included."""
        return Program.from_json(records.read(self.program_file(network), ["program"])["program"])

    def generator_file(self, network: str, protection: ProtectionConfig) -> Path:
        """The generator that a protection puts before `network`: one for all networks where it has surrogates."""
        assert protection.neuralfuse is not None
        name = generator_file(protection.neuralfuse.trained_on(network), protection.name)
        return self.path / "generators" / name

    def transform(self, network: str, protection: str) -> "NeuralFuse | None":
        """The input transform of a protection as it was trained for all chips; None where it has none."""
        from neuralfuse.quantized import checkpoint
        from neuralfuse.study.data import build_transform

        found = self.study.protection(protection)
        if found.neuralfuse is None:
            return None
        built = build_transform(found.neuralfuse, self.study)
        checkpoint.load_network(built.generator, self.generator_file(network, found))
        return built.eval()

    def fusion_file(self, network: str, protection: str, of: str) -> Path:
        """The weight of the low-voltage network in a fusion; `of`: a digest of all that it follows from."""
        return self.path / "fusions" / slug(network, protection) / f"{of}.json"

    def images_file(self, network: str, protection: str) -> Path:
        """Some test images, and what the protection's generator makes of them."""
        return self.path / "images" / f"{slug(network, protection)}.npz"

    def workload_file(self, network: str, protection: str | None = None) -> Path:
        """The layers of a network, or of a protection's generator before it."""
        where = self.path / "workloads"
        if protection is None:
            return where / f"{slug(network)}.json"
        return where / slug(network) / f"{slug(protection)}.json"  # NETWORK-PROTECTION may be another network's name

    def write_workload(self, workload: Workload, made_from: str, *names: str) -> None:
        """Keep the layers of (network,) or (network, protection), with the digest of what they were traced from."""
        records.write(self.workload_file(*names), {"made_from": made_from, **asdict(workload)})

    def workload_made_from(self, *names: str) -> str | None:
        """The digest that a workload was written with; None before it is written."""
        file = self.workload_file(*names)
        return records.read(file).get("made_from") if file.is_file() else None

    def workload(self, network: str, protection: str | None = None) -> Workload:
        """The layers, as they were traced: a worker needs no tracer."""
        file = self.workload_file(network, protection)
        raw = records.read(file, ["layers"])
        raw.pop("made_from", None)
        try:
            layers = tuple(Layer(**_tuples(layer)) for layer in raw.pop("layers"))
            return Workload(layers=layers, **_tuples(raw))
        except (TypeError, AttributeError):  # keys that these have not
            raise InputError(file, "content", "damaged", records.AS_WRITTEN) from None

    def counts(self, machine: str, network: str, protection: str | None = None) -> Counts:
        """Cycles and accesses of one inference on an accelerator."""
        resident = self.study.sram.schedule == "resident"
        bits = self.study.network(network).bits if protection is None else 0  # a generator's are no wider
        return _counts(self.workload(network, protection), machine, roles_of(self.study), resident, bits)

    def cost(
        self,
        network: str,
        machine: str,
        protection: ProtectionConfig,
        at: OperatingPoint,
        overheads: Overheads = NONE,
        wrong: Sequence[float] | None = None,
        share: float = 1.0,
    ) -> Cost:
        """Cost of one inference at an operating point; `overheads` are those of the protection's SRAM parts, `wrong`
        the shares of tiles that its checksums found wrong, `share` that of the images which pass its cascade
        (`cost_of`)."""
        if protection.smaller is not None:
            at, share = NOMINAL, 0.0
        fuse, base = protection.neuralfuse, self.counts(machine, network)
        extra = self.counts(machine, network, protection.name) if fuse is not None else None
        at_nominal = fuse is None or fuse.own_faults is None
        cost = cost_of(base, extra, at, overheads, at_nominal, protection.logic, wrong)
        if protection.second is None:
            return cost
        return with_second(cost, base, self.counts(machine, protection.second), share)

    def placement(self, network: str, machine: str) -> Placement:
        """Where each stored weight bit of a network lies."""
        bits = self.study.network(network).bits
        return place_weights(self.study.sram, self.workload(network), accelerator(machine), bits)

    @functools.cached_property
    def rows(self) -> Rows:
        """The rows measured so far."""
        return Rows(self.path / "rows")

    def merge(self, sources: Iterable["StudyFolder"]) -> int:
        """Copy the rows of other folders of this study that are not here yet; returns how many came."""
        have = dict(self.rows.read())
        fresh: dict[str, Result] = {}
        for source in sources:
            _check_same(source.study, self.study, self.path)
            for key, row in source.rows.read().items():
                if key not in have:
                    fresh.setdefault(key, row)
        self.rows.append(fresh.values())
        return len(fresh)

    @property
    def results_file(self) -> Path:
        """One row for each chip, voltage, protection and structure."""
        return self.path / "results.csv"

    def write_results(self, keys: Iterable[str]) -> Path:
        """Write results.csv: the rows of these keys that are there, in their order."""
        return write_atomic(self.results_file, to_csv(self.rows.frame(keys)))

    @property
    def layers_file(self) -> Path:
        """Counts and energies of every layer at nominal supply."""
        return self.path / "layers.csv"

    @property
    def energy_file(self) -> Path:
        """Energy of each unprotected network at each operating point, by rail and component."""
        return self.path / "energy.csv"

    def write_provenance(self, record: dict[str, Any]) -> None:
        """Keep the record of versions and sources."""
        records.write(self.path / "provenance.json", record)

    def provenance(self) -> dict[str, Any]:
        """What a prepared folder says of versions and sources."""
        return _provenance(self.path)

    @property
    def scale(self) -> Scale:
        """Unit and direction of a prepared folder's scores: as it says itself, for a report runs no code of others."""
        return _scale(self.provenance())


def scale_at(path: str | Path) -> Scale:
    """`StudyFolder.scale` of a folder, or of the first of a study's variants in it; that of accuracies elsewhere."""
    found = sorted(Path(path).glob("provenance.json")) or sorted(Path(path).glob("*/provenance.json"))
    return _scale(records.read(found[0])) if found else ACCURACY


def _scale(provenance: dict[str, Any]) -> Scale:
    if "metric" not in provenance:  # written before there was another
        return ACCURACY
    return Scale(**_tuples(provenance["metric"]))


def stamp_of(path: str | Path) -> str:
    """Changes whenever what the tasks of a prepared folder are measured on does; cheaper than to open it."""
    return _provenance(Path(path))["stamp"]


def _provenance(path: Path) -> dict[str, Any]:
    return records.read(path / "provenance.json", _SHOWN)


def _check_same(study: StudyConfig, other: StudyConfig, path: Path) -> None:
    """Refuse `study` where `other`, of this folder, is about something else."""
    if other.identity() != study.identity():
        mine, theirs = study.model_dump(mode="json"), other.model_dump(mode="json")
        key = next(k for k in mine if k not in study.left_out("folder") and mine[k] != theirs[k])
        raise InputError(path, key, mine[key], f"{theirs[key]!r}, of the study {other.name!r} in this folder")


def check_empty(path: Path) -> None:
    """Refuse a folder with something in it that no study has put there."""
    file = next((place for place in (path, *path.parents) if place.exists() and not place.is_dir()), None)
    if file is not None:
        raise InputError(path, "--out", str(file), "a folder; this is a file")
    if path.is_dir() and (found := sorted({p.name for p in path.iterdir()} - {LOCKS})):
        names = ", ".join(found[:3])
        raise InputError(path, "--out", names, "a new or empty folder, or one that a study was run in")


@functools.lru_cache(maxsize=64)
def _counts(workload: Workload, machine: str, roles: tuple[Role, ...], resident: bool, bits: int) -> Counts:
    found = for_words(machine_of(machine, roles), bits)
    return simulate(workload, with_all_weights(workload, found) if resident else found)


def _tuples(record: dict) -> dict:
    """JSON knows lists only."""

    def frozen(value: object) -> object:
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    return {key: frozen(value) for key, value in record.items()}

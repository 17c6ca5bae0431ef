"""What an 8-bit network finds on a chip beside its weights: activations and partial sums in weak cells, late sums."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from neuralfuse.chips.activations import StoredActivations, store_activations
from neuralfuse.chips.cost import Overheads
from neuralfuse.chips.memory import FIRST_TRAINING_CHIP
from neuralfuse.chips.sources import Chips
from neuralfuse.quantized.integer import DieFaults, IntegerNetwork
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.memory import buffers_lowered, chip_map, place_activations_of, place_partial_sums_of
from neuralfuse.study.supplies import MemorySupplies, machine_of, memory_supplies, operating_points, roles_of
from simulator.activation_placement import taps_between_spills
from simulator.device.activations import InTurn, Reading
from simulator.device.array_faults import ArrayFaults, Checksums, TimingFaults
from simulator.device.program import Conv
from simulator.logic_protection import Razor, checked_tiles
from simulator.mac_errors import mac_errors, stream_of
from simulator.operating_point import OperatingPoint
from simulator.placement import Placement
from simulator.timing import slack
from sram import protection
from sram.faultmap import FaultMap

P = ParamSpec("P")
T = TypeVar("T")
ACCESS = 1  # the one that is measured, of cells that fail now and then
IN_TURN = ("ofmap_buffer", "ifmap_buffer")  # as a word of activations passes them


def last(size: int, function: Callable[P, T]) -> Callable[P, T]:
    """The function with its last `size` values kept; its arguments are hashable."""
    return functools.lru_cache(maxsize=size)(function)  # type: ignore[return-value]


@dataclass(frozen=True)
class Die:
    """A chip of the study's lot, as a network lies in it on an accelerator."""

    accelerator: str
    structure: str
    chip: int
    drift: float = 0.0  # of all its cells, in the curve's unit, since it was characterised


class Lowered:
    """The other rails of a study's chips. On a die the banks of the weight memory come first, then those of the
    buffers."""

    def __init__(self, folder: StudyFolder):
        self.folder, self.study = folder, folder.study
        self.roles = buffers_lowered(folder.study)
        self.program = last(4, folder.program)
        self.places = last(4, self._places)
        self.map = last(4, self._map)
        self.chip = last(2, self._chip)  # as it was characterised, and as it is now
        self.floors = last(4, self._floors)
        self.taps = last(4, self._taps)
        self.tiles = last(4, self._tiles)

    def _places(self, network: str, machine: str) -> dict[str, tuple[Placement, Placement | None, int]]:
        """Of each buffer: where the activations of a network lie in it, and the partial sums that wait there; and its
        first bank on a die."""
        study, workload, found = self.study, self.folder.workload(network), machine_of(machine, roles_of(self.study))
        bank, places = self.folder.placement(network, machine).geometry.banks, {}
        for buffer in self.roles:
            lies = place_activations_of(study, workload, found, buffer)
            waits = buffer == "ofmap_buffer"
            sums = place_partial_sums_of(workload, found, lies.geometry) if waits else None
            places[buffer] = lies, sums, bank
            bank += lies.geometry.banks
        return places

    def _map(self, network: str, die: Die, buffer: str, floor: float) -> FaultMap:
        """The weak cells of a buffer of activations down to a voltage."""
        lies, _, bank = self.places(network, die.accelerator)[buffer]
        role = self.roles[buffer]
        made = chip_map(self.study, lies.geometry, die.structure, die.chip, floor - die.drift, bank, role)
        return made.drifted(die.drift) if die.drift else made

    def _chip(self, network: str, die: Die, name: str | None, floors: MemorySupplies) -> dict[str, StoredActivations]:
        """The buffers whose rails the study lowers, behind a protection of this name, down to these supplies."""
        chains, found, lowest = self.study.protection(name).memories if name else {}, {}, dict(floors)
        for buffer, role in self.roles.items():
            lies, sums, _ = self.places(network, die.accelerator)[buffer]
            shield = protection.parse(chains.get(role, ()) or "none")
            found[buffer] = store_activations(self.map(network, die, buffer, lowest[role]), lies, shield, sums)
        return found

    def _floors(self, machine: str) -> MemorySupplies:
        """The lowest supply that each memory has at the study's points."""
        swept = [dict(memory_supplies(self.study, machine, at)) for at in operating_points(self.study, machine)]
        return tuple((role, min(each[role] for each in swept)) for role in swept[0])

    def _taps(self, network: str, machine: str) -> list[int]:
        """After how many taps of each layer on the array its partial sums wait in the output buffer."""
        return taps_between_spills(self.folder.workload(network), machine_of(machine, roles_of(self.study)))

    def _tiles(self, network: str, machine: str) -> dict[int, tuple[int, int]]:
        """By tensor of the program, how many pixels and filters a checksum is over."""
        steps = enumerate(self.folder.program(network).steps, start=1)
        places = [place for place, step in steps if isinstance(step, Conv)]
        tiles = checked_tiles(self.folder.workload(network), machine_of(machine, roles_of(self.study)))
        return {place: (tile.m, tile.n) for place, tile in zip(places, tiles, strict=True)}

    def faults(
        self,
        network: str,
        die: Die,
        name: str | None,
        supplies: MemorySupplies,
        epoch: int | None = None,
        floors: MemorySupplies | None = None,
    ) -> tuple[Reading, tuple[ArrayFaults, ...]]:
        """What a chip's buffers behind a protection (None: bare) do at these supplies to activations, and to partial
        sums. `floors`: how far down the chip is made, if not to the study's lowest supplies."""
        buffers = self.chip(network, die, name, floors or self.floors(die.accelerator))
        program, volts = self.program(network), dict(supplies)
        memories: list[Reading] = []
        inside: list[ArrayFaults] = []
        for buffer in IN_TURN:
            if buffer in buffers:
                stored, voltage = buffers[buffer], volts[self.roles[buffer]]
                memories.append(stored.memory(program, voltage, epoch))
                sums = stored.partial_sums(program, self.taps(network, die.accelerator), voltage, epoch)
                inside += [] if sums is None else [sums]
        return InTurn(tuple(memories)), tuple(inside)

    def put(
        self,
        answers: IntegerNetwork,
        network: str,
        die: Die,
        name: str,
        at: OperatingPoint,
        epoch: int | None = ACCESS,
    ) -> tuple[Overheads, float]:
        """Give a network what this chip at this point does to its activations and sums, at an access (None: as it was
        characterised); returns what the protections of the buffers cost, and the share of their cells that are
        faulty."""
        supplies, faulty, cells = memory_supplies(self.study, die.accelerator, at), 0, 0
        answers.activations, inside = self.faults(network, die, name, supplies, epoch)
        buffers = self.chip(network, die, name, self.floors(die.accelerator))
        for buffer, stored in buffers.items():
            voltage = dict(supplies)[self.roles[buffer]]
            faulty, cells = faulty + stored.raw.count(voltage), cells + stored.raw.geometry.cells
        late = self._late(die, name, at)
        answers.in_array = (*inside, *late)
        if self.study.protection(name).logic == "abft" and answers.in_array:
            answers.in_array = (Checksums(inside, tuple(late), self.tiles(network, die.accelerator)),)
        return self.overheads(network, die, name), faulty / cells if cells else 0.0

    def overheads(self, network: str, die: Die, name: str) -> Overheads:
        """What the protections of the buffers cost on this chip."""
        buffers = self.chip(network, die, name, self.floors(die.accelerator))
        return {buffer: stored.overhead for buffer, stored in buffers.items()}

    def _late(self, die: Die, name: str, at: OperatingPoint) -> list[ArrayFaults]:
        """Sums that come too late for the clock, and for the shadow latches if there are any."""
        machine = machine_of(die.accelerator, roles_of(self.study))
        if not at.late_sums or (room := slack(machine, at)) >= 1:
            return []
        razor = self.study.protection(name).logic == "razor"
        errors = (Razor().surviving if razor else mac_errors)(room, stream_of(machine), machine.delay.corner)
        return [TimingFaults(errors, self.study.seed, die.chip)]


@dataclass(frozen=True)
class TrainingDies:
    """Training chips of one structure, whole: the `weights` of each draw, and what its buffers do at the supplies whose
    turn it is."""

    weights: Chips
    lowered: Lowered
    network: str
    accelerator: str
    structure: str
    supplies: Sequence[MemorySupplies]

    def __call__(self, draw: int) -> DieFaults:
        """The faults of a draw."""
        die = Die(self.accelerator, self.structure, FIRST_TRAINING_CHIP + draw)
        at = self.supplies[draw % len(self.supplies)]
        return DieFaults(*self.weights(draw), *self.lowered.faults(self.network, die, None, at, floors=at))


def found_wrong(answers: IntegerNetwork) -> tuple[float, ...] | None:
    """By layer on the array, the share of tiles whose checksums found them wrong since the network's faults were set;
    None where it has no checksums, or nothing to find."""
    counted = [faults.counted for faults in answers.in_array if isinstance(faults, Checksums)]
    return tuple(wrong / checked for checked, wrong in counted[0].values()) if counted and counted[0] else None

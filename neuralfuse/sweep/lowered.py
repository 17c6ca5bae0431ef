"""What a task of an 8-bit network finds beside its weights: activations and partial sums in weak cells, late sums."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from neuralfuse.chips.activations import StoredActivations, store_activations
from neuralfuse.chips.cost import Overheads
from neuralfuse.quantized.integer import IntegerNetwork
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.memory import buffers_lowered, chip_map, place_activations_of, place_partial_sums_of
from neuralfuse.study.supplies import machine_of, operating_points, roles_of, supply_of
from simulator.device.activations import InTurn
from simulator.device.array_faults import ArrayFaults, Checksums, TimingFaults
from simulator.device.program import Conv
from simulator.logic_protection import Razor, checked_tiles
from simulator.mac_errors import mac_errors, stream_of
from simulator.operating_point import OperatingPoint
from simulator.placement import Placement, taps_between_spills
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
    """The other rails of a study's chips; `banks` of the weight memory of a network on an accelerator come first on a
    die, then those of the buffers."""

    def __init__(self, folder: StudyFolder, banks: Callable[[str, str], int]):
        self.folder, self.study, self.banks = folder, folder.study, banks
        self.roles = buffers_lowered(folder.study)
        self.map = last(4, self._map)
        self.chip = last(1, self._chip)
        self.taps = last(4, self._taps)
        self.tiles = last(4, self._tiles)

    def _map(self, network: str, die: Die, buffer: str) -> tuple[FaultMap, Placement]:
        """The weak cells of a buffer of activations, and where these lie."""
        study, role = self.study, self.roles[buffer]
        workload, machine = self.folder.workload(network), machine_of(die.accelerator, roles_of(study))
        lies = {each: place_activations_of(study, workload, machine, each) for each in self.roles}
        before = list(self.roles)[: list(self.roles).index(buffer)]
        first = self.banks(network, die.accelerator) + sum(lies[each].geometry.banks for each in before)
        lowest = min(supply_of(study, die.accelerator, at, role) for at in operating_points(study, die.accelerator))
        geometry = lies[buffer].geometry
        made = chip_map(study, geometry, die.structure, die.chip, lowest - die.drift, first, role)
        return made.drifted(die.drift) if die.drift else made, lies[buffer]

    def _chip(self, network: str, die: Die, name: str) -> dict[str, StoredActivations]:
        """The buffers whose rails the study lowers, behind a protection."""
        chains, found = self.study.protection(name).memories, {}
        machine = machine_of(die.accelerator, roles_of(self.study))
        for buffer, role in self.roles.items():
            raw, placed = self.map(network, die, buffer)
            shield = protection.parse(chains.get(role, ()) or "none")
            sums = None
            if buffer == "ofmap_buffer":
                sums = place_partial_sums_of(self.folder.workload(network), machine, placed.geometry)
            found[buffer] = store_activations(raw, placed, shield, sums)
        return found

    def _taps(self, network: str, machine: str) -> list[int]:
        """After how many taps of each layer on the array its partial sums wait in the output buffer."""
        return taps_between_spills(self.folder.workload(network), machine_of(machine, roles_of(self.study)))

    def _tiles(self, network: str, machine: str) -> dict[int, tuple[int, int]]:
        """By tensor of the program, how many pixels and filters a checksum is over."""
        steps = enumerate(self.folder.program(network).steps, start=1)
        places = [place for place, step in steps if isinstance(step, Conv)]
        tiles = checked_tiles(self.folder.workload(network), machine_of(machine, roles_of(self.study)))
        return {place: (tile.m, tile.n) for place, tile in zip(places, tiles, strict=True)}

    def put(
        self, answers: IntegerNetwork, network: str, die: Die, name: str, at: OperatingPoint
    ) -> tuple[Overheads, float]:
        """Give a network what this chip at this point does to its activations and sums; returns what the protections of
        the buffers cost, and the share of their cells that are faulty."""
        buffers, memories, faulty, cells = self.chip(network, die, name), [], 0, 0
        inside: list[ArrayFaults] = []
        for buffer in IN_TURN:
            if buffer in buffers:
                stored = buffers[buffer]
                voltage = supply_of(self.study, die.accelerator, at, self.roles[buffer])
                memories.append(stored.memory(answers.program, voltage, ACCESS))
                sums = stored.partial_sums(answers.program, self.taps(network, die.accelerator), voltage, ACCESS)
                inside += [] if sums is None else [sums]
                faulty, cells = faulty + stored.raw.count(voltage), cells + stored.raw.geometry.cells
        late = self._late(die, name, at)
        answers.activations = InTurn(tuple(memories))
        answers.in_array = (*inside, *late)
        if self.study.protection(name).logic == "abft" and answers.in_array:
            answers.in_array = (Checksums(tuple(inside), tuple(late), self.tiles(network, die.accelerator)),)
        overheads = {buffer: stored.overhead for buffer, stored in buffers.items()}
        return overheads, faulty / cells if cells else 0.0

    def _late(self, die: Die, name: str, at: OperatingPoint) -> list[ArrayFaults]:
        """Sums that come too late for the clock, and for the shadow latches if there are any."""
        machine = machine_of(die.accelerator, roles_of(self.study))
        if not at.late_sums or (room := slack(machine, at)) >= 1:
            return []
        razor = self.study.protection(name).logic == "razor"
        errors = (Razor().surviving if razor else mac_errors)(room, stream_of(machine), machine.delay.corner)
        return [TimingFaults(errors, self.study.seed, die.chip)]


def found_wrong(answers: IntegerNetwork) -> tuple[float, ...] | None:
    """By layer on the array, the share of tiles whose checksums found them wrong since the network's faults were set;
    None where it has no checksums, or nothing to find."""
    counted = [faults.counted for faults in answers.in_array if isinstance(faults, Checksums)]
    return tuple(wrong / checked for checked, wrong in counted[0].values()) if counted and counted[0] else None

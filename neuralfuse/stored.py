"""From the accelerator's memory to the network's words: which cells a study's weights lie in, numbered as the
network has them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuralfuse.config import SramConfig, StudyConfig
from neuralfuse.faulty import FaultyNetwork
from neuralfuse.sources import Chips, Faults, Source, chip_map
from simulator.accelerator import Accelerator
from simulator.cycles import Counts
from simulator.energy import energy
from simulator.placement import Hits, Placement, place
from simulator.workload import Layer, Workload, stored_name
from sram.faultmap import FaultMap
from sram.geometry import Geometry
from sram.protection import Layout, Overhead, Protection, word_faults
from sram.words import Region

PAPER_ARRAY = Geometry(banks=1, rows=8192, columns=128, word_bits=64)  # of the reference code's fault maps


def geometry_of(study: StudyConfig, workload: Workload, machine: Accelerator, bits: int) -> Geometry:
    """The cells that a study's maps cover: the accelerator's weight buffer (`streamed`), a memory in which every
    weight has
    its own cell (`resident`), or the one array of the paper-compatible maps (`paper`)."""
    s = study.sram
    if s.schedule == "paper":
        return PAPER_ARRAY
    capacity = machine.weight_buffer.capacity_bytes
    if s.schedule == "resident":
        slots = s.word_bits // bits
        words = sum(-(-layer.weights // slots) for layer in workload.array_layers)
        capacity = max(capacity, words * s.word_bits // 8)
    return Geometry.of_capacity(capacity, rows=s.rows, columns=s.columns, word_bits=s.word_bits)


def place_weights(study: StudyConfig, workload: Workload, machine: Accelerator, bits: int) -> Placement:
    """Where each stored weight bit of the network lies in the study's memory."""
    return place(
        workload, machine, geometry_of(study, workload, machine, bits), schedule=study.sram.schedule, bits=bits
    )


@dataclass(frozen=True)
class StoredChip:
    """One chip with the network's weights in it: which stored bits read wrong at a voltage, protections included."""

    raw: FaultMap  # the silicon's own
    overhead: Overhead  # of the SRAM protections on this chip
    placed: Placement
    network: FaultyNetwork
    shield: Protection
    map: FaultMap  # as the protected memory has it
    hits: Hits | None  # bits in weak cells, the weakest first; None where whole words have to be read

    def faults(self, voltage: float) -> Faults:
        """(weight, bit, kind) of the stored bits that a read at `voltage` has to be given."""
        if self.hits is None:
            return self._read(voltage)
        n = int(np.searchsorted(self.hits.fault, self.map.count(voltage)))
        return self.hits.weight[:n], self.hits.bit[:n], self.map.kind[self.hits.fault[:n]]

    def _read(self, voltage: float) -> Faults:
        """Words read through the protection's logic; what comes out different from what was stored, as flipped bits."""
        found = word_faults(self.map.geometry, self.map.at(voltage))
        row, weight = self.placed.contents(found.word)
        weight = _in_network(self.placed, self.network, weight)
        words, layout = self.network.clean_words, layout_of(self.placed)
        data_bits = self.placed.geometry.word_bits
        wrong, value = self.shield.read_weights(words, weight, found, row, layout, data_bits)
        flipped = (words[wrong].astype(np.int64) ^ value)[:, None] >> np.arange(self.network.bits) & 1
        which, bit = np.nonzero(flipped)
        return wrong[which], bit.astype(np.uint8), np.full(len(bit), 2, np.uint8)


def layout_of(placed: Placement, counts: Counts | None = None) -> Layout:
    """How the weights lie in the memory words; with the counts of an inference also which words are a layer's own.

    Layers have words of their own where all weights are in the memory at once; elsewhere, as in a buffer that they
    pass through, there are no regions.
    """
    if counts is None or placed.schedule == "paper" or placed.residencies > 1 or placed.bank_interleave:
        return Layout(placed.bits, placed.bit_order)

    def name(layer: Layer) -> str:
        return stored_name(layer).removesuffix(".weight")

    layers = [i for i, layer in enumerate(counts.workload.layers) if layer.weights]
    spent = energy(counts).components
    parts = [spent[f"weight_sram_{way}"] / (spent[f"weight_sram_{way}"].sum() or 1.0) for way in ("reads", "writes")]
    regions = (
        Region(name(counts.workload.layers[i]), first, words, *(float(part[i]) for part in parts))
        for i, (first, words) in zip(layers, placed.stretches(), strict=True)
    )
    return Layout(placed.bits, placed.bit_order, tuple(regions))


def _in_network(placed: Placement, network: FaultyNetwork, weight: np.ndarray) -> np.ndarray:
    """Weight numbers of the placement, -1 where there is none, as indices into the network's words."""
    flat = weight.ravel()
    held = flat >= 0
    translated = np.full(flat.shape, -1, np.int64)
    translated[held] = network.numbering(placed.tensors).words(flat[held])
    return translated.reshape(weight.shape)


def make_map(
    sram: SramConfig, seed: int, geometry: Geometry, structure: str, chip: int, floor: float, first_bank: int = 0
) -> FaultMap:
    """The fault map of chip number `chip` down to voltage `floor`, from bank `first_bank` on."""
    return chip_map(
        chip,
        geometry,
        sram.curve,
        structure,
        first_bank,
        voltage_floor=floor,
        seed=seed,
        mode=sram.mode,
        stuck_at_one=sram.stuck_at_one,
    )


def store(raw: FaultMap, placed: Placement, network: FaultyNetwork, shield: Protection) -> StoredChip:
    """Put the network into a chip behind a protection (`sram.protection.parse("none")` for a bare one)."""
    protected, overhead = shield.apply(raw)
    hits = None
    if shield.words_as_stored:
        found = placed.hits(protected.cell)
        hits = Hits(found.fault, network.numbering(placed.tensors).words(found.weight), found.bit)
    return StoredChip(raw, overhead, placed, network, shield, protected, hits)


@dataclass(frozen=True)
class InTurn:
    """Draws from several sources in turn, each counting on its own."""

    sources: tuple[Source, ...]

    def __call__(self, draw: int) -> Faults:
        return self.sources[draw % len(self.sources)](draw // len(self.sources))


@dataclass(frozen=True)
class StepsInTurn:
    """One source for all `draws` of a step, the sources taken in turn by step; each counts on its own."""

    sources: tuple[Source, ...]
    draws: int

    def __call__(self, draw: int) -> Faults:
        step, i = divmod(draw, self.draws)
        round, which = divmod(step, len(self.sources))
        return self.sources[which](round * self.draws + i)


@dataclass(frozen=True)
class From:
    """The draws of a source from number `first` on."""

    source: Source
    first: int

    def __call__(self, draw: int) -> Faults:
        return self.source(self.first + draw)


def training_source(
    study: StudyConfig, placed: Placement, network: FaultyNetwork, voltages: Sequence[float], first_bank: int = 0
) -> Source:
    """Chips of the study's own memory that no evaluation uses, at these voltages, all structures in turn."""
    s = study.sram
    numbering = network.numbering(placed.tensors)
    return InTurn(
        tuple(
            Chips(placed, numbering, s.curve, form, voltages, study.seed, s.mode, s.stuck_at_one, first_bank)
            for form in s.structures
        )
    )

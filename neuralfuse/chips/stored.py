"""From the accelerator's memory to the network's words: which cells a study's weights lie in, numbered as the
network has them."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from neuralfuse.chips import sources
from neuralfuse.chips.memory import of_cores, place_once, resident_bytes, weight_geometry
from neuralfuse.quantized.faulty import FaultyBits, FaultyNetwork, exponents_of
from neuralfuse.quantized.formats import WordFormat
from neuralfuse.quantized.quantize import kept_apart, weight_parameters
from simulator.accelerator import Accelerator, accelerator
from simulator.array.cycles import Counts
from simulator.energy import energy
from simulator.placement import Hits, Placement
from simulator.workload import Layer, Workload, stored_name
from sram.errors import InputError
from sram.faultmap import FaultMap
from sram.geometry import Geometry
from sram.protection import Layout, Overhead, Protection, parse, word_faults
from sram.protection.words import Region


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

    def faults(self, voltage: float, epoch: int | None = None) -> FaultyBits:
        """(weight, bit, kind) of the stored bits that a read at `voltage` has to be given; with `epoch`, of cells that
        fail now and then those that do in that very access."""
        if self.hits is None:
            return self._read(voltage, epoch)
        if epoch is not None and self.map.noise is not None:
            return sources.placed(self.placed, self.network.numbering(self.placed.tensors), self.map.at(voltage, epoch))
        n = int(np.searchsorted(self.hits.fault, self.map.count(voltage)))
        return self.hits.weight[:n], self.hits.bit[:n], self.map.kind[self.hits.fault[:n]]

    def _read(self, voltage: float, epoch: int | None) -> FaultyBits:
        """Words read through the protection's logic; what comes out different from what was stored, as flipped bits."""
        found = word_faults(self.map.geometry, self.map.at(voltage, epoch))
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

    layers, spent, lies = counts.workload.layers, energy(counts).components, placed.stretches()
    uses = [(stored_name(layer), layer.weight_offset) for layer in layers]
    owner = [uses.index(use) for use in uses]  # the reads of all who share words are those of their region
    ways = [spent[f"weight_sram_{way}"] for way in ("reads", "writes")]
    parts = [np.bincount(owner, pj, len(layers)) / (pj.sum() or 1.0) for pj in ways]
    of_layer: Counter[int] = Counter()  # in all cores
    for i, _, words in lies:
        of_layer[owner[i]] += words
    regions = (
        Region(name(layers[i]), first, words, *(float(part[owner[i]]) * (words / of_layer[owner[i]]) for part in parts))
        for i, first, words in lies
    )
    return Layout(placed.bits, placed.bit_order, tuple(regions))


def _in_network(placed: Placement, network: FaultyNetwork, weight: np.ndarray) -> np.ndarray:
    """Weight numbers of the placement, -1 where there is none, as indices into the network's words."""
    flat = weight.ravel()
    held = flat >= 0
    translated = np.full(flat.shape, -1, np.int64)
    translated[held] = network.numbering(placed.tensors).words(flat[held])
    return translated.reshape(weight.shape)


def store(raw: FaultMap, placed: Placement, network: FaultyNetwork, shield: Protection) -> StoredChip:
    """Put the network into a chip behind a protection (`sram.protection.parse("none")` for a bare one)."""
    protected, overhead = shield.apply(raw)
    hits = None
    if shield.words_as_stored:
        found = placed.hits(protected.cell)
        hits = Hits(found.fault, network.numbering(placed.tensors).words(found.weight), found.bit)
    return StoredChip(raw, overhead, placed, network, shield, protected, hits)


def in_accelerator(
    raw: FaultMap,
    network: FaultyNetwork,
    workload: Workload,
    machine: Accelerator | str = "paper",
    schedule: str = "streamed",
    shield: Protection | str = "none",
) -> StoredChip:
    """The network in a chip as an accelerator's schedule puts it there, which is where a study has it.

    `workload` is the network's as it was before `FaultyNetwork` took it (`simulator.trace`). Raises InputError for the
    map of a memory of another size than the accelerator's.
    """
    workload = with_exponents(workload, network.network, network.format)
    machine = accelerator(machine) if isinstance(machine, str) else machine
    placed = place_on(raw, workload, machine, schedule, network.bits)
    return store(raw, placed, network, parse(shield, layout_of(placed)) if isinstance(shield, str) else shield)


def place_on(
    raw: FaultMap, workload: Workload, machine: Accelerator, schedule: str, bits: int, weights_per_cell: int = 16
) -> Placement:
    """Where each stored weight bit lies on a chip, in banks as its map has them.

    Raises InputError for the map of a memory of another size than the accelerator's.
    """
    cells = raw.geometry
    memory = weight_geometry(schedule, workload, machine, cells, bits)
    if cells != memory:
        allowed = f"{_size(memory)}: the weight memory of {machine.name} with schedule = {schedule}"
        raise InputError(f"fault map of chip {raw.chip}", "size", _size(cells), allowed)
    return place_once(workload, machine, cells, schedule, bits, weights_per_cell)


def _size(cells: Geometry) -> str:
    return f"{cells.banks} banks of {cells.rows} x {cells.columns}, {cells.capacity_bytes / 1024:g} KiB"


def place_generator(workload: Workload, machine: Accelerator, network: Placement, bits: int) -> tuple[Placement, int]:
    """Where a generator's words lie on the chips of a network that lies as `network` says; and the first bank of that.

    `streamed` and `paper`: the generator runs before the network and its words pass through the very same cells, from
    the first on. `resident`: both stay, so the generator has banks of its own behind the network's, which does not
    move.
    """
    cells, first = network.geometry, 0
    if network.schedule == "resident":
        size = max(1, resident_bytes(workload, machine, cells, bits))
        first, cells = cells.banks, of_cores(size, machine, cells)
    return place_once(workload, machine, cells, network.schedule, bits, network.weights_per_cell), first


def with_exponents(workload: Workload, network: nn.Module, form: WordFormat) -> Workload:
    """A network's layers with the fetches of the exponents that its words share: of each tensor before its own first,
    as a move that reads them once an inference. The workload itself where the format has none.

    >>> from simulator import trace
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    >>> [(t, n) for t, _, n in with_exponents(trace(network, (1, 6, 8)), network, WordFormat(name="mxfp4")).tensors()]
    [('1.weight.exponents', 8), ('1.weight', 96)]
    """
    if not form.shared:
        return workload
    words = {name: form.exponent_words(weight.shape) for name, weight in weight_parameters(network).items()}
    moved, layers = {-1: -1}, []

    def renumbered(sources: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(moved[source] for source in sources)

    for i, layer in enumerate(workload.layers):
        count = words.pop(stored_name(layer), 0) if layer.weights else 0
        if count:
            name = exponents_of(stored_name(layer))
            layers.append(Layer(name, "move", workload.batch, weight_name=name, weights=count, constants=count))
        moved[i] = len(layers)
        operands = tuple((renumbered(sources), elements) for sources, elements in layer.operands)
        layers.append(replace(layer, sources=renumbered(layer.sources), operands=operands))
    return replace(workload, layers=tuple(layers), outputs=renumbered(workload.outputs))


def not_in_weak_cells(network: nn.Module, workload: Workload) -> list[str]:
    """The parameters of a network that lie in no cell of the weight memory, with their sizes: words that no layer
    fetches, parameters that are no words, and, in one, biases and normalisation.

    InputError for a weight that a layer fetches and that is no word: no fault would reach it.

    >>> from simulator import trace
    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))
    >>> not_in_weak_cells(network, trace(network, (1, 4, 4)))
    ['biases and normalisation (8 numbers)']
    """
    words, apart, unlisted = weight_parameters(network), kept_apart(network), unlisted_parameters(network)
    fetched = [name for name, _, _ in workload.tensors()]
    for name in fetched:
        if name not in words and name not in map(exponents_of, words):
            allowed = (
                "the weight of a convolution, linear or recurrent layer, or one named in its module's stored_weights"
            )
            raise InputError(type(network).__name__, "weight", name, allowed)
    named = {name: one for name, one in words.items() if name not in fetched} | unlisted
    found = [f"{name} ({one.numel():,})" for name, one in named.items()]
    others = sum(one.numel() for name, one in apart.items() if name not in unlisted)
    return found + [f"biases and normalisation ({others:,} numbers)"] * (others > 0)


def unlisted_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are no words, biases or of normalisation: what a module makes and uses by itself.

    >>> list(unlisted_parameters(nn.MultiheadAttention(2, 1, add_bias_kv=True))), list(unlisted_parameters(nn.PReLU()))
    ([], ['weight'])
    """
    modules = dict(network.named_modules())

    def usual(name: str) -> bool:
        owner, _, own = name.rpartition(".")
        return "bias" in own or "Norm" in type(modules[owner]).__name__

    return {name: one for name, one in kept_apart(network).items() if not usual(name)}


def check_words(transform: nn.Module) -> None:
    """Raise InputError where words of a transform have no place in the weight memory's schedule (`pixelwise`)."""
    for module in transform.modules():
        if getattr(module, "stored_weights", ()):
            allowed = "a generator of convolutions and linear layers, with own_faults"
            raise InputError("study", "generator", type(module).__name__, allowed)


def known(faults: FaultyBits, share: float, seed: int) -> FaultyBits:
    """A random `share` of the bits that read wrong, the same ones for the same seed: what an incomplete map tells.

    >>> bits = np.arange(1000), np.zeros(1000, np.uint8), np.zeros(1000, np.uint8)
    >>> 850 < len(known(bits, 0.9, seed=0)[0]) < 950, known(bits, 1, seed=0) is bits
    (True, True)
    """
    if share == 1:
        return faults
    weight, bit, kind = faults
    told = np.random.default_rng(seed).random(len(weight)) < share
    return weight[told], bit[told], kind[told]

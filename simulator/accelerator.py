"""The machine: a systolic array with its buffers, its DRAM, its vector unit and its supply rails."""

from __future__ import annotations

import configparser
import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, cast, get_args

from simulator import userfile
from simulator.delay import Delay
from sram.energy import MacroEnergy, macro
from sram.errors import InputError
from sram.lazy import callable_module
from sram.names import check_names

PRESETS = Path(__file__).parent / "presets"
Dataflow = Literal["os", "ws", "is", "best", "rs"]
DATAFLOWS = get_args(Dataflow)
Policy = Literal["search", "fixed"]
Objective = Literal["edp", "energy", "cycles"]
Weights = Literal["streamed", "resident"]
Buffers = Literal["separate", "shared"]
# Far beyond any machine, and so far below 2**63 that counts of cycles and accesses, which are products, stay there too.
MOST_ELEMENTS = 1 << 16  # rows, columns, lanes, samples
MOST_BITS = 128
MOST_CORES = 256
MOST_BYTES = 1 << 40  # of a buffer
MOST_BUFFER_PARTS = 1 << 20  # macros; bits, rows and columns of a word and a bank
MOST_LATENCY_CYCLES = 1_000_000
MOST_VOLTS = 100


@dataclass(frozen=True)
class Buffer:
    """An SRAM buffer, made of banks of `bank_rows` x `bank_columns` cells. `double`: one half fills, one is used.

    `macros`: equal parts with their own word lines and bit lines; an access spends the energy of one of them.
    """

    capacity_bytes: int
    double: bool = True
    word_bits: int = 64
    bank_rows: int = 512
    bank_columns: int = 64
    rail: str = "sram"
    macros: int = 1

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        _check_range("buffer", "capacity_bytes", self.capacity_bytes, 1, MOST_BYTES)
        for name in ("word_bits", "bank_rows", "bank_columns", "macros"):
            _check_range("buffer", name, getattr(self, name), 1, MOST_BUFFER_PARTS)

    @property
    def usable_bytes(self) -> int:
        """What one tile may fill."""
        return self.capacity_bytes // 2 if self.double else self.capacity_bytes


@dataclass(frozen=True)
class Scratchpads:
    """The memories of each element of a row stationary array: words of inputs, of weights and of partial sums."""

    ifmap_words: int
    weight_words: int
    psum_words: int

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name in ("ifmap_words", "weight_words", "psum_words"):
            _check_range("scratchpads", name, getattr(self, name), 1, MOST_BUFFER_PARTS)


@dataclass(frozen=True)
class Accelerator:
    """An accelerator. Bandwidth is shared by all operands; rails are nominal voltages in volts.

    `dataflow`: os, ws, is, best (the fastest of the three for each layer), or rs (row stationary, with `scratchpads`).
    `scratchpads`: the memories of each element; with rs, and with nothing else.
    `cores`: of this kind, each with its own array and buffers, on one DRAM channel (array/cores.py).
    `buffers`: separate, or shared: the macros of the input and of the output buffer are one pool, which each layer
    splits as it likes (with `schedule: fixed` as the file has it).
    `double_buffered_registers`: a fold's stationary operand loads while the previous fold computes.
    `skip_idle_rows`: a partial fold costs the rows and columns that it uses, not the whole array.
    `keep_on_chip`: an output that fits stays in the buffer for the layer that reads it.
    `batch`: samples that run through a layer together; it multiplies the batch of the workload.
    `delay`: how far its paths slow down where a supply is lowered (`simulator.timing`).
    `retention_v`: supply of the buffers between inferences, when the logic is off; left out, no rail is lowered then.
    `schedule`: search (for each layer the tiles and loop order of least `objective`), or fixed (without tiles).
    `objective`: of that search: edp (pJ x cycles), energy, or cycles.
    `cache_buffer`: keys and values of a decoder (`simulator.decoder`) stay in it; without one they are in DRAM.
    `weights`: streamed (loaded for each run), or resident (loaded once, at power-up, which no run pays for).

    >>> machine = accelerator("paper")
    >>> machine.array_rows, machine.array_cols, machine.dataflow, machine.weight_buffer.capacity_bytes
    (32, 32, 'os', 262144)
    """

    name: str
    array_rows: int
    array_cols: int
    dataflow: Dataflow
    ifmap_buffer: Buffer
    weight_buffer: Buffer
    ofmap_buffer: Buffer
    dram_bytes_per_cycle: float
    dram_latency_cycles: int
    clock_hz: float
    node_nm: float
    ifmap_bits: int = 8
    weight_bits: int = 8
    ofmap_bits: int = 8
    accumulator_bits: int = 32
    double_buffered_registers: bool = False
    skip_idle_rows: bool = False
    keep_on_chip: bool = False
    vector_lanes: int = 32
    batch: int = 1
    schedule: Policy = "search"
    objective: Objective = "edp"
    weights: Weights = "streamed"
    buffers: Buffers = "separate"
    scratchpads: Scratchpads | None = None
    cores: int = 1
    cache_buffer: Buffer | None = None
    rails: dict[str, float] = field(default_factory=lambda: {"sram": 0.9, "logic": 0.9})
    sram_cell: str = "itrs-lstp"
    delay: Delay = field(default_factory=Delay)
    retention_v: float | None = None
    note: str = field(default="", metadata={"hashed": False})

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_names("accelerator", [self.name])
        for name in ("array_rows", "array_cols", "vector_lanes", "batch"):
            _check_range(self.name, name, getattr(self, name), 1, MOST_ELEMENTS)
        for name in ("ifmap_bits", "weight_bits", "ofmap_bits", "accumulator_bits"):
            _check_range(self.name, name, getattr(self, name), 1, MOST_BITS)
        _check_range(self.name, "dram_latency_cycles", self.dram_latency_cycles, 0, MOST_LATENCY_CYCLES)
        if not self.dram_bytes_per_cycle > 0:  # infinity is a DRAM that nobody waits for
            raise InputError(self.name, "dram_bytes_per_cycle", self.dram_bytes_per_cycle, "more than 0")
        for name in ("clock_hz", "node_nm"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(self.name, name, getattr(self, name), "more than 0, and finite")
        kinds = {"dataflow": Dataflow, "schedule": Policy, "objective": Objective, "weights": Weights}
        kinds["buffers"] = Buffers
        for name, choices in kinds.items():
            if getattr(self, name) not in get_args(choices):
                raise InputError(self.name, name, getattr(self, name), ", ".join(get_args(choices)))
        self._check_mapping()
        buffers = self.memories.values()
        for rail in ("logic", *(buffer.rail for buffer in buffers)):
            if not 0 < self.rails.get(rail, 0) <= MOST_VOLTS:
                allowed = f"a nominal voltage in volts, at most {MOST_VOLTS}"
                raise InputError(self.name, f"rails.{rail}", self.rails.get(rail), allowed)
        least = min(self.rails[buffer.rail] for buffer in buffers)
        if self.retention_v is not None and not 0 < self.retention_v <= least:
            allowed = f"more than 0 V, and at most the buffers' nominal {least:g} V"
            raise InputError(self.name, "retention_v", self.retention_v, allowed)

    @property
    def memories(self) -> dict[str, Buffer]:
        """Its buffers by name."""
        names = ("ifmap_buffer", "weight_buffer", "ofmap_buffer", "cache_buffer")
        return {name: found for name in names if (found := getattr(self, name)) is not None}

    def _check_mapping(self) -> None:
        _check_range(self.name, "cores", self.cores, 1, MOST_CORES)
        if self.cores > 1 and self.keep_on_chip:  # outputs that are cut would have to go from core to core
            raise InputError(self.name, "keep_on_chip", True, "false with several cores")
        if self.cores > 1 and self.cache_buffer is not None:  # and keys and values to all that read them
            raise InputError(self.name, "cache_buffer", self.cache_buffer.capacity_bytes, "none with several cores")
        if (self.scratchpads is None) == (self.dataflow == "rs"):
            allowed = "the words of an element's memories" if self.scratchpads is None else "none, but with dataflow rs"
            raise InputError(self.name, "scratchpads", self.scratchpads, allowed)
        if self.dataflow == "rs" and self.schedule == "fixed":
            raise InputError(self.name, "schedule", "fixed", "search; row stationary has no schedule without tiles")
        if self.buffers == "shared":
            pool = (self.ifmap_buffer, self.ofmap_buffer)
            macros = {dataclasses.replace(part, capacity_bytes=1, macros=1) for part in pool}
            if len(macros) > 1 or len({part.capacity_bytes / part.macros for part in pool}) > 1:
                allowed = "separate; shared takes an ifmap_buffer and an ofmap_buffer of equal macros"
                raise InputError(self.name, "buffers", "shared", allowed)


def macro_of(machine: Accelerator, buffer: Buffer) -> MacroEnergy:
    """One of the macros of a buffer, from the SRAM table at the machine's node. InputError for a node that it lacks.

    >>> machine = accelerator("paper")
    >>> macro_of(machine, machine.weight_buffer).access_ns
    1.5085
    """
    return macro(buffer.capacity_bytes / buffer.macros, table_node(machine), machine.sram_cell)


def table_node(machine: Accelerator) -> int:
    """The node of the SRAM table that is the machine's. InputError for one that it lacks."""
    node = int(machine.node_nm)
    if node != machine.node_nm:  # SRAM figures are not scaled to another node, so not rounded to one either
        allowed = "a whole number, a node of the CACTI table, without figures for the buffers of your own"
        raise InputError(machine.name, "node_nm", machine.node_nm, allowed)
    return node


WEIGHT_RAIL = "weights"


def with_weight_rail(machine: Accelerator) -> Accelerator:
    """The machine with its weight buffer on a rail of its own: `WEIGHT_RAIL`, unless it has one already.

    >>> machine = with_weight_rail(accelerator("paper"))
    >>> machine.weight_buffer.rail, machine.ifmap_buffer.rail, machine.rails["weights"]
    ('weights', 'sram', 0.8)
    """
    rail = machine.weight_buffer.rail
    if _held(machine, rail) == {"weight_buffer"}:
        return machine
    if WEIGHT_RAIL in machine.rails:
        allowed = f"no rail of this name, or one of the weight buffer alone, which is on {rail}"
        raise InputError(machine.name, "rails", WEIGHT_RAIL, allowed)
    buffer = dataclasses.replace(machine.weight_buffer, rail=WEIGHT_RAIL)
    return dataclasses.replace(machine, weight_buffer=buffer, rails=machine.rails | {WEIGHT_RAIL: machine.rails[rail]})


# What a rail may be called by what its buffers hold; outputs and partial sums share a buffer.
ROLES = {
    "weights": ("weight_buffer",),
    "activations": ("ifmap_buffer", "ofmap_buffer"),
    "accumulators": ("ofmap_buffer",),
    "cache": ("cache_buffer",),
}


def with_rails(machine: Accelerator, names: Iterable[str]) -> tuple[Accelerator, dict[str, str]]:
    """The machine with a rail for each name, and {name: that rail}.

    A name is that of one of its rails, or says what buffers hold: `weights`; `activations` (inputs, and outputs with
    the partial sums in their buffer); `accumulators` (the buffer of partial sums and outputs, which then leaves
    `activations`); `cache` (keys and values of a decoder, where they have a buffer). Such buffers keep the rail that
    they have to themselves, or else get one of this name, at the same nominal supply. InputError for another name, and
    for a rail that this leaves without a buffer.

    >>> machine, rails = with_rails(accelerator("paper"), ["weights", "accumulators", "sram"])
    >>> rails, machine.ifmap_buffer.rail, machine.ofmap_buffer.rail
    ({'weights': 'weights', 'accumulators': 'accumulators', 'sram': 'sram'}, 'sram', 'accumulators')
    """
    names, given = list(names), machine
    for name in names:
        roles = [role for role, buffers in ROLES.items() if buffers[0] in given.memories]
        if name not in given.rails and name not in roles:
            allowed = f"of {machine.name}: {', '.join(dict.fromkeys([*given.rails, *roles]))}"
            raise InputError("operating point", "rail", name, allowed)
    found = {name: name for name in names}
    for role in (role for role in ROLES if role in names and role not in given.rails):
        rails = sorted({getattr(given, buffer).rail for buffer in ROLES[role]})
        if len(rails) == 1 and _held(given, rails[0]) == set(ROLES[role]):
            found[role] = rails[0]
            continue
        nominal = {given.rails[rail] for rail in rails}
        if len(nominal) > 1:
            raise InputError("operating point", "rail", role, f"one of its rails of {machine.name}: {', '.join(rails)}")
        buffers = {name: dataclasses.replace(getattr(machine, name), rail=role) for name in ROLES[role]}
        machine = dataclasses.replace(machine, rails=machine.rails | {role: nominal.pop()}, **buffers)
    for name, rail in found.items():
        if not _held(machine, rail) or list(found.values()).count(rail) > 1:
            raise InputError("operating point", "rail", name, "a rail that something is left on, by one name")
    return machine, found


def _held(machine: Accelerator, rail: str) -> set[str]:
    """What is on a rail: names of buffers, and logic."""
    buffers = {name for name, buffer in machine.memories.items() if buffer.rail == rail}
    return buffers | ({"logic"} if rail == "logic" else set())


def with_resident_weights(machine: Accelerator, stored_bytes: float) -> Accelerator:
    """The machine with all weights in its weight buffer from power-up on; if they do not fit, with more macros of it.

    >>> machine = with_resident_weights(accelerator("paper"), 600_000)
    >>> machine.weights, machine.weight_buffer.capacity_bytes, machine.weight_buffer.macros
    ('resident', 786432, 3)
    """
    buffer = machine.weight_buffer
    times = max(1, math.ceil(stored_bytes / buffer.capacity_bytes))
    larger = dataclasses.replace(buffer, capacity_bytes=times * buffer.capacity_bytes, macros=times * buffer.macros)
    return dataclasses.replace(machine, weights="resident", weight_buffer=larger)


def _check_range(where: str, name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InputError(where, name, value, f"{least} to {most}")


def accelerator_names() -> list[str]:
    """The presets that come with the package.

    >>> "paper" in accelerator_names()
    True
    """
    return userfile.presets(PRESETS)


def accelerator(name_or_path: str | Path) -> Accelerator:
    """A preset by name, or an accelerator from a YAML file whose keys are the fields of Accelerator."""
    return userfile.named(PRESETS, name_or_path, Accelerator, "accelerator")


# All keys of a SCALE-Sim .cfg (v2 and v3). Those that change nothing here: addresses and names of files; what only
# counts where a switch is on; request buffers, which only a Ramulator trace asks for.
SCALESIM_KEYS = {
    "general": ("run_name",),
    "architecture_presets": (
        *("ArrayHeight", "ArrayWidth", "IfmapSramSzkB", "FilterSramSzkB", "OfmapSramSzkB", "Dataflow", "Bandwidth"),
        *("IfmapOffset", "FilterOffset", "OfmapOffset", "MemoryBanks", "ReadRequestBuffer", "WriteRequestBuffer"),
    ),
    "layout": (
        *("IfmapCustomLayout", "IfmapSRAMBankBandwidth", "IfmapSRAMBankNum", "IfmapSRAMBankPort"),
        *("FilterCustomLayout", "FilterSRAMBankBandwidth", "FilterSRAMBankNum", "FilterSRAMBankPort"),
    ),
    "sparsity": (
        *("SparsitySupport", "SparseRep", "OptimizedMapping", "BlockSize", "NonZeroElems"),
        "RandomNumberGeneratorSeed",
    ),
    "run_presets": ("InterfaceBandwidth", "UseRamulatorTrace"),
    "network_presets": ("TopologyCsvLoc",),
}
SCALESIM_SWITCHES = {  # what may not be on, and why
    "IfmapCustomLayout": "false; conflicts of banks are not modelled",
    "FilterCustomLayout": "false; conflicts of banks are not modelled",
    "SparsitySupport": "false; sparse weights are not modelled",
    "UseRamulatorTrace": "false; there is no Ramulator here",
}


def _check_scalesim(path: Path, parser: configparser.ConfigParser) -> None:
    """InputError for a key that is not known, or that asks for what is not modelled."""
    for section in parser.sections():
        known = SCALESIM_KEYS.get(section)
        if known is None:
            raise InputError(path, "section", section, ", ".join(SCALESIM_KEYS))
        for key in parser.options(section):
            if key not in map(str.lower, known):
                raise InputError(path, f"[{section}] key", key, ", ".join(known))
        for key in set(known) & set(SCALESIM_SWITCHES):
            value = parser.get(section, key, fallback="false").strip()
            if value.lower() != "false":
                raise InputError(path, key, value, SCALESIM_SWITCHES[key])


def scalesim_config(path: str | Path, user_bandwidth: bool = False) -> Accelerator:
    """An accelerator from a SCALE-Sim .cfg: array, dataflow, buffers (kB = 1024 words of one byte) and bandwidth.

    Its bandwidth is no limit (InterfaceBandwidth: CALC); here it is one channel, with as many bytes a cycle as the
    array's edges can take. What the format lacks (clock, node, rails, latency, vector unit) is the preset `paper`'s. A
    key that asks for what is not modelled is an InputError, as is one that the format has not.
    `user_bandwidth`: take USER, too, words a cycle for each of three ports, as one channel of three times the words.
    That is for this project's own engine: simulator.compat.scalesim counts as in CALC alone.
    """
    path = Path(path)
    # a % is a % in these files
    parser = configparser.ConfigParser(inline_comment_prefixes=("#", ";"), interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(path, "file", error.strerror, "a readable SCALE-Sim .cfg") from None
    except (configparser.Error, UnicodeDecodeError) as error:
        raise InputError(path, "content", " ".join(str(error).split()), "a SCALE-Sim .cfg") from None

    _check_scalesim(path, parser)

    def text(section: str, key: str) -> str:
        if not parser.has_option(section, key):
            raise InputError(path, f"[{section}] {key}", None, "a value")
        return parser.get(section, key).strip()

    def number(key: str, value: str, most: int) -> int:
        found = userfile.whole(value, most)
        if found is None:
            raise InputError(path, key, value[:40], f"a whole number from 1 to {most}")
        return found

    def preset(key: str, most: int) -> int:
        return number(key, text("architecture_presets", key), most)

    rows, cols = preset("ArrayHeight", MOST_ELEMENTS), preset("ArrayWidth", MOST_ELEMENTS)
    dataflow = text("architecture_presets", "Dataflow").lower()
    if dataflow not in ("os", "ws", "is"):
        raise InputError(path, "Dataflow", dataflow, "os, ws, is")
    mode = text("run_presets", "InterfaceBandwidth").upper()
    if mode not in (modes := ("CALC", "USER") if user_bandwidth else ("CALC",)):
        own = "" if user_bandwidth else "; USER without --compat scalesim, which counts no stalls (user_bandwidth=True)"
        raise InputError(path, "InterfaceBandwidth", mode, ", ".join(modes) + own)
    bandwidth: float = rows + 2 * cols
    if mode == "USER":
        first = text("architecture_presets", "Bandwidth").split(",")[0].strip()
        bandwidth = 3 * number("Bandwidth", first, MOST_BYTES)
    sizes = {name: preset(f"{name}SramSzkB", MOST_BYTES // 1024) * 1024 for name in ("Ifmap", "Filter", "Ofmap")}
    return dataclasses.replace(
        accelerator("paper"),
        name=parser.get("general", "run_name", fallback=path.stem).strip().strip('"'),
        array_rows=rows,
        array_cols=cols,
        dataflow=cast(Dataflow, dataflow),
        ifmap_buffer=Buffer(sizes["Ifmap"]),
        weight_buffer=Buffer(sizes["Filter"]),
        ofmap_buffer=Buffer(sizes["Ofmap"]),
        dram_bytes_per_cycle=float(bandwidth),
        note=f"from {path.name}",
    )


callable_module(__name__)

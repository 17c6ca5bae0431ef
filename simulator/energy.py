"""Energy of each layer, component by component, from counts and a table whose every entry has a source.

Conventions, all of them:

- A published energy holds for its node and supply. At another node and supply it is multiplied by
  (node / published node) x (V / published V)^2: capacitance in proportion to feature size (Dennard et al., JSSC 1974),
  energy C V^2. Leakage power goes with the node likewise and with the supply as `sram.energy.leakage_scale`. What says
  `scales: false` (DRAM: its own chip, its own supply) is taken as it is. SRAM comes from the CACTI table at the very
  node and is only scaled in voltage.
- Widths: a multiplier's energy goes with the product of its operand widths, everything else with the width.
- A MAC is a multiplication of ifmap_bits x weight_bits and an addition of accumulator_bits.
- Registers: bits written into the operand registers of the array. For each MAC those of the operands that move on (os:
  input, weight and the accumulator; ws: input and partial sum; is: weight and partial sum); and a stationary operand
  that is shifted in, or a result that is shifted out (os), crosses (rows + 1) / 2 of them on average.
- SRAM: an access of one word serves word_bits / element bits elements. A buffer of several macros spends the energy of
  one of them an access (wires between macros are not counted), and leaks with all.
- The vector unit spends one 32-bit addition an operation, moves included.
- Clock tree and control are not counted: no source that fits an array of any size was at hand.

Scopes: `weight_sram` is the NeuralFuse paper's: reads of weights from the weight buffer, nothing else. `sram`: all
reads and writes of all buffers and their leakage. `chip`: that, the array, the vector unit and logic leakage. `system`:
that, and DRAM.

Time: cycles over the clock of the operating point, which leakage takes with it. Between inferences (`idle_mw`) buffers
keep what they hold and nothing else runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from simulator import userfile
from simulator.accelerator import Accelerator, Buffer, macro_of
from simulator.array.dataflow import NAMES
from simulator.operating_point import NOMINAL, OperatingPoint
from simulator.timing import clock_hz
from sram.energy import dynamic_scale, leakage_scale
from sram.errors import InputError
from sram.lazy import callable_module

if TYPE_CHECKING:
    import pandas as pd

    from simulator.array.cycles import Counts

TABLES = Path(__file__).parent / "energy_tables"
Scope = Literal["weight_sram", "sram", "chip", "system"]
SRAM = ("weight_sram_reads", "weight_sram_writes", "activation_sram", "sram_leakage")
PJ_PER_MILLIJOULE = 1e9
CHIP = (*SRAM, "mac", "registers", "vector", "logic_leakage")
COMPONENTS = (*CHIP, "dram")
SCOPES: dict[Scope, tuple[str, ...]] = {"weight_sram": SRAM[:1], "sram": SRAM, "chip": CHIP, "system": COMPONENTS}
# All that a table may hold, and its unit; the last three lines override the SRAM table.
UNITS = {
    **dict.fromkeys(("multiply", "add", "vector_operation", "register", "dram"), "pJ"),
    **dict.fromkeys(("multiplier_leakage", "adder_leakage"), "mW"),
    **{f"{buffer}_buffer_read": "pJ" for buffer in ("ifmap", "weight", "ofmap")},
    **{f"{buffer}_buffer_write": "pJ" for buffer in ("ifmap", "weight", "ofmap")},
    **{f"{buffer}_buffer_leakage": "mW" for buffer in ("ifmap", "weight", "ofmap")},
}
OF_BITS = ("multiply", "add", "dram", "multiplier_leakage", "adder_leakage")  # needed for another width
# Of a figure; far beyond any that was ever published, and near enough for sums to stay finite.
RANGES = {"value": (0, 1e12), "node_nm": (0.1, 10_000), "voltage_v": (0.01, 100), "bits": (0, 1 << 20)}


@dataclass(frozen=True)
class Entry:
    """One published figure: `value` in `unit` for operands of `bits` (0: of any width), at a node and a supply."""

    value: float
    unit: Literal["pJ", "mW"]
    per: str
    source: str
    node_nm: float
    voltage_v: float
    bits: int = 0
    scales: bool = True

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for key, (least, most) in RANGES.items():
            if not least <= getattr(self, key) <= most:  # NaN is not
                raise InputError("energy table", key, getattr(self, key), f"{least} to {most:g}")

    def at(self, node_nm: float, voltage_v: float, width: float = 1.0) -> float:
        """The value at another node and supply, for `width` times the width.

        >>> entry = Entry(0.1, "pJ", "32-bit addition", "a paper", node_nm=45, voltage_v=0.9, bits=32)
        >>> round(entry.at(22.5, 0.9, width=0.5), 6)
        0.025
        """
        if not self.scales:
            return self.value * width
        supply = dynamic_scale if self.unit == "pJ" else leakage_scale
        return self.value * width * node_nm / self.node_nm * float(supply(voltage_v, self.voltage_v))


@dataclass(frozen=True)
class EnergyTable:
    """Published energies by component. Asking for one that is not there is an InputError, never a zero.

    >>> energy_table("published")["multiply"].source
    'Horowitz, ISSCC 2014, fig. 1.1.9'
    >>> energy_table("published")["teleport"]
    Traceback (most recent call last):
    sram.errors.InputError: energy table published: entry = 'teleport' is not allowed; allowed: add, ...
    """

    name: str
    entries: dict[str, Entry]
    note: str = ""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        where = f"energy table {self.name}"
        for component, entry in self.entries.items():
            if component not in UNITS:
                raise InputError(where, "entries", component, ", ".join(sorted(UNITS)))
            if entry.unit != UNITS[component]:
                raise InputError(where, f"entries.{component}.unit", entry.unit, UNITS[component])
            if component in OF_BITS and entry.bits == 0:
                raise InputError(where, f"entries.{component}.bits", 0, "the operand's width that the value is for")

    def __getitem__(self, component: str) -> Entry:
        if component not in self.entries:
            raise InputError(f"energy table {self.name}", "entry", component, ", ".join(sorted(self.entries)))
        return self.entries[component]


def energy_table(name_or_path: str | Path = "published") -> EnergyTable:
    """A table that comes with the package, or a user's YAML file.

    The file has `entries`: component -> value, unit (pJ or mW), per, source, node_nm, voltage_v, and where it applies
    bits and scales; `extends: published` fills in what it leaves out. Optional components override the SRAM table:
    {ifmap,weight,ofmap}_buffer_{read,write} in pJ an access of one word, {...}_buffer_leakage in mW.
    """
    known = _shipped()
    if str(name_or_path) not in known and not Path(name_or_path).is_file():
        raise InputError("energy table", "name", str(name_or_path), f"{', '.join(known)}, or a YAML file")
    return _read(known.get(str(name_or_path), Path(name_or_path)), ())


def _shipped() -> dict[str, Path]:
    """The tables that come with the package."""
    return {path.stem: path for path in sorted(TABLES.glob("*.yaml"))}


def _read(path: Path, extended_by: tuple[Path, ...]) -> EnergyTable:
    """A table with what it extends; `extended_by` are the files on the way here, which it may not extend in turn."""
    raw = userfile.mapping(path, "entries")
    base = raw.pop("extends", None)
    table = userfile.record(path, EnergyTable, {"name": path.stem} | raw)
    if base is None:
        return table
    known, chain = _shipped(), (*extended_by, path.resolve())
    below = known.get(base, Path(base)) if isinstance(base, str) else None
    if below is None or not below.is_file() or below.resolve() in chain:
        allowed = f"{', '.join(known)}, or another YAML file that does not extend this one"
        raise InputError(path, "extends", base, allowed)
    return EnergyTable(table.name, _read(below, chain).entries | table.entries, table.note)


@dataclass(frozen=True, eq=False)
class LayerEnergy:
    """Energy of one inference: for each component float64[layers] in pJ, and the figures that they were made with.

    `layer_seconds`: float64[layers], of one inference: of a batch its part, so that their sum is one over throughput.
    """

    layers: tuple[str, ...]
    components: dict[str, NDArray[np.float64]]
    figures: tuple[dict[str, object], ...] = field(repr=False)
    layer_seconds: NDArray[np.float64] = field(repr=False)

    def scope_pj(self, scope: Scope) -> float:
        """Energy at a scope."""
        return float(sum(self.components[name].sum() for name in SCOPES[scope]))

    @property
    def weight_sram_pj(self) -> float:
        """Reads of the weight memory: the paper's scope."""
        return self.scope_pj("weight_sram")

    @property
    def sram_pj(self) -> float:
        """All of the on-chip memories."""
        return self.scope_pj("sram")

    @property
    def chip_pj(self) -> float:
        """All but DRAM."""
        return self.scope_pj("chip")

    @property
    def system_pj(self) -> float:
        """All that the table has a figure for, DRAM included."""
        return self.scope_pj("system")

    @property
    def seconds(self) -> float:
        """Of one inference."""
        return float(self.layer_seconds.sum())

    def energy_delay_pj_s(self, scope: Scope) -> float:
        """Energy of one inference at a scope times its seconds."""
        return self.scope_pj(scope) * self.seconds

    def frame(self) -> pd.DataFrame:
        """One row a layer and a row of totals; columns <component>_pj, the four scopes, and time.

        Energy-delay products are those of the row; inferences a second stand in the totals alone.
        """
        import pandas as pd

        frame = pd.DataFrame({f"{name}_pj": array for name, array in self.components.items()})
        frame.insert(0, "layer", list(self.layers))
        for scope, names in SCOPES.items():
            frame[f"scope_{scope}_pj"] = sum(self.components[name] for name in names)
        frame["seconds"] = self.layer_seconds
        total = {"layer": "total"} | frame.select_dtypes("number").sum().to_dict()
        scopes: tuple[Scope, ...] = ("chip", "system")
        for scope in scopes:
            frame[f"energy_delay_{scope}_pj_s"] = frame[f"scope_{scope}_pj"] * frame["seconds"]
            total[f"energy_delay_{scope}_pj_s"] = self.energy_delay_pj_s(scope)
        total["inferences_per_s"] = 1 / self.seconds if self.seconds else np.nan
        return pd.concat([frame, pd.DataFrame([total])], ignore_index=True)

    def sources(self) -> pd.DataFrame:
        """The figures that went in: value at node and supply, unit, what it is for, and its source."""
        import pandas as pd

        return pd.DataFrame(self.figures)


def energy(
    counts: Counts,
    at: OperatingPoint = NOMINAL,
    accelerator: Accelerator | None = None,
    table: EnergyTable | None = None,
) -> LayerEnergy:
    """Energy of one inference of `counts` at an operating point: every buffer and the logic at the supply of its rail.

    `accelerator` is the one of `counts` if left out. A component without an entry, or a rail that the accelerator has
    not, is an InputError.

    >>> from simulator.accelerator import accelerator
    >>> from simulator.array.cycles import simulate
    >>> from simulator.operating_point import weights_at
    >>> from simulator.workload import Workload, conv
    >>> counts = simulate(Workload("one", (conv("stem", 32, 32, 3, 64, kernel=3, padding=1),)), accelerator("paper"))
    >>> full, low = energy(counts), energy(counts, weights_at(counts.accelerator, 20 / 24, nominal=1.0))
    >>> round(low.weight_sram_pj / full.weight_sram_pj, 4)
    0.6944
    """
    machine = accelerator or counts.accelerator
    figures = _Figures(machine, table or _published(), at.volts(machine))
    rows, layers = counts.layers, counts.workload.layers
    has_weights = np.array([layer.weights + layer.constants > 0 for layer in layers], dtype=bool)
    outputs = np.array([layer.batch * layer.groups * layer.m * layer.n for layer in layers]) * machine.batch
    seconds = rows["cycles"] / clock_hz(machine, at)

    filters = {way: rows[f"filter_sram_{way}"] * machine.weight_bits for way in ("reads", "writes")}
    other = {
        "ifmap": (rows["ifmap_sram_reads"] * machine.ifmap_bits, rows["ifmap_sram_writes"] * machine.ifmap_bits),
        "weight": tuple(np.where(has_weights, 0, filters[way]) for way in ("reads", "writes")),
        "ofmap": tuple(
            rows[f"psum_sram_{way}"] * machine.accumulator_bits + rows[f"ofmap_sram_{way}"] * machine.ofmap_bits
            for way in ("reads", "writes")
        ),
    }
    traffic = [name for name in rows.dtype.names or () if name.endswith(("_dram_read_bytes", "_dram_write_bytes"))]
    dram_bytes = np.sum([rows[name] for name in traffic], axis=0)
    dataflow = np.array([NAMES.get(int(code), "vector") for code in rows["dataflow"]])
    moved = {
        "os": machine.ifmap_bits + machine.weight_bits + machine.accumulator_bits,
        "ws": machine.ifmap_bits + machine.accumulator_bits,
        "is": machine.weight_bits + machine.accumulator_bits,
    }
    crossing = {
        "os": outputs * machine.accumulator_bits,
        "ws": rows["filter_sram_reads"] * machine.weight_bits,
        "is": rows["ifmap_sram_reads"] * machine.ifmap_bits,
    }
    bits = np.zeros(len(rows))
    for name, per_mac in moved.items():
        shifted = crossing[name] * (machine.array_rows + 1) / 2
        bits += np.where(dataflow == name, rows["macs"] * per_mac + shifted, 0)
    activations = np.zeros(len(rows))
    for name, (reads, writes) in other.items():
        activations += reads * figures.sram(name, "read") + writes * figures.sram(name, "write")
    leakage_mw = sum(figures.sram_leakage_mw(name) for name in other)
    pj = {
        "weight_sram_reads": np.where(has_weights, filters["reads"], 0) * figures.sram("weight", "read"),
        "weight_sram_writes": np.where(has_weights, filters["writes"], 0) * figures.sram("weight", "write"),
        "activation_sram": activations,
        "sram_leakage": seconds * leakage_mw * PJ_PER_MILLIJOULE,
        "mac": rows["macs"] * figures.mac(),
        "registers": bits * figures.entry("register"),
        "vector": rows["vector_operations"] * figures.entry("vector_operation"),
        "logic_leakage": seconds * figures.logic_leakage_mw() * PJ_PER_MILLIJOULE,
        "dram": dram_bytes * 8 * figures.dram(),
    }
    samples = counts.workload.batch * machine.batch
    components = {name: np.asarray(pj[name], dtype=np.float64) / samples for name in COMPONENTS}
    names = tuple(layer.name for layer in layers)
    return LayerEnergy(names, components, tuple(figures.used.values()), seconds / samples)


def idle_mw(machine: Accelerator, at: OperatingPoint = NOMINAL, table: EnergyTable | None = None) -> float:
    """Leakage power between inferences, mW.

    A machine with a `retention_v` switches its logic off and holds all its buffers there; one without leaves every rail
    as the operating point has it. DRAM is not counted.

    >>> from dataclasses import replace
    >>> from simulator.accelerator import accelerator
    >>> paper = accelerator("paper")
    >>> round(idle_mw(paper), 3), round(idle_mw(replace(paper, retention_v=0.5)), 3)
    (2.835, 0.073)
    """
    volts, held = at.volts(machine), machine.retention_v
    if held is not None:
        volts = dict.fromkeys(volts, held)
    figures = _Figures(machine, table or _published(), volts)
    sram_mw = sum(figures.sram_leakage_mw(name) for name in ("ifmap", "weight", "ofmap"))
    return sram_mw if held is not None else sram_mw + figures.logic_leakage_mw()


@cache
def _published() -> EnergyTable:
    """The default table, read once: a sweep asks for energies by the thousand."""
    return energy_table("published")


class _Figures:
    """Values of the table at the accelerator's node and rails; what was used is kept for the record."""

    def __init__(self, machine: Accelerator, entries: EnergyTable, volts: dict[str, float]):
        self.machine, self.entries, self.volts = machine, entries, volts
        self.used: dict[str, dict[str, object]] = {}

    def _record(
        self, name: str, value: float, unit: str, per: str, volts: float, source: str, node_nm: float | None = None
    ) -> float:
        node = self.machine.node_nm if node_nm is None else node_nm
        self.used[name] = {
            "component": name,
            "value": value,
            "unit": unit,
            "per": per,
            "node_nm": node,
            "voltage_v": volts,
            "source": source,
        }
        return value

    def entry(self, name: str, width: float = 1.0, per: str = "") -> float:
        """A figure of the table on the logic rail; `per` says what it is for where `width` is not 1."""
        item, volts = self.entries[name], self.volts["logic"]
        value = item.at(self.machine.node_nm, volts, width)
        if not item.scales:
            return self._record(name, value, item.unit, item.per, item.voltage_v, item.source, item.node_nm)
        scaled = f"; {item.value} {item.unit} at {item.node_nm:g} nm, {item.voltage_v:g} V"
        return self._record(name, value, item.unit, per or item.per, volts, item.source + scaled)

    def mac(self) -> float:
        """pJ of a multiplication and an addition."""
        m, multiply, add = self.machine, self.entries["multiply"], self.entries["add"]
        width, per = m.ifmap_bits * m.weight_bits / multiply.bits**2, f"{m.ifmap_bits} x {m.weight_bits} bit product"
        sum_pj = self.entry("add", m.accumulator_bits / add.bits, f"{m.accumulator_bits} bit addition")
        return self.entry("multiply", width, per) + sum_pj

    def dram(self) -> float:
        """pJ a bit."""
        return self.entry("dram") / self.entries["dram"].bits

    def logic_leakage_mw(self) -> float:
        """Multipliers and adders of the array, and the vector unit's adders."""
        m, multiply, add = self.machine, self.entries["multiplier_leakage"], self.entries["adder_leakage"]
        width, per = m.ifmap_bits * m.weight_bits / multiply.bits**2, f"{m.ifmap_bits} x {m.weight_bits} bit multiplier"
        element = self.entry("multiplier_leakage", width, per)
        bit = self.entry("adder_leakage", 1 / add.bits, "bit of an adder")
        return (element + bit * m.accumulator_bits) * m.array_rows * m.array_cols + bit * 32 * m.vector_lanes

    def _buffer(self, name: str) -> Buffer:
        return getattr(self.machine, f"{name}_buffer")

    def sram(self, name: str, way: str) -> float:
        """pJ a bit read from or written to a buffer."""
        buffer, key = self._buffer(name), f"{name}_buffer_{way}"
        volts = self.volts[buffer.rail]
        if key in self.entries.entries:
            item = self.entries[key]
            value, source = item.at(self.machine.node_nm, volts), item.source
        else:
            part = macro_of(self.machine, buffer)
            published = part.read_pj if way == "read" else part.write_pj
            value = published * float(dynamic_scale(volts, part.voltage_v)) * buffer.word_bits / part.word_bits
            source = part.source
        per = f"{way} of a {buffer.word_bits}-bit word, {buffer.capacity_bytes // buffer.macros} bytes"
        return self._record(key, value, "pJ", per, volts, source) / buffer.word_bits

    def sram_leakage_mw(self, name: str) -> float:
        buffer, key = self._buffer(name), f"{name}_buffer_leakage"
        volts = self.volts[buffer.rail]
        if key in self.entries.entries:
            item = self.entries[key]
            value, source = item.at(self.machine.node_nm, volts), item.source
        else:
            part = macro_of(self.machine, buffer)
            value = part.leakage_mw * float(leakage_scale(volts, part.voltage_v)) * buffer.macros
            source = part.source
        return self._record(key, value, "mW", f"{buffer.macros} macros", volts, source)


callable_module(__name__)

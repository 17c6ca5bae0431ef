"""What an operation costs on a machine: published figures, scaled to its node, supplies and widths, with sources.

How they are scaled, and what is made of them: simulator/energy.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from simulator import userfile
from simulator.accelerator import Accelerator, macro_of, table_node
from sram.energy import dynamic_scale, leakage_scale, smallest_macro
from sram.errors import InputError

TABLES = Path(__file__).parent / "energy_tables"
PJ_PER_MILLIJOULE = 1e9
UM2_PER_MM2 = 1e6
# All that a table may hold, and its unit; the lines of the buffers, and scratchpad_leakage and scratchpad_area, each of
# a bit, override the SRAM table.
UNITS = {
    **dict.fromkeys(
        ("multiply", "add", "vector_operation", "register", "scratchpad", "hop", "dram", "clock_tree"), "pJ"
    ),
    **dict.fromkeys(("multiplier_leakage", "adder_leakage", "scratchpad_leakage"), "mW"),
    **{f"{buffer}_buffer_read": "pJ" for buffer in ("ifmap", "weight", "ofmap", "cache")},
    **{f"{buffer}_buffer_write": "pJ" for buffer in ("ifmap", "weight", "ofmap", "cache")},
    **{f"{buffer}_buffer_leakage": "mW" for buffer in ("ifmap", "weight", "ofmap", "cache")},
    **dict.fromkeys(("multiplier_area", "adder_area", "register_area", "scratchpad_area"), "um2"),
}
OF_BITS = (
    "multiply",
    "add",
    "scratchpad",
    "hop",
    "dram",
    "multiplier_leakage",
    "adder_leakage",
    "multiplier_area",
    "adder_area",
)  # needed for another width
# Of a figure; far beyond any that was ever published, and near enough for sums to stay finite.
RANGES = {"value": (0, 1e12), "node_nm": (0.1, 10_000), "voltage_v": (0.01, 100), "bits": (0, 1 << 20)}


# What the search of a schedule knows of energy: pJ of an element at a port of a buffer, of a byte to or from DRAM, of a
# cycle (leakage), of a MAC with what its operands move, of an element that is shifted in or out, and with rs of a
# partial sum that is handed on and of a word that is delivered to a scratchpad.
PRICES = np.dtype(
    [
        (name, np.float64)
        for name in (
            *("ifmap_read", "ifmap_write", "filter_read", "filter_write"),
            *("psum_read", "psum_write", "ofmap_read", "ofmap_write", "dram_byte", "cycle"),
            *("mac_os", "mac_ws", "mac_is", "mac_rs", "shift_os", "shift_ws", "shift_is"),
            *("hop", "ifmap_delivery", "filter_delivery"),
        )
    ],
    align=True,
)


@dataclass(frozen=True)
class Entry:
    """One published figure: `value` in `unit` for operands of `bits` (0: of any width), at a node and a supply."""

    value: float
    unit: Literal["pJ", "mW", "um2", "share"]
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
        if self.unit == "share" and not self.value < 1:
            raise InputError("energy table", "value", self.value, "a share below 1")

    def at(self, node_nm: float, voltage_v: float, width: float = 1.0) -> float:
        """The value at another node and supply, for `width` times the width.

        >>> entry = Entry(0.1, "pJ", "32-bit addition", "a paper", node_nm=45, voltage_v=0.9, bits=32)
        >>> round(entry.at(22.5, 0.9, width=0.5), 6)
        0.025
        """
        if not self.scales:
            return self.value * width
        if self.unit == "um2":
            return self.value * width * (node_nm / self.node_nm) ** 2
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
            units = (UNITS[component], "share") if component == "clock_tree" else (UNITS[component],)
            if entry.unit not in units:
                raise InputError(where, f"entries.{component}.unit", entry.unit, " or ".join(units))
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
    {ifmap,weight,ofmap,cache}_buffer_{read,write} in pJ an access of one word, {...}_buffer_leakage in mW. A
    `clock_tree`, in pJ a cycle of the whole array, is counted where a table has it; or as a share of what a cycle takes
    in which every element multiplies, the tree itself included.
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


@cache
def published() -> EnergyTable:
    """The default table, read once: a sweep asks for energies by the thousand."""
    return energy_table("published")


class Figures:
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

    def clock_tree(self) -> float:
        """pJ of a cycle, whatever is computed in it; 0 where the table has no figure, as the default one."""
        if "clock_tree" not in self.entries.entries:
            return 0.0
        found, m = self.entry("clock_tree"), self.machine
        if self.entries["clock_tree"].unit == "pJ":
            return found
        flows = self.moved_bits() if m.dataflow == "best" else [m.dataflow]
        return found / (1 - found) * m.cores * m.array_rows * m.array_cols * max(map(self.mac_with_operands, flows))

    def mac_with_operands(self, dataflow: str) -> float:
        """pJ of a MAC, and of the operands that move on in it, or of its scratchpads."""
        if dataflow == "rs":
            return self.mac() + self.scratchpad_bits() * self.of_bit("scratchpad")
        return self.mac() + self.moved_bits()[dataflow] * self.entry("register")

    def mac(self) -> float:
        """pJ of a multiplication and an addition."""
        m, multiply, add = self.machine, self.entries["multiply"], self.entries["add"]
        width, per = m.ifmap_bits * m.weight_bits / multiply.bits**2, f"{m.ifmap_bits} x {m.weight_bits} bit product"
        sum_pj = self.entry("add", m.accumulator_bits / add.bits, f"{m.accumulator_bits} bit addition")
        return self.entry("multiply", width, per) + sum_pj

    def of_bit(self, name: str) -> float:
        """pJ a bit of an entry whose width is stated."""
        return self.entry(name) / self.entries[name].bits

    def prices(self) -> np.ndarray:
        """PRICES[1]: what an access, a MAC and a cycle cost, for the search of a schedule (energy.py sums up the same).

        Raises InputError for a component without a figure.
        """
        m, out = self.machine, np.zeros(1, PRICES)
        price, register = out[0], self.entry("register")
        bits = {"ifmap": m.ifmap_bits, "weight": m.weight_bits, "psum": m.accumulator_bits, "ofmap": m.ofmap_bits}
        for operand, buffer in (("ifmap", "ifmap"), ("weight", "weight"), ("psum", "ofmap"), ("ofmap", "ofmap")):
            for way in ("read", "write"):
                name = f"{'filter' if operand == 'weight' else operand}_{way}"
                price[name] = self.sram(f"{buffer}_buffer", way) * bits[operand]
        price["dram_byte"] = 8 * self.of_bit("dram")
        leakage = sum(self.sram_leakage_mw(name) for name in m.memories) + self.logic_leakage_mw()
        price["cycle"] = leakage * PJ_PER_MILLIJOULE / m.clock_hz + self.clock_tree()
        for dataflow, bits_shifted in self.shifted_bits().items():
            price[f"mac_{dataflow}"] = self.mac_with_operands(dataflow)
            price[f"shift_{dataflow}"] = bits_shifted * (m.array_rows + 1) / 2 * register
        if m.scratchpads is not None:
            hop, scratchpad = self.of_bit("hop"), self.of_bit("scratchpad")
            price["mac_rs"] = self.mac_with_operands("rs")
            price["hop"] = m.accumulator_bits * hop
            price["ifmap_delivery"] = m.ifmap_bits * (hop + scratchpad)
            price["filter_delivery"] = m.weight_bits * (hop + scratchpad)
        return out

    def scratchpad_bits(self) -> int:
        """Read from scratchpads, or written to them, for a MAC."""
        return self.machine.ifmap_bits + self.machine.weight_bits + 2 * self.machine.accumulator_bits

    def _scratchpads(self, what: str, unit: str) -> float:
        """Of all scratchpads, by the entry for a bit; where there is none, as of the smallest SRAM of the table."""
        m, pads = self.machine, self.machine.scratchpads
        if pads is None:
            return 0.0
        bits = (
            pads.ifmap_words * m.ifmap_bits + pads.weight_words * m.weight_bits + pads.psum_words * m.accumulator_bits
        )
        bits *= m.array_rows * m.array_cols
        if f"scratchpad_{what}" in self.entries.entries:
            return self.entry(f"scratchpad_{what}") * bits
        part, volts = smallest_macro(table_node(m), m.sram_cell), self.volts["logic"]
        of_bit = part.leakage_mw * float(leakage_scale(volts, part.voltage_v)), part.area_mm2 * UM2_PER_MM2
        value = of_bit[what == "area"] / (8 * part.capacity_bytes)
        source = f"{part.source}: {part.capacity_bytes:g} bytes, in proportion"
        return self._record(f"scratchpad_{what}", value, unit, "bit", volts, source) * bits

    def moved_bits(self) -> dict[str, int]:
        """Of the operands that move on in a MAC, by dataflow."""
        m = self.machine
        return {
            "os": m.ifmap_bits + m.weight_bits + m.accumulator_bits,
            "ws": m.ifmap_bits + m.accumulator_bits,
            "is": m.weight_bits + m.accumulator_bits,
        }

    def shifted_bits(self) -> dict[str, int]:
        """Of the operand that is shifted in, or the result that is shifted out, by dataflow."""
        return {"os": self.machine.accumulator_bits, "ws": self.machine.weight_bits, "is": self.machine.ifmap_bits}

    def logic_leakage_mw(self) -> float:
        """Multipliers, adders and scratchpads of the array, and the vector unit's adders, in all cores."""
        m, multiply, add = self.machine, self.entries["multiplier_leakage"], self.entries["adder_leakage"]
        width, per = m.ifmap_bits * m.weight_bits / multiply.bits**2, f"{m.ifmap_bits} x {m.weight_bits} bit multiplier"
        element = self.entry("multiplier_leakage", width, per)
        bit = self.entry("adder_leakage", 1 / add.bits, "bit of an adder")
        array = (element + bit * m.accumulator_bits) * m.array_rows * m.array_cols
        return m.cores * (array + bit * 32 * m.vector_lanes + self._scratchpads("leakage", "mW"))

    def array_area_mm2(self) -> dict[str, float]:
        """Of the array's multipliers, adders, registers and scratchpads, and the vector unit's adders.

        A register for each operand that passes an element, two where it is double-buffered: what stays in it (ws, is),
        or the sums (os).
        """
        m, multiply, add = self.machine, self.entries["multiplier_area"], self.entries["adder_area"]
        width, per = m.ifmap_bits * m.weight_bits / multiply.bits**2, f"{m.ifmap_bits} x {m.weight_bits} bit multiplier"
        elements = m.array_rows * m.array_cols
        bit = self.entry("adder_area", 1 / add.bits, "bit of an adder")
        stays = {"os": m.accumulator_bits, "ws": m.weight_bits, "is": m.ifmap_bits, "rs": 0}
        twice = max(stays.values()) if m.dataflow == "best" else stays[m.dataflow]
        bits = m.ifmap_bits + m.weight_bits + m.accumulator_bits + twice * m.double_buffered_registers
        return {
            "multipliers": elements * self.entry("multiplier_area", width, per) / UM2_PER_MM2,
            "adders": (elements * m.accumulator_bits + 32 * m.vector_lanes) * bit / UM2_PER_MM2,
            "registers": elements * bits * self.entry("register_area") / UM2_PER_MM2,
            **({"scratchpads": self._scratchpads("area", "um2") / UM2_PER_MM2} if m.scratchpads else {}),
        }

    def sram_area_mm2(self, name: str) -> float:
        """Of a buffer, all its macros together, without the wires between them."""
        buffer = self.machine.memories[name]
        part = macro_of(self.machine, buffer)
        value = part.area_mm2 * buffer.macros
        return self._record(f"{name}_area", value, "mm2", f"{buffer.macros} macros", part.voltage_v, part.source)

    def _own(self, key: str, volts: float) -> tuple[float | None, str]:
        """What the table itself has for a buffer, and from where; (None, "") where it leaves that to the SRAM table."""
        item = self.entries.entries.get(key)
        return (None, "") if item is None else (item.at(self.machine.node_nm, volts), item.source)

    def sram(self, name: str, way: str) -> float:
        """pJ a bit read from or written to a buffer."""
        buffer, key = self.machine.memories[name], f"{name}_{way}"
        volts = self.volts[buffer.rail]
        value, source = self._own(key, volts)
        if value is None:
            part = macro_of(self.machine, buffer)
            published = part.read_pj if way == "read" else part.write_pj
            value = published * float(dynamic_scale(volts, part.voltage_v)) * buffer.word_bits / part.word_bits
            source = part.source
        per = f"{way} of a {buffer.word_bits}-bit word, {buffer.capacity_bytes // buffer.macros} bytes"
        return self._record(key, value, "pJ", per, volts, source) / buffer.word_bits

    def sram_leakage_mw(self, name: str) -> float:
        """Of a buffer, all its macros together, in all cores."""
        buffer, key = self.machine.memories[name], f"{name}_leakage"
        volts = self.volts[buffer.rail]
        value, source = self._own(key, volts)
        if value is None:
            part = macro_of(self.machine, buffer)
            value = part.leakage_mw * float(leakage_scale(volts, part.voltage_v)) * buffer.macros
            source = part.source
        return self._record(key, value, "mW", f"{buffer.macros} macros", volts, source) * self.machine.cores

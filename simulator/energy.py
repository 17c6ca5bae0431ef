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
- Cache: keys and values that stay on the chip are read into the array from their own buffer, and written into it once.
- Scratchpads (rs): a MAC reads a word of each and writes one of partial sums; a word that is delivered is written. An
  access costs the same whatever the scratchpad's size. Words that are delivered to an element or handed on to the next
  one are counted with the registers. They are on the logic rail, and leak as the smallest SRAM of the table does.
- The vector unit spends one 32-bit addition an operation, moves included.
- Clock tree and control: where the table has a `clock_tree`, in pJ a cycle on the logic rail, or as a share of what a
  cycle takes in which every element multiplies (ungated: an idle cycle takes as much). The default table has none,
  for no source that fits an array of any size was at hand.

Scopes: `weight_sram` is the NeuralFuse paper's: reads of weights from the weight buffer, nothing else. `sram`: all
reads and writes of all buffers and their leakage. `chip`: that, the array, the vector unit and logic leakage. `system`:
that, and DRAM.

Time: cycles over the clock of the operating point, which leakage takes with it. Between inferences (`idle_mw`) buffers
keep what they hold and nothing else runs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.accelerator import Accelerator
from simulator.array.dataflow import NAMES
from simulator.array.memory import outputs_of
from simulator.figures import PJ_PER_MILLIJOULE, Figures, published
from simulator.figures import EnergyTable as EnergyTable
from simulator.figures import energy_table as energy_table
from simulator.operating_point import NOMINAL, OperatingPoint
from simulator.timing import clock_hz
from sram.lazy import callable_module

if TYPE_CHECKING:
    import pandas as pd

    from simulator.array.cycles import Counts

Scope = Literal["weight_sram", "sram", "chip", "system"]
WAYS: tuple[Literal["read", "write"], ...] = ("read", "write")
SRAM = ("weight_sram_reads", "weight_sram_writes", "activation_sram", "sram_leakage")
CHIP = (*SRAM, "mac", "registers", "scratchpads", "vector", "clock_tree", "logic_leakage")
COMPONENTS = (*CHIP, "dram")
SCOPES: dict[Scope, tuple[str, ...]] = {"weight_sram": SRAM[:1], "sram": SRAM, "chip": CHIP, "system": COMPONENTS}


class Part(NamedTuple):
    """What spends energy: a component, on what it is spent (a buffer of the accelerator, logic, or dram), and of a
    buffer whether in its reads, its writes or its leakage."""

    component: str
    owner: str
    way: Literal["read", "write", "leakage", ""] = ""


@dataclass(frozen=True, eq=False)
class LayerEnergy:
    """Energy of one inference: for each part float64[layers] in pJ, and the figures that they were made with.

    `layer_seconds`: float64[layers], of one inference: of a batch its part, so that their sum is one over throughput.
    """

    layers: tuple[str, ...]
    parts: dict[Part, NDArray[np.float64]]
    figures: tuple[dict[str, object], ...] = field(repr=False)
    layer_seconds: NDArray[np.float64] = field(repr=False)

    @functools.cached_property
    def components(self) -> dict[str, NDArray[np.float64]]:
        """The parts summed up by component, float64[layers] of each."""
        of = {name: [pj for part, pj in self.parts.items() if part.component == name] for name in COMPONENTS}
        return {name: np.sum(found, axis=0) for name, found in of.items()}

    def by_rail(self, machine: Accelerator) -> dict[tuple[str, str], float]:
        """{(rail, component): pJ of one inference} on a machine; what is spent on DRAM is on no rail of it."""
        found: dict[tuple[str, str], float] = {}
        for part, pj in self.parts.items():
            rail = part.owner if part.owner in ("logic", "dram") else getattr(machine, part.owner).rail
            found[rail, part.component] = found.get((rail, part.component), 0.0) + float(pj.sum())
        return found

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
    figures = Figures(machine, table or published(), at.volts(machine))
    rows, layers = counts.layers, counts.workload.layers
    has_weights = np.array([layer.weights + layer.constants > 0 for layer in layers], dtype=bool)
    cache = np.array([layer.cache for layer in layers])
    kept = np.array([outputs_of(layer) * layer.batch for layer in layers]) * machine.batch
    outputs = np.array([layer.batch * layer.groups * layer.m * layer.n for layer in layers]) * machine.batch
    seconds = rows["cycles"] / clock_hz(machine, at)

    filters = {way: rows[f"filter_sram_{way}s"] * machine.weight_bits for way in WAYS}
    psums = {way: rows[f"psum_sram_{way}s"] * machine.accumulator_bits for way in WAYS}
    traffic = [name for name in rows.dtype.names or () if name.endswith(("_dram_read_bytes", "_dram_write_bytes"))]
    dram_bytes = np.sum([rows[name] for name in traffic], axis=0)
    dataflow = np.array([NAMES.get(int(code), "vector") for code in rows["dataflow"]])
    moved, width = figures.moved_bits(), figures.shifted_bits()
    again = 1 + rows["psum_sram_writes"] // np.maximum(outputs, 1)  # os with tiles of taps: sums leave after each
    crossing = {"os": outputs * again, "ws": rows["filter_sram_reads"], "is": rows["ifmap_sram_reads"]}
    bits = np.zeros(len(rows))
    for name, per_mac in moved.items():
        shifted = crossing[name] * width[name] * (machine.array_rows + 1) / 2
        bits += np.where(dataflow == name, rows["macs"] * per_mac + shifted, 0)
    registers, scratchpads = bits * figures.entry("register"), np.zeros(len(rows))
    if machine.scratchpads is not None:
        delivered = rows["ifmap_scratchpad_writes"] * machine.ifmap_bits
        delivered = delivered + rows["filter_scratchpad_writes"] * machine.weight_bits
        registers += (delivered + rows["psum_hops"] * machine.accumulator_bits) * figures.of_bit("hop")
        in_macs = np.where(dataflow == "rs", rows["macs"] * figures.scratchpad_bits(), 0)
        scratchpads = (in_macs + delivered) * figures.of_bit("scratchpad")
    pj: dict[Part, NDArray] = {}
    for way in WAYS:
        spent = {name: figures.sram(name, way) for name in machine.memories}
        element = {name: rows[f"{name}_sram_{way}s"] * getattr(machine, f"{name}_bits") for name in ("ifmap", "ofmap")}
        weights, others = np.where(has_weights, filters[way], 0), np.where(has_weights, 0, filters[way])
        if machine.cache_buffer is not None:
            cached = filters[way] if way == "read" else kept * machine.ofmap_bits
            pj[Part("activation_sram", "cache_buffer", way)] = np.where(cache == way, cached, 0) * spent["cache_buffer"]
            others = np.where(cache == "read", 0, others)
        pj[Part(f"weight_sram_{way}s", "weight_buffer", way)] = weights * spent["weight_buffer"]
        pj[Part("activation_sram", "ifmap_buffer", way)] = element["ifmap"] * spent["ifmap_buffer"]
        pj[Part("activation_sram", "weight_buffer", way)] = others * spent["weight_buffer"]
        pj[Part("activation_sram", "ofmap_buffer", way)] = (psums[way] + element["ofmap"]) * spent["ofmap_buffer"]
    for name in machine.memories:
        leaked = seconds * figures.sram_leakage_mw(name) * PJ_PER_MILLIJOULE
        pj[Part("sram_leakage", name, "leakage")] = leaked
    logic = {
        "mac": rows["macs"] * figures.mac(),
        "registers": registers,
        "scratchpads": scratchpads,
        "vector": rows["vector_operations"] * figures.entry("vector_operation"),
        "clock_tree": rows["cycles"] * figures.clock_tree(),
        "logic_leakage": seconds * figures.logic_leakage_mw() * PJ_PER_MILLIJOULE,
    }
    pj |= {Part(name, "logic"): spent for name, spent in logic.items()}
    pj[Part("dram", "dram")] = dram_bytes * 8 * figures.of_bit("dram")
    samples = counts.workload.batch * machine.batch
    parts = {part: np.asarray(spent, dtype=np.float64) / samples for part, spent in pj.items()}
    names = tuple(layer.name for layer in layers)
    return LayerEnergy(names, parts, tuple(figures.used.values()), seconds / samples)


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
    figures = Figures(machine, table or published(), volts)
    sram_mw = sum(figures.sram_leakage_mw(name) for name in machine.memories)
    return sram_mw if held is not None else sram_mw + figures.logic_leakage_mw()


callable_module(__name__)

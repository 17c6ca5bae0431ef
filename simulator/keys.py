"""What the keys of an accelerator's file mean: one line each, for `neuralfuse accelerator show` and the reference."""

import dataclasses

from simulator.accelerator import Accelerator, Buffer, Scratchpads
from simulator.delay import Delay

_MEANING = {
    "name": "of the machine; else that of the file",
    "array_rows": "processing elements in a column",
    "array_cols": "processing elements in a row",
    "dataflow": "os, ws, is, best (what suits each layer of the three), or rs: row stationary, with scratchpads",
    "ifmap_buffer": "memory of inputs",
    "weight_buffer": "memory of weights; its rail is what a voltage lowers",
    "ofmap_buffer": "memory of outputs and partial sums",
    "dram_bytes_per_cycle": "bandwidth, shared by all operands; .inf: nobody waits",
    "dram_latency_cycles": "until the first byte of a transfer",
    "clock_hz": "cycles a second",
    "node_nm": "technology that energies are scaled to",
    "ifmap_bits": "of an input",
    "weight_bits": "of a weight, for energy and traffic",
    "ofmap_bits": "of an output",
    "accumulator_bits": "of a partial sum",
    "double_buffered_registers": "a fold's stationary operand loads while the previous fold computes",
    "skip_idle_rows": "a partial fold costs the rows and columns that it uses, not the whole array",
    "keep_on_chip": "an output that fits stays in the buffer for the layer that reads it",
    "vector_lanes": "scalar operations a cycle of pooling, activations, sums, ...",
    "batch": "samples that run through a layer together; multiplies the batch of the workload",
    "schedule": "search: tiles and loop order of least objective for each layer; fixed: no tiles",
    "objective": "of the search: edp (energy x cycles), energy, or cycles",
    "weights": "streamed: loaded for each run; resident: loaded once, at power-up, which no run pays for",
    "buffers": "separate, or shared: inputs and outputs lie in one pool of macros that each layer splits as it likes",
    "scratchpads": "memories of each element, with dataflow rs alone",
    "cores": "of this kind, each with its own array, buffers and banks; they share the bandwidth",
    "cache_buffer": "memory of a decoder's keys and values; without it they are in DRAM",
    "rails": "nominal supplies in V: logic, and each rail that a buffer names",
    "sram_cell": "cell type of the SRAM energy table",
    "delay": "how far paths slow down where a supply is lowered",
    "retention_v": "V of the buffers between inferences, when the logic is off; without it no rail is lowered then",
    "note": "where the numbers come from",
}
_OF_BUFFERS = {
    "capacity_bytes": "both halves together where it is double",
    "double": "one half fills while the other is used: a tile may fill half of capacity_bytes only",
    "word_bits": "of an access; with rs as many a cycle",
    "bank_rows": "word lines of a bank",
    "bank_columns": "cells on a word line",
    "rail": "the supply that it is on, a key of rails",
    "macros": "equal parts with their own lines; an access spends the energy of one",
}
_OF_SCRATCHPADS = {
    "ifmap_words": "inputs that a window slides over",
    "weight_words": "rows of filters",
    "psum_words": "partial sums, one for each filter",
}
_OF_DELAY = {
    "margin": "at nominal supplies a path takes 1 / (1 + margin) of the period",
    "corner": "ss, ff: process that the clock is signed off at",
    "logic": "{threshold_v, alpha, source, nominal_ns} of the array's critical path; else that of a 130 nm MAC, scaled",
    "sram": "the same of an SRAM access; else by the SRAM table's transistors",
}
_PARTS: dict[type, dict[str, str]] = {Buffer: _OF_BUFFERS, Scratchpads: _OF_SCRATCHPADS, Delay: _OF_DELAY}


def meanings(machine: Accelerator) -> list[tuple[str, str, str, str]]:
    """(key, value in `machine`, default, meaning) of every key of its file; an empty default: the key is required.

    >>> from simulator.accelerator import accelerator
    >>> next(row for row in meanings(accelerator("paper")) if row[0] == "weight_buffer.word_bits")
    ('weight_buffer.word_bits', '64', '64', 'of an access; with rs as many a cycle')
    """
    rows: list[tuple[str, str, str, str]] = []
    for key in dataclasses.fields(machine):
        value = getattr(machine, key.name)
        parts = next((parts for kind, parts in _PARTS.items() if isinstance(value, kind)), None)
        if parts is not None:
            rows.append((key.name, "", "", _MEANING[key.name]))
            for part in dataclasses.fields(value):
                name = f"{key.name}.{part.name}"
                rows.append((name, _text(getattr(value, part.name)), _default(part), parts[part.name]))
        else:
            rows.append((key.name, _text(value), _default(key), _MEANING[key.name]))
    return rows


def _default(key: dataclasses.Field) -> str:
    if key.default_factory is not dataclasses.MISSING:
        return _text(key.default_factory())
    return "" if key.default is dataclasses.MISSING else _text(key.default)


def _text(value: object) -> str:
    """As YAML has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_text(one)}" for name, one in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)

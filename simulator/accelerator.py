"""The machine: a systolic array with its buffers, its DRAM, its vector unit and its supply rails."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from sram.errors import InputError

PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class Buffer:
    """An SRAM buffer, made of banks of `bank_rows` x `bank_columns` cells. `double`: one half fills, one is used."""

    capacity_bytes: int
    double: bool = True
    word_bits: int = 64
    bank_rows: int = 512
    bank_columns: int = 64
    rail: str = "sram"

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    @property
    def usable_bytes(self) -> int:
        """What one tile may fill."""
        return self.capacity_bytes // 2 if self.double else self.capacity_bytes


@dataclass(frozen=True)
class Accelerator:
    """An accelerator. Bandwidth is shared by all operands; rails are nominal voltages in volts.

    `dataflow`: os, ws, is, or best (the fastest of the three for each layer).
    `double_buffered_registers`: a fold's stationary operand loads while the previous fold computes.
    `skip_idle_rows`: a partial fold costs the rows and columns that it uses, not the whole array.
    `keep_on_chip`: an output that fits stays in the buffer for the layer that reads it.
    `batch`: samples that run through a layer together; it multiplies the batch of the workload.

    >>> machine = accelerator("paper")
    >>> machine.array_rows, machine.array_cols, machine.dataflow, machine.weight_buffer.capacity_bytes
    (32, 32, 'os', 262144)
    """

    name: str
    array_rows: int
    array_cols: int
    dataflow: Literal["os", "ws", "is", "best"]
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
    rails: dict[str, float] = field(default_factory=lambda: {"sram": 0.9, "logic": 0.9})
    sram_cell: str = "itrs-lstp"
    note: str = ""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}


def accelerator_names() -> list[str]:
    """The presets that come with the package.

    >>> "paper" in accelerator_names()
    True
    """
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def accelerator(name_or_path: str | Path) -> Accelerator:
    """A preset by name, or an accelerator from a YAML file whose keys are the fields of Accelerator."""
    import pydantic
    import yaml

    path = Path(name_or_path)
    if str(name_or_path) in accelerator_names():
        path = PRESETS / f"{name_or_path}.yaml"
    elif not path.is_file():
        raise InputError("accelerator", "name", str(name_or_path), ", ".join(accelerator_names()) + ", or a YAML file")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(raw, dict):
            raise InputError(path, "content", type(raw).__name__, "a YAML mapping with the fields of Accelerator")
        return pydantic.TypeAdapter(Accelerator).validate_python({"name": path.stem} | raw)
    except yaml.YAMLError as error:
        raise InputError(path, "content", str(error).replace("\n", " "), "valid YAML") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        fields = ", ".join(item.name for item in dataclasses.fields(Accelerator))
        allowed = f"one of {fields}" if first["type"] == "unexpected_keyword_argument" else first["msg"]
        raise InputError(path, key, first["input"], allowed) from None

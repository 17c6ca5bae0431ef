"""The machine: a systolic array with its buffers, its DRAM, its vector unit and its supply rails."""

from __future__ import annotations

import configparser
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, cast, get_args

from sram.errors import InputError

if TYPE_CHECKING:
    import pydantic

PRESETS = Path(__file__).parent / "presets"
Dataflow = Literal["os", "ws", "is", "best"]
DATAFLOWS = get_args(Dataflow)


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

    def __post_init__(self):
        for name in ("capacity_bytes", "word_bits", "bank_rows", "bank_columns", "macros"):
            if getattr(self, name) < 1:
                raise InputError("buffer", name, getattr(self, name), "at least 1")

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
    rails: dict[str, float] = field(default_factory=lambda: {"sram": 0.9, "logic": 0.9})
    sram_cell: str = "itrs-lstp"
    note: str = ""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    def __post_init__(self):
        counts = ("array_rows", "array_cols", "vector_lanes", "batch")
        bits = ("ifmap_bits", "weight_bits", "ofmap_bits", "accumulator_bits")
        for name in (*counts, *bits):
            if getattr(self, name) < 1:
                raise InputError(self.name, name, getattr(self, name), "at least 1")
        for name in ("dram_bytes_per_cycle", "clock_hz", "node_nm"):
            if not getattr(self, name) > 0:
                raise InputError(self.name, name, getattr(self, name), "more than 0")
        if self.dataflow not in DATAFLOWS:
            raise InputError(self.name, "dataflow", self.dataflow, ", ".join(DATAFLOWS))
        if self.dram_latency_cycles < 0:
            raise InputError(self.name, "dram_latency_cycles", self.dram_latency_cycles, "at least 0")
        buffers = (self.ifmap_buffer, self.weight_buffer, self.ofmap_buffer)
        for rail in ("logic", *(buffer.rail for buffer in buffers)):
            if not self.rails.get(rail, 0) > 0:
                raise InputError(self.name, f"rails.{rail}", self.rails.get(rail), "a nominal voltage in volts")


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
        raise _readable(error, path) from None


def scalesim_config(path: str | Path) -> Accelerator:
    """An accelerator from a SCALE-Sim .cfg: array, dataflow, buffers (kB = 1024 words of one byte) and bandwidth.

    Its bandwidth is in words a cycle for each of three ports, or no limit (InterfaceBandwidth: CALC); here it is one
    channel, with three times the words or as many bytes a cycle as the array's edges can take. What the format lacks
    (clock, node, rails, latency, vector unit) is the preset `paper`'s. Addresses and layout do not enter.
    """
    path = Path(path)
    parser = configparser.ConfigParser(inline_comment_prefixes=("#", ";"))
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(path, "file", error.strerror, "a readable SCALE-Sim .cfg") from None
    except (configparser.Error, UnicodeDecodeError) as error:
        raise InputError(path, "content", " ".join(str(error).split()), "a SCALE-Sim .cfg") from None

    def text(section: str, key: str) -> str:
        if not parser.has_option(section, key):
            raise InputError(path, f"[{section}] {key}", None, "a value")
        return parser.get(section, key).strip()

    def number(key: str) -> int:
        value = text("architecture_presets", key)
        if not value.isdigit() or int(value) < 1:
            raise InputError(path, key, value, "a whole number of at least 1")
        return int(value)

    rows, cols, dataflow = number("ArrayHeight"), number("ArrayWidth"), text("architecture_presets", "Dataflow").lower()
    if dataflow not in ("os", "ws", "is"):
        raise InputError(path, "Dataflow", dataflow, "os, ws, is")
    if parser.get("sparsity", "SparsitySupport", fallback="false").strip().lower() == "true":
        raise InputError(path, "SparsitySupport", "true", "false; sparse weights are not modelled")
    mode = text("run_presets", "InterfaceBandwidth").upper()
    if mode not in ("CALC", "USER"):
        raise InputError(path, "InterfaceBandwidth", mode, "CALC, USER")
    bandwidth: float = rows + 2 * cols
    if mode == "USER":
        first = text("architecture_presets", "Bandwidth").split(",")[0].strip()
        if not first.isdigit() or int(first) < 1:
            raise InputError(path, "Bandwidth", first, "a whole number of at least 1")
        bandwidth = 3 * int(first)
    sizes = {name: number(f"{name}SramSzkB") * 1024 for name in ("Ifmap", "Filter", "Ofmap")}
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


def _readable(error: pydantic.ValidationError, path: Path) -> InputError:
    """The first of pydantic's complaints, in this project's words."""
    errors = error.errors()
    # a misspelt key is missing as well as unknown: the second is the one to show
    first = next((entry for entry in errors if entry["type"] == "unexpected_keyword_argument"), errors[0])
    cause = first.get("ctx", {}).get("error")
    key = ".".join(str(part) for part in first["loc"])
    if isinstance(cause, InputError):
        return InputError(path, ".".join(part for part in (key, cause.key) if part), cause.value, cause.allowed)
    if first["type"] == "unexpected_keyword_argument":
        owner = Buffer if len(first["loc"]) > 1 else Accelerator
        return InputError(path, key, first["input"], ", ".join(item.name for item in dataclasses.fields(owner)))
    if first["type"] == "missing":
        return InputError(path, key, None, "a value; this key is required")
    return InputError(path, key, first["input"], first["msg"])

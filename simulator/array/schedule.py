"""What is computed when: a layer cut into tiles, the order of its loops over them, and what stays where meanwhile.

A layer is products (groups) of a matrix (m x k) and (k x n), m counting the output pixels of all samples. From outside
to inside run: the products; blocks of `samples`; and, in the `order` of three letters, the tiles of m, k and n. The
array runs one tile as dataflow.py says, fold after fold, and is empty between tiles.

**What stays.** Each operand has a buffer of its own. A tile lies there while loops inside run that do not concern it
(inputs: n; weights: m and blocks; sums: k). It also stays over such a loop that has others inside which do concern it
if all that these bring fits, too; it is fetched once then, piece by piece, as it is first used. Otherwise it is fetched
again on every turn. Rows that neighbouring tiles of pixels share (the halo) stay if nothing comes between the two, or
if all taps of a tile fit. Partial sums that wait for the next tile of taps, and find no room, go to DRAM and come back.

**Time.** Of each double buffer one half is used while the channel fills the other with the next tile and drains
results, evenly over the tiles; halves are swapped when the array and the channel are both done. So a tile takes the
longer of the two; tiles of the rim count with the mean. With a single buffer a tile takes the sum.

One tile in each block is the untiled schedule of memory.py, which fetches in finer pieces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, get_args

from simulator import userfile
from simulator.workload import Layer, Workload
from sram.errors import InputError
from sram.files import write_atomic

Flow = Literal["os", "ws", "is"]
Order = Literal["mkn", "mnk", "kmn", "knm", "nmk", "nkm"]  # as tiling_kernels.ORDERS has them
Split = Literal["samples", "outputs"]
ORDER_NAMES = get_args(Order)


@dataclass(frozen=True)
class Schedule:
    """How one layer runs: `samples` of a block; output pixels `m`, taps `k`, filters `n` of a tile; `order` of loops,
    outermost first; `ifmap_bytes` that inputs may fill of a shared buffer, 0: as the accelerator's file splits it.

    A tile of pixels is a part of a row, whole rows, or whole samples; one of taps or filters a multiple of the array's
    rows or columns, or all.

    >>> Schedule("ws", samples=1, m=56, k=576, n=16, order="nmk").order
    'nmk'
    """

    dataflow: Flow
    samples: int
    m: int
    k: int
    n: int
    order: Order = "mkn"
    ifmap_bytes: int = 0

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name in ("samples", "m", "k", "n"):
            if getattr(self, name) < 1:
                raise InputError("schedule", name, getattr(self, name), "1 or more")
        if self.ifmap_bytes < 0:
            raise InputError("schedule", "ifmap_bytes", self.ifmap_bytes, "0 or more")

    @property
    def sizes(self) -> dict[str, int | str]:
        """By name, without the dataflow."""
        found = {name: getattr(self, name) for name in ("samples", "m", "k", "n", "order")}
        return found | ({"ifmap_bytes": self.ifmap_bytes} if self.ifmap_bytes else {})


@dataclass(frozen=True)
class RowStationary:
    """How one layer runs by rows (rowstationary.py), in the terms of Chen et al. (JSSC 2017).

    Of a block: `n` samples, `m` filters, `e` output rows. Of a pass: in each element `p` filters and `q` channels; sets
    of elements for `r` times as many channels and `t` times as many filters. m: a multiple of p x t, or all.

    >>> text_of(RowStationary(n=1, m=96, e=7, p=16, q=1, r=1, t=2))
    'n1 m96 e7 p16 q1 r1 t2'
    """

    n: int
    m: int
    e: int
    p: int
    q: int
    r: int
    t: int
    dataflow: Literal["rs"] = "rs"

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name, value in self.sizes.items():
            if value < 1:
                raise InputError("schedule", name, value, "1 or more")

    @property
    def sizes(self) -> dict[str, int]:
        """By name, without the dataflow."""
        return {name: getattr(self, name) for name in ("n", "m", "e", "p", "q", "r", "t")}


@dataclass(frozen=True)
class Plan:
    """Schedules of the layers of a network by name; `samples` that pass through it together; `splits`: layers that are
    cut over several cores (cores.py), whose schedules are those of the larger part.

    With fewer samples than the batch has, the network runs again for the next ones.
    """

    layers: Mapping[str, Schedule | RowStationary]
    samples: int = 1
    splits: Mapping[str, Split] = field(default_factory=dict)

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    def of(self, layer: Layer) -> Schedule:
        """The layer's tiles; InputError if there are none."""
        found = self.get(layer)
        if not isinstance(found, Schedule):
            raise InputError(layer.name, "dataflow", "rs", "os, ws, is: tiles of pixels, taps and filters")
        return found

    def rows_of(self, layer: Layer) -> RowStationary:
        """The layer's row stationary schedule; InputError if there is none."""
        found = self.get(layer)
        if not isinstance(found, RowStationary):
            raise InputError(layer.name, "dataflow", found.dataflow, "rs, with n, m, e, p, q, r and t")
        return found

    def get(self, layer: Layer) -> Schedule | RowStationary:
        """The layer's, of either kind; InputError if there is none."""
        if layer.name not in self.layers:
            raise InputError("schedule", "layers", layer.name, "a schedule for each layer on the array")
        return self.layers[layer.name]


@dataclass(frozen=True)
class _Tiled(Plan):
    layers: Mapping[str, Schedule]


@dataclass(frozen=True)
class _Rows(Plan):
    layers: Mapping[str, RowStationary]


def load(path: str | Path) -> Plan:
    """A plan from the YAML that `save` writes."""
    path = Path(path)
    found = userfile.mapping(path, "samples and layers")
    layers = found.get("layers")
    by_rows = isinstance(layers, dict) and any(
        isinstance(s, dict) and s.get("dataflow") == "rs" for s in layers.values()
    )
    plan = userfile.record(path, _Rows if by_rows else _Tiled, found)
    return Plan(plan.layers, plan.samples, plan.splits)


def save(plan: Plan, path: str | Path) -> None:
    """Write a plan as YAML."""
    write_atomic(Path(path), text(plan).encode())


def text(plan: Plan) -> str:
    """A plan as YAML, a line a layer.

    >>> print(text(Plan({"fc": Schedule("ws", 1, 1, 512, 10)})))
    samples: 1
    layers:
      fc: {dataflow: ws, samples: 1, m: 1, k: 512, n: 10, order: mkn}
    <BLANKLINE>
    """
    lines = [f"samples: {plan.samples}", "layers:"]
    if plan.splits:
        lines.insert(
            1, userfile.text({"splits": dict(plan.splits)}, width=1 << 20, default_flow_style=True).strip()[1:-1]
        )
    for name, s in plan.layers.items():
        key = userfile.text({name: 0}, width=1 << 20).rpartition(":")[0]
        named = (
            s.sizes if isinstance(s, RowStationary) else {x: getattr(s, x) for x in ("samples", "m", "k", "n", "order")}
        )
        fields = ", ".join(f"{name}: {value}" for name, value in named.items())
        lines.append(f"  {key}: {{dataflow: {s.dataflow}, {fields}}}")
    return "\n".join(lines) + "\n"


def text_of(schedule: Schedule | RowStationary | None) -> str:
    """A schedule in a cell of a table: samples of a block, m x k x n of a tile, order; or sizes by letter.

    >>> text_of(Schedule("ws", 2, 56, 576, 16, "nmk"))
    '2: 56x576x16 nmk'
    """
    if isinstance(schedule, RowStationary):
        return " ".join(f"{name}{value}" for name, value in schedule.sizes.items())
    return "" if schedule is None else f"{schedule.samples}: {schedule.m}x{schedule.k}x{schedule.n} {schedule.order}"


def check_names(plan: Plan, workload: Workload) -> None:
    """InputError for a layer of the plan that the workload has not."""
    names = {layer.name for layer in workload.array_layers}
    for name in (*plan.layers, *plan.splits):
        if name not in names:
            raise InputError("schedule", "layers", name, f"layers of {workload.name}: {', '.join(sorted(names))[:200]}")

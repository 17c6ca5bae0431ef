"""Cycles, accesses and traffic of each layer."""

from .accelerator import Accelerator
from .dataflow import CODES, gemm_cycles
from .workload import Layer


def dataflow_of(layer: Layer, accelerator: Accelerator) -> str:
    """The dataflow that runs `layer`: the accelerator's, or with `best` the one with the fewest array cycles."""
    if accelerator.dataflow != "best":
        return accelerator.dataflow

    def cost(name: str) -> int:
        return gemm_cycles(
            name,
            layer.batch * layer.m,
            layer.k,
            layer.n,
            accelerator.array_rows,
            accelerator.array_cols,
            accelerator.double_buffered_registers,
            accelerator.skip_idle_rows,
            layer.groups,
        )

    return min(CODES, key=cost)

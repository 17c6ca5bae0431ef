"""Is a point of a sweep what a run of its own gives, and does the sweep cover exactly what was asked?"""

from dataclasses import replace

import pytest

from simulator.accelerator import accelerator
from simulator.array.cycles import simulate
from simulator.designsweep import sweep
from simulator.energy import energy
from simulator.workload import Layer, Workload, conv, linear

NET = Workload(
    "small",
    (
        conv("a", 12, 12, 3, 20, 3, padding=1, sources=(-1,)),
        Layer("relu", "activation", operations=2880, elements_read=2880, elements_written=2880, sources=(0,)),
        linear("b", 1, 2880, 10, sources=(1,)),
    ),
)


@pytest.mark.parametrize("keep", [False, True])
def test_each_point_equals_a_run_of_its_own(keep):
    base = replace(accelerator("paper"), keep_on_chip=keep)
    seen = []
    buffers = [(65536, 32768, 65536), (32768, 65536, 32768)]
    found = sweep(NET, base, [(8, 8), (16, 4)], buffers, ["os", "is", "best"], progress=lambda *done: seen.append(done))
    assert len(found) == 12
    assert seen[-1] == (12, 12)
    for point in found.itertuples():
        machine = replace(
            base,
            array_rows=point.array_rows,
            array_cols=point.array_cols,
            dataflow=point.dataflow,
            ifmap_buffer=replace(base.ifmap_buffer, capacity_bytes=point.ifmap_buffer_bytes),
            weight_buffer=replace(base.weight_buffer, capacity_bytes=point.weight_buffer_bytes),
            ofmap_buffer=replace(base.ofmap_buffer, capacity_bytes=point.ofmap_buffer_bytes),
        )
        alone = simulate(NET, machine)
        assert point.cycles == alone.cycles
        assert point.dram_bytes == sum(alone.layers[n].sum() for n in alone.layers.dtype.names if "_dram_" in n)
        assert point.energy_system_pj == pytest.approx(energy(alone).system_pj, rel=1e-12)
    best = found[found.dataflow == "best"].groupby(["array_rows", "ifmap_buffer_bytes"]).cycles.min()
    others = found[found.dataflow != "best"].groupby(["array_rows", "ifmap_buffer_bytes"]).cycles.min()
    assert (best <= others).all()

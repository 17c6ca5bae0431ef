"""Is a point of a sweep what a run of its own gives, and does the sweep cover exactly what was asked?"""

from dataclasses import replace

import pytest

from simulator.accelerator import accelerator
from simulator.array.cycles import simulate
from simulator.designsweep import sweep
from simulator.energy import energy, energy_table
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
        spent = energy(alone)
        for scope in ("weight_sram", "sram", "system"):
            assert getattr(point, f"energy_{scope}_pj") == pytest.approx(getattr(spent, f"{scope}_pj"), rel=1e-12)
        assert point.stall_cycles == alone.layers["stall_cycles"].sum()
        assert point.latency_s == alone.latency_s
        busy = alone.layers["cycles"][[0, 2]].sum() * point.array_rows * point.array_cols  # of the convolution and b
        assert point.utilization_pct == pytest.approx(100 * NET.macs / busy)
    best = found[found.dataflow == "best"].groupby(["array_rows", "ifmap_buffer_bytes"]).cycles.min()
    others = found[found.dataflow != "best"].groupby(["array_rows", "ifmap_buffer_bytes"]).cycles.min()
    assert (best <= others).all()


def test_energies_are_those_of_the_table_that_is_given(tmp_path):
    cheap = "dram: {value: 1.0, unit: pJ, per: bit, bits: 1, node_nm: 10, voltage_v: 0.6, scales: false, source: mine}"
    (tmp_path / "mine.yaml").write_text(f"extends: published\nentries:\n  {cheap}\n")
    table, machine = energy_table(tmp_path / "mine.yaml"), accelerator("paper")
    buffers = [(machine.ifmap_buffer.capacity_bytes, machine.weight_buffer.capacity_bytes, 65536)]
    (ours,), (theirs,) = (sweep(NET, machine, [(8, 8)], buffers, ["os"], given).itertuples() for given in (table, None))
    saved = theirs.energy_system_pj - ours.energy_system_pj
    assert saved == pytest.approx((1300 / 64 - 1.0) * 8 * ours.dram_bytes, rel=1e-9)  # 1300 pJ for 64 bits, published
    assert ours.energy_sram_pj == theirs.energy_sram_pj

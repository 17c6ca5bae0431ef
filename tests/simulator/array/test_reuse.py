"""Do weights and sums that fit stay where they are, from step to step, sample to sample, inference to inference?"""

from dataclasses import replace

import pytest
import torch

from simulator.accelerator import Buffer, accelerator, with_resident_weights
from simulator.array.cycles import simulate
from simulator.array.memory import network_bytes, weights_stay
from simulator.array.schedule import Plan, Schedule, load, save
from simulator.energy import energy
from simulator.readers.read import trace
from simulator.workload import Workload, conv, linear
from sram.errors import InputError

EDGE = accelerator("edge")


def weight_bytes(net, machine):
    """Without what the vector unit reads beside activations, such as a first state."""
    on_array = [layer.on_array for layer in net.layers]
    return int(simulate(net, machine).layers["filter_dram_read_bytes"][on_array].sum())


@pytest.mark.parametrize("steps", [1, 10, 50])
def test_a_recurrent_network_loads_its_weights_once_for_any_number_of_steps(steps):
    net = trace(torch.nn.LSTM(16, 32, batch_first=True), (steps, 16))
    assert weight_bytes(net, EDGE) == 4 * 32 * (16 + 32)
    assert weight_bytes(net, replace(EDGE, schedule="fixed")) == 4 * 32 * (16 + 32 * steps)


def test_weights_stay_if_all_that_is_used_meanwhile_fits_too():
    def step(name, size):
        return linear(name, 1, size, size, weight_name=name.partition("#")[0])

    net = Workload("two", (step("a", 100), step("b", 50), step("a#2", 100)))
    room = Buffer(2 * (100 * 100 + 50 * 50))
    assert weights_stay(net, replace(EDGE, weight_buffer=room)) == [False, False, True]
    smaller = replace(room, capacity_bytes=room.capacity_bytes - 2)
    assert weights_stay(net, replace(EDGE, weight_buffer=smaller)) == [False, False, False]


def test_sums_of_a_long_convolution_stay_on_chip():
    speech = Workload("speech", (conv("c", 1, 16000, 1, 64, (1, 80), stride=(1, 4), padding=(0, 38)),))
    found, untiled = simulate(speech, EDGE).layers[0], simulate(speech, replace(EDGE, schedule="fixed")).layers[0]
    assert found["psum_dram_write_bytes"] == 0 < untiled["psum_dram_write_bytes"]
    assert found["stall_cycles"] < 0.02 * found["cycles"]
    assert untiled["stall_cycles"] > 0.7 * untiled["cycles"]


def test_resident_weights_cost_no_dram_and_everything_else_as_before():
    net = Workload("two", (conv("a", 14, 14, 16, 32, 3, padding=1), linear("b", 1, 6272, 10, sources=(0,))))
    machine = with_resident_weights(EDGE, network_bytes(net, EDGE))
    assert machine.weight_buffer.capacity_bytes == 2 * EDGE.weight_buffer.capacity_bytes
    assert machine.weight_buffer.macros == 2
    found = simulate(net, machine)
    assert found.layers["filter_dram_read_bytes"].sum() == found.layers["filter_sram_writes"].sum() == 0
    assert found.layers["filter_sram_reads"].sum() > 0
    for table in (energy(found), energy(simulate(net, replace(machine, schedule="fixed")))):
        assert table.components["weight_sram_writes"].sum() == 0
    with pytest.raises(InputError, match="resident takes 67,328 of the 65,536 bytes of weight_buffer"):
        simulate(net, replace(EDGE, weights="resident"))


def test_samples_one_by_one_find_the_weights_in_place():
    net = Workload("fc", (linear("fc", 1, 100, 100),)).with_batch(4)
    one_by_one = Plan({"fc": Schedule("ws", 1, 1, 100, 100)}, samples=1)
    found = simulate(net, EDGE, one_by_one)
    assert found.plan.samples == 1
    assert found.layers["filter_dram_read_bytes"][0] == 10_000
    assert found.layers["macs"][0] == 40_000
    small = replace(EDGE, weight_buffer=Buffer(10_000))  # half of it is used at a time
    assert simulate(net, small, one_by_one).layers["filter_dram_read_bytes"][0] == 40_000


def test_a_plan_is_kept_in_a_file(tmp_path):
    net = Workload("two", (conv("a: 'b'", 14, 14, 64, 96, 3, padding=1), linear("2", 3, 300, 20)))
    plan = simulate(net, EDGE).plan
    save(plan, tmp_path / "plan.yaml")
    assert load(tmp_path / "plan.yaml") == plan


def test_layers_that_are_alike_may_run_by_schedules_that_are_not():
    net = Workload("two", (linear("a", 4, 64, 64), linear("b", 4, 64, 64)))
    plan = Plan({"a": Schedule("ws", 1, 4, 64, 64), "b": Schedule("os", 1, 4, 64, 64)})
    found = simulate(net, replace(EDGE, dataflow="best"), plan)
    assert found.plan == plan
    assert found.frame()["dataflow"].tolist() == ["ws", "os", ""]


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Schedule("ws", 1, 10, 576, 96), "m = 10 is not allowed; allowed: less than 7, or a multiple of 7"),
        (Schedule("ws", 1, 98, 576, 96), "m = 98 is not allowed; allowed: 1 to 49"),
        (Schedule("ws", 1, 49, 577, 96), "k = 577 is not allowed; allowed: 1 to 576"),
        (Schedule("ws", 2, 49, 576, 96), "samples = 2 is not allowed; allowed: a divisor of 1"),
        (Schedule("ws", 1, 7, 576, 96), "tiles whose operands fit in the buffers"),
    ],
)
def test_a_schedule_that_cannot_be_is_named(schedule, message):
    net = Workload("one", (conv("c", 7, 7, 64, 96, 3, padding=1),))
    with pytest.raises(InputError, match=message):
        simulate(net, EDGE, Plan({"c": schedule}))
    with pytest.raises(InputError, match="a schedule for each layer on the array"):
        simulate(net, EDGE, Plan({}))
    with pytest.raises(InputError, match="layers of one: c"):
        simulate(net, EDGE, Plan({"d": schedule}))

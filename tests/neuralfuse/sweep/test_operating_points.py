"""Do studies run the operating points that they name, with faults in every memory that is lowered, and their cost?"""

import numpy as np
import pandas as pd
import pytest
import torch

from neuralfuse.quantized.integer import IntegerNetwork
from neuralfuse.study.cost import cost_of
from neuralfuse.study.files import Study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import points_of
from neuralfuse.study.lowered import Die
from neuralfuse.study.memory import place_activations_of, place_partial_sums_of
from neuralfuse.study.prepare import prepare
from neuralfuse.study.supplies import machine_of, operating_points, roles_of, supply_of
from neuralfuse.sweep.bench import Bench
from neuralfuse.sweep.plan import plan
from simulator.activation_placement import taps_between_spills
from simulator.array.cycles import simulate
from simulator.device.activations import CodedMemory, activation_memory, coded_memory
from simulator.device.array_faults import partial_sum_faults
from simulator.energy import energy
from simulator.operating_point import NOMINAL
from simulator.timing import clock_hz, fastest_clock_hz, slack
from sram.errors import InputError
from sram.memory import Chip, Memory
from sram.protection import Layout, parse, word_faults

NETWORK = {"name": "resnet8", "options": {"width": 4}, "activations": "int8"}
NETWORK |= {"training": {"epochs": 4, "flip": False, "shift": 0}}
COMMON = {
    "dataset": {"name": "digits", "test_images": 60},
    "networks": [NETWORK],
    "sram": {"structures": ["iid"]},
    "chips": {"evaluation": 2},
}


def study_of(**keys):
    return Study("points", **COMMON | keys)


def rows_of(study, path):
    folder = StudyFolder(path, study)
    points = prepare(folder, lambda text: lambda *progress: None)
    bench = Bench(folder)
    return pd.DataFrame([bench.measure(task) for task in plan(study, points, {})]), bench


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    study = study_of(
        rails={"weights": [0.85, 1.0], "activations": [1.0, 0.86], "logic": [0.9]},
        clock="follow",
        accelerators=["gap9-like"],
        protections=["none", {"name": "coded", "sram": {"weights": ["secded72"], "activations": ["secded72"]}}],
    )
    return study, *rows_of(study, tmp_path_factory.mktemp("grid") / "out")


def test_every_combination_of_supplies_is_a_row_for_every_chip(grid):
    _, rows, _ = grid
    bare = rows[rows.protection == "none"]
    assert len(rows) == 2 * len(bare) == 2 * 8
    found = {(r.voltage, r.voltage_activations, r.voltage_accumulators, r.voltage_logic) for r in bare.itertuples()}
    assert found == {(w, a, a, 0.9) for w in (0.85, 1.0) for a in (0.86, 1.0)}
    assert set(bare.rails) == {f"activations {a}, logic 0.9, clock follows" for a in ("0.86", "1")}


def test_answers_are_those_of_faults_put_into_both_buffers_by_hand(grid):
    study, rows, bench = grid
    faulty, program = bench.network("resnet8"), bench.folder.program("resnet8")
    machine, workload = machine_of("gap9-like", roles_of(study)), bench.folder.workload("resnet8")
    for row in rows[(rows.protection == "none") & (rows.voltage_activations == 0.86)].itertuples():
        chip, network, bank = Chip(row.chip, study.seed), IntegerNetwork(faulty, program), 0
        placed = bench.placement("resnet8", "gap9-like")
        weak = chip.fault_map(Memory(placed.geometry, structure="iid"), row.voltage).at(row.voltage)
        weight, bit, kind = placed.faults(weak.cell, weak.kind)
        faulty.set_faults(faulty.numbering(placed.tensors).words(weight), bit, kind)
        bank, through = placed.geometry.banks, {}
        for buffer in ("ifmap_buffer", "ofmap_buffer"):
            lies = place_activations_of(study, workload, machine, buffer)
            memory = Memory(lies.geometry, structure="iid", first_bank=bank)
            found = chip.fault_map(memory, 0.86).at(0.86)
            through[buffer] = activation_memory(program, lies, lies.faults(found.cell, found.kind))
            if buffer == "ofmap_buffer":
                sums, taps = (
                    place_partial_sums_of(workload, machine, lies.geometry),
                    taps_between_spills(workload, machine),
                )
                network.in_array = (partial_sum_faults(program, sums, taps, sums.faults(found.cell, found.kind)),)
            bank += lies.geometry.banks

        class Both:
            def read_back(self, *words, through=through, **how):
                through["ofmap_buffer"].read_back(*words, **how)
                through["ifmap_buffer"].read_back(*words, **how)

        network.activations = Both()
        with torch.inference_mode():
            right = int((network(bench.images).argmax(1) == bench.labels).sum())
        faulty.restore()
        assert right == row.correct
        assert row.cell_fault_rate_activations > 0.002


def test_cost_is_that_of_all_rails_at_the_clock_that_they_allow(grid):
    study, rows, bench = grid
    machine = machine_of("gap9-like", roles_of(study))
    counts = simulate(bench.folder.workload("resnet8"), machine)
    nominal = energy(counts)
    for at in operating_points(study, "gap9-like"):
        spent = energy(counts, at)
        same = rows[(rows.protection == "none") & (rows.voltage == supply_of(study, "gap9-like", at, "weights"))]
        same = same[same.voltage_activations == supply_of(study, "gap9-like", at, "activations")]
        for row in same.itertuples():
            for scope in ("weight_sram", "sram", "chip", "system"):
                assert getattr(row, f"energy_{scope}_pj") == pytest.approx(spent.scope_pj(scope), rel=1e-12)
                saving = 1 - spent.scope_pj(scope) / nominal.scope_pj(scope)
                assert getattr(row, f"saving_{scope}") == pytest.approx(saving, abs=1e-12)
            assert row.clock_hz == fastest_clock_hz(machine, at) == clock_hz(machine, at) < machine.clock_hz
            assert row.inference_s == spent.seconds > nominal.seconds


def test_protections_of_each_memory_cost_and_correct(grid):
    """At 0.86 of Vmin 0.27% of cells are weak, one word in fifty has two and more: SECDED wins back what is
    lost, and is paid for in both buffers."""
    _, rows, _ = grid
    keys = ["chip", "voltage", "voltage_activations"]
    bare, coded = (rows[rows.protection == name].set_index(keys) for name in ("none", "coded"))
    lowered = bare.index[bare.index.get_level_values("voltage_activations") == 0.86]
    assert (coded.correct[lowered] > bare.correct[lowered]).all()
    assert (coded.energy_weight_sram_pj / bare.energy_weight_sram_pj).to_numpy() == pytest.approx(72 / 64)
    assert (coded.energy_sram_pj / bare.energy_sram_pj).to_numpy() == pytest.approx(72 / 64)


def test_voltages_are_the_points_that_lower_the_weights_alone(tmp_path):
    plain, named = (study_of(**keys) for keys in ({"voltages": [1.0, 0.85]}, {"rails": {"weights": [1.0, 0.85]}}))
    assert plain == named
    listed = study_of(operating_points=[{"weights": 1.0}, {"weights": 0.85}])
    assert operating_points(plain, "paper") == operating_points(listed, "paper")
    rows, _ = rows_of(plain, tmp_path / "out")
    assert set(rows.rails) == {"weights alone"}
    assert (rows.voltage_activations == 1).all()
    assert (rows.cell_fault_rate_activations == 0).all()
    assert (rows.clock_hz == machine_of("paper").clock_hz).all()


def test_rails_that_fall_together_have_one_supply():
    study = study_of(voltages=[1.0, 0.9], together=["activations", "logic"], clock="follow")
    for at, voltage in zip(operating_points(study, "paper"), (1.0, 0.9), strict=True):
        assert at.clock_hz == "follow"
        roles = ("weights", "activations", "accumulators", "logic")
        assert {supply_of(study, "paper", at, role) for role in roles} == {voltage}


@pytest.mark.parametrize("spec", ["secded72", "word_masking", "bit_masking", "secded72+bit_masking"])
def test_coded_words_read_as_one_after_the_other(grid, spec):
    """Against each memory word of each image packed, read through the protection, and unpacked by itself."""
    study, _, bench = grid
    program, workload = bench.folder.program("resnet8"), bench.folder.workload("resnet8")
    placed = place_activations_of(study, workload, machine_of("gap9-like", roles_of(study)), "ifmap_buffer")
    shield, layout = parse(spec), Layout()
    raw = Chip(1).fault_map(Memory(placed.geometry, structure="iid"), 0.8)
    protected = shield.map(raw)
    faults = word_faults(protected.geometry, protected.at(0.8))
    memory: CodedMemory = coded_memory(program, placed, faults, shield)
    random = np.random.default_rng(0)
    changed = 0
    for tensor, part in zip(program.stored, placed.tensors, strict=True):
        words = random.integers(-127, 128, (2, part.count)).astype(np.int8)
        expected = words.copy()
        row, element = placed.contents(faults.word)
        for image in expected:
            for i, elements in zip(row, element - part.first, strict=True):
                mine = (elements >= 0) & (elements < part.count)
                if not mine.any():
                    continue
                held = np.where(mine, image[np.where(mine, elements, 0)], 0).astype(np.int64)
                seen = shield.read(layout.pack(held[None], 64), faults, np.array([i]))
                image[elements[mine]] = layout.unpack(seen, 64)[0][mine]
        memory.read_back(tensor, got := words.copy())
        np.testing.assert_array_equal(got, expected)
        c, h, w = program.shapes[tensor]
        last = words.reshape(2, c, h, w).transpose(0, 2, 3, 1).reshape(2, -1).copy()
        memory.read_back(tensor, last, channels_last=True)
        np.testing.assert_array_equal(last.reshape(2, h, w, c).transpose(0, 3, 1, 2).reshape(2, -1), expected)
        changed += int((got != words).sum())
    assert changed > 0


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"rails": {"sram": [1.0]}}, "rails.sram"),
        ({"rails": {"activations": [1.1]}}, "rails.activations"),
        ({"rails": {"activations": []}}, "rails.activations"),
        ({"rails": {"activations": [True]}}, "rails"),
        ({"rails": {"weights": [0.9], "logic": ["0.9"]}, "clock": "follow"}, "rails"),
        ({"voltages": [0.9], "rails": {"weights": [0.9]}}, "rails.weights"),
        ({"voltages": [0.9], "rails": {"logic": [0.9]}}, "clock"),
        ({"voltages": [0.9], "clock": 1e12}, "clock_hz"),
        ({"voltages": [0.9], "clock": 1e12, "late_sums": True}, "clock_hz"),
        ({"rails": {"logic": [0.8]}, "clock": 5e8, "late_sums": True}, "slack"),
        ({"voltages": [0.9], "late_sums": True, "networks": ["resnet8"]}, "late_sums"),
        ({"voltages": [0.9], "protections": ["razor"]}, "protections.razor.logic"),
        ({"voltages": [0.9], "protections": ["abft"]}, "protections.abft.logic"),
        (
            {"voltages": [0.9], "clock": 1e8, "late_sums": True, "protections": ["abft"], "accelerators": ["eyeriss"]},
            "dataflow",
        ),
        ({"voltages": [0.9], "clock": "fast"}, "clock"),
        ({"voltages": [0.9], "together": ["weights", "weights"]}, "study"),
        ({"voltages": [0.9], "together": ["activations"], "rails": {"activations": [0.9]}}, "study"),
        ({"rails": {key: [1 - i / 1000 for i in range(100)] for key in ("weights", "activations", "logic")}}, "study"),
        ({"operating_points": [{"weights": 0.9}], "voltages": [0.9, 0.8, 0.7]}, "study"),
        ({"operating_points": [{"weights": 0.9}], "rails": {"activations": [0.9]}}, "study"),
        ({"operating_points": [{"sram": 0.9}]}, "operating_points.0.sram"),
        (
            {"voltages": [0.9], "together": ["activations"], "memories": {"activations": {"curve": "kc705b"}}},
            "together",
        ),
        ({"voltages": [0.9], "memories": {"activations": {"mode": "flip"}}}, "memories.activations"),
        ({"voltages": [0.9], "protections": [{"sram": {"activations": ["secded72"]}}]}, "sram.activations"),
        ({"voltages": [0.9], "together": ["activations"], "networks": ["resnet8"]}, "networks.resnet8.activations"),
        ({"rails": {"activations": [0.9]}, "adaptive": {"margin_points": 1}}, "adaptive.margin_points"),
        ({"operating_points": [{"weights": 0.9, "logic": 0.2}], "clock": "follow"}, "supply in V"),
    ],
)
def test_points_that_cannot_be_run_are_one_message(keys, key):
    from neuralfuse.study.check import check

    with pytest.raises(InputError) as error:
        check(study_of(**keys))
    assert key in error.value.key or key == error.value.key.split(".")[-1], error.value


def test_partial_sums_of_a_lowered_output_buffer_are_put_in_by_hand(grid):
    """The same rows' answers differ without them, so the test above holds for partial sums, too."""
    study, _, bench = grid
    machine, workload = machine_of("gap9-like", roles_of(study)), bench.folder.workload("resnet8")
    lies = place_activations_of(study, workload, machine, "ofmap_buffer")
    sums = place_partial_sums_of(workload, machine, lies.geometry)
    assert sums is not None
    assert sums.bits == 32
    assert {tensor.name for tensor in sums.tensors} <= {layer.name for layer in workload.array_layers}
    os_machine = machine_of("paper", roles_of(study))
    assert place_partial_sums_of(workload, os_machine, lies.geometry) is None


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    nominal = machine_of("paper").clock_hz
    study = study_of(rails={"logic": [1.0, 0.92]}, clock=nominal, late_sums=True, protections=["none", "razor", "abft"])
    return study, *rows_of(study, tmp_path_factory.mktemp("late") / "out")


def test_sums_that_are_late_lose_accuracy_and_razor_wins_it_back_for_cycles(late):
    study, rows, _ = late
    at = operating_points(study, "paper")[1]
    assert slack(machine_of("paper", roles_of(study)), at) < 1 < slack(machine_of("paper", roles_of(study)), NOMINAL)
    bare, razor = (rows[(rows.protection == name) & (rows.voltage_logic == 0.92)] for name in ("none", "razor"))
    clean = rows[(rows.protection == "none") & (rows.voltage_logic == 1)]
    assert (clean.correct == clean.correct_clean).all()
    assert (bare.correct < clean.correct.to_numpy()).all()
    assert (razor.correct.to_numpy() == clean.correct.to_numpy()).all()
    assert (razor.cycles.to_numpy() > bare.cycles.to_numpy()).all()
    assert (razor.energy_chip_pj.to_numpy() > bare.energy_chip_pj.to_numpy()).all()
    assert (bare.clock_hz == machine_of("paper").clock_hz).all()


def test_checksums_find_late_sums_and_each_row_pays_for_the_tiles_that_were_found(late):
    study, rows, bench = late
    machine = machine_of("paper", roles_of(study))
    counts = simulate(bench.folder.workload("resnet8"), machine)
    clean = rows[(rows.protection == "none") & (rows.voltage_logic == 1)]
    for row in rows[(rows.protection == "abft") & (rows.voltage_logic == 0.92)].itertuples():
        assert row.correct == clean.correct.iloc[row.chip]
        # the late sums of this chip alone, each tile that they change looked up one by one
        at, answers = operating_points(study, "paper")[1], bench.answers("resnet8")
        bench.lowered.put(answers, "resnet8", Die("paper", "iid", row.chip), "none", at)
        seen = []

        class Watched:
            def apply(self, made, late=answers.in_array[0], seen=seen):
                before, sums, place = made.sums.copy(), made.sums, made.place
                late.apply(made)
                apart = (sums != before).reshape(len(sums), sums.shape[1], -1)
                pixels = -(-apart.shape[1] // 32)
                tiles = [tile for part in np.array_split(apart, range(32, 32 * pixels, 32), 1)
                         for tile in np.array_split(part, range(32, part.shape[2], 32), 2)]  # fmt: skip
                seen.append((place, sum(int(tile.any((1, 2)).sum()) for tile in tiles), len(tiles) * len(sums)))

        answers.in_array = (Watched(),)
        bench.network("resnet8").restore()
        bench.scores("resnet8", bench.images)
        places = sorted({place for place, *_ in seen})
        wrong = [
            sum(w for p, w, _ in seen if p == place) / sum(n for p, _, n in seen if p == place) for place in places
        ]
        assert max(wrong) > 0
        expected = cost_of(counts, None, at, logic="abft", wrong=wrong)
        assert (row.energy_chip_pj, row.cycles) == (pytest.approx(expected.energy_chip_pj, rel=1e-12), expected.cycles)


def test_late_sums_do_not_depend_on_the_order_of_tasks(late):
    study, rows, bench = late
    tasks = plan(study, points_of(bench.folder), {})
    again = [bench.measure(task) for task in reversed(tasks)]
    assert [row.correct for row in reversed(again)] == rows.correct.tolist()

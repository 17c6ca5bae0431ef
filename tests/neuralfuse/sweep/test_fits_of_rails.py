"""Do transforms see the faults of all memories that a study lowers where they are fitted or trained, those of the
weights alone where it says so, and do keys follow?"""

import copy

import numpy as np
import pytest
import torch

from neuralfuse.chips.memory import FIRST_TRAINING_CHIP
from neuralfuse.quantized import evaluate
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.integer import DieFaults, IntegerNetwork
from neuralfuse.study import making
from neuralfuse.study.check import check
from neuralfuse.study.files import Study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.lowered import Die
from neuralfuse.study.memory import place_activations_of, place_partial_sums_of
from neuralfuse.study.prepare import prepare
from neuralfuse.study.supplies import at_weights, machine_of, memory_supplies, operating_points, roles_of
from neuralfuse.sweep.bench import Bench
from neuralfuse.sweep.plan import plan
from neuralfuse.training.calibrate import calibrate
from simulator.activation_placement import taps_between_spills
from simulator.device.activations import InTurn, activation_memory
from simulator.device.array_faults import partial_sum_faults
from sram.errors import InputError
from sram.memory import Chip, Memory

FIT = {"generator": "affine", "calibrate": {"steps": 3, "images": 64, "batch": 32}}
TRAINED = {"generator": "ConvS", "options": {"width": 2}, "training": {"steps": 2, "maps": 2, "batch": 8, "shift": 0}}
COMMON = {
    "dataset": {"name": "digits", "test_images": 40},
    "networks": [
        {
            "name": "resnet8",
            "options": {"width": 4},
            "activations": "int8",
            "training": {"epochs": 1, "flip": False, "shift": 0},
        }
    ],
    "accelerators": ["gap9-like"],
    "sram": {"structures": ["iid", "column"]},
    "clock": "follow",
    "rails": {"weights": [0.85, 0.84], "activations": [0.9, 0.86], "logic": [1.0, 0.9]},
    "chips": {"evaluation": 1},
    "protections": [
        {"name": "all", "neuralfuse": FIT},
        {"name": "weights", "neuralfuse": FIT | {"sees": "weights"}},
        {"name": "trained", "neuralfuse": TRAINED},
    ],
}


def study_of(**keys):
    return Study("fits", **COMMON | keys)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """(bench, tasks, what the generator was trained on): a study ready to be measured."""
    study, asked = study_of(), []
    with pytest.MonkeyPatch.context() as patch:
        train = making.train_generator
        patch.setattr(making, "train_generator", lambda *given: (asked.append(given[0]), train(*given))[1])
        folder = StudyFolder(tmp_path_factory.mktemp("fits") / "out", study)
        points = prepare(folder, lambda text: lambda *progress: None)
    return Bench(folder), plan(study, points, {}), asked


def die_faults(bench, faulty, structure, number, weights, activations):
    """Those of a chip, put together by hand."""
    study, folder = bench.study, bench.folder
    machine, workload = machine_of("gap9-like", roles_of(study)), folder.workload("resnet8")
    program, chip, memories = folder.program("resnet8"), Chip(number, study.seed), {}
    placed = folder.placement("resnet8", "gap9-like")
    weak = chip.fault_map(Memory(placed.geometry, structure=structure), weights).at(weights)
    weight, bit, kind = placed.faults(weak.cell, weak.kind)
    bank = placed.geometry.banks
    for buffer in ("ifmap_buffer", "ofmap_buffer"):
        lies = place_activations_of(study, workload, machine, buffer)
        memory = Memory(lies.geometry, structure=structure, first_bank=bank)
        found = chip.fault_map(memory, activations).at(activations)
        memories[buffer] = activation_memory(program, lies, lies.faults(found.cell, found.kind))
        bank += lies.geometry.banks
    sums = place_partial_sums_of(workload, machine, lies.geometry)
    inside = partial_sum_faults(
        program, sums, taps_between_spills(workload, machine), sums.faults(found.cell, found.kind)
    )
    through = InTurn((memories["ofmap_buffer"], memories["ifmap_buffer"]))
    return DieFaults(faulty.numbering(placed.tensors).words(weight), bit, kind, through, (inside,))


def fitted(bench, frozen, faults):
    transform = bench.transform("resnet8", "all")
    how = bench.study.protection("all").neuralfuse.calibrate
    calibrate(frozen, transform, bench.data, [faults], how, 8, bench.study.seed)
    return transform


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_fit_sees_the_chip_at_its_point_and_the_row_is_of_that_fit(prepared):
    bench, tasks, _ = prepared
    faulty = bench.network("resnet8")
    whole = IntegerNetwork(faulty, bench.folder.program("resnet8"))
    found = die_faults(bench, faulty, "iid", 0, 0.84, 0.86)
    by_hand = {"all": fitted(bench, whole, found), "weights": fitted(bench, faulty, found[:3])}
    assert not same(*by_hand.values())
    supplies = ((("weights", 0.84), ("activations", 0.86)),)
    die = Die("gap9-like", "iid", 0)
    assert same(bench.calibrated("resnet8", "all", die, (0.84,), supplies), by_hand["all"])
    assert same(bench.calibrated("resnet8", "weights", die, (0.84,)), by_hand["weights"])
    for name, transform in by_hand.items():
        (task,) = (
            task
            for task in tasks
            if (task.point.protection, task.point.structure, *task.at.voltages) == (name, "iid", 0.86, 1.0, 0.84)
        )
        row = bench.measure(task)
        whole.set_faults(*found)
        assert row.correct == evaluate.correct(whole, evaluate.transform(transform, bench.images), bench.labels)
        whole.restore()


def test_a_chip_is_fitted_once_for_all_supplies_of_its_logic(prepared):
    bench, tasks, _ = prepared
    bench.calibrated.cache_clear()
    bench.inputs.cache_clear()
    for task in tasks:
        if (task.point.protection, task.point.structure) == ("all", "iid"):
            bench.measure(task)
    assert bench.calibrated.cache_info().misses == 2 * 2


def test_training_chips_are_whole_and_take_all_supplies_in_turn(prepared):
    bench, _, asked = prepared
    (((frozen, source),),) = asked
    assert isinstance(frozen, IntegerNetwork)
    supplies = [(0.85, 0.9), (0.84, 0.9), (0.85, 0.86), (0.84, 0.86)]
    random = np.random.default_rng(0)
    for draw in range(6):
        turn, number = draw % 2, draw // 2  # structures in turn
        found = source(draw)
        expected = die_faults(
            bench, frozen.faulty, ("iid", "column")[turn], FIRST_TRAINING_CHIP + number, *supplies[number % 4]
        )
        for one, other in zip(found[:3], expected[:3], strict=True):
            np.testing.assert_array_equal(one, other)
        (one,), (other,) = found.in_array, expected.in_array
        assert one.faulty.keys() == other.faulty.keys()
        for place in one.faulty:
            np.testing.assert_array_equal(one.faulty[place], other.faulty[place])
        for tensor in frozen.program.stored:
            count = int(np.prod(frozen.program.shapes[tensor]))
            words = random.integers(-127, 128, (2, count)).astype(np.int8)
            found.activations.read_back(tensor, read := words.copy())
            expected.activations.read_back(tensor, words)
            np.testing.assert_array_equal(read, words)


def test_a_generator_that_sees_weights_alone_is_trained_as_before(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(making, "train_generator", lambda *given: asked.append(given[0]))
    study = study_of(protections=[{"name": "trained", "neuralfuse": TRAINED | {"sees": "weights"}}])
    prepare(StudyFolder(tmp_path / "out", study), lambda text: lambda *progress: None)
    (((frozen, source),),) = asked
    assert isinstance(frozen, FaultyNetwork)
    assert type(source(0)) is tuple


def settings_of(prepared, **keys):
    study = study_of(**keys)
    fuse = study.protection("trained").neuralfuse
    base = study.networks[0], copy.deepcopy(prepared[0].network("resnet8").network)
    return making.generator_settings(study, [base], fuse)


def test_what_a_generator_follows_from_has_the_supplies_that_it_sees(prepared):
    usual = settings_of(prepared)
    rails = COMMON["rails"]
    assert settings_of(prepared, rails=rails | {"logic": [0.95]}) == usual
    assert settings_of(prepared, rails=rails | {"activations": [0.9]}) != usual
    one_sided = [COMMON["protections"][2] | {"neuralfuse": TRAINED | {"sees": "weights"}}]
    alone = [settings_of(prepared, rails=rails | {"activations": [low]}, protections=one_sided) for low in (0.9, 0.86)]
    assert alone[0] == alone[1]


def test_what_falls_with_the_weights_falls_with_them_in_a_fit():
    study = study_of(rails={"accumulators": [0.95]}, voltages=[0.9, 0.85], together=["activations"])
    at = operating_points(study, "gap9-like")[0]
    supplies = memory_supplies(study, "gap9-like", at)
    assert dict(supplies) == {"weights": 0.9, "activations": 0.9, "accumulators": 0.95}
    assert dict(at_weights(study, supplies, 0.85)) == {"weights": 0.85, "activations": 0.85, "accumulators": 0.95}


def test_a_fit_that_knows_a_share_of_the_weights_is_no_fit_of_all():
    partly = FIT | {"calibrate": FIT["calibrate"] | {"knows": 0.5}}
    with pytest.raises(InputError, match="knows"):
        check(study_of(protections=[{"name": "x", "neuralfuse": partly}]))
    check(study_of(protections=[{"name": "x", "neuralfuse": partly | {"sees": "weights"}}]))

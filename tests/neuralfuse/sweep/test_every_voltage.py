"""Generators for several voltages: does each step and each supply get the right one, at an honest cost? And generators
that run at low voltage: are their words read where they lie, and is their gradient the paper's sum?"""

import copy
import dataclasses
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from neuralfuse import networks
from neuralfuse.chips import sources
from neuralfuse.chips.sources import Both, InTurn, StepsInTurn
from neuralfuse.chips.stored import place_generator
from neuralfuse.data import Dataset
from neuralfuse.quantized import checkpoint
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.quantize import quantize_in_place, weight_parameters
from neuralfuse.study import making
from neuralfuse.study.config import SramConfig
from neuralfuse.study.files import parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.memory import memory_of
from neuralfuse.study.prepare import prepare, trainings_to_do
from neuralfuse.sweep.bench import Bench, Die, Fit
from neuralfuse.sweep.executors import choose
from neuralfuse.sweep.run import run_study
from neuralfuse.training import generator, own_words
from neuralfuse.training.checkpoints import Checkpoints
from neuralfuse.training.generator import train_generator, watched_accuracy
from neuralfuse.training.network import train_network
from neuralfuse.training.settings import GeneratorSettings
from neuralfuse.transforms import generators
from neuralfuse.transforms import per_voltage as pervoltage
from neuralfuse.transforms.per_voltage import PerVoltage
from simulator import placement
from simulator.accelerator import accelerator
from simulator.readers.read import trace
from sram import failure, faultmap
from sram.errors import InputError
from sram.geometry import Geometry
from sram.memory import Chip
from sram.progress import silent


def make():
    return generators.build("DeConvS", 1, width=4)


def per_voltage(kind, levels=(-1.0, -3.0, -2.0)):
    """Members that differ in every number that they have of their own."""
    fuse = generators.NeuralFuse(PerVoltage(make, levels, kind)).eval()
    for i, member in enumerate(fuse.generator.members):
        own = (
            member.parameters()
            if kind == "each"
            else (p for norm in pervoltage.norms(member) for p in norm.parameters())
        )
        for number in own:
            number.data.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(i))
        for norm in pervoltage.norms(member):
            norm.running_var.fill_(1 + i)
    return fuse


X = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("kind", pervoltage.KINDS)
def test_at_a_trained_level_its_own_generator_computes_and_outside_the_nearest(kind):
    fuse = per_voltage(kind)
    for i, level in enumerate((-1.0, -3.0, -2.0)):
        expected = pervoltage.turn(fuse, i).eval()(X)
        assert pervoltage.at(fuse, level)(X).equal(expected)
        assert pervoltage.turn(fuse, i + 3)(X).equal(expected)  # steps take them in turn
    assert pervoltage.at(fuse, -9.0)(X).equal(pervoltage.at(fuse, -3.0)(X))
    assert pervoltage.at(fuse, 0.0)(X).equal(pervoltage.at(fuse, -1.0)(X))


def test_in_between_film_interpolates_what_normalisation_holds_and_each_takes_the_nearest():
    film, each = per_voltage("film"), per_voltage("each")
    made, low, high = film.generator.at(-2.25), film.generator.members[1], film.generator.members[2]
    for norm, a, b in zip(pervoltage.norms(made), pervoltage.norms(low), pervoltage.norms(high), strict=True):
        for name in ("weight", "bias", "running_mean", "running_var"):
            assert torch.allclose(getattr(norm, name), 0.25 * getattr(a, name) + 0.75 * getattr(b, name))
    assert each.generator.at(-2.25) is each.generator.members[2]


def test_film_shares_all_but_normalisation_and_files_keep_it_so(tmp_path):
    one, film = make(), per_voltage("film")
    norms = sum(p.numel() for norm in pervoltage.norms(one) for p in norm.parameters())
    plain = sum(p.numel() for p in one.parameters())
    assert sum(p.numel() for p in film.parameters()) == plain + 2 * norms
    assert len(weight_parameters(film)) == len(weight_parameters(one))  # stored once
    checkpoint.save(tmp_path / "g", film.generator.state_dict(), {})
    again = generators.NeuralFuse(PerVoltage(make, film.generator.levels, "film"))
    checkpoint.load_network(again.generator, tmp_path / "g")
    assert all(pervoltage.at(again, v)(X).equal(pervoltage.at(film, v)(X)) for v in (-3, -2.4, -1))
    assert sum(p.numel() for p in again.parameters()) == plain + 2 * norms


@pytest.mark.parametrize("wrong", [{"levels": (-1,)}, {"levels": (-1, -1)}, {"kind": "both"}])
def test_mistakes_are_named(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} = "):
        PerVoltage(make, **{"levels": (-1, -2), "kind": "film"} | wrong)
    with pytest.raises(InputError, match="BatchNorm"):
        PerVoltage(lambda: generators.build("tiny", 1), (-1, -2), "film")


def test_a_step_has_one_voltage_and_each_voltage_counts_all_its_draws():
    seen = []
    parts = [lambda draw, name=name: seen.append((name, draw)) for name in "abc"]
    source = StepsInTurn(tuple(parts), draws=4)
    for draw in range(36):
        source(draw)
    steps = [{name for name, _ in seen[i : i + 4]} for i in range(0, 36, 4)]
    assert steps == [{"a"}, {"b"}, {"c"}] * 3
    assert [draw for name, draw in seen if name == "b"] == list(range(12))


def tiny_data(n=64):
    random = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 4
    x = (torch.randn(n, 1, 16, 16, generator=random) * 0.3 + y[:, None, None, None] / 3 - 0.5).clamp(-1, 1)
    return Dataset("tiny", x, y, x, y, 4)


def tiny_faulty():
    return FaultyNetwork(networks.build("resnet8", 4, 1, width=4))


@pytest.mark.parametrize("kind", pervoltage.KINDS)
def test_a_training_step_moves_only_the_generator_whose_turn_it_is(kind):
    fuse, faulty = per_voltage(kind), tiny_faulty()
    before = copy.deepcopy(fuse.state_dict())
    source = sources.IndependentCells(faulty.words.size, (0.01,))
    train_generator([(faulty, source)], fuse, tiny_data(), GeneratorSettings(2, 16, 1, shift=0), bits=None)
    after = fuse.state_dict()
    moved = [set(), set(), set()]
    for name, _ in fuse.named_parameters(remove_duplicate=False):
        _, _, member, layer, _ = name.split(".")
        if not after[name].equal(before[name]):
            moved[int(member)].add(type(fuse.get_submodule(f"generator.members.{member}.{layer}")).__name__)
    layers, norm = {"Conv2d", "ConvTranspose2d"}, {"BatchNorm2d"}
    assert moved == [layers | norm, layers | norm, layers if kind == "film" else set()]


def test_before_two_networks_each_generator_meets_both_at_its_own_voltage_alone():
    fuse, both, maps, met = per_voltage("each"), [tiny_faulty(), tiny_faulty()], 2, []

    def source(network):
        parts = tuple(lambda draw, at=at: (network, at, draw) for at in range(3))
        return StepsInTurn(parts, draws=maps)

    def record(faulty, learner, x, y, faults, maps, weight):
        member = [one is learner.generator for one in fuse.generator.members].index(True)
        met.append((both.index(faulty), member, list(faults)))
        return 0.0, 0.0

    settings = GeneratorSettings(12, 8, maps, shift=0, objective=record)
    train_generator([(both[0], source(0)), (both[1], source(1))], fuse, tiny_data(), settings)
    for faulty, member, faults in met:
        assert [(network, at) for network, at, _ in faults] == [(faulty, member)] * maps
    assert len({one for _, _, faults in met for one in faults}) == 12 * maps  # no chip twice
    assert {(faulty, member) for faulty, member, _ in met} == {(n, at) for n in (0, 1) for at in range(3)}


@pytest.mark.parametrize("maps", [1, 2, 3])
@pytest.mark.parametrize("networks", [1, 2, 3])
def test_each_network_meets_every_structure_at_every_voltage(networks, maps):
    """Whatever divides what: network, maps, structures and voltages are crossed, and no network sees a chip twice."""
    each, met = [tiny_faulty() for _ in range(networks)], []

    def source(network):
        def part(form):
            return lambda draw: (network, form, draw % 2, draw)  # as `Chips` takes its two voltages

        return InTurn((part("iid"), part("column")))

    def record(faulty, learner, x, y, faults, maps, weight):
        met.extend((each.index(faulty), one) for one in faults)
        return 0.0, 0.0

    fuse = generators.NeuralFuse(make())
    settings = GeneratorSettings(4 * networks, 8, maps, shift=0, objective=record)
    train_generator([(network, source(i)) for i, network in enumerate(each)], fuse, tiny_data(), settings)
    assert all(network == at for network, (at, *_) in met)
    assert len(set(met)) == 4 * networks * maps
    crossed = {(network, form, at) for network, (_, form, at, _) in met}
    assert crossed == {(n, form, at) for n in range(networks) for form in ("iid", "column") for at in (0, 1)}


def own_faults(transform, rate, seed):
    words = sum(p.numel() for p in weight_parameters(transform).values())
    return sources.IndependentCells(words, (rate,), seed=seed)(0)


@pytest.mark.parametrize("bits", [8, 5])
def test_words_are_read_as_a_faulty_network_reads_them(bits):
    fuse = generators.NeuralFuse(make())
    words = sum(p.numel() for p in weight_parameters(fuse).values())
    chips = sources.IndependentCells(words, (0.05,), bits=bits)
    reference = FaultyNetwork(copy.deepcopy(fuse), bits)
    before = copy.deepcopy(fuse.state_dict())
    with own_words.read_words(fuse, bits) as read:
        for draw in range(3):  # one chip after the other: nothing stays of the last
            read(chips(draw))
            reference.set_faults(*chips(draw))
            theirs = weight_parameters(reference.network)
            assert all(torch.equal(p, theirs[name]) for name, p in weight_parameters(fuse).items())
    assert all(torch.equal(a, b) for a, b in zip(fuse.state_dict().values(), before.values(), strict=True))


def test_the_gradient_is_that_of_n_networks_behind_n_generators():
    """Each with words of its own, written out; straight through: what a read number's gradient is, its word's is."""
    data, n, weight = tiny_data(), 3, 5.0
    x, y = data.train_x[:16], data.train_y[:16]
    fuse = quantize_in_place(generators.NeuralFuse(make()))
    fuse.train()
    for _ in range(30):  # statistics that are not those of a start
        fuse(x)
    start = copy.deepcopy(fuse)
    net = sources.IndependentCells(tiny_faulty().words.size, (0.01,), seed=1)
    own = [own_faults(fuse, 0.02, seed) for seed in range(n)]
    maps = [Both(net(i), own[i]) for i in range(n)]
    losses = own_words.OwnFaults(8)(tiny_faulty(), fuse, x, y, iter(maps), n, weight)

    expected = {name: torch.zeros_like(p) for name, p in start.named_parameters()}

    def add(transform, network, share):
        loss = share * F.cross_entropy(network(transform(x)), y)
        found = torch.autograd.grad(loss, list(transform.parameters()))
        for total, gradient in zip(expected.values(), found, strict=True):
            total += gradient
        return loss.item() / share

    clean = add(start, tiny_faulty(), 1.0)  # moves the statistics on
    terms = []
    for both in maps:
        read = FaultyNetwork(copy.deepcopy(start), 8)
        read.set_faults(*both.generator)
        network = tiny_faulty()
        network.set_faults(*both.network)
        terms.append(add(read.network.requires_grad_().eval(), network, weight / n))
    assert losses == pytest.approx((clean, sum(terms) / n), rel=1e-5)
    for name, p in fuse.named_parameters():
        assert (p.grad - expected[name]).norm() <= 1e-4 * max(expected[name].norm(), 1e-2), name
    assert all(a.equal(b) for a, b in zip(fuse.buffers(), start.buffers(), strict=True))  # the clean pass's alone


NETWORK = trace(networks.build("resnet8", 4, 1, width=4), (1, 16, 16))
GENERATOR = trace(generators.NeuralFuse(make()), (1, 16, 16))


def place_both(schedule, geometry):
    machine = accelerator("paper")
    network = placement.place(NETWORK, machine, geometry, schedule, bits=8)
    return network, *place_generator(GENERATOR, machine, network, bits=8)


def test_streamed_words_of_the_generator_pass_through_the_networks_cells():
    geometry = Geometry(banks=2, rows=16, columns=64)
    network, own, bank = place_both("streamed", geometry)
    assert (own.geometry, bank) == (geometry, 0)
    assert own.residencies > 1
    assert own.locate(0, 3) == network.locate(0, 3)  # both streams begin in the first word


@pytest.mark.parametrize("structure", ["iid", "column"])
def test_resident_words_of_the_generator_lie_in_banks_behind_and_the_network_does_not_move(structure):
    geometry = Geometry.of_capacity(16 * 1024)
    _, own, bank = place_both("resident", geometry)
    assert bank == geometry.banks
    whole = faultmap.generate(3, Geometry(bank + own.geometry.banks), "ibm14", structure, voltage_floor=0.8, seed=5)
    cell = whole.at(0.8).cell
    first = bank * geometry.cells_per_bank
    alone = Chip(3, 5).fault_map(memory_of(SramConfig(), geometry, structure), 0.8).at(0.8)
    behind = Chip(3, 5).fault_map(memory_of(SramConfig(), own.geometry, structure, bank), 0.8).at(0.8)
    assert len(alone.cell) > 50
    assert len(behind.cell) > 20
    assert np.array_equal(cell[cell < first], alone.cell)
    assert np.array_equal(cell[cell >= first] - first, behind.cell)
    assert np.array_equal(whole.at(0.8).kind[cell >= first], behind.kind)


TRAINING = {"steps": 4, "maps": 2, "batch": 16, "flip": False, "shift": 0, "learning_rate": 0.01}
FUSE = {"generator": "DeConvS", "options": {"width": 4}, "train_voltages": [0.82, 0.78], "training": TRAINING}
STUDY = {
    "name": "every voltage",
    "dataset": {"name": "digits", "test_images": 100},
    "networks": [{"name": "resnet8", "options": {"width": 4}, "training": {"epochs": 2, "flip": False, "shift": 1}}],
    "sram": {"structures": ["iid"]},
    "voltages": [1.2, 0.8, 0.78],
    "chips": {"evaluation": 2},
    "protections": [
        "none",
        {"name": "range", "neuralfuse": FUSE},
        {"name": "film", "neuralfuse": FUSE | {"per_voltage": "film"}},
        {"name": "untrained", "neuralfuse": FUSE | {"own_faults": "untrained"}},
        {"name": "own", "sram": ["secded72"], "neuralfuse": FUSE | {"own_faults": "trained", "per_voltage": "film"}},
    ],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished folder, and what was trained in it."""
    folder, titles = tmp_path_factory.mktemp("every") / "out", []

    def say(title):
        titles.append(title)
        return lambda done, wanted, figures=None: None

    outcome = run_study(StudyFolder(folder, parse_study(STUDY, "here")), choose(1), say)
    assert not outcome.failures
    return folder, titles


def test_protections_that_differ_in_what_they_do_to_the_words_share_a_training(finished):
    folder, titles = finished
    assert [title for title in titles if title.startswith("train DeConvS")] == ["train DeConvS for resnet8"] * 3
    ranged, untrained = (folder / "generators" / f"resnet8-{name}.safetensors" for name in ("range", "untrained"))
    assert ranged.read_bytes() == untrained.read_bytes()
    assert trainings_to_do(StudyFolder(folder, parse_study(STUDY, "here"))) == []


def test_without_faults_its_supply_changes_nothing_and_with_them_every_chip_differs(finished):
    folder, _ = finished
    rows = pd.read_csv(folder / "results.csv").set_index(["protection", "voltage", "chip"]).sort_index()
    assert (rows.loc["range", 1.2].correct == rows.loc["untrained", 1.2].correct).all()
    bench = Bench(StudyFolder.open(folder))
    plain = bench.inputs("resnet8", "untrained")
    assert plain.equal(bench.inputs("resnet8", "range"))
    first, second, higher = (
        bench.inputs("resnet8", "untrained", Fit((at,), Die("paper", "iid", chip)))
        for chip, at in ((0, 0.78), (1, 0.78), (0, 0.8))
    )
    assert not any(a.equal(b) for a, b in pairwise([plain, first, second, higher, first]))
    read = bench._read_by_chip("resnet8", "untrained", Die("paper", "iid", 0), 0.78)
    assert 0.02 < read.flip_rate() < 0.08  # a cell fault rate of 9%, of which half is seen


def test_film_is_told_the_voltage_of_the_task(finished):
    folder, _ = finished
    bench, curve = Bench(StudyFolder.open(folder)), failure.curve("ibm14")
    fuse = bench.transform("resnet8", "film")
    for voltage in (1.2, 0.8, 0.78):
        expected = pervoltage.at(fuse, pervoltage.level(curve, voltage))
        with torch.inference_mode():
            expected = expected(bench.images)
        assert bench.inputs("resnet8", "film", Fit((voltage,))).equal(expected)
    assert not bench.inputs("resnet8", "film", Fit((0.8,))).equal(expected)


def test_savings_are_the_formulas(finished):
    """s - T_NF / T_base at nominal voltage, s - (1 - s) T_NF / T_base at the low one, for reads of 8-byte words."""
    folder, _ = finished
    rows = pd.read_csv(folder / "results.csv").query("chip == 0").set_index(["protection", "voltage"])
    counts = {name: StudyFolder.open(folder).counts("paper", "resnet8", name) for name in (None, "range", "film")}
    reads = {name: found.layers["filter_sram_reads"].sum() for name, found in counts.items()}
    ratio = reads["range"] / reads[None]
    assert ratio > 0.05
    assert reads["film"] == reads["range"]
    for voltage in (1.2, 0.8, 0.78):
        s = 1 - voltage**2
        saving = rows.saving_weight_sram.xs(voltage, level="voltage")
        assert saving["none"] == pytest.approx(s)
        assert saving["range"] == saving["film"] == pytest.approx(s - ratio)
        assert saving["untrained"] == pytest.approx(s - (1 - s) * ratio)
        check_bits = 72 / 64  # of every word, the generator's too
        assert saving["own"] == pytest.approx(1 - (1 - s) * check_bits * (1 + ratio))


@pytest.mark.parametrize(
    ("fuse", "says"),
    [
        ({"per_voltage": "film", "train_voltages": [0.8]}, "two or more"),
        ({"per_voltage": "film", "train_voltages": [0.8, 0.8]}, "two or more"),
        ({"per_voltage": "some"}, "'each' or 'film'"),
        ({"own_faults": True}, "'trained' or 'untrained'"),
        ({"own_faults": "trained", "bits": None}, "needs bits"),
        ({"own_faults": "trained", "calibrate": {}}, "not with calibrate"),
    ],
)
def test_mistakes_in_a_study_are_named(fuse, says):
    with pytest.raises(InputError) as error:
        parse_study(STUDY | {"protections": [{"name": "wrong", "neuralfuse": FUSE | fuse}]}, "here")
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"protections": [{"neuralfuse": FUSE | {"generator": "affine", "options": {}, "own_faults": "trained"}}]},
            "own_faults",
        ),
        ({"protections": [STUDY["protections"][-1]], "sram": {"schedule": "resident"}}, "stand apart"),
    ],
)
def test_words_without_a_place_are_refused_before_anything_is_trained(tmp_path, changes, says):
    with pytest.raises(InputError) as error:
        run_study(
            StudyFolder(tmp_path / "out", parse_study(STUDY | changes, "here")),
            choose(1),
            silent,
        )
    assert says in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("own", [{}, {"own_faults": "trained"}])
def test_a_training_is_watched_with_the_generator_and_the_words_of_each_chip(finished, tmp_path, own):
    """What the training says of its end is what the generator it leaves does on those chips."""
    folder, _ = finished
    watched = {"images": 50, "chips": 3, "every": 4}
    fuse = FUSE | {"per_voltage": "each", "train_voltages": [0.9, 0.8, 0.76], "held_out": watched} | own
    network = STUDY["networks"][0] | {"checkpoint": str(folder / "networks" / "resnet8.safetensors")}
    study = parse_study(STUDY | {"networks": [network], "protections": [{"name": "w", "neuralfuse": fuse}]}, "here")
    seen, held = [], []
    original = watched_accuracy

    def spy(*given):
        held.append(given)
        return original(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "watched_accuracy", spy)
        prepare(StudyFolder(tmp_path / "out", study), lambda title: lambda done, wanted, found: seen.append(found))
    faulty, _, held_out, bits = held[-1]
    left = Bench(StudyFolder.open(tmp_path / "out")).transform("resnet8", "w")
    right = 0
    for i, chip in enumerate(held_out.faults):
        member = copy.deepcopy(pervoltage.turn(left, i))
        if own:
            read = FaultyNetwork(member, bits)
            read.set_faults(*chip.generator)
            member, chip = read, chip.network
        faulty.set_faults(*chip)
        right += int((faulty(member(held_out.x)).argmax(1) == held_out.y).sum())
    assert seen[-1]["held_out_accuracy"] == pytest.approx(right / 150)
    rates = [len(chip.network[0] if own else chip[0]) for chip in held_out.faults]
    assert rates == sorted(rates)  # chip i has the i-th voltage


SURROGATES = {
    "networks": [STUDY["networks"][0] | {"name": name, "build": "resnet8"} for name in ("one", "two")],
    "sram": {"structures": ["iid", "column"]},
}


def studied(fuse):
    return parse_study(STUDY | SURROGATES | {"protections": [{"name": "fuse", "neuralfuse": fuse}]}, "here")


@pytest.mark.parametrize("how", [{}, {"per_voltage": "each"}])
def test_surrogates_meet_all_and_share_no_chip_with_each_other_or_the_held_out(tmp_path, monkeypatch, how):
    """A step's one map: with both networks counting on, each had met one structure alone."""
    drawn, faulty_of, original = [], {}, Chip.fault_map

    def spy(chip, memory, voltage_floor, **options):
        drawn.append((chip.number, memory.structure, voltage_floor))
        return original(chip, memory, voltage_floor, **options)

    def record(faulty, learner, x, y, faults, maps, weight):
        drawn.clear()
        list(faults)
        faulty_of.setdefault(id(faulty), []).extend(drawn)
        return 0.0, 0.0

    monkeypatch.setattr(Chip, "fault_map", spy)
    train = train_generator
    watched = []

    def without_training(networks, transform, data, settings, *more):
        watched.extend(drawn)  # held-out chips are drawn before
        return train(networks, transform, data, dataclasses.replace(settings, objective=record), *more)

    monkeypatch.setattr(making, "train_generator", without_training)
    held_out = {"images": 50, "chips": 4, "every": 100}
    fuse = FUSE | how | {"train_on": ["one", "two"], "training": TRAINING | {"maps": 1, "steps": 16}}
    prepare(StudyFolder(tmp_path / "out", studied(fuse | {"held_out": held_out})), silent)
    first, second = faulty_of.values()
    for met in (first, second):
        assert {(form, at) for _, form, at in met} == {(f, v) for f in ("iid", "column") for v in (0.82, 0.78)}
        assert min(chip for chip, _, _ in met) >= sources.FIRST_TRAINING_CHIP
    chips = [{chip for chip, _, _ in met} for met in (first, second, watched)]
    assert len(watched) == 4
    assert len(set.union(*chips)) == sum(map(len, chips))


def test_a_stopped_training_of_a_protection_that_was_edited_starts_afresh(tmp_path, monkeypatch):
    """Edited where no argument of the training tells: what it is watched on. It ends as in a folder of its own."""
    original = Checkpoints.__init__
    monkeypatch.setattr(Checkpoints, "__init__", lambda self, *a, **k: original(self, *a, seconds=-1.0))

    def say(stop_at):
        def begin(title):
            def advance(done, wanted, figures):
                if title.startswith("train DeConvS") and done == stop_at:
                    raise KeyboardInterrupt

            return advance

        return begin

    def fuse(images):
        watched = {"images": images, "chips": 2, "every": 2}
        return FUSE | {"train_on": ["one", "two"], "held_out": watched}

    with pytest.raises(KeyboardInterrupt):
        prepare(StudyFolder(tmp_path / "out", studied(fuse(50))), say(3))
    (partial,) = (tmp_path / "out" / "generators").glob("*.partial")
    prepare(StudyFolder(tmp_path / "out", studied(fuse(60))), say(-1))
    assert not partial.exists()
    prepare(StudyFolder(tmp_path / "fresh", studied(fuse(60))), say(-1))
    made, fresh = (
        checkpoint.load(next((tmp_path / name / "generators").glob("*.safetensors"))) for name in ("out", "fresh")
    )
    assert made[1] == fresh[1]
    assert all(tensor.equal(fresh[0][name]) for name, tensor in made[0].items())


def test_a_network_per_channel_is_trained_with_the_words_that_it_is_stored_in(tmp_path, monkeypatch):
    given, original = {}, train_network

    def spy(network, data, settings, words, **more):
        given.update(per_channel=words.per_channel, settings=more["run"].settings)
        return original(network, data, settings, words, **more)

    monkeypatch.setattr(making, "train_network", spy)
    network = STUDY["networks"][0] | {"per_channel": True}
    study = parse_study(STUDY | {"networks": [network], "protections": ["none"]}, "here")
    prepare(StudyFolder(tmp_path / "out", study),
            silent)  # fmt: skip
    assert given["per_channel"] is True
    _, record = checkpoint.load(tmp_path / "out" / "networks" / "resnet8.safetensors")
    assert given["settings"] == record["settings"]


def test_words_that_break_off_leave_no_faults_and_the_generator_in_training():
    fuse, faulty, data = generators.NeuralFuse(make()), tiny_faulty(), tiny_data()
    before = copy.deepcopy(fuse.state_dict())
    net, own = sources.IndependentCells(faulty.words.size, (0.05,)), own_faults(fuse, 0.02, 0)

    def draws():
        yield Both(net(0), own)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        own_words.OwnFaults(8)(faulty, fuse.train(), data.train_x[:8], data.train_y[:8], draws(), 2)
    assert np.array_equal(faulty.words, faulty.clean_words)
    assert fuse.training
    assert all(p.equal(before[name]) for name, p in fuse.named_parameters())


def test_words_are_read_anew_whatever_the_caller_does_with_the_chip_before():
    fuse = generators.NeuralFuse(make())
    weight, bit, kind = np.array([1, 3]), np.array([7, 7], np.uint8), np.array([2, 2], np.uint8)
    written = torch.cat([p.flatten() for p in quantize_in_place(fuse).parameters() if p.dim() > 1]).detach().clone()
    with own_words.read_words(fuse, 8) as read:
        read((weight, bit, kind))
        weight[:] = 5, 6
        read((weight, bit, kind))
        found = torch.cat([p.flatten() for p in weight_parameters(fuse).values()])
        assert (found - written).abs().gt(0.01).nonzero().flatten().tolist() == [5, 6]

"""A measured chip, or a folder of them, under a study: the same cells in every route, and the wrong ones refused."""

import numpy as np
import pytest

from neuralfuse import data, networks
from neuralfuse.chips.stored import in_accelerator
from neuralfuse.quantized.checkpoint import load_network, save_network
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.program import device_faults
from neuralfuse.report.build import build_report
from neuralfuse.results.tables import read_results
from neuralfuse.study.check import check
from neuralfuse.study.files import Study, dump_study, parse_study
from neuralfuse.study.memory import place_activations_of
from neuralfuse.study.supplies import machine_of, roles_of
from neuralfuse.training.network import train_network
from neuralfuse.training.settings import NetworkSettings
from simulator.readers.read import trace
from sram import failure, faultmap
from sram.errors import InputError
from sram.geometry import Geometry
from sram.memory import Chip, Memory
from tests.conftest import run
from tests.neuralfuse.sweep.test_operating_points import COMMON, rows_of

OWN = failure.through("bench", [0.55, 0.5, 0.45], [1e-4, 3e-3, 3e-2], nominal=0.8)
MEMORY = Geometry.of_capacity(256 * 1024, rows=1024, columns=128, word_bits=64)  # of `paper`, in banks of its own
VOLTAGES = [0.8, 0.47]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A trained network and a folder of three chips, measured down to 0.47 V."""
    folder = tmp_path_factory.mktemp("lab")
    network = networks.build("resnet8", in_channels=1, width=4)
    train_network(network, data.load("digits"), NetworkSettings(3, shift=1, flip=False))
    save_network(folder / "base.safetensors", network, {})
    (folder / "chips").mkdir()
    for chip in range(3):
        made = faultmap.generate(chip, MEMORY, OWN, "column", voltage_floor=0.47)
        faultmap.save(made, folder / "chips" / f"chip{chip}.npz")
    return folder


def content(lab, maps="chips", **changes):
    network = {"name": "resnet8", "options": {"width": 4}, "checkpoint": str(lab / "base.safetensors")}
    return {
        "name": "measured",
        "dataset": {"name": "digits", "test_images": 100},
        "networks": [network],
        "sram": {"map": str(lab / maps)},
        "voltages": VOLTAGES,
        "protections": ["none", "secded72", "calibrated(affine, steps=4, images=64, batch=32)"],
    } | changes


def test_a_study_takes_from_its_maps_what_it_does_not_say(lab):
    study = parse_study(content(lab), "here")
    assert (study.chips.evaluation, study.forms, study.curve) == (3, ("measured",), OWN)
    assert (study.sram.rows, study.sram.columns) == (1024, 128)
    assert parse_study(content(lab, "chips/chip1.npz"), "here").chips.evaluation == 1
    assert parse_study(content(lab, sram={}, voltages=[0.8]), "here").sram.map is None


def test_measured_chips_are_swept_protected_calibrated_and_reported(lab, undrawn):
    """The rows of chip 1 are what its map says by hand, in the cells where the schedule has the words."""
    (lab / "study.yaml").write_text(dump_study(parse_study(content(lab), "here")))
    assert run("sweep", lab / "study.yaml", "--out", lab / "out", "--workers", 1) == 0
    rows = read_results(lab / "out")
    assert len(rows) == 3 * 3 * 2
    assert set(rows.structure) == {"measured"}
    chip = faultmap.load(lab / "chips" / "chip1.npz")
    row = rows[(rows.chip == 1) & (rows.protection == "none") & (rows.voltage == 0.47)].iloc[0]
    assert row.cell_fault_rate == chip.cell_fault_rate(0.47)
    network = networks.build("resnet8", in_channels=1, width=4)
    load_network(network, lab / "base.safetensors")
    workload, faulty = trace(network, (1, 16, 16)), FaultyNetwork(network)
    faulty.set_faults(*in_accelerator(chip, faulty, workload).faults(0.47))
    assert row.flip_rate == faulty.flip_rate() > 0
    assert build_report(lab / "out").page.is_file()


def test_a_map_of_another_size_is_refused_and_not_cut(lab):
    small = faultmap.generate(0, Geometry(4), OWN, voltage_floor=0.47)
    faultmap.save(small, lab / "small.npz")
    with pytest.raises(InputError, match=r"16 KiB' .* 64 banks of 512 x 64, 256 KiB: the weight memory of paper"):
        check(parse_study(content(lab, "small.npz"), "here"))
    network = networks.build("resnet8", in_channels=1)
    workload, faulty = trace(network, (1, 16, 16)), FaultyNetwork(network)
    with pytest.raises(InputError, match="size = '4 banks"):
        in_accelerator(small, faulty, workload)
    with pytest.raises(InputError, match="at most 16,384, the bytes of the map's memory"):
        device_faults(small, 0.5, faulty.words.size)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"chips": {"evaluation": 4}}, r"chips.evaluation = 4 .* at most 3, the maps of"),
        ({"voltages": [0.8, 0.46]}, r"voltages = 0.46 .* at least 0.47, where .*chip0.npz ends"),
        ({"sram": {"drift": 0.01}}, r"voltages = 0.47 .* ends, and drift"),
        ({"sram": {"noise": 0.1}}, r"sram.noise = 0.1 .* 0 with sram.map"),
        ({"sram": {"curve": "ibm14"}}, r"chip0.npz: curve.unit = 'V' .* in Vmin, as ibm14"),
    ],
)
def test_chips_that_cannot_be_the_studys_are_named(lab, changes, says):
    study = content(lab)
    study |= changes | {"sram": study["sram"] | changes.get("sram", {})}
    with pytest.raises(InputError, match=says):
        check(parse_study(study, "here"))


def test_no_maps_are_one_message(lab, tmp_path):
    for where in (tmp_path, lab / "study.csv"):
        with pytest.raises(InputError, match=r"sram.map = .* a fault map \(.npz\), or a folder with some"):
            parse_study(content(lab, where), "here")


def test_a_voltage_a_rounding_error_below_the_floor_is_the_floor(lab):
    chip = faultmap.load(lab / "chips" / "chip0.npz")
    below = np.arange(0.57, 0.465, -0.01)[-1]
    assert below < 0.47
    assert chip.count(below) == chip.count(0.47) == len(chip)
    with pytest.raises(InputError, match=r"at least 0.47 V"):
        chip.count(0.4699)


RAILS = {"weights": [0.85], "activations": [1.0, 0.86], "accumulators": [0.9]}


def lowered(**keys):
    common = COMMON | {"accelerators": ["gap9-like"], "rails": RAILS, "protections": ["none", CODED]}
    return Study("buffers", **common | keys)


CODED = {"name": "coded", "sram": {"activations": ["secded72"]}}


@pytest.fixture(scope="module")
def buffers(tmp_path_factory):
    """(rows of a study of generated chips, a folder of the maps that its input buffers have)"""
    folder, study = tmp_path_factory.mktemp("buffers"), lowered()
    rows, bench = rows_of(study, folder / "generated")
    machine = machine_of("gap9-like", roles_of(study))
    placed = place_activations_of(study, bench.folder.workload("resnet8"), machine, "ifmap_buffer")
    bank = bench.placement("resnet8", "gap9-like").geometry.banks
    for chip in range(2):
        memory = Memory(placed.geometry, structure="iid", first_bank=bank)
        faultmap.save(Chip(chip, study.seed).fault_map(memory, 0.86), folder / "maps" / f"chip{chip}.npz")
    return rows, folder / "maps"


def test_measured_buffers_give_what_the_same_generated_ones_do(buffers, tmp_path):
    generated, maps = buffers
    study = lowered(memories={"activations": {"map": str(maps)}})
    assert study.memories["activations"].columns == 64  # the map's own
    measured, _ = rows_of(study, tmp_path / "out")
    same = [name for name in generated.columns if name not in ("key", "seconds")]
    assert measured[same].equals(generated[same])
    assert not set(measured.key) & set(generated.key)
    assert (measured.cell_fault_rate_activations > 0).any()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rails": {"weights": [0.85], "activations": [0.9]}}, r"memories.activations.map.*name accumulators"),
        ({"rails": RAILS | {"activations": [0.8]}}, r"rails.activations = 0.8.*at least 0.86"),
        ({"chips": {"evaluation": 3}}, r"chips.evaluation = 3.*at most 2"),
        ({"accelerators": ["paper"]}, r"geometry.*the ifmap_buffer of paper"),
        ({"memories": {"activations": {"map": "none"}}}, r"memories.activations.map = .*none.*a fault map"),
        ({"sram": {"map": "MAP"}}, r"sram.map = .*without a map: accumulators"),
    ],
    ids=str,
)
def test_maps_that_are_not_of_the_buffer_are_refused(buffers, keys, message):
    _, maps = buffers
    given = {"memories": {"activations": {"map": str(maps)}}} | keys
    if given.get("sram", {}).get("map") == "MAP":
        given["sram"] = {"map": str(maps / "chip0.npz")}
        given["chips"] = {"evaluation": 1}
    with pytest.raises(InputError, match=message):
        check(lowered(**given))

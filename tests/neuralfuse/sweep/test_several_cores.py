"""A study of an accelerator of two cores: do faults in a core's banks hit the filters that it has, and no others?"""

import numpy as np
import pytest

from neuralfuse import networks
from neuralfuse.chips.stored import layout_of, store
from neuralfuse.quantized.checkpoint import save_network
from neuralfuse.results.tables import read_results
from neuralfuse.study.check import check
from neuralfuse.study.files import dump_study, parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.sweep.bench import Bench
from simulator.accelerator import accelerator
from sram import failure, faultmap, protection
from sram.errors import InputError
from sram.geometry import Geometry
from sram.protection import repair
from tests.conftest import ROOT, run

CURVE = failure.through("bench", [0.55, 0.5, 0.45], [1e-4, 3e-3, 3e-2], nominal=0.8)
BANKS = 16  # of each core: 64 KiB
PRESET = (ROOT / "simulator" / "presets" / "edge.yaml").read_text()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """An untrained network, a machine of two cores, and a chip with weak cells in the banks of the second alone."""
    folder = tmp_path_factory.mktemp("cores")
    save_network(folder / "base.safetensors", networks.build("resnet8", in_channels=1, width=4), {})
    narrow = PRESET.replace("keep_on_chip: true", "keep_on_chip: false").replace("array_cols: 16", "array_cols: 2")
    two = narrow + "cores: 2\n"
    (folder / "two.yaml").write_text(two)
    (folder / "batched.yaml").write_text(two + "batch: 4\nobjective: cycles\n")
    whole = faultmap.generate(0, Geometry(2 * BANKS), CURVE, voltage_floor=0.47)
    second = repair.select(whole, whole.cell >= BANKS * whole.geometry.cells_per_bank)
    faultmap.save(second, folder / "second.npz")
    return folder


def content(lab, **changes):
    network = {"name": "resnet8", "options": {"width": 4}, "checkpoint": str(lab / "base.safetensors")}
    return {
        "name": "cores",
        "dataset": {"name": "digits", "test_images": 60},
        "networks": [network],
        "accelerators": [str(lab / "two.yaml")],
        "sram": {"map": str(lab / "second.npz")},
        "voltages": [0.8, 0.47],
        "protections": ["none", "secded72"],
    } | changes


def test_faults_of_the_second_core_hit_its_filters_alone(lab):
    (lab / "study.yaml").write_text(dump_study(parse_study(content(lab), "here")))
    assert run("sweep", lab / "study.yaml", "--out", lab / "out", "--workers", 1) == 0
    rows = read_results(lab / "out")
    bench = Bench(StudyFolder.open(lab / "out"))
    placed, counts = (
        bench.placement("resnet8", str(lab / "two.yaml")),
        bench.folder.counts(str(lab / "two.yaml"), "resnet8"),
    )
    assert placed.geometry.banks == 2 * BANKS
    faulty, raw = bench.network("resnet8"), faultmap.load(lab / "second.npz")
    weight, bit, kind = store(raw, placed, faulty, protection.parse("none")).faults(0.47)
    faulty.set_faults(weight, bit, kind)
    bare = rows[(rows.protection == "none") & (rows.voltage == 0.47)].iloc[0]
    assert bare.flip_rate == faulty.flip_rate() > 0
    assert bare.cell_fault_rate == raw.cell_fault_rate(0.47)
    # the second half of the filters of each layer that is cut, and nothing of one that is not
    cut = {name for name, split in counts.plan.splits.items() if split == "outputs"}
    assert len(cut) > 2
    second = np.zeros(faulty.words.size, bool)
    for layer in faulty.layer_table:
        if layer.name.removesuffix(".weight") in cut:
            words = second[layer.offset : layer.offset + layer.size]
            words[-(-len(words) // 2) :] = True
    assert second[weight].all()
    assert len(np.unique(weight)) > 20


def test_weights_that_stay_have_banks_of_their_own_in_each_core(lab):
    study = parse_study(
        content(lab, sram={"schedule": "resident", "structures": ["iid"]}, chips={"evaluation": 1}), "here"
    )
    (lab / "resident.yaml").write_text(dump_study(study))
    assert run("sweep", lab / "resident.yaml", "--out", lab / "resident", "--workers", 1) == 0
    bench, machine = Bench(StudyFolder.open(lab / "resident")), str(lab / "two.yaml")
    placed = bench.placement("resnet8", machine)
    every = placed.hits(np.arange(placed.geometry.cells))
    assert len(every.weight) == len(np.unique(every.fault)) == placed.weights * placed.bits
    layout = layout_of(placed, bench.folder.counts(machine, "resnet8"))
    first = [region.first for region in layout.regions]
    assert first == sorted(first)
    assert sum(region.reads for region in layout.regions) == pytest.approx(1)
    names = [region.name for region in layout.regions]
    assert len(names) > len(set(names))  # a layer that is cut has words in both cores


def test_copies_of_a_word_are_refused_with_one_message(lab):
    """Each core would read its own copy for its samples, and a network here has one value for all of them."""
    batched = parse_study(content(lab, accelerators=[str(lab / "batched.yaml")], sram={}), "here")
    with pytest.raises(InputError, match="cores = 2 is not allowed; allowed: 1 for faults where layers are cut by sa"):
        check(batched)
    paper = parse_study(content(lab, sram={"schedule": "paper"}), "here")
    with pytest.raises(InputError, match="cores = 2 is not allowed; allowed: 1 with schedule = paper"):
        check(paper)
    assert accelerator(lab / "batched.yaml").cores == 2

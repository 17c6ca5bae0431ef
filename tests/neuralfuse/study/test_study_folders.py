"""Does a folder follow its study: what is made from files, or under a name, when those change; and is it never
another's?"""

import json
import multiprocessing
import shutil
import threading

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import yaml

from neuralfuse.quantized import checkpoint
from neuralfuse.study import records
from neuralfuse.study.files import parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import points_of
from neuralfuse.study.prepare import prepare, trainings_to_do
from neuralfuse.transforms import generators
from sram.errors import InputError
from sram.plugins import allow_imports
from sram.progress import silent
from tests.conftest import TINY, run
from tests.neuralfuse.data.test_data import idx
from tests.neuralfuse.sweep.test_study import study_with

NETWORK = {"name": "net", "build": "resnet8", "options": {"width": 4}, "training": {"epochs": 1, "batch": 512}}
STUDY = {
    "name": "folders",
    "dataset": {"name": "digits", "test_images": 40},
    "networks": [NETWORK],
    "sram": {"structures": ["iid"]},
    "voltages": [0.8],
    "chips": {"evaluation": 1},
}


def fuse(name="fuse", **changes):
    return {
        "name": name,
        "neuralfuse": {"generator": "tiny", "training": {"steps": 1, "maps": 1, "batch": 8}} | changes,
    }


def prepared(folder, *protections, **changes):
    study = parse_study(STUDY | {"protections": list(protections)} | changes, "here")
    return prepare(StudyFolder(folder, study), silent)


def macs(folder):
    layers = pd.read_csv(folder / "layers.csv")
    return dict(layers[layers.layer == "total"].set_index("network").macs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Prepared with a generator of two channels; copy it."""
    folder = tmp_path_factory.mktemp("folders") / "out"
    prepared(folder, fuse(options={"width": 2}))
    return folder


def test_another_generator_under_the_same_name_has_its_own_layers_and_pictures(folder, tmp_path):
    out = shutil.copytree(folder, tmp_path / "out")
    (before,), shown = prepared(out, fuse(options={"width": 2})), (out / "images" / "net-fuse.npz").read_bytes()
    assert (folder / "images" / "net-fuse.npz").read_bytes() == shown
    identity = fuse(options={"width": 6}, training={"steps": 30, "maps": 1, "batch": 8, "learning_rate": 0.1})
    (after,) = prepared(out, identity)
    assert macs(out)["net-fuse"] == 3 * macs(folder)["net-fuse"]
    assert macs(out)["net"] == macs(folder)["net"]
    assert StudyFolder.open(out).counts("paper", "net", "fuse").layers["macs"].sum() == macs(out)["net-fuse"]
    assert after.setup != before.setup
    assert (out / "images" / "net-fuse.npz").read_bytes() != shown


def test_layers_traced_by_other_code_are_traced_again_and_rows_know_the_layers(folder, tmp_path):
    out = shutil.copytree(folder, tmp_path / "out")
    mine, changed = StudyFolder.open(folder), StudyFolder.open(out)
    path, expected = changed.workload_file("net"), changed.workload("net")
    other = json.dumps(records.read(path)).replace('"made_from": "', '"made_from": "0')
    records.write(path, json.loads(other.replace('"out_channels": 4', '"out_channels": 5')))
    assert points_of(changed) != points_of(mine)
    prepare(changed, silent)
    assert changed.workload("net") == expected
    assert points_of(changed) == points_of(mine)


def test_another_checkpoint_under_the_same_path_is_another_generator(tmp_path):
    path, made = tmp_path / "g.safetensors", generators.build("tiny", 1, width=2)
    checkpoint.save(path, made.state_dict(), {})
    given = fuse(options={"width": 2}, training={}, checkpoint=str(path))
    (before,) = prepared(tmp_path / "out", given)
    with torch.no_grad():
        made[0].weight.add_(1)
    checkpoint.save(path, made.state_dict(), {})
    study = parse_study(STUDY | {"protections": [given]}, "here")
    folder = StudyFolder(tmp_path / "out", study)
    assert trainings_to_do(folder) == ["fuse for net"]
    (after,) = prepared(tmp_path / "out", given)
    assert before.setup != after.setup
    file = folder.generator_file("net", study.protections[0])
    assert (checkpoint.load(file)[0]["0.weight"] - made[0].weight).abs().max() < 0.02  # rounded to words


def test_the_source_of_ones_own_network_and_generator_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    allow_imports("own_of_this_test")
    source = tmp_path / "own_of_this_test.py"
    source.write_text(
        "from torch import nn\n"
        "def net(num_classes, in_channels):\n"
        "    return nn.Sequential(nn.Conv2d(in_channels, 2, 3, 4), nn.Flatten(), nn.LazyLinear(num_classes))\n"
        "def fuse(in_channels):\n"
        "    return nn.Conv2d(in_channels, in_channels, 3, padding=1)\n".replace("LazyLinear(", "Linear(32, ")
    )
    own = [{"name": "net", "build": "own_of_this_test:net", "training": {"epochs": 1, "batch": 512}}]
    content = STUDY | {"networks": own, "protections": [fuse(generator="own_of_this_test:fuse")]}
    folder = StudyFolder(tmp_path / "out", parse_study(content, "here"))
    prepare(folder, silent)
    before = points_of(folder)
    assert trainings_to_do(folder) == []
    source.write_text(source.read_text() + "# changed\n")
    assert trainings_to_do(folder) == ["net", "fuse for net"]
    assert points_of(folder) != before


def test_other_training_images_are_other_trainings(tmp_path):
    def images_in(root, seed):
        root.mkdir(exist_ok=True)
        random = np.random.default_rng(seed)
        for part, n in (("train", 64), ("t10k", 40)):
            pixels, labels = random.integers(0, 256, (n, 8, 8)), np.arange(n) % 10
            if part == "t10k":
                pixels = np.zeros((n, 8, 8))
            (root / f"{part}-images-idx3-ubyte").write_bytes(idx(pixels))
            (root / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))

    images_in(tmp_path / "data", 0)
    dataset = {"name": "mnist", "root": str(tmp_path / "data")}
    network = NETWORK | {"training": {"epochs": 1, "batch": 64}}
    protections = [fuse(options={"width": 2}), "calibrated(affine)"]
    content = STUDY | {"dataset": dataset, "networks": [network], "protections": protections}
    folder = StudyFolder(tmp_path / "out", parse_study(content, "here"))
    trained, calibrated = prepare(folder, silent)
    stamp = folder.provenance()["stamp"]
    assert trainings_to_do(folder) == []
    images_in(tmp_path / "data", 0)  # written anew, the same
    assert trainings_to_do(folder) == []
    images_in(tmp_path / "data", 1)
    assert trainings_to_do(folder) == ["net", "fuse for net"]
    after = points_of(folder)
    assert after[0].setup == trained.setup  # rows of what was trained before are still its rows
    assert after[1].setup != calibrated.setup  # while each chip's fit would be another
    prepare(folder, silent)
    assert folder.provenance()["stamp"] != stamp
    assert trainings_to_do(folder) == []


def test_names_that_differ_in_special_characters_alone_have_files_of_their_own(folder, tmp_path):
    out = shutil.copytree(folder, tmp_path / "out")
    protections = [fuse(name, options={"width": width}) for name, width in (("w<4", 1), ("w>4", 3))]
    prepared(out, *protections)
    assert macs(out)["net-w>4"] == 3 * macs(out)["net-w<4"]
    files = {path.name for path in (out / "generators").iterdir()}
    assert len(files) == 3
    assert "net-fuse.safetensors" in files  # plain names are files' names as ever


def test_no_two_pairs_of_names_share_a_file(tmp_path):
    def pair(network, protection, **changes):
        study = parse_study(STUDY | {"protections": [fuse(protection)]}, "here")
        folder = StudyFolder(tmp_path, study)
        return {folder.generator_file(network, study.protections[0]), folder.workload_file(network, protection)}

    names = [("a", "b-c"), ("a-b", "c"), ("a", "b_c"), ("a", "b c"), ("a ", "b_c"), ("a+b", "c"), ("a", "c")]
    files = [pair(*names) for names in names]
    assert len(set.union(*files)) == 2 * len(names)
    networks, folder = ["a", "a-b", "a b", "a_b"], StudyFolder(tmp_path, parse_study(STUDY, "here"))
    files = [*files, *({folder.network_file(name), folder.workload_file(name)} for name in networks)]
    assert len(set.union(*files)) == 2 * (len(names) + len(networks))
    surrogates = {"train_on": ["net"], "training": {"steps": 1}}
    both = STUDY | {"networks": [NETWORK | {"name": n} for n in ("a", "b", "a+b")]}
    found = set()
    for on in (["a", "b"], ["a+b"]):
        (made,) = parse_study(both | {"protections": [fuse(**surrogates | {"train_on": on})]}, "here").protections
        found.add(folder.generator_file("a", made))
    assert len(found) == 2
    assert folder.network_file("resnet18-imagenet").name == "resnet18-imagenet.safetensors"


VARIANTS = {"plain": {}, "other": {"sram": {"stuck_at_one": 0.9}}}


def tiny_variants(tmp_path, variants=VARIANTS):
    (tmp_path / "v").mkdir(exist_ok=True)
    content = yaml.safe_load(TINY.read_text()) | STUDY | {"protections": ["none"], "variants": variants}
    path = tmp_path / "v" / "study.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_variants_are_summarised_each_on_its_own(tiny, tmp_path, capsys):
    rows = pd.read_csv(tiny / "results.csv").query("voltage == 0.8 and protection == 'none'")
    less = {name: rows[name] - 1 for name in ("correct", "correct_both")}
    fewer = rows.assign(**less, accuracy=less["correct"] / rows.total)
    joined = pd.concat([rows.assign(variant="plain"), fewer.assign(variant="other")])
    joined.to_csv(tmp_path / "results.csv", index=False)
    assert run("results", tmp_path, "--summary", "--columns", "variant,structure,voltage,chips") == 0
    each = [f"{variant},{structure},0.8,3" for variant in VARIANTS for structure in ("column", "iid")]
    assert capsys.readouterr().out.splitlines()[1:] == each
    assert run("results", tmp_path, "--summary") == 0
    assert capsys.readouterr().out.startswith("variant,")


def test_variants_do_not_go_into_the_folder_of_anything_else(tiny_copy, tmp_path, capsys):
    before = {path: path.read_bytes() for path in tiny_copy.iterdir() if path.is_file()}
    assert run("sweep", tiny_variants(tmp_path), "--out", tiny_copy, "--workers", 1) == 2
    assert "--out = 'study.yaml'" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tiny_copy.iterdir() if path.is_file()} == before
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").write_text("mine")
    assert run("sweep", tiny_variants(tmp_path), "--out", full, "--workers", 1) == 2
    assert [path.name for path in full.iterdir()] == ["thesis.tex"]
    bad = tiny_variants(tmp_path, VARIANTS | {"bad": {"accelerators": ["abacus"]}})
    assert run("sweep", bad, "--out", tmp_path / "new", "--workers", 1) == 2  # the last is looked at before the first
    assert not (tmp_path / "new").exists()


def test_variants_folders_know_their_variants(tmp_path, capsys):
    out = tmp_path / "out"
    for name in VARIANTS:
        (out / name).mkdir(parents=True)
    (out / "variants.yaml").write_text(tiny_variants(tmp_path).read_text())
    assert run("sweep", tiny_variants(tmp_path), "--out", out, "--dry-run") == 0
    more = tiny_variants(tmp_path, VARIANTS | {"third": {"seed": 2}})
    assert run("sweep", more, "--out", out, "--dry-run") == 0
    capsys.readouterr()
    assert run("sweep", tiny_variants(tmp_path, {"third": {"seed": 2}}), "--out", out, "--dry-run") == 2
    assert "plain, other, which are in this folder" in capsys.readouterr().err


def test_merge_is_for_folders_of_one_study(tiny, tiny_copy, tmp_path, capsys):
    assert run("merge", tiny, "--into", tmp_path / "typo") == 2
    assert "study.yaml" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()
    assert run("merge", tmp_path, "--into", tiny_copy) == 2
    study = tiny_copy / "study.yaml"
    study.write_text(study.read_text().replace("seed: 3", "seed: 4"))
    assert run("merge", tiny, "--into", tiny_copy) == 2
    assert "seed = 3" in capsys.readouterr().err
    shutil.copy(study_with(tmp_path), study)
    shutil.rmtree(tiny_copy / "rows")
    into = StudyFolder.open(tiny_copy)
    assert into.merge([StudyFolder.open(tiny_copy)]) == 0  # a shard in which nothing fell
    assert into.merge([StudyFolder.open(tiny)]) == 36
    assert run("sweep", TINY, "--out", tiny_copy, "--dry-run") == 0
    assert "0 to do" in capsys.readouterr().out


# What lies in a folder is checked, and two processes do not get in each other's way.


@pytest.mark.parametrize("where", ["networks/net.safetensors", "generators/net-fuse.safetensors", "workloads/net.json"])
def test_a_bit_that_flipped_in_a_folder_is_found(where, folder, tmp_path):
    out = shutil.copytree(folder, tmp_path / "out")
    content = bytearray((out / where).read_bytes())
    at = content.index(b'"macs"') if b'"macs"' in content else len(content) - 40
    at = content.index(b'"in_channels": ') + 15 if where.endswith("json") else at
    content[at] ^= 1  # another digit, another weight
    (out / where).write_bytes(content)
    with pytest.raises(InputError, match=f"{where}: content"):
        prepared(out, fuse(options={"width": 2}))


def test_a_record_that_was_changed_is_no_checkpoint(tmp_path):
    path = checkpoint.save(tmp_path / "a.safetensors", {"w": torch.ones(3)}, {"step": 3})
    path.write_bytes(path.read_bytes().replace(b'\\"step\\": 3', b'\\"step\\": 4'))
    with pytest.raises(InputError, match="content"):
        checkpoint.load(path)


def test_a_checkpoint_of_others_has_no_hash_and_is_read(tmp_path):
    safetensors.torch.save_file({"w": torch.ones(3)}, tmp_path / "a.safetensors")
    assert checkpoint.load(tmp_path / "a.safetensors")[1] == {}


@pytest.mark.parametrize(
    "record", [b"[1]", b"nonsense", b"\xff", b"[" * 5000, b'{"a": NaN, "content": "0"}', b"{}", b""]
)
@pytest.mark.parametrize("name", ["provenance.json", "workloads/net.json"])
def test_a_damaged_record_is_one_message(record, name, folder, tmp_path):
    out = shutil.copytree(folder, tmp_path / "out")
    (out / name).write_bytes(record)
    read = StudyFolder.open(out).provenance if "prov" in name else lambda: StudyFolder.open(out).workload("net")
    with pytest.raises(InputError, match=name):
        read()


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ("120", "0", "total"),
        (",120,", ",12,", "correct"),
        ("0.75,column", "x,column", "table|voltage|column"),
        ("correct,", "right,", "column"),
    ],
)
def test_a_damaged_table_is_one_message(before, after, key, tiny_copy, capfd):
    path = tiny_copy / "results.csv"
    text = path.read_text()
    path.write_text(text.replace(before, after) if before in text else text.replace("0.76", "x", 1))
    assert run("report", tiny_copy) == 2
    assert "results.csv" in (error := capfd.readouterr().err)
    assert error.count("\n") == 1
    assert any(word in error for word in key.split("|"))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a,b\n1,2,3\n4"])
def test_what_is_no_table_is_one_message(content, tiny_copy, capfd):
    (tiny_copy / "results.csv").write_bytes(content)
    assert run("results", tiny_copy) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_a_folder_is_prepared_by_one_at_a_time(folder, tmp_path):
    mine, waited, done = StudyFolder(tmp_path / "out", StudyFolder.open(folder).study), threading.Event(), []

    def second():
        with StudyFolder(mine.path, mine.study).alone(waited.set):
            done.append("second")

    with mine.alone():
        other = threading.Thread(target=second)
        other.start()
        assert waited.wait(20)
        done.append("first")
    other.join(20)
    assert done == ["first", "second"]


def test_a_folder_in_use_is_not_claimed_for_other_voltages(folder, tmp_path):
    running = StudyFolder.open(shutil.copytree(folder, tmp_path / "out"))
    other = StudyFolder(running.path, running.study.model_copy(update={"voltages": (0.9,)}))
    with running.in_use():
        running.claim()  # the same study may be run by several
        with pytest.raises(InputError, match="one at a time"):
            other.claim()
        assert StudyFolder.open(running.path).study == running.study
    other.claim()


def _hold(path, ready):
    with StudyFolder.open(path).alone():
        ready.set()
        threading.Event().wait()


def test_a_lock_ends_with_the_process_that_is_killed(folder, tmp_path):
    out, spawn = shutil.copytree(folder, tmp_path / "out"), multiprocessing.get_context("spawn")
    ready = spawn.Event()
    holder = spawn.Process(target=_hold, args=(out, ready))
    holder.start()
    assert ready.wait(60)
    waited = []
    with StudyFolder.open(out).alone(lambda: (waited.append(1), holder.kill())):
        assert waited == [1]
    holder.join()

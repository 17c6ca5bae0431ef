"""Are mistakes in a study, and on its command line, named before anything is trained or written?"""

import pytest
import torch

from neuralfuse.data import images
from neuralfuse.quantized import checkpoint
from neuralfuse.study import config, prepare
from neuralfuse.study.files import parse_study
from neuralfuse.transforms import generators
from sram import plugins
from sram.errors import InputError
from tests.conftest import run
from tests.neuralfuse.sweep.test_study import study_with

NETWORK = {"name": "resnet8", "options": {"width": 4}}
FUSE = {"generator": "ConvS", "options": {"width": 2}, "training": {"steps": 3}}


def network(**changes):
    return {"networks": [NETWORK | changes]}


def fuse(**changes):
    return {"protections": [{"name": "fuse", "neuralfuse": FUSE | changes}]}


@pytest.fixture
def torch_nn(monkeypatch):
    """What --allow-import torch.nn says."""
    monkeypatch.setattr(plugins, "_opened", {"torch.nn": None})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (network(training={"epoch": 1}), "networks.resnet8.training.epoch = 1 "),
        (network(options=3) | {"voltagess": [0.8]}, ": voltagess = [0.8] "),  # the misspelt key before a wrong value
        (
            {"adaptive": {"gain_half_width_points": 1}, "protections": ["secded72"]},
            "adaptive.gain_half_width_points = 1",
        ),
        (network(training={"epochs": "many"}), "networks.resnet8.training.epochs = 'many' "),
        (network(training={"epochs": 0}), "networks.resnet8.training.epochs = 0 "),
        (network(training={"seed": 3}), "networks.resnet8.training.seed = 3 "),
        (network(training={"learning_rate": float("nan")}), "networks.0.training.learning_rate (line "),
        (network(training={"flip": 1}), "networks.resnet8.training.flip = 1 "),
        (network(options={"seed": 3}), "networks.resnet8.options.seed = 3 "),
        ({"sram": {"weights_per_cell": 4, "schedule": "paper"}}, "sram.weights_per_cell = 4 "),
        ({"sram": {"weights_per_cell": 1}}, "weights_per_cell 1: only with schedule paper"),
        (fuse(training={}), "protections.fuse.neuralfuse.training.steps = None "),
        (fuse(training={"stepz": 3}), "protections.fuse.neuralfuse.training.stepz = 3 "),
        (fuse(training={"steps": 3, "batch": 0}), "protections.fuse.neuralfuse.training.batch = 0 "),
        (fuse(training={"steps": 3, "decay": "slow"}), "protections.fuse.neuralfuse.training.decay = 'slow' "),
        (fuse(training={"steps": 3, "precision": "float16"}), "neuralfuse.training.precision = 'float16' "),
        (fuse(options={"widthh": 3}), "ConvS options = {'widthh': 3} "),
        (fuse(options={"width": "wide"}), "width = 'wide' "),
        (fuse(options={"size": 3}), "protections.fuse.neuralfuse.options.size = 3 "),
        (fuse(generator="affine"), "affine options = {'width': 2} "),
        (fuse(generator="torch.nn:Conv2d"), "torch.nn:Conv2d options = {'width': 2} "),
        (fuse(checkpoint="nowhere.safetensors"), "nowhere.safetensors: checkpoint = 'missing' "),
        ({"protections": ["calibrated(affine, steps=[)"]}, "calibrated(affine, steps=[)"),
        ({"sram": {"columns": 63}}, "study: sram.columns = 63 "),
        ({"sram": {"structures": ["iid", "iid"]}}, "sram.structures = ['iid', 'iid'] "),
        (
            {"sram": {"schedule": "resident"}, "protections": ["hardened_msb:8@stem.*,tail"]},
            "protections.hardened_msb:8@stem.*,tail.sram = 'tail' is not allowed; allowed: layers of resnet8: stem.0, ",
        ),
        (
            network(training={"epochs": 10**9}),
            "training.epochs = 1000000000 is not allowed; allowed: less than or equal ",
        ),
        (network(training={"threads": 10**5}), "training.threads = 100000 "),
        (network(options={"width": 0}), "resnet8: weights = "),
        (network(options={"width": 10**8}), "268435456 in all"),
        (fuse(training={"steps": 10**12}), "training.steps = 1000000000000 "),
        ({"batch_size": 10**9}, "batch_size = 1000000000 "),
        ({"voltages": [True]}, "voltages = [True] is not allowed; allowed: a number, not True"),
        ({"voltages": ["0.9"]}, "allowed: a number, not '0.9'"),
        ({"voltages": [11.0]}, "voltages above 0 and up to 10"),
        ({"seed": True}, "seed = True "),
        ({"sram": {"rows": 2**40}}, "sram.rows = 1099511627776 "),
        ({"sram": {"drift": 1e9}}, "sram.drift = 1000000000.0 "),
        ({"adaptive": {"margin_points": 1, "voltage_step": 1e-12}}, "adaptive.voltage_step = 1e-12 "),
        ({"dataset": {"name": "digits", "size": 32}}, "digits options = {'size': 32} "),
        ({"device": "meta"}, "device = 'meta' "),
        ({"protections": ["spare_columns:" + "9" * 500]}, "protection: spare_columns = '999"),
        ({"protections": ["hardened_msb:" + "9" * 500]}, "protection: hardened_msb = '999"),
        ({"accelerators": ["paper", "paper"]}, "accelerators = ['paper', 'paper'] "),
    ],
)
def test_a_study_is_refused_with_its_key_before_anything_is_done(
    changes, says, tmp_path, capsys, monkeypatch, torch_nn
):
    monkeypatch.setattr(prepare, "make_network", lambda *_: pytest.fail("something was trained"))
    path = study_with(tmp_path, **changes)
    for more in (["--dry-run"], ["--workers", 1]):
        assert run("sweep", path, "--out", tmp_path / "out", *more) == 2
        message = capsys.readouterr().err.strip()
        assert len(message.splitlines()) == 1
        assert says in message
        assert not (tmp_path / "out").exists()


def test_a_folder_is_no_checkpoint_and_a_file_no_results_folder(tmp_path, capsys):
    assert run("sweep", study_with(tmp_path, **network(checkpoint=str(tmp_path))), "--out", tmp_path / "out") == 2
    assert f"{tmp_path}: checkpoint = " in capsys.readouterr().err
    with pytest.raises(InputError, match=r"a \.safetensors file"):
        checkpoint.load(tmp_path)
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        for more in (["--dry-run"], ["--workers", 1]):
            assert run("sweep", study_with(tmp_path), "--out", out, *more) == 2
            assert f"--out = '{tmp_path / 'file'}'" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_checkpoint_needs_no_steps_and_has_to_fit(tmp_path):
    made = generators.build("ConvS", 1, width=2)
    path = checkpoint.save(tmp_path / "g.safetensors", made.state_dict(), {})
    content = {"name": "n", "networks": [NETWORK], "voltages": [0.8]}
    prepare.check(parse_study(content | fuse(training={}, checkpoint=str(path)), "here"))
    with pytest.raises(InputError, match="tensors that fit the network"):
        prepare.check(parse_study(content | fuse(options={"width": 3}, checkpoint=str(path)), "here"))
    prepare.check(parse_study(content | {"protections": ["calibrated(ConvS, width=2)"]}, "here"))
    warm = fuse(training={}, calibrate={"warm": True})  # warm: from a generator that is trained before
    with pytest.raises(InputError, match="steps"):
        prepare.check(parse_study(content | warm, "here"))


@pytest.mark.parametrize("shard", ["9/2", "0/2", "half"])
def test_a_dry_run_looks_at_the_shard(shard, tmp_path, capsys):
    assert run("sweep", study_with(tmp_path), "--out", tmp_path / "out", "--dry-run", "--shard", shard) == 2
    assert f"--shard = '{shard}'" in capsys.readouterr().err


def test_a_dry_run_counts_its_shard_and_knows_whose_the_folder_is(tiny, tmp_path, capsys):
    for out in (tiny, tmp_path / "new"):  # of 12 chips at points, 3 voltages each, part 1 has 3
        assert run("sweep", study_with(tmp_path), "--out", out, "--dry-run", "--shard", "1/5") == 0
        assert capsys.readouterr().out.startswith("9 tasks")
    adaptive = study_with(tmp_path, adaptive={"half_width_points": 2})
    assert run("sweep", adaptive, "--out", tmp_path / "new", "--dry-run", "--shard", "1/5") == 2
    assert run("sweep", study_with(tmp_path, seed=4), "--out", tiny, "--dry-run") == 2
    assert "seed = 4" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    assert run("sweep", study_with(tmp_path), "--out", tmp_path / "full", "--dry-run") == 2


def test_own_generators_are_called_with_what_the_study_says(torch_nn):
    with pytest.raises(InputError, match=r"torch\.nn:Identity2"):
        generators.build("torch.nn:Identity2")
    assert isinstance(generators.build("torch.nn:Identity", width=3), torch.nn.Identity)


def test_images_have_one_largest_size():
    assert config.MOST_SIZE == images.MOST_SIZE

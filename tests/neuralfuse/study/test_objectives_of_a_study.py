"""Are networks and generators trained towards what the study says, its seed and one's own source included?"""

import pytest
import torch

from neuralfuse.quantized import checkpoint
from neuralfuse.study.files import parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.prepare import check, prepare, trainings_to_do
from neuralfuse.training import network as training
from sram.errors import InputError
from sram.plugins import allow_folder

NETWORK = {"name": "net", "build": "resnet8", "options": {"width": 2}}
TRAINING = {"epochs": 1, "batch": 1024}
FUSE = {"generator": "tiny", "training": {"steps": 2, "maps": 1, "batch": 8}}
OWN = """
import torch.nn.functional as F

def margin(network, x, y, step):
    loss = F.multi_margin_loss(network(x), y)
    loss.backward()
    return loss.item()

class Clean:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, faulty, transform, x, y, maps, n, weight):
        loss = self.scale * F.cross_entropy(faulty(transform(x)), y)
        loss.backward()
        return loss.item(), 0.0
"""


def study(objective=None, fuse=None, **changes):
    """One network, trained towards an objective, and the bare protection or one generator, trained towards another."""
    content = {
        "name": "objectives",
        "dataset": {"name": "digits", "test_images": 40},
        "networks": [NETWORK | {"training": TRAINING | {"objective": objective}}],
        "sram": {"structures": ["iid"]},
        "voltages": [0.8],
        "chips": {"evaluation": 1},
    }
    if fuse is not None:
        content["protections"] = [{"name": "fuse", "neuralfuse": fuse}]
    return parse_study(content | changes, "here")


def prepared(study, folder):
    """Weights of the network, and the figures of all steps."""
    figures = []
    prepare(StudyFolder(folder, study), lambda title: lambda step, steps, found: figures.append(found))
    tensors, _ = checkpoint.load(folder / "networks" / "net.safetensors")
    return torch.cat([tensor.flatten().float() for tensor in tensors.values()]), figures


def test_ones_own_objectives_are_trained_towards_and_their_source_counts(tmp_path, monkeypatch):
    allow_folder(tmp_path)
    source = tmp_path / "objectives_of_this_test.py"
    source.write_text(OWN)
    fuse = FUSE | {"training": FUSE["training"] | {"objective": {"objectives_of_this_test:Clean": {"scale": 0.0}}}}
    own = study("objectives_of_this_test:margin", fuse)
    weights, figures = prepared(own, tmp_path / "out")
    assert [(one["clean_loss"], one["faulty_loss"]) for one in figures if "clean_loss" in one] == [(0, 0)] * 2
    assert trainings_to_do(StudyFolder(tmp_path / "out", own)) == []
    source.write_text(source.read_text() + "# changed\n")
    assert trainings_to_do(StudyFolder(tmp_path / "out", own)) == ["net", "fuse for net"]
    assert not weights.equal(prepared(study(), tmp_path / "plain")[0])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("hinge", "cross_entropy, random_bit_errors, adversarial, or package.module:callable"),
        ({"adversarial": {}, "cross_entropy": {}}, "one of cross_entropy"),
        ({"random_bit_errors": {"rate": 0.1}}, "unexpected keyword argument 'rate'"),
        ("nowhere.at.all:hinge", "--allow-import nowhere.at.all"),
        (3, "one of cross_entropy"),
    ],
)
def test_an_objective_that_is_none_is_refused_before_anything_is_trained(wrong, says):
    with pytest.raises(InputError, match=r"training.*objective") as refused:
        check(study(wrong))
    assert says in str(refused.value)


def test_a_generators_objective_is_ones_own_and_not_beside_that_of_its_own_faults():
    named = FUSE | {"training": FUSE["training"] | {"objective": "adversarial"}}
    with pytest.raises(InputError, match=r"package\.module:callable"):
        check(study(fuse=named))
    with pytest.raises(InputError, match="own_faults trained"):
        study(fuse=named | {"own_faults": "trained"})


@pytest.mark.parametrize("objective", [{"random_bit_errors": {"flip_rate": 0.05, "start_loss": 99}}, "adversarial"])
def test_a_studys_seed_reaches_what_an_objective_draws(objective, tmp_path, monkeypatch):
    """All else equal, the same first weights, batches and augmentation: another seed's draws train another network."""
    weights, _ = prepared(study(objective, seed=7), tmp_path / "seven")
    original, seeds = training.objective, []

    def of_seed_0(spec, bits, per_channel, seed):
        seeds.append(seed)
        return original(spec, bits, per_channel, 0)

    monkeypatch.setattr(training, "objective", of_seed_0)
    other, _ = prepared(study(objective, seed=7), tmp_path / "zero")
    assert seeds == [7]
    assert not weights.equal(other)

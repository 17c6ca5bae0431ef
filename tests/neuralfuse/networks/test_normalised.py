"""Does a network that was trained on images of another mean and deviation see them, whatever it is made of?"""

import pytest
import torch

from neuralfuse import networks
from neuralfuse.networks.normalised import normalised
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.study.data import build_network
from neuralfuse.study.files import Study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import points_of
from simulator.readers.read import trace
from sram.errors import InputError
from tests.neuralfuse.quantized.test_fold import trained_like

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def images():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def seen(images):
    """By the definition, from pixels in [0, 1]."""
    mean, std = (torch.tensor(each)[:, None, None] for each in (MEAN, STD))
    return ((images + 1) / 2 - mean) / std


def model():
    return trained_like(networks.build("resnet8", 10, 3))


@pytest.mark.parametrize("fold", [False, True])
def test_words_in_faulty_cells_see_the_same_images(images, fold):
    plain, own = FaultyNetwork(model(), fold=fold), FaultyNetwork(normalised(model(), MEAN, STD), fold=fold)
    assert [layer.name for layer in own.layer_table] == [layer.name for layer in plain.layer_table]
    with torch.inference_mode():
        assert torch.allclose(own(images), plain(seen(images)), rtol=1e-4, atol=1e-4)


def test_a_checkpoint_fits_and_counts_differ_by_the_step_before_the_network_alone(images):
    plain, own = model(), normalised(model(), MEAN, STD)
    assert own.state_dict().keys() == plain.state_dict().keys()
    own.load_state_dict(plain.state_dict())
    counted = [trace(each, (3, 16, 16)) for each in (plain, own)]
    assert counted[1].macs == counted[0].macs
    assert counted[1].weights == counted[0].weights
    assert [layer.name for layer in counted[1].array_layers] == [layer.name for layer in counted[0].array_layers]


def test_a_program_in_a_file_sees_them_too(images, tmp_path):
    plain = model().eval()
    torch.export.save(torch.export.export(plain, (images,)), tmp_path / "net.pt2")
    with torch.inference_mode():
        found = normalised(networks.build(str(tmp_path / "net.pt2")), MEAN, STD)(images)
        assert torch.allclose(found, plain(seen(images)), rtol=1e-4, atol=1e-4)


def test_a_study_says_it_and_its_rows_follow(tmp_path):
    def study(**dataset):
        return Study("n", networks=["resnet8"], voltages=[1.0], dataset={"name": "digits", **dataset})

    def keys(found):
        return [point.setup for point in points_of(StudyFolder(tmp_path, found))]

    own = study(mean=[0.3], std=[0.5])
    x = torch.rand(1, 1, 16, 16) * 2 - 1
    plain = build_network(study().networks[0], study()).eval()
    assert torch.allclose(build_network(own.networks[0], own).eval()(x), plain(((x + 1) / 2 - 0.3) / 0.5), atol=1e-5)
    assert keys(own) != keys(study()) == keys(study())
    assert keys(own) != keys(study(mean=[0.3], std=[0.4]))
    with pytest.raises(InputError, match=r"dataset.mean = .* allowed: 1 numbers, one for each channel"):
        build_network(own.networks[0], study(mean=MEAN, std=STD))


@pytest.mark.parametrize(
    "wrong", [{"mean": [0.5]}, {"std": [0.5]}, {"mean": [0.5], "std": [0.5, 0.5]}, {"mean": [0.5], "std": [0]}]
)
def test_half_of_it_is_refused(wrong):
    with pytest.raises(InputError, match=r"dataset"):
        Study("n", networks=["resnet8"], voltages=[1.0], dataset={"name": "digits", **wrong})

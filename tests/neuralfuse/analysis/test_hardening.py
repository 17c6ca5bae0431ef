"""Are the layers that are kept at nominal voltage those that hurt most for what they cost?"""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy.optimize import linprog

from neuralfuse import networks
from neuralfuse.analysis.hardening import budget, choose, damage, levels, protection
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.study.files import load_study, parse_study
from sram.errors import InputError
from sram.protection import parse
from tests.conftest import TINY, run
from tests.neuralfuse.sweep.test_study import study_with


def relaxed(damages, costs, limit):
    """The linear relaxation by scipy: its optimum, and how much the one layer that it divides changes in doing so."""
    layers, size = damages.shape
    one_level = np.kron(np.eye(layers), np.ones(size))
    found = linprog(damages.ravel(), costs.ravel()[None], [limit], one_level, np.ones(layers))
    parts = found.x.reshape(damages.shape) > 1e-9
    divided = [np.ptp(row[used]) for row, used in zip(damages, parts, strict=True) if used.sum() > 1]
    return found.fun, sum(divided)


def test_a_choice_is_within_one_step_of_the_relaxed_optimum():
    """Damages fall in any shape, convex or not. The relaxation divides one layer at most."""
    random = np.random.default_rng(0)
    whole = 0
    for _ in range(200):
        layers = random.integers(1, 8)
        damages = -np.sort(-random.exponential(1.0, (layers, 5)), axis=1)
        costs = random.uniform(0.1, 1.0, (layers, 1)) * np.array(levels(8)) / 8
        limit = random.uniform(0, 1.1) * costs[:, -1].sum()
        taken = choose(damages, costs, limit)
        rows = np.arange(layers)
        assert costs[rows, taken].sum() <= limit
        least, step = relaxed(damages, costs, limit)
        assert least - 1e-9 <= damages[rows, taken].sum() <= least + step + 1e-9
        whole += step == 0
    assert 5 < whole < 100  # nothing divided: the optimum itself


def test_nothing_to_spend_takes_nothing_and_enough_takes_all_that_helps():
    damages = np.array([[3.0, 1, 0.5, 0.2, 0], [0.0, 0, 0, 0, 0], [2.0, 2, 2, 2, 0]])
    costs = np.array([[1.0], [2.0], [3.0]]) * np.array(levels(8)) / 8
    assert choose(damages, costs, 0).tolist() == [0, 0, 0]
    assert choose(damages, costs, costs[:, -1].sum()).tolist() == [4, 0, 4]  # the second layer does no harm


def test_damage_is_that_of_the_layer_alone():
    """One flipped sign bit in the last layer moves one logit by 128 steps of the input behind it."""
    model = FaultyNetwork(networks.build("resnet8", in_channels=1, width=4))
    layer = model.layer_table[-1]
    weight = layer.offset + np.arange(layer.size)
    faults = weight[:1], np.array([7], np.uint8), np.array([2], np.uint8)
    images = torch.rand(6, 1, 16, 16)
    found = damage(model, faults, images)
    seen = {}
    handle = dict(model.network.named_modules())[layer.name.removesuffix(".weight")].register_forward_hook(
        lambda _module, inputs, _output: seen.update(x=inputs[0])
    )
    model(images)
    handle.remove()
    step = float(model.network.get_parameter(layer.name).flatten()[0]) / int(model.words[layer.offset])
    moved = found.pop(layer.name.removesuffix(".weight"))
    assert all(value == [0.0] * 5 for value in found.values())
    assert moved[1:] == [0.0] * 4  # its top bit hardened, nothing is left
    expected = float(((128 * step * seen["x"][:, 0].double()) ** 2).mean()) / 10  # of ten logits
    assert moved[0] == pytest.approx(expected, rel=1e-4)


def test_the_text_names_what_was_chosen():
    bits = {"stem.0": 8, "a": 1, "b": 0, "head": 8, "c": 1}
    assert parse(protection(bits)).spec == protection(bits) == "hardened_msb:8@stem.0,head;1@a,c"
    assert protection({"a": 0}) == "none"


def test_the_budget_is_what_the_bare_network_saves_beyond():
    study = load_study(TINY)
    assert budget(study, 0.8, 0.36 * 0.75) == pytest.approx(0.25)
    assert budget(study, 0.8, 0.36) == pytest.approx(0)
    with pytest.raises(InputError, match=r"0 to 36, which the bare network saves at 0\.8"):
        budget(study, 0.8, 0.4)


def test_the_command_chooses_layers_that_a_study_can_name(tiny_copy, capsys):
    command = "sensitivity", TINY, "--out", tiny_copy, "--voltage", "0.76", "--workers", 1
    assert run(*command, "--cost-limit", 36) == 0
    said, entry = next(pair for pair in itertools.pairwise(capsys.readouterr().out.splitlines()) if "[" in pair[1])
    table = pd.read_csv(tiny_copy / "hardening.csv")
    text = protection(dict(zip(table.layer, table.hardened_bits, strict=True)))
    assert said == "resnet8, at least 36% saved at 0.76; a study's protection:"
    content = {"name": "n", "networks": [{"name": "resnet8"}], "voltages": [0.8], "protections": yaml.safe_load(entry)}
    assert parse_study(content, "here").protections[0].sram == (text,)
    kept = (table.reads_share * table.hardened_bits / 8).sum()
    bare = 1 - 0.76**2
    assert bare - 0.36 > bare * kept > 0.5 * (bare - 0.36)  # the limit holds, and most of it is spent
    assert (np.diff(table[[f"damage_{k}" for k in levels(8)]], axis=1) <= 0).mean() > 0.9
    assert (table.damage_8 == 0).all()
    assert run(*command, "--cost-limit", 90) == 2
    assert "--cost-limit = 90.0 is not allowed; allowed: 0 to 42.2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sram": {"schedule": "paper"}}, "none with schedule = paper"),
        (
            {"networks": [{"name": "resnet18"}]},
            "schedule = resident for single layers: resnet18 passes through the buffer",
        ),
    ],
)
def test_layers_without_words_of_their_own_are_refused_before_anything_is_trained(changes, says, tmp_path, capsys):
    path = study_with(tmp_path, **changes)
    assert run("sensitivity", path, "--out", tmp_path / "out", "--cost-limit", 1) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("neuralfuse: sensitivity: --cost-limit = 1.0 is not allowed; allowed: " + says)
    assert not list((tmp_path / "out").glob("networks/*"))

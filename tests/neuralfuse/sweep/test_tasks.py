"""Do studies of other tasks than images and classes end in the right rows, and say what they measured?"""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from neuralfuse import data, networks
from neuralfuse.quantized import evaluate
from neuralfuse.quantized.checkpoint import save_network
from neuralfuse.quantized.metric import STEP
from neuralfuse.study.check import check
from neuralfuse.study.files import parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import points_of
from neuralfuse.study.supplies import at_voltage
from neuralfuse.sweep.bench import Bench
from neuralfuse.sweep.task import Task
from neuralfuse.training.network import train_network
from neuralfuse.training.settings import NetworkSettings
from sram.errors import InputError
from sram.plugins import allow_folder
from tests import conftest
from tests.conftest import run

TEXT = """
name: Text
dataset: {name: text, size: 32, test_images: 40}
metric: bits
networks:
  - name: chardecoder
    options: {dim: 16, depth: 1, heads: 2}
    training: {epochs: 1, batch: 256, optimizer: adamw, learning_rate: 0.01}
sram: {structures: [iid]}
voltages: [1.0, 0.8, 0.74]
protections: [none, secded72]
chips: {evaluation: 3}
"""
OWN = '''
import numpy as np
import torch
from torch import nn
import neuralfuse as nf

def words(root):
    """Sequences of 4 to 8 features; is each above 0? What is behind the end is -1."""
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 8, 2)).astype(np.float32)
    y = (x.sum(2) > 0).astype(int)
    y[np.arange(8) >= random.integers(4, 9, 300)[:, None]] = -1
    return x[:200], y[:200], x[200:], y[200:]

class Net(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.layer = nn.Linear(in_channels, num_classes)

    def forward(self, x):
        return "more", {"tags": self.layer(x)}

def tags(num_classes, in_channels):
    class Tags(Net):
        def forward(self, x):
            return super().forward(x)[1]
    return Tags(num_classes, in_channels)

def series(root):
    x, _, test_x, _ = words(root)
    return x, x.mean((1, 2)), test_x, test_x.mean((1, 2))

def broken(root):
    x, y, test_x, test_y = words(root)
    return x, y, test_x, test_y - 1

wrong = nf.Metric(name="wrong", unit="tags", scores=lambda answers, targets: answers.sum())
'''


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "study.yaml").write_text(TEXT)
    assert run("sweep", folder / "study.yaml", "--out", folder / "out", "--workers", 1, "--quiet") == 0
    return folder / "out"


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    (tmp_path / "own_task_of_this_test.py").write_text(OWN)
    allow_folder(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "own_task_of_this_test", raising=False)


def test_rows_hold_the_bits_of_all_characters(text):
    rows = pd.read_csv(text / "results.csv")
    assert set(rows.metric) == {"bits"}
    assert set(rows.total) == set(rows.test_images) == {40 * 32}
    bench = Bench(StudyFolder.open(text))
    at = next(row for row in StudyFolder.open(text).rows.read().values() if (row.voltage, row.chip) == (0.8, 1))
    faulty = bench.network("chardecoder")
    with torch.no_grad():
        faulty.restore()
        clean = F.cross_entropy(faulty(bench.images).flatten(0, 1), bench.labels.flatten()).item() / math.log(2)
    assert rows.clean_accuracy.unique().tolist() == pytest.approx([-clean], abs=STEP)
    assert 2 < clean < math.log2(103)  # it has learnt some
    assert (rows.accuracy == rows.correct / rows.total).all()
    assert (rows.correct / STEP == (rows.correct / STEP).round()).all()
    assert (rows.correct_both <= rows[["correct", "correct_clean"]].min(axis=1)).all()
    top = rows[rows.voltage == 1.0]
    assert (top.correct == top.correct_clean).all()
    bare = rows[rows.protection == "none"].groupby("voltage").accuracy.mean()
    assert bare[0.74] < bare[0.8] < bare[1.0]
    assert at.correct == pytest.approx(
        rows.query("voltage == 0.8 and chip == 1 and protection == @at.protection").correct
    )


def test_the_report_says_bits(text, capsys):
    assert run("report", text) == 0
    said = capsys.readouterr().out
    assert "bits of clean cross-entropy" in said
    assert "%" in said  # savings
    assert "accuracy" not in said.replace("out/", "").lower().split("page:")[0]
    page = (text / "report.html").read_text()
    assert "cross-entropy (bits)" in page
    assert "test accuracy" not in page.lower()
    headline, summary = (pd.read_csv(text / f"{name}.csv") for name in ("headline", "summary"))
    assert set(headline.points) == {0.01, 0.02, 0.05}
    assert summary.accuracy_mean.max() < 0
    assert run("results", text, "--summary", "--columns", "yield") == 0
    found = [float(line) for line in capsys.readouterr().out.split()[1:]]
    assert found == summary["yield"].tolist()


def test_which_layer_hurts_is_said_in_bits(text):
    assert run("sensitivity", text / "study.yaml", "--out", text, "--voltage", "0.74", "--workers", 1) == 0
    table, rows = pd.read_csv(text / "sensitivity.csv"), pd.read_csv(text / "results.csv")
    lost = rows.query("voltage == 0.74 and protection == 'none'")
    everything = table[table.part == "all"].lost_points.item()
    assert everything == pytest.approx((lost.clean_accuracy - lost.accuracy).mean(), abs=1e-9)


def test_what_is_tested_was_not_trained_on():
    found = data.load("text", size=32)
    training = "".join(map(chr, found.train_x.flatten().tolist()))
    assert not [window for window in found.test_x.tolist() if "".join(map(chr, window)) in training]
    assert found.num_classes == found.in_channels == found.train_x.max() + 1
    assert len(found.test_x) > 500


def swept(folder, **keys):
    networks = [{"name": "net", "build": "own_task_of_this_test:tags", "output": "tags", "training": {"epochs": 30}}]
    study = {"name": "own", "networks": networks, "voltages": [1.0, 0.8], "chips": {"evaluation": 2}} | keys
    study["sram"] = {"structures": ["iid"]}
    (folder / "study.yaml").write_text(json.dumps(study))
    assert run("sweep", folder / "study.yaml", "--out", folder / "out", "--workers", 1, "--quiet") == 0
    return pd.read_csv(folder / "out" / "results.csv")


def test_targets_behind_the_end_do_not_count(tmp_path):
    rows = swept(tmp_path, dataset={"name": "own_task_of_this_test:words", "root": str(tmp_path / "nothing")})
    targets = data.load("own_task_of_this_test:words").test_y
    assert set(rows.total) == {int((targets >= 0).sum())} != {targets.numel()}
    assert rows.clean_accuracy.min() > 0.9


def test_a_network_answers_with_as_many_numbers_as_there_are():
    networks = [{"name": "net", "build": "own_task_of_this_test:tags", "output": "tags"}]
    of = {"dataset": {"name": "own_task_of_this_test:series", "root": "."}, "metric": "absolute_error"}
    with pytest.raises(InputError, match=r"networks.net output = \[8, 1\] .*\[images, \]"):
        check(parse_study({"name": "own", "networks": networks, "voltages": [0.8]} | of, "here"))


def test_rows_are_the_same_from_more_workers(text, tmp_path):
    study = text.parent / "study.yaml"
    assert run("sweep", study, "--out", tmp_path / "out", "--workers", 2, "--quiet") == 0
    assert (tmp_path / "out" / "results.csv").read_bytes() == (text / "results.csv").read_bytes()


DATASET = {"dataset": {"name": "own_task_of_this_test:words", "root": "."}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"metric": "absolute_error"}, "metric = 'absolute_error' .*bits.*: the targets are classes"),
        ({"metric": "f1"}, "metric = 'f1' .*accuracy, .*absolute_error, or package"),
        ({"metric": "auc"}, "metric = 'auc' .*several targets each"),
        ({"metric": "top5"}, "metric = 'top5' .*are of 2 classes"),
        ({"metric": "own_task_of_this_test:wrong"}, r"metric: wrong = \[\] .*a score for each of 2 items"),
        ({"dataset": {"name": "own_task_of_this_test:broken", "root": "."}}, r"test targets = \(-2, 0\) .*-1 to 1"),
        ({"dataset": {"name": "own_task_of_this_test:series", "root": "."}}, "absolute_error: the targets are numbers"),
        ({"adaptive": {"half_width_points": 1}}, "adaptive.half_width_points = 1"),
        ({"adaptive": {"gain_half_width_points": 1}}, "adaptive.gain_half_width_points = 1"),
        ({"dataset": DATASET["dataset"] | {"mean": [0.5], "std": [0.5]}}, "dataset.mean .* are no images"),
        ({"protections": ["calibrated(affine)"]}, "neuralfuse = 'affine' .*no images or features of a class each"),
        ({"networks": [{"name": "own_task_of_this_test:tags"}]}, "output = 'a dict' .*`output` says which"),
        ({"networks": [{"name": "own_task_of_this_test:tags", "output": "x"}]}, "output = 'x' .*returns: tags"),
        ({"networks": [{"name": "own_task_of_this_test:Net", "output": 2}]}, "output = 2 .*returns: 0 to 1"),
        (
            {"networks": [{"name": "own_task_of_this_test:tags", "output": "tags", "activations": "int8"}]},
            "activations = 'int8' .*float: .* are no images",
        ),
    ],
)
def test_what_does_not_go_together_is_one_message(changes, says):
    networks = [{"name": "net", "build": "own_task_of_this_test:tags", "output": "tags"}]
    study = {"name": "own", "networks": networks, "voltages": [0.8], **DATASET, **changes}
    with pytest.raises(InputError, match=says):
        check(parse_study(study, "here"))


@pytest.mark.parametrize("name", ["auc", "balanced_accuracy"])
def test_rows_of_a_metric_that_compares_items(tmp_path, name):
    """Of digits, with faults and without: the clean score is scikit-learn's, and samples of a chip add up."""
    base, x = networks.build("resnet8", in_channels=1, width=4), data.load("digits")
    train_network(base, x, NetworkSettings(1, shift=1, flip=False))
    save_network(tmp_path / "base.safetensors", base, {})
    entry = {"name": "resnet8", "options": {"width": 4}, "checkpoint": str(tmp_path / "base.safetensors")}
    content = {"name": "s", "metric": name, "networks": [entry], "voltages": [1.0, 0.8], "chips": {"evaluation": 2}}
    study = parse_study(content | {"dataset": {"test_images": 200}, "sram": {"structures": ["iid"]}}, "here")
    conftest.swept(tmp_path / "out", study)
    bench = Bench(folder := StudyFolder.open(tmp_path / "out"))
    faulty, labels = bench.nominal("resnet8"), bench.labels
    said = evaluate.logits(faulty, bench.images).double().softmax(1)
    if name == "auc":
        want = roc_auc_score(labels, said, multi_class="ovr", average="weighted")
    else:
        want = balanced_accuracy_score(labels, said.argmax(1))
    rows = list(folder.rows.read().values())
    assert {row.total for row in rows} == {200}
    assert [row.clean_accuracy for row in rows] == pytest.approx([want] * 4, abs=STEP)
    assert all((row.correct == row.correct_clean) == (row.flip_rate == 0) for row in rows)
    (row,) = (row for row in rows if (row.chip, row.voltage) == (1, 0.8))
    point = points_of(folder)[0]
    at = at_voltage(study, point.accelerator, 0.8)
    parts = [bench.measure(Task(point, 1, at, images)).correct for images in ((0, 70), (70, 200))]
    assert sum(parts) == row.correct


def test_second_networks_and_searches_need_right_and_wrong_answers(text):
    second = {"name": "big", "build": "chardecoder", "options": {"dim": 8, "heads": 2, "depth": 1}}
    study = {"name": "s", "dataset": {"name": "text"}, "metric": "bits", "voltages": [0.8]}
    study |= {"networks": [{"name": "chardecoder"}, second], "protections": ["fused(big)"]}
    with pytest.raises(InputError, match=r"fused\(big\).fused = 'big' .*the metric bits"):
        check(parse_study(study, "here"))
    assert run("optimize", text.parent / "study.yaml", "--out", text / "more") == 2


def test_scores_of_a_chip_do_not_depend_on_the_batch(text):
    bench = Bench(StudyFolder.open(text))
    whole, network = bench.scores("chardecoder", bench.images), bench.network("chardecoder")
    parts = [bench.metric("net")(network(bench.images[i : i + 1]), bench.labels[i : i + 1]) for i in range(5)]
    assert np.abs(torch.cat(parts).numpy() - whole[:5].numpy()).max() <= 2 * STEP

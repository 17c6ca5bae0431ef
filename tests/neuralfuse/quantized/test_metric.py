"""Is a score what its definition says, does it add up exactly, and is more of it better whatever the metric?"""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score, top_k_accuracy_score

from neuralfuse.quantized import evaluate
from neuralfuse.quantized.metric import METRICS, STEP, Metric, counted, metric
from sram.errors import InputError


def test_bits_are_the_cross_entropy_of_what_counts():
    logits = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0]], [[5.0, 1.0], [0.0, math.log(7)]]])
    targets = torch.tensor([[1, 0], [-1, 0]])
    # 1 bit of two alike; 3 to 1 is log2(4 / 3); what is padded costs nothing; 1 in 8 is 3 bits
    expected = torch.tensor([1 + math.log2(4 / 3), 3.0])
    assert torch.allclose(-metric("bits")(logits, targets), expected.double(), atol=STEP / 2, rtol=0)
    assert counted(targets).tolist() == [2, 1]
    mean = metric("bits").trained(logits, targets).item() / math.log(2)
    assert mean == pytest.approx(expected.sum().item() / 3, rel=1e-6)


def test_accuracy_of_positions_counts_those_that_are_there():
    answers = torch.eye(3)[torch.tensor([[0, 1, 2], [2, 2, 2]])]
    assert metric("accuracy")(answers, torch.tensor([[0, 1, 1], [2, -1, -1]])).tolist() == [2, 1]


def test_an_absolute_error_counts_against():
    targets = torch.tensor([[1.0, math.nan], [2.0, 0.0]])
    assert metric("absolute_error")(torch.zeros(2, 2, 1), targets).tolist() == [-1.0, -2.0]
    assert metric("absolute_error").trained(torch.zeros(2, 2), targets).item() == 1.0


def test_sums_are_the_same_in_any_order():
    """Of floats they are not: 10,000 drawn scores, added in 20 orders."""
    random = torch.Generator().manual_seed(0)
    off = Metric(name="off", unit="V", higher_is_better=False, scores=lambda a, t: (a - t).abs())
    answers = 1e3 * torch.rand(10_000, generator=random)
    targets = torch.zeros(10_000)
    found = off(answers, targets)
    orders = [torch.randperm(10_000, generator=random).tolist() for _ in range(20)]
    assert len({sum(found[order].tolist()) for order in orders}) == 1
    assert len({sum(answers.double().div(3)[order].tolist()) for order in orders}) > 1
    assert (found + answers).abs().max() <= STEP / 2
    batches = [evaluate.scores(off, lambda x: x, answers, targets, batch).sum() for batch in (1000, 7, 10_000)]
    assert batches[0] == batches[1] == batches[2] == found.sum()


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        (lambda answers, targets: (answers - targets).mean(), r"metric: off = \[\] .*a score for each of 3 items"),
        (lambda answers, targets: 0.5, "off = 'float'"),
        (lambda answers, targets: answers / 0, "finite score"),
    ],
)
def test_what_is_no_score_of_each_item_is_refused(scores, says):
    with pytest.raises(InputError, match=says):
        Metric(name="off", unit="V", scores=scores)(torch.ones(3), torch.ones(3))


@pytest.mark.parametrize("name", ["f1", "neuralfuse.quantized.metric:bits", "nowhere:metric"])
def test_other_names_are_refused(name):
    with pytest.raises(InputError, match=r"metric|importable|beside the study"):
        metric(name)


def test_without_a_loss_the_scores_are_trained_on():
    close = Metric(name="closeness", unit="", scores=lambda a, t: -((a - t) ** 2))
    answers = torch.zeros(4, requires_grad=True)
    close.trained(answers, torch.ones(4)).backward()
    assert (answers.grad < 0).all()  # a step against the gradient is towards the targets
    assert set(METRICS) == {"accuracy", "balanced_accuracy", "top5", "auc", "bits", "absolute_error"}


@pytest.fixture(params=[2, 7])
def drawn(request):
    """Answers without a fault, other answers, and targets of unlike many classes; answers tie."""
    random, classes = torch.Generator().manual_seed(request.param), request.param
    targets = torch.randint(classes**2, (300,), generator=random).sqrt().long()
    known = 1.5 * torch.nn.functional.one_hot(targets, classes)
    clean, other = ((known + torch.randn(300, classes, generator=random)).mul(4).round() / 4 for _ in range(2))
    return clean, other, targets


def mean(name, clean, answers, targets):
    return metric(name).against(clean, targets)(answers, targets).sum().item() / len(targets)


def test_auc_of_clean_answers_is_scikit_learns(drawn):
    clean, _, targets = drawn
    said = clean.double().softmax(1).numpy()
    want = roc_auc_score(targets, said[:, 1] if said.shape[1] == 2 else said, multi_class="ovr", average="weighted")
    assert mean("auc", clean, clean, targets) == pytest.approx(want, abs=STEP)
    found = evaluate.scores(metric("auc"), lambda x: x, clean, targets, batch=64).sum().item() / len(targets)
    assert found == mean("auc", clean, clean, targets)  # compared with all, however they come in batches


def test_auc_of_other_answers_is_that_of_their_class_against_the_clean_rest(drawn):
    """Class by class, of the faulty answers to its items and the clean answers to all others."""
    clean, other, targets = drawn
    total = 0.0
    for k in targets.unique():
        own = targets == k
        said = torch.where(own[:, None], other, clean).double().softmax(1)[:, k]
        total += roc_auc_score(own, said) * own.sum().item()
    assert mean("auc", clean, other, targets) == pytest.approx(total / len(targets), abs=STEP)


def test_balanced_accuracy_is_scikit_learns(drawn):
    clean, other, targets = drawn
    want = balanced_accuracy_score(targets, other.argmax(1))
    assert mean("balanced_accuracy", clean, other, targets) == pytest.approx(want, abs=STEP)
    assert mean("balanced_accuracy", clean, other, targets) != pytest.approx(mean("accuracy", clean, other, targets))


def test_top5_is_scikit_learns():
    random = torch.Generator().manual_seed(0)
    answers, targets = torch.randn(200, 9, generator=random), torch.randint(9, (200,), generator=random)
    want = top_k_accuracy_score(targets, answers, k=5, labels=np.arange(9))
    assert mean("top5", answers, answers, targets) == pytest.approx(want)


@pytest.mark.parametrize("name", ["auc", "balanced_accuracy"])
def test_parts_add_up_to_the_whole(name, drawn):
    clean, other, targets = drawn
    found = metric(name).against(clean, targets)
    assert found.against(other, targets) is found
    parts = [found(other[part], targets[part]).sum() for part in (slice(100), slice(100, 101), slice(101, None))]
    assert sum(parts) == found(other, targets).sum()


def test_answers_that_are_not_finite_are_a_guess_and_one_class_is_refused():
    clean, targets = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1])
    broken = torch.full((2, 2), math.nan)
    assert metric("auc").against(clean, targets)(broken, targets).tolist() == [1.0, 1.0]  # 1 in 2 is above the rest's
    with pytest.raises(InputError, match="items of one class"):
        metric("auc")(clean, torch.tensor([1, 1]))

"""Is a score what its definition says, does it add up exactly, and is more of it better whatever the metric?"""

import math

import pytest
import torch

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
    assert set(METRICS) == {"accuracy", "bits", "absolute_error"}

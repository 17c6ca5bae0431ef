"""What a network's answers are worth: a score of each item of the test set, so that scores add up over items, samples
and processes."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from neuralfuse.results.scale import ACCURACY, Scale
from sram.errors import InputError
from sram.plugins import imported

STEP = 2.0**-16  # scores are rounded to so much: sums of them are exact, and the same in any order
Scores = Callable[[Tensor, Tensor], Tensor]  # (answers, targets) of n items -> (n,), or a loss ()
Reference = Callable[[Tensor, Tensor], Scores]  # (answers, targets) of the whole test set -> what scores items


@dataclass(frozen=True, kw_only=True)
class Metric(Scale):
    """A metric: what it is called, its unit and direction, and `scores(answers, targets)` of n items, a number each
    (n,). Where an item has several targets, such as one a position, its number is the sum over those that count
    (`counted`), so that a mean is over positions.

    `loss` is what a network is trained towards, () of the same arguments; None: the mean score, with its sign.
    `reference(answers, targets)` makes `scores` of what a network without a fault answers to the whole test set, where
    an item is compared with others: it stays the same for all chips, so that scores add up.

    >>> squared = Metric(name="squared error", unit="V²", higher_is_better=False, scores=lambda a, t: (a - t) ** 2)
    >>> squared(torch.tensor([1.0, 2.0]), torch.tensor([1.5, 2.0])).tolist()
    [-0.25, 0.0]
    """

    scores: Scores
    loss: Scores | None = None
    reference: Reference | None = None

    def against(self, answers: Tensor, targets: Tensor) -> "Metric":
        """The metric that compares with these answers of a network without a fault; itself where it needs none."""
        if self.reference is None:
            return self
        return replace(self, scores=self.reference(answers, targets), reference=None)

    def __call__(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Scores of which more is better, int64[n] or float64[n] in whole STEPs. InputError where `scores` gives
        something else than a finite number for each item."""
        found = self.scores(answers, targets)
        if not isinstance(found, Tensor) or found.shape != targets.shape[:1]:
            what = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError("metric", self.name, what, f"a score for each of {len(targets)} items: [{len(targets)}]")
        if not found.is_floating_point():
            return found.long() if self.higher_is_better else -found.long()
        found = found.double()
        if not torch.isfinite(found).all():
            raise InputError("metric", self.name, "NaN or infinite", "a finite score for each item")
        return (found / (STEP if self.higher_is_better else -STEP)).round() * STEP + 0.0  # no -0

    def trained(self, answers: Tensor, targets: Tensor) -> Tensor:
        """The loss that a training lowers, ()."""
        if self.loss is not None:
            return self.loss(answers, targets)
        mean = self.scores(answers, targets).sum() / counted(targets).sum()
        return -mean if self.higher_is_better else mean


def valid(targets: Tensor) -> Tensor:
    """Which targets count, bool of their shape: padding is -1, or NaN where targets are no whole numbers."""
    return ~targets.isnan() if targets.is_floating_point() else targets >= 0


def counted(targets: Tensor) -> Tensor:
    """How many targets of each item count, int64[n].

    >>> counted(torch.tensor([[3, 1, -1], [2, -1, -1]])).tolist(), counted(torch.tensor([3, 1])).tolist()
    ([2, 1], [1, 1])
    """
    return valid(targets).reshape(len(targets), -1).sum(1)


def right(answers: Tensor, targets: Tensor) -> Tensor:
    """How many of an item's targets have the largest of their answers [n, ..., classes]: int64[n]."""
    return ((answers.argmax(-1) == targets) & valid(targets)).reshape(len(targets), -1).sum(1)


def bits(answers: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the targets [n, ...] under logits [n, ..., classes], in bits: float64[n]. Logits that are not
    all finite, as faults in exponents make them, say nothing: they count as a guess among all classes.

    >>> bits(torch.zeros(1, 2, 4), torch.tensor([[3, -1]])).tolist()
    [2.0]
    >>> bits(torch.tensor([[[9.0, 0.0], [torch.inf, 0.0]]]), torch.tensor([[-1, 0]])).tolist()
    [1.0]
    """
    said = torch.where(answers.isfinite().all(-1, keepdim=True), answers, 0.0)
    each = F.cross_entropy(said.double().flatten(0, -2), targets.flatten(), ignore_index=-1, reduction="none")
    return each.reshape(len(targets), -1).sum(1) / torch.log(torch.tensor(2.0, dtype=torch.float64))


def top5(answers: Tensor, targets: Tensor) -> Tensor:
    """How many of an item's targets are among the five largest of their answers [n, ..., classes]: int64[n].

    >>> top5(torch.arange(7.0).expand(2, 7), torch.tensor([1, 2])).tolist()
    [0, 1]
    """
    said = answers.topk(min(5, answers.shape[-1])).indices
    return (said == targets[..., None]).any(-1).reshape(len(targets), -1).sum(1)


def balanced(_: Tensor, targets: Tensor) -> Scores:
    """Right answers, each by how rare its class is in the test set: their mean over it is the mean over classes of the
    share that is right (scikit-learn's `balanced_accuracy_score`).

    >>> classes = torch.tensor([0, 0, 0, 1])
    >>> balanced(torch.eye(2)[classes], classes)(torch.eye(2)[[0, 0, 1, 1]], classes).tolist()
    [0.6666666666666666, 0.6666666666666666, 0.0, 2.0]
    """
    classes, sizes = targets.unique(return_counts=True)
    weight = torch.zeros(int(classes.max()) + 1, dtype=torch.float64, device=targets.device)
    weight[classes] = len(targets) / (len(classes) * sizes.double())
    return lambda answers, targets: right(answers, targets) * weight[targets]


def placements(clean: Tensor, targets: Tensor) -> Scores:
    """Of each item, the share of the test items of other classes whose clean probability of the item's class is below
    the item's own, ties half (a placement value: DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988).

    Over the clean answers their mean is the area under the ROC curve of two classes; of more, that of each class
    against the rest, weighted by its items (scikit-learn's `roc_auc_score`; `multi_class="ovr", average="weighted"`).
    InputError where there is one class alone.

    >>> clean, classes = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1, 1])
    >>> placements(clean, classes)(clean, classes).tolist(), placements(clean, classes)(-clean, classes).tolist()
    ([1.0, 1.0, 1.0], [0.0, 1.0, 1.0])
    """
    known = targets.unique()
    if len(known) < 2:
        raise InputError("metric", "AUC", "test items of one class", "of two classes, or more")
    said = _log_probabilities(clean)
    others = {int(k): said[targets != k, k].sort().values for k in known}

    def scores(answers: Tensor, targets: Tensor) -> Tensor:
        own = _log_probabilities(answers).gather(1, targets[:, None])[:, 0].contiguous()
        found = torch.empty_like(own)
        for k in targets.unique():
            of, rest = targets == k, others[int(k)]
            ends = (torch.searchsorted(rest, own[of], right=right) for right in (False, True))
            found[of] = sum(ends).double() / (2 * len(rest))  # type: ignore[union-attr]
        return found

    return scores


def _log_probabilities(answers: Tensor) -> Tensor:
    """Of classes, float64; logits that are not all finite say nothing, as in `bits`."""
    return torch.where(answers.isfinite().all(-1, keepdim=True), answers, 0.0).double().log_softmax(-1)


def alone(reference: Reference) -> Scores:
    """The scores of answers compared with themselves."""
    return lambda answers, targets: reference(answers, targets)(answers, targets)


def cross_entropy(answers: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """The mean over targets that count, in nats, of logits [n, ..., classes]; `smoothing` is of the labels."""
    return F.cross_entropy(answers.flatten(0, -2), targets.flatten(), ignore_index=-1, label_smoothing=smoothing)


def absolute_error(answers: Tensor, targets: Tensor) -> Tensor:
    """Sum of |answer - target| over the targets of each item that count: float64[n]; answers of the targets' shape, or
    with a last axis of 1 more."""
    apart = (answers.reshape(targets.shape) - targets).abs().double()
    return torch.where(valid(targets), apart, 0.0).reshape(len(targets), -1).sum(1)


def mean_absolute_error(answers: Tensor, targets: Tensor) -> Tensor:
    """The mean over targets that count."""
    kept = valid(targets)
    return F.l1_loss(answers.reshape(targets.shape)[kept], targets[kept])


METRICS = {
    "accuracy": Metric(**vars(ACCURACY), scores=right, loss=cross_entropy),
    "balanced_accuracy": Metric(name="balanced accuracy", unit="points", share=True, scores=alone(balanced),
                                loss=cross_entropy, reference=balanced),
    "top5": Metric(name="top-5 accuracy", unit="points", share=True, scores=top5, loss=cross_entropy),
    "auc": Metric(name="AUC against clean answers", unit="points", share=True, scores=alone(placements),
                  loss=cross_entropy, reference=placements),
    "bits": Metric(name="cross-entropy", unit="bits", higher_is_better=False, margins=(0.01, 0.02, 0.05), scores=bits,
                   loss=cross_entropy),
    "absolute_error": Metric(name="absolute error", unit="units of the target", higher_is_better=False,
                             margins=(0.01, 0.02, 0.05), scores=absolute_error, loss=mean_absolute_error),
}  # fmt: skip


def metric(name: str) -> Metric:
    """A metric as a study names it: one of METRICS, or the `package.module:name` of a `Metric`. InputError.

    >>> metric("bits").unit
    'bits'
    """
    if name in METRICS:
        return METRICS[name]
    allowed = ", ".join(METRICS) + ", or package.module:name of a neuralfuse.Metric"
    if ":" not in name:
        raise InputError("study", "metric", name, f"one of {allowed}")
    found = imported(name, "study.metric")
    if not isinstance(found, Metric):
        raise InputError("study", "metric", name, f"one of {allowed}; this is a {type(found).__name__}")
    return found

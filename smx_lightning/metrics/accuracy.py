"""The predicted class, at a threshold or without, and what is counted of it.

Macro accuracy is our own: torchmetrics makes it from a (K, K) matrix and averages over classes
without rows, too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from smx_lightning.metrics.beside import OfScores
from smx_lightning.metrics.weights import Weighing, share_of, total


class Prediction(NamedTuple):
    """What ``predict_step`` answers: label (batch,) int64, probs (batch, classes)."""

    label: Tensor
    probs: Tensor


def predicted(log_probs: Tensor, label: Tensor) -> Prediction:
    """The prediction of a batch; a row without an answer, with NaN in log_probs, has label -1."""
    return Prediction(label.masked_fill(log_probs.isnan().any(1), -1), log_probs.exp())


def decide(log_probs: Tensor, threshold: float | None = None) -> Tensor:
    """The predicted class of each row.

    Args:
        log_probs: (batch, classes) log-probabilities.
        threshold: For two classes, γ: class 1 is predicted where its probability is at least γ.
            ``None`` takes the most probable class.

    Returns:
        (batch,) class indices.

    >>> decide(torch.tensor([[0.7, 0.3]]).log()), decide(torch.tensor([[0.7, 0.3]]).log(), 0.2)
    (tensor([0]), tensor([1]))
    """
    if threshold is None:
        return log_probs.max(1).indices  # argmax takes two to ten times as long on a CPU
    return (log_probs[:, 1].exp() >= threshold).long()


class Deciding(OfScores, Weighing):
    """A metric of predicted labels, decided here; torchmetrics' own looks at the first few."""

    threshold: float | None = None

    def decided(self, preds: Tensor) -> Tensor:
        """The predicted class of each row."""
        return decide(preds, self.threshold)


class Accuracy(Deciding, MulticlassAccuracy):
    """Micro accuracy at γ, :class:`MulticlassAccuracy`; of weights ``Σ c q[decided] / Σ c``.

    With ``top_k`` a label is right where it is among the k classes of the highest scores.
    """

    def __init__(self, num_classes: int, *, top_k: int = 1) -> None:
        super().__init__(num_classes, average="micro", top_k=top_k, validate_args=False)
        self.add_sums(2)  # Σ c q[decided] and Σ c

    def count_alike(self, preds: Tensor, target: Tensor) -> None:
        """See :class:`Weighing`."""
        # Classes of probability 0 have no order but that of their scores.
        decided = self.scores_beside(preds) if self.top_k > 1 else self.decided(preds)
        MulticlassAccuracy.update(self, decided, target)

    def count_weighted(self, preds: Tensor, target: Tensor, weight: Tensor) -> None:
        """See :class:`Weighing`."""
        several = self.top_k > 1
        scores = self.scores_beside(preds) if several else preds
        classes = scores.topk(self.top_k).indices if several else self.decided(preds)[:, None]
        self.sums += torch.stack([total(share_of(classes, target), weight), weight.sum()])

    def compute(self) -> Tensor:
        """The accuracy over all rows so far; NaN where they weigh nothing."""
        rows = (self.tp + self.fn).sum()
        if rows and not self.weighs:
            alike: Tensor = super().compute()
            return alike
        right, weight = self.sums
        return ((self.tp.sum() + right) / (rows + weight)).float()


class ConfusionMatrix(Deciding, MulticlassConfusionMatrix):
    """:class:`MulticlassConfusionMatrix` at γ; ``Σ c[i] q[i, k]`` of a label and a decision.

    Integers while rows count alike, else float64.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, validate_args=False)
        self.add_sums(num_classes, num_classes)

    def count_alike(self, preds: Tensor, target: Tensor) -> None:
        """See :class:`Weighing`."""
        MulticlassConfusionMatrix.update(self, self.decided(preds), target)

    def count_weighted(self, preds: Tensor, target: Tensor, weight: Tensor) -> None:
        """See :class:`Weighing`."""
        decided = self.decided(preds)
        if target.ndim == 1:
            self.sums.view(-1).index_add_(0, target * self.num_classes + decided, weight)
        else:
            self.sums.index_add_(1, decided, (target * weight[:, None]).T)

    def compute(self) -> Tensor:
        """Counts (classes, classes), the row is the label."""
        counts: Tensor = super().compute()
        return counts + self.sums if self.weighs else counts


class MacroAccuracy(Weighing):
    """Mean of the recalls of the classes that occur in the labels: every such class counts alike.

    As scikit-learn's ``balanced_accuracy_score``: a class without a label, or of labels that weigh
    nothing, has no recall, also where it was predicted. Counts a class, so batches and processes of
    any size add up.

    Args:
        num_classes: K.
        threshold: γ of a binary problem, see :func:`decide`.

    >>> metric = MacroAccuracy(3)
    >>> metric.update(torch.eye(3)[[0, 0, 2, 1]], torch.tensor([0, 0, 0, 1]))
    >>> round(float(metric.compute()), 4)
    0.8333
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    correct: Tensor
    rows: Tensor

    def __init__(self, num_classes: int, *, threshold: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes, self.threshold = num_classes, threshold
        for name in ("correct", "rows"):
            counts = torch.zeros(num_classes, dtype=torch.int64)
            self.add_state(name, counts, dist_reduce_fx="sum")
        self.add_sums(2, num_classes)  # of the rows that are right, and of all

    def count_alike(self, preds: Tensor, target: Tensor) -> None:
        """See :class:`Weighing`."""
        hits = target[decide(preds, self.threshold) == target]
        self.rows += torch.bincount(target, minlength=self.num_classes)
        self.correct += torch.bincount(hits, minlength=self.num_classes)

    def count_weighted(self, preds: Tensor, target: Tensor, weight: Tensor) -> None:
        """See :class:`Weighing`."""
        decided = decide(preds, self.threshold)
        correct, rows = self.sums
        correct.index_add_(0, decided, weight * share_of(decided[:, None], target))
        if target.ndim == 1:
            rows.index_add_(0, target, weight)
        else:
            rows += weight @ target

    def compute(self) -> Tensor:
        """The mean over the classes that have had rows so far; NaN without any."""
        correct, rows = self.correct, self.rows
        if self.weighs:
            correct, rows = correct + self.sums[0], rows + self.sums[1]
        occur = rows > 0
        return (correct[occur] / rows[occur]).mean().to(torch.get_default_dtype())

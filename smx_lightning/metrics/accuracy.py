"""The predicted class, at a threshold or without, and what is counted of it.

Macro accuracy is our own: torchmetrics makes it from a (K, K) matrix and averages over classes
without rows, too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from smx_lightning.metrics.beside import OfScores


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


class Deciding(OfScores):
    """A metric of predicted labels, decided here; torchmetrics' own looks at the first few."""

    threshold: float | None = None

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch: preds (batch, classes) log-probabilities, target (batch,) labels."""
        several = getattr(self, "top_k", 1) > 1
        # Classes of probability 0 have no order but that of their scores.
        decided = self.scores_beside(preds) if several else decide(preds, self.threshold)
        super().update(decided, target.long())  # type: ignore[safe-super]  # torchmetrics' own


class Accuracy(Deciding, MulticlassAccuracy):
    """:class:`MulticlassAccuracy` at γ."""


class ConfusionMatrix(Deciding, MulticlassConfusionMatrix):
    """:class:`MulticlassConfusionMatrix` at γ."""


class MacroAccuracy(Metric):
    """Mean of the recalls of the classes that occur in the labels: every such class counts alike.

    As scikit-learn's ``balanced_accuracy_score``: a class without a label has no recall, also where
    it was predicted. Counts a class, so batches and processes of any size add up.

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

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch: preds (batch, classes) log-probabilities, target (batch,) labels."""
        target = target.long()
        hits = target[decide(preds, self.threshold) == target]
        self.rows += torch.bincount(target, minlength=self.num_classes)
        self.correct += torch.bincount(hits, minlength=self.num_classes)

    def compute(self) -> Tensor:
        """The mean over the classes that have had rows so far; NaN without any."""
        occur = self.rows > 0
        return (self.correct[occur] / self.rows[occur]).mean()

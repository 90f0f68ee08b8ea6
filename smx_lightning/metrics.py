"""Metric collections for classifiers that answer with log-probabilities.

torchmetrics has accuracy, calibration error and confusion matrices; the two proper scores that it
lacks for several classes, negative log-likelihood and the Brier score, are here.

Symbols: n rows, K classes, ``p[i, k]`` the probability of class k in row i, ``y[i]`` the label.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
)
from torchmetrics.wrappers import LambdaInputTransformer

from smx_lightning.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Given = MetricCollection | Metric | dict[str, Metric]  # what configure_metrics may answer

TOP_K = 5  # the customary k of ImageNet's top-k accuracy
MOST_SQUARED = 1000  # classes: a (K, K) matrix of counts takes 8 MB here, and 320 GB at 200000
CALIBRATION_BINS = 15  # Guo et al., "On calibration of modern neural networks", ICML 2017


class _MeanScore(Metric):
    """Mean of a score a row: sums and counts, so batches and processes of any size add up."""

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch: preds (batch, classes) log-probabilities, target (batch,) labels."""
        self.total += self.scores(preds, target).sum()
        self.count += target.numel()

    def compute(self) -> Tensor:
        """The mean over all rows so far."""
        return self.total / self.count

    def scores(self, preds: Tensor, target: Tensor) -> Tensor:
        """One number a row, shape (batch,)."""
        raise NotImplementedError


class NegativeLogLikelihood(_MeanScore):
    """Mean of ``-log p[i, y[i]]``, in nats.

    >>> metric = NegativeLogLikelihood()
    >>> metric.update(torch.tensor([[0.25, 0.75]]).log(), torch.tensor([1]))
    >>> round(float(metric.compute()), 4)
    0.2877
    """

    def scores(
        self, preds: Float[Tensor, "batch classes"], target: Int[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """``-log p[i, y[i]]``."""
        return -preds.gather(1, target[:, None])[:, 0]


class BrierScore(_MeanScore):
    """Mean of ``Σ_k (p[i, k] - [k = y[i]])²``: 0 is perfect, 2 is certain and wrong.

    Brier, "Verification of forecasts expressed in terms of probability", 1950.

    >>> metric = BrierScore()
    >>> metric.update(torch.tensor([[0.25, 0.75]]).log(), torch.tensor([1]))
    >>> float(metric.compute())
    0.125
    """

    def scores(
        self, preds: Float[Tensor, "batch classes"], target: Int[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """``Σ_k p² - 2 p[i, y[i]] + 1``, the square written out."""
        probs = preds.exp()
        return probs.square().sum(1) - 2 * probs.gather(1, target[:, None])[:, 0] + 1


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
        return log_probs.argmax(1)
    return (log_probs[:, 1].exp() >= threshold).long()


def stage_metrics(given: Given, stage: str) -> MetricCollection:
    """Metrics as users write them, as one collection whose names begin with ``stage/``.

    Args:
        given: A collection, a dict of metrics by name, or one metric, which gets its class's name
            in snake case.
        stage: ``train``, ``val`` or ``test``.

    >>> sorted(stage_metrics(NegativeLogLikelihood(), "val").keys())
    ['val/negative_log_likelihood']
    """
    if isinstance(given, Metric):
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(given).__name__)
        given = {words.lower(): given}
    if isinstance(given, dict):
        given = MetricCollection({**given})
    if not isinstance(given, MetricCollection):
        raise InputError(
            "configure_metrics must return a MetricCollection, a dict of metrics or one metric, "
            f"got {type(given).__name__}"
        )
    prefix = f"{stage}/"
    if all(str(name).startswith(prefix) for name in given.keys()):  # noqa: SIM118 (with prefixes)
        return given
    return given.clone(prefix=prefix + (given.prefix or ""))


def training_metrics(num_classes: int, *, threshold: float | None = None) -> MetricCollection:
    """What is cheap enough to follow during training: micro accuracy and NLL."""
    return MetricCollection(
        {
            "accuracy_micro": _accuracy(num_classes, "micro", threshold),
            "nll": NegativeLogLikelihood(),
        },
        prefix="train/",
    )


def evaluation_metrics(
    num_classes: int, *, prefix: str, threshold: float | None = None
) -> MetricCollection:
    """Every scalar that describes a classifier, under names that say what they are.

    ``accuracy_micro`` counts rows alike, ``accuracy_macro`` counts classes alike, ``nll`` is the
    mean negative log-likelihood in nats, ``brier`` the Brier score, ``ece`` the expected
    calibration error over 15 bins. ``top_5_accuracy`` exists from six classes on,
    ``accuracy_macro`` up to 1000.

    Args:
        num_classes: K.
        prefix: Put before every name, for example ``val/``.
        threshold: γ of a binary problem; it moves the accuracies, not the scores.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy_micro": _accuracy(num_classes, "micro", threshold),
        "nll": NegativeLogLikelihood(),
        "brier": BrierScore(),
        "ece": MulticlassCalibrationError(
            num_classes, n_bins=CALIBRATION_BINS, validate_args=False
        ),
    }
    if num_classes <= MOST_SQUARED:  # torchmetrics counts it through a (K, K) matrix
        metrics["accuracy_macro"] = _accuracy(num_classes, "macro", threshold)
    if num_classes > TOP_K:
        metrics[f"top_{TOP_K}_accuracy"] = _accuracy(num_classes, "micro", None, top_k=TOP_K)
    return MetricCollection(metrics, prefix=prefix)


def confusion_matrix(
    num_classes: int, *, threshold: float | None = None
) -> MetricCollection | None:
    """``confusion``: counts (classes, classes), the row is the label, the column the prediction.

    ``None`` beyond 1000 classes.
    """
    if num_classes > MOST_SQUARED:
        return None
    matrix = MulticlassConfusionMatrix(num_classes, validate_args=False)
    return MetricCollection({"confusion": _decided(matrix, threshold)})


def _accuracy(num_classes: int, average: Any, threshold: float | None, top_k: int = 1) -> Metric:
    metric = MulticlassAccuracy(num_classes, average=average, top_k=top_k, validate_args=False)
    return _decided(metric, threshold)


def _decided(metric: Metric, threshold: float | None) -> Metric:
    """Let ``metric`` see decisions at γ; without γ it takes the argmax by itself."""
    if threshold is None:
        return metric
    return LambdaInputTransformer(metric, transform_pred=partial(decide, threshold=threshold))

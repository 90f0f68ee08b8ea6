"""Metric collections for classifiers that answer with log-probabilities.

torchmetrics has micro accuracy and confusion matrices. Here are the two proper scores that it lacks
for several classes, negative log-likelihood and the Brier score; macro accuracy, which it makes
from a (K, K) matrix and averages over classes without rows, too; and the calibration error, for
which it keeps every row, and puts the confidence 1 into a bin of its own.

Symbols: n rows, K classes, ``p[i, k]`` the probability of class k in row i, ``y[i]`` the label.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from smx_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jaxtyping import Float, Int

Given = MetricCollection | Metric | dict[str, Metric]  # what configure_metrics may answer

TOP_K = 5  # the customary k of ImageNet's top-k accuracy
MOST_SQUARED = 1000  # classes: a (K, K) matrix of counts takes 8 MB here, and 320 GB at 200000
CALIBRATION_BINS = 15  # as Guo et al. have it


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


class _Deciding(Metric):
    """A metric of predicted labels that decides at γ; without γ torchmetrics takes the argmax."""

    threshold: float | None = None

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch: preds (batch, classes) log-probabilities, target (batch,) labels."""
        decided = preds if self.threshold is None else decide(preds, self.threshold)
        super().update(decided, target)  # type: ignore[safe-super]  # torchmetrics' own


class _Accuracy(_Deciding, MulticlassAccuracy):
    """:class:`MulticlassAccuracy` at γ."""


class _ConfusionMatrix(_Deciding, MulticlassConfusionMatrix):
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
        hits = target[decide(preds, self.threshold) == target]
        self.rows += torch.bincount(target, minlength=self.num_classes)
        self.correct += torch.bincount(hits, minlength=self.num_classes)

    def compute(self) -> Tensor:
        """The mean over the classes that have had rows so far; NaN without any."""
        occur = self.rows > 0
        return (self.correct[occur] / self.rows[occur]).mean()


class CalibrationError(Metric):
    """Expected calibration error: ``Σ_b |Σ_{i in b} ([argmax p[i] = y[i]] - max p[i])| / n``.

    Bin b of B has the rows whose confidence, max p, lies in (b/B, (b+1)/B].
    Guo et al., "On calibration of modern neural networks", ICML 2017, eq. 3.

    Args:
        bins: B.

    >>> metric = CalibrationError()
    >>> metric.update(torch.tensor([[0.25, 0.75], [0.25, 0.75]]).log(), torch.tensor([1, 0]))
    >>> float(metric.compute())
    0.25
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    excess: Tensor
    count: Tensor

    def __init__(self, bins: int = CALIBRATION_BINS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bins = bins
        self.add_state("excess", torch.zeros(bins), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch: preds (batch, classes) log-probabilities, target (batch,) labels."""
        highest, predicted = preds.max(1)
        confidence = highest.exp()
        edges = torch.linspace(0, 1, self.bins + 1, dtype=preds.dtype, device=preds.device)
        inside = torch.bucketize(confidence, edges[1:-1])  # right edges belong to their bins
        correct = (predicted == target).to(preds.dtype)
        members = torch.nn.functional.one_hot(inside, self.bins).to(preds.dtype)
        self.excess += (correct - confidence) @ members
        self.count += target.numel()

    def compute(self) -> Tensor:
        """The error over all rows so far."""
        return self.excess.abs().sum() / self.count


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
    if type(given) is MetricCollection:
        parts = dict(given.items(keep_base=True, copy_state=False))
        given = _collection(parts, given.prefix, given.postfix)
    elif isinstance(given, dict):
        given = _collection(given)
    if not isinstance(given, MetricCollection):
        raise InputError(
            "configure_metrics must return a MetricCollection, a dict of metrics or one metric, "
            f"got {type(given).__name__}"
        )
    prefix = f"{stage}/"
    named = [str(name).startswith(prefix) for name in given.keys()]  # noqa: SIM118 (with prefixes)
    if all(named):
        return given
    if any(named):
        bare = {str(name).removeprefix(prefix): metric for name, metric in given.items()}
        return _collection(bare, prefix)
    return given.clone(prefix=prefix + (given.prefix or ""))


def training_metrics(num_classes: int, *, threshold: float | None = None) -> MetricCollection:
    """What is cheap enough to follow during training: micro accuracy and NLL."""
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy_micro": _accuracy(num_classes, threshold),
        "nll": NegativeLogLikelihood(),
    }
    return _collection(metrics, "train/")


def evaluation_metrics(
    num_classes: int, *, prefix: str, threshold: float | None = None
) -> MetricCollection:
    """Every scalar that describes a classifier, under names that say what they are.

    ``accuracy_micro`` counts rows alike, ``accuracy_macro`` counts the classes that occur in the
    labels alike (as scikit-learn's ``balanced_accuracy_score``), ``nll`` is the mean negative
    log-likelihood in nats, ``brier`` the Brier score, ``ece`` the expected calibration error over
    15 bins. ``top_5_accuracy`` exists from six classes on.

    Args:
        num_classes: K.
        prefix: Put before every name, for example ``val/``.
        threshold: γ of a binary problem; it moves the accuracies, not the scores.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy_micro": _accuracy(num_classes, threshold),
        "accuracy_macro": MacroAccuracy(num_classes, threshold=threshold),
        "nll": NegativeLogLikelihood(),
        "brier": BrierScore(),
        "ece": CalibrationError(),
    }
    if num_classes > TOP_K:
        metrics[f"top_{TOP_K}_accuracy"] = _accuracy(num_classes, None, top_k=TOP_K)
    return _collection(metrics, prefix)


def confusion_matrix(
    num_classes: int, *, threshold: float | None = None
) -> MetricCollection | None:
    """``confusion``: counts (classes, classes), the row is the label, the column the prediction.

    ``None`` beyond 1000 classes.
    """
    if num_classes > MOST_SQUARED:
        return None
    matrix = _ConfusionMatrix(num_classes, validate_args=False)
    matrix.threshold = threshold
    return MetricCollection({"confusion": matrix})


def _collection(
    metrics: Mapping[str, Metric | MetricCollection],
    prefix: str | None = None,
    postfix: str | None = None,
) -> MetricCollection:
    """Each with a state of its own.

    Groups would join for ever those whose states are alike after the first update: accuracy and
    top-5 accuracy where all rows are right, NLL and Brier score where they are certain, too.
    """
    return MetricCollection({**metrics}, prefix=prefix, postfix=postfix, compute_groups=False)


def _accuracy(num_classes: int, threshold: float | None, top_k: int = 1) -> Metric:
    metric = _Accuracy(num_classes, average="micro", top_k=top_k, validate_args=False)
    metric.threshold = threshold
    return metric


def set_threshold(metrics: Iterable[nn.Module], old: float | None, new: float | None) -> None:
    """Let those metrics that decided at ``old`` decide at ``new`` from now on; counts stay."""
    for metric in metrics:
        if isinstance(metric, (_Deciding, MacroAccuracy)) and metric.threshold == old:
            metric.threshold = new

"""The collections of metrics of a stage, for classifiers that answer with log-probabilities."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch import nn
from torchmetrics import Metric, MetricCollection

from smx_lightning.activations import SOFTMAX, Activation
from smx_lightning.errors import InputError
from smx_lightning.metrics.accuracy import Accuracy, ConfusionMatrix, Deciding, MacroAccuracy
from smx_lightning.metrics.calibration import CalibrationError
from smx_lightning.metrics.scores import BrierScore, NegativeLogLikelihood
from smx_lightning.metrics.support import (
    LabelInSupport,
    MeanFenchelYoungLoss,
    SupportSize,
    ZeroShare,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


Given = MetricCollection | Metric | dict[str, Metric]  # what configure_metrics may answer

TOP_K = 5  # the customary k of ImageNet's top-k accuracy
MOST_SQUARED = 1000  # classes: a (K, K) matrix of counts takes 8 MB here, and 320 GB at 200000


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


def usual_metrics(
    stage: str,
    num_classes: int,
    *,
    threshold: float | None = None,
    activation: Activation = SOFTMAX,
) -> Given:
    """Those of a stage where nobody configures others, see the two functions below."""
    if stage == "train":
        return training_metrics(num_classes, threshold=threshold, activation=activation)
    return evaluation_metrics(
        num_classes, prefix=f"{stage}/", threshold=threshold, activation=activation
    )


def loss_name(activation: Activation) -> str:
    """Which of the usual metrics is what training minimises."""
    return "nll" if activation == SOFTMAX else "loss"


def training_metrics(
    num_classes: int, *, threshold: float | None = None, activation: Activation = SOFTMAX
) -> MetricCollection:
    """What is cheap enough to follow during training: micro accuracy, and NLL or the loss."""
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy_micro": _accuracy(num_classes, threshold),
        loss_name(activation): _loss(activation),
    }
    return _collection(metrics, "train/")


def _loss(activation: Activation) -> Metric:
    return NegativeLogLikelihood() if activation == SOFTMAX else MeanFenchelYoungLoss(activation)


def evaluation_metrics(
    num_classes: int,
    *,
    prefix: str,
    threshold: float | None = None,
    activation: Activation = SOFTMAX,
) -> MetricCollection:
    """Every scalar that describes a classifier, under names that say what they are.

    ``accuracy_micro`` counts rows alike, ``accuracy_macro`` counts the classes that occur in the
    labels alike (as scikit-learn's ``balanced_accuracy_score``), ``nll`` is the mean negative
    log-likelihood in nats, ``brier`` the Brier score, ``ece`` the expected calibration error over
    15 bins. ``top_5_accuracy`` exists from six classes on, and ranks by scores.

    Of members other than softmax ``nll`` is infinite where one label's probability is 0, and there
    are: ``loss``, the mean Fenchel-Young loss, ``support_size``, how many classes of a row have a
    probability above 0, ``zeros``, the share of probabilities that are exactly 0, and
    ``label_in_support``, the share of rows whose label's probability is above 0.

    Args:
        num_classes: K.
        prefix: Put before every name, for example ``val/``.
        threshold: γ of a binary problem; it moves the accuracies, not the scores.
        activation: The model's.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy_micro": _accuracy(num_classes, threshold),
        "accuracy_macro": MacroAccuracy(num_classes, threshold=threshold),
        "nll": NegativeLogLikelihood(),
        "brier": BrierScore(),
        "ece": CalibrationError(),
    }
    if activation != SOFTMAX:
        metrics |= {
            "loss": MeanFenchelYoungLoss(activation),
            "support_size": SupportSize(),
            "zeros": ZeroShare(),
            "label_in_support": LabelInSupport(),
        }
    if num_classes > TOP_K:
        metrics[f"top_{TOP_K}_accuracy"] = _accuracy(num_classes, None, top_k=TOP_K)
    return _collection(metrics, prefix)


def confusion_matrix(
    num_classes: int, *, threshold: float | None = None
) -> MetricCollection | None:
    """``confusion``: counts (classes, classes), the row is the label, the column the prediction.

    Integers; float64 where rows have weights, or distributions over the classes in place of labels.
    ``None`` beyond 1000 classes.
    """
    if num_classes > MOST_SQUARED:
        return None
    matrix = ConfusionMatrix(num_classes)
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
    metric = Accuracy(num_classes, top_k=top_k)
    metric.threshold = threshold
    return metric


def set_threshold(metrics: Iterable[nn.Module], old: float | None, new: float | None) -> None:
    """Let those metrics that decided at ``old`` decide at ``new`` from now on; counts stay."""
    for metric in metrics:
        if isinstance(metric, (Deciding, MacroAccuracy)) and metric.threshold == old:
            metric.threshold = new

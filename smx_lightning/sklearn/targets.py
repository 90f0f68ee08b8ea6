"""y, sample_weight and class_weight as scikit-learn's users write them → targets and weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array
from torch import Tensor

from smx_lightning.data.labels import shown
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import LISTED, number
from smx_lightning.errors.targets import SUMS_TO, check_smoothing
from smx_lightning.optim.evaluation import smoothed, weighted
from smx_lightning.sklearn.rows import dense


@dataclass(frozen=True)
class Targets:
    """What the rows are to be, and how much they count.

    Attributes:
        classes: (K,) labels in sorted order, or what the columns of a distribution are called.
        y: (rows,) int64 indices of them, or (rows, K) distributions.
        weight: (rows,) float64, those of the classes included; ``None`` for ones.
        class_weight: (K,) float64 or ``None``.
        total: Σ of the weights.
    """

    classes: NDArray[Any]
    y: Tensor
    weight: Tensor | None
    class_weight: Tensor | None
    total: float


def is_soft(y: Any) -> bool:
    """Whether y is (rows, K) distributions over several classes, and not labels."""
    shape = getattr(y, "shape", None)
    if shape is None and isinstance(y, (list, tuple)):
        shape = np.shape(y)
    return shape is not None and len(shape) == 2 and shape[1] > 1


def soft_targets(y: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The classes and the rows' distributions over them, (rows, K).

    The columns of a data frame are the classes; of anything else these are 0 to K - 1.

    Raises:
        InputError: For what is no distribution.
    """
    columns = getattr(y, "columns", None)
    names = [] if columns is None else list(columns)
    if len({*names}) < len(names):
        twice = next(name for k, name in enumerate(names) if name in names[:k])
        raise InputError(
            f"expected a distribution over different classes in y, got two columns {twice!r}; "
            "add them up, or rename one"
        )
    q = check_array(y, dtype=np.float64, input_name="y")
    classes = np.arange(q.shape[1]) if columns is None else np.asarray(columns)
    sums = q.sum(1)
    if q.min() < 0 or abs(sums - 1).max() > SUMS_TO:
        raise InputError(
            "expected labels (rows,), or distributions (rows, classes) of numbers of at least 0 "
            f"that sum to 1, got rows of y that sum to {sums.min():.6g} to {sums.max():.6g} with a "
            f"least entry of {q.min():.6g}; divide each row by its sum, and give the sum as its "
            "sample_weight"
        )
    return classes, q


def hard_targets(y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The classes in sorted order, and each row's index among them.

    Raises:
        InputError: For a single class, and for labels of several kinds.
    """
    try:
        classes, index = np.unique(y, return_inverse=True)
    except TypeError as error:  # two kinds have no order
        kinds = sorted({type(label).__name__ for label in y.tolist()})
        raise InputError(
            f"expected labels of one kind in y, got {' and '.join(kinds)}; leave rows without a "
            "label out, or make all of them text"
        ) from error
    check_classification_targets(y)
    if len(classes) < 2:
        raise InputError(
            "expected labels of at least 2 classes in y, got one class only, "
            f"{classes.tolist()[0]!r}; add rows of another class"
        )
    return classes, index.reshape(-1).astype(np.int64)


def targets(
    classes: NDArray[Any],
    y: NDArray[Any],
    sample_weight: NDArray[np.float64] | None,
    *,
    class_weight: Any,
    label_smoothing: float,
) -> Targets:
    """Targets and weights of all rows.

    Args:
        classes: (K,).
        y: (rows,) indices or (rows, K) distributions.
        sample_weight: (rows,) or ``None``.
        class_weight: ``None``, ``"balanced"`` or a dict by label.
        label_smoothing: ε: the target q becomes (1 - ε) q + ε / K.

    Raises:
        InputError: For class weights or a smoothing that are none.
    """
    given = dense(y)
    weight = None if sample_weight is None else dense(sample_weight)
    by_class = _class_weights(class_weight, classes, given, weight)
    smoothing = check_smoothing(label_smoothing)
    q = smoothed(given, smoothing, len(classes), torch.float64)
    answer, c = weighted(q, weight, by_class)
    total = float(len(y)) if c is None else float(c.sum())
    return Targets(classes, answer, c, by_class, total)


def _class_weights(
    given: Any, classes: NDArray[Any], y: Tensor, weight: Tensor | None
) -> Tensor | None:
    """(K,) float64, or ``None``."""
    if given is None:
        return None
    if isinstance(given, str) and given == "balanced":
        c = torch.ones(len(y), dtype=torch.float64) if weight is None else weight
        counts = c @ y if y.ndim == 2 else torch.bincount(y, c, minlength=len(classes))
        return torch.where(counts > 0, counts.sum() / (len(classes) * counts), 1.0)
    if not isinstance(given, Mapping):
        raise InputError(
            f"class_weight must be None, 'balanced' or a dict by label, got {given!r}; write "
            "{label: weight, …}"
        )
    labels = classes.tolist()
    unknown = [label for label in given if label not in labels]
    if unknown and not {*labels} <= {*given}:  # a fold may lack a rare class, but not misspell it
        raise InputError(
            f"class_weight names the unknown class {unknown[0]!r}; expected some of: "
            f"{shown(labels[:LISTED])}"
        )
    weights = [number("class_weight", given.get(label, 1.0)) for label in labels]
    if not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise InputError(
            f"class_weight must hold positive, finite weights, got {given!r}; leave rows that are "
            "not to count out, or give them a sample_weight of 0"
        )
    return torch.tensor(weights, dtype=torch.float64)

"""From the estimator to the Lightning module and back: the same numbers in both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from smx_lightning.data.labels import shown
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import LISTED
from smx_lightning.module import SoftmaxRegression
from smx_lightning.optim import ExactSolver
from smx_lightning.sklearn.fitting import Point, inside, outside
from smx_lightning.sklearn.rows import as_array
from smx_lightning.sklearn.targets import is_soft

if TYPE_CHECKING:
    from smx_lightning.sklearn.classifier import SoftmaxClassifier

Estimator = TypeVar("Estimator", bound="SoftmaxClassifier")


def settings_of(estimator: SoftmaxClassifier, class_weight: list[float] | None) -> dict[str, Any]:
    """Arguments of the module that those of the estimator stand for, as plain values."""
    names = ("label_smoothing", "preprocessing", "activation")
    return {**{name: getattr(estimator, name) for name in names}, "class_weight": class_weight}


def module_of(estimator: SoftmaxClassifier, **kwargs: Any) -> SoftmaxRegression:
    """See :meth:`.SoftmaxClassifier.to_lightning`."""
    names = getattr(estimator, "feature_names_in_", None)
    settings: dict[str, Any] = {
        "class_names": [str(label) for label in estimator.classes_.tolist()],
        "l2": estimator.l2_,
        **estimator._fitted,
        "feature_names": None if names is None else [str(name) for name in names],
        "optimizer": ExactSolver,
    }
    num_features, num_classes = estimator.coef_.shape[1], len(estimator.classes_)
    model = SoftmaxRegression(num_features, num_classes, **{**settings, **kwargs})
    if estimator.coef_.dtype == np.float64:
        model.double()
    point = estimator._point()
    if estimator._statistics is not None and model.preprocessing.method != "none":
        state = {k: torch.from_numpy(v) for k, v in estimator._statistics.items()}
        model.preprocessing.load_state_dict(state)
        point = inside(point, model.preprocessing)
    with torch.no_grad():
        model.linear.weight.copy_(torch.from_numpy(point.weight))
        model.linear.bias.copy_(torch.from_numpy(point.bias))
    return model.eval()


def rows_of(estimator: SoftmaxClassifier, x: Any, y: Any) -> tuple[Any, Any]:
    """Rows and labels as the module takes them: dense, and the index of each label's class.

    Of classes that are text integers are such indices already.

    Raises:
        InputError: For labels that are none of the estimator's.
    """
    x, y = as_array(x), as_array(y)
    x = x.toarray() if hasattr(x, "toarray") else np.asarray(x)
    if y is None or is_soft(y):
        return x, None if y is None else np.asarray(y, np.float64)
    places = {label: k for k, label in enumerate(estimator.classes_.tolist())}
    if all(isinstance(label, str) for label in places) and np.asarray(y).dtype.kind in "iub":
        return x, np.asarray(y)  # indices of classes that have names
    labels = np.asarray(y).ravel().tolist()
    unknown = [label for label in labels if label not in places]
    if unknown:
        raise InputError(
            f"expected labels in data=(X, y) as in fit, got {unknown[0]!r}, which is none of "
            f"{shown(list(places)[:LISTED])}; give y as fit was given it"
        )
    return x, np.array([places[label] for label in labels], np.int64)


def estimator_of(kind: type[Estimator], path: str | Path, **kwargs: Any) -> Estimator:
    """See :meth:`.SoftmaxClassifier.from_checkpoint`."""
    with _in_float64():  # a checkpoint in float64 would be rounded
        model = SoftmaxRegression.load_from_checkpoint(path, **kwargs)
    if model.threshold is not None:
        raise InputError(
            f"expected a model without a threshold, got {model.threshold}; give threshold=None and "
            "put sklearn.model_selection.FixedThresholdClassifier around the estimator"
        )
    preprocessing = model.preprocessing
    labels = _labels(model.class_names)
    order = np.argsort(labels)  # scikit-learn's metrics take columns to be in sorted order
    weights = model.class_weights_for(model.linear.weight.detach())
    own_weights = None if weights is None else weights[order].tolist()
    given = model.hparams["class_weight"]
    estimator = kind(
        l2=model.l2,
        fit_intercept=_has_intercept(model),
        class_weight=_class_weight(given, labels[order], own_weights),
        activation=model.hparams["activation"],
        preprocessing=preprocessing.method,
        label_smoothing=model.label_smoothing,
    )
    estimator.classes_ = labels[order]
    estimator.n_features_in_, estimator.l2_ = model.num_features, model.l2
    if model.feature_names is not None:
        estimator.feature_names_in_ = np.array(model.feature_names, object)
    parameters = (model.linear.weight, model.linear.bias)
    weight, bias = (p.detach().double().numpy()[order] for p in parameters)
    own = None if preprocessing.method == "none" else preprocessing
    estimator._keep(outside(Point(weight, bias), own), own, _dtype(model))
    estimator._fitted = settings_of(estimator, class_weight=own_weights)
    return estimator


def _class_weight(
    given: Any, labels: NDArray[Any], weights: list[float] | None
) -> str | dict[Any, float] | None:
    """The estimator's argument that stands for the module's: by label, or by a rule."""
    if isinstance(given, str):
        return given
    return None if weights is None else dict(zip(labels.tolist(), weights, strict=True))


def _has_intercept(model: SoftmaxRegression) -> bool:
    """Whether the bias may move: a checkpoint does not say, but one that was held is all zeros."""
    untrained = not model.linear.weight.any()
    shifted = model.preprocessing.method == "standardize"  # which is an intercept itself
    return bool(model.linear.bias.any()) or untrained or shifted


def _dtype(model: SoftmaxRegression) -> Any:
    """float32 where it holds all weights."""
    weight = model.linear.weight.detach()
    return np.float32 if torch.equal(weight.float().double(), weight.double()) else np.float64


@contextmanager
def _in_float64() -> Iterator[None]:
    """What is made meanwhile has parameters in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _labels(names: tuple[str, ...]) -> NDArray[Any]:
    """Class names as labels: integers where all of them are such."""
    try:
        numbers = [int(name) for name in names]
    except ValueError:
        return np.array(names)
    return np.array(numbers if [*map(str, numbers)] == [*names] else names)

"""From the estimator to the Lightning module and back: the same numbers in both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from smx_lightning.errors import InputError
from smx_lightning.module import SoftmaxRegression
from smx_lightning.optim import ExactSolver
from smx_lightning.preprocessing import Preprocessing
from smx_lightning.sklearn.fitting import Point, inside, outside

if TYPE_CHECKING:
    from smx_lightning.optim import Solution
    from smx_lightning.sklearn.classifier import SoftmaxClassifier

Estimator = TypeVar("Estimator", bound="SoftmaxClassifier")


def point_of(solution: Solution, preprocessing: Preprocessing | None) -> Point:
    """A solution in the units of the data."""
    weight, bias = solution.weight.double().numpy(), solution.bias.double().numpy()
    return outside(Point(weight, bias), preprocessing)


def prepared(point: Point, preprocessing: Preprocessing) -> Point:
    """The same point for rows that are preprocessed already."""
    return inside(point, preprocessing)


def module_of(estimator: SoftmaxClassifier, **kwargs: Any) -> SoftmaxRegression:
    """See :meth:`.SoftmaxClassifier.to_lightning`."""
    names = getattr(estimator, "feature_names_in_", None)
    settings: dict[str, Any] = {
        "class_names": [str(label) for label in estimator.classes_.tolist()],
        "l2": estimator.l2_,
        "class_weight": estimator._class_weight,
        "label_smoothing": estimator.label_smoothing,
        "preprocessing": estimator.preprocessing,
        "activation": estimator.activation,
        "feature_names": None if names is None else [str(name) for name in names],
        "optimizer": ExactSolver,
    }
    num_features, num_classes = estimator.coef_.shape[1], len(estimator.classes_)
    model = SoftmaxRegression(num_features, num_classes, **{**settings, **kwargs})
    if estimator.coef_.dtype == np.float64:
        model.double()
    point = estimator._point()
    if estimator._statistics is not None:
        state = {k: torch.from_numpy(v) for k, v in estimator._statistics.items()}
        model.preprocessing.load_state_dict(state)
        point = inside(point, model.preprocessing)
    with torch.no_grad():
        model.linear.weight.copy_(torch.from_numpy(point.weight))
        model.linear.bias.copy_(torch.from_numpy(point.bias))
    return model.eval()


def estimator_of(kind: type[Estimator], path: str | Path, **kwargs: Any) -> Estimator:
    """See :meth:`.SoftmaxClassifier.from_checkpoint`."""
    model = SoftmaxRegression.load_from_checkpoint(path, **kwargs)
    if model.threshold is not None:
        raise InputError(
            f"expected a model without a threshold, got {model.threshold}; give threshold=None and "
            "put sklearn.model_selection.FixedThresholdClassifier around the estimator"
        )
    preprocessing = model.preprocessing
    estimator = kind(
        l2=model.l2,
        class_weight=None,
        activation=model.hparams["activation"],
        preprocessing=preprocessing.method,
        label_smoothing=model.label_smoothing,
    )
    estimator.classes_ = _labels(model.class_names)
    estimator.n_features_in_, estimator.l2_ = model.num_features, model.l2
    if model.feature_names is not None:
        estimator.feature_names_in_ = np.array(model.feature_names, object)
    weight, bias = (p.detach().double().numpy() for p in (model.linear.weight, model.linear.bias))
    own = None if preprocessing.method == "none" else preprocessing
    estimator._keep(outside(Point(weight, bias), own), own, _dtype(model))
    weights = model.class_weights_for(model.linear.weight.detach())
    estimator._class_weight = None if weights is None else weights.tolist()
    return estimator


def _dtype(model: SoftmaxRegression) -> Any:
    return np.float64 if model.linear.weight.dtype == torch.float64 else np.float32


def _labels(names: tuple[str, ...]) -> NDArray[Any]:
    """Class names as labels: integers where all of them are such."""
    try:
        numbers = [int(name) for name in names]
    except ValueError:
        return np.array(names)
    return np.array(numbers if [*map(str, numbers)] == [*names] else names)

"""The covariance of a model's coefficients, if it is at an optimum that has one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from smx_lightning.activations import SOFTMAX
from smx_lightning.coefficients.covariance import Factored, covariance, factored
from smx_lightning.coefficients.information import Information, Sums, TargetRows, information_of
from smx_lightning.coefficients.rows import labelled_rows, training_batches
from smx_lightning.errors import InputError
from smx_lightning.optim.evaluation import gathered
from smx_lightning.processes.sharding import is_sharded
from smx_lightning.training.evaluating import evaluating

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression

Errors = Literal["model", "robust"]
Weights = Literal["frequency", "sampling"]

MOST_UNKNOWNS = 10_000  # 800 MB a matrix
MATRICES = 7  # of that size at once, about
# Of a standard deviation: no coefficient may be farther from the optimum.
FARTHEST = 0.1
# Of a row's score, by a Newton step. Where the optimum lies at infinity, as of classes that are
# separated in part (Albert & Anderson, 1984), a step moves a score by 1 and gains next to nothing.
MOVED = 0.1


class Covariance(NamedTuple):
    """What is known of the estimate.

    ``covariance`` is V of :mod:`.covariance`, on the CPU; ``rows`` and ``distance`` are those of
    :class:`.Coefficients`.
    """

    covariance: Tensor
    rows: float
    distance: float


@torch.no_grad()
def covariance_of(
    model: SoftmaxRegression, point: Tensor, source: Any, errors: Errors, weights: Weights
) -> Covariance:
    """One pass over the training rows, and the algebra.

    Without a penalty there may be a second pass, to tell an optimum from one at infinity.

    Args:
        model: It reads the batches and makes features of them.
        point: Its weight and bias, (classes, features + 1) float64.
        source: Of the rows, see :func:`.coefficients_of`.
        errors: Which.
        weights: What row weights are.

    Raises:
        InputError: Where there is no such covariance.
    """
    _check_kind(model)
    class_weight = _class_weight(model, errors)
    point = point - point.mean(0)  # no prediction changes, and the penalty is at its least
    device = model.device if model.device.type != "mps" else torch.device("cpu")  # no float64
    batches = training_batches(model, source)
    sums = Sums(
        point.to(device),
        None if class_weight is None else class_weight.to(device),
        robust=errors == "robust",
        sampling=weights == "sampling",
    )
    with evaluating(model):
        information = information_of(labelled_rows(model, batches, device), sums)
        _check_optimum_exists(model, information)
        bread = factored(information, model.l2)
        gradient = information.gradient
        gradient = gradient + _penalty_gradient(point.to(device), model.l2, information)
        # As if the weights summed to the number of rows: not all of them have a unit.
        unit = math.sqrt(information.rows / information.total_weight)
        _check_near(unit * bread.least_distance(gradient))  # far away A may be 0
        _check_identified(model, bread)
        distance = unit * bread.distance(gradient)
        _check_near(distance)
        if model.l2 == 0:
            step = bread.solved(gradient[:, None]).view(model.num_classes - 1, -1)
            _check_finite(model, step, information, labelled_rows(model, batches, device))
    meat = information.scores
    if errors == "model":
        meat = None if model.l2 == 0 else information.fisher
    found = covariance(information, bread, meat, model.l2)
    if found is None:
        raise _indistinct(model, bread.smallest)
    return Covariance(found.cpu(), information.rows, distance)


def _penalty_gradient(point: Tensor, l2: float, information: Information) -> Tensor:
    """By the differences v, of a point that sums to zero over the classes, and the sum of rows."""
    gradient = l2 * information.total_weight * point[:-1]
    gradient[:, -1] = 0
    return gradient.flatten()


def _check_kind(model: SoftmaxRegression) -> None:
    """Complain about models whose errors are not those of a likelihood, or too many."""
    if model._smx_activation != SOFTMAX:
        raise InputError(
            f"expected softmax for standard errors, got {model._smx_activation.name}, whose loss "
            "is no likelihood and has a curvature that jumps; leave the rows out for the "
            "coefficients alone, or train with activation='softmax'"
        )
    if type(model).loss is not model._smx_hooks.kind.loss:
        raise InputError(
            "expected the loss of SoftmaxRegression for standard errors, got "
            f"{type(model).__name__} with one of its own, whose curvature nobody knows here; leave "
            "the rows out for the coefficients alone"
        )
    if is_sharded(model.smx):
        raise InputError(
            "expected all classes in each process for standard errors, got classes that are spread "
            "over processes; load the checkpoint in one process"
        )
    unknowns = (model.num_classes - 1) * (model.num_features + 1)
    if unknowns > MOST_UNKNOWNS:
        raise InputError(
            f"expected at most {MOST_UNKNOWNS} coefficients for standard errors, (classes - 1) · "
            f"(features + 1), got {unknowns}, whose matrices would take "
            f"{MATRICES * 8 * unknowns**2 / 1e9:.3g} GB; leave the rows out for the coefficients "
            "alone, or take fewer features"
        )


def _class_weight(model: SoftmaxRegression, errors: Errors) -> Tensor | None:
    weight = model.class_weights_for(torch.empty(0, dtype=torch.float64, device=model.device))
    weighs = weight is not None and bool((weight != 1).any())
    if errors == "model" and (weighs or model.label_smoothing):
        what = "class weights" if weighs else "label smoothing"
        raise InputError(
            f"expected errors='robust' of a model with {what}, got errors='model', which takes the "
            "loss for a likelihood; give errors='robust'"
        )
    return weight


def _check_optimum_exists(model: SoftmaxRegression, information: Information) -> None:
    absent = (information.targets == 0).nonzero().flatten().tolist()
    if absent:
        raise InputError(
            f"expected training rows of every class for standard errors, got none of "
            f"{model.class_names[absent[0]]!r}, whose intercept falls for ever; train without it, "
            "or add rows"
        )
    if model.l2 == 0 and information.separated:
        raise InputError(
            "expected classes that overlap for standard errors without a penalty, got a model that "
            "tells all training rows apart: it has no optimum; train with l2 above 0"
        )


def _check_identified(model: SoftmaxRegression, bread: Factored) -> None:
    if bread.singular is not None:
        raise _indistinct(model, bread.singular)


def _indistinct(model: SoftmaxRegression, unknown: int) -> InputError:
    """Of an unknown that those before it determine."""
    column = unknown % (model.num_features + 1)
    if column == model.num_features:
        found = "features that make up a constant, as one-hot ones do; drop one of them"
    else:
        found = f"feature {_name(model, column)!r}, which those before it determine; drop it"
    if model.l2 == 0:
        return InputError(
            "expected features that vary, and none that others determine, for standard errors "
            f"without a penalty, got {found}, or train with l2 above 0"
        )
    return InputError(
        f"expected features that float64 can tell apart at l2={model.l2:g}, got {found}, or train "
        "with a larger l2, or with preprocessing='standardize'"
    )


def _name(model: SoftmaxRegression, column: int) -> str:
    return str(column) if model.feature_names is None else model.feature_names[column]


def _check_near(distance: float) -> None:
    if not distance <= FARTHEST:
        raise InputError(
            f"expected coefficients within {FARTHEST} standard errors of the optimum of these "
            f"rows, got a model that may be {distance:.3g} of them away from it; give the rows "
            "that it was trained on, split as they were then, and train to the optimum with "
            "optimizer=ExactSolver, in float64 where float32 ends short of it"
        )


def _check_finite(
    model: SoftmaxRegression,
    step: Tensor,
    information: Information,
    rows: Iterable[TargetRows],
) -> None:
    """Complain about an optimum at infinity, where a Newton step still moves some row's score.

    A bound is known; where it is large, the rows are asked.
    """
    moved = float((step.abs() @ information.extent).max())
    if moved > MOVED:
        asked = [_largest_score(step, part.x) for part in rows]  # none, where they were iterated up
        moved = max(gathered(max(asked, default=moved)))
    if moved > MOVED:
        raise InputError(
            "expected classes that overlap for standard errors without a penalty, got a model that "
            f"a Newton step moves by {moved:.2g} in a row's score although it gains nothing: its "
            "optimum lies at infinity, or it is not there yet; train with l2 above 0, or, where "
            "classes do overlap, nearer to the optimum in float64"
        )


def _largest_score(point: Tensor, x: Tensor) -> float:
    scores = torch.addmm(point[:, -1], x, point[:, :-1].T)
    return float(scores.abs().max()) if scores.numel() else 0.0

"""From checked rows and targets to the optimum, and back to the units of the data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from smx_lightning.errors import InputError
from smx_lightning.errors.checks import non_negative, number
from smx_lightning.optim import Solution, Status, minimise
from smx_lightning.optim.status import NEAR
from smx_lightning.preprocessing import Method, Moments, Preprocessing
from smx_lightning.sklearn.rows import Parts, batches, dense
from smx_lightning.sklearn.targets import Targets

Statistics = dict[str, NDArray[np.float32]]  # of a Preprocessing, as it keeps them


class Point(NamedTuple):
    """Weight (classes, features) and bias (classes,) in the units of the data, float64."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]


def penalty(l2: float | None, inverse: float | None, targets: Targets) -> float:
    """l2 of the mean loss, of the argument ``l2`` or of scikit-learn's ``C``.

    ``C`` weighs the sum of the losses against ½‖w‖²: l2 = 1 / (C Σ c). Of two classes scikit-learn
    has one w = w₁ - w₀, and where ‖w₀‖² + ‖w₁‖² is least that is ½ ‖w‖²: l2 = 2 / (C Σ c).

    Raises:
        InputError: For both at once, and for a ``C`` that is not positive.
    """
    if l2 is not None and inverse is not None:
        raise InputError(
            f"expected l2 or C, which are the same penalty in two units, got l2={l2} and "
            f"C={inverse}; leave one of them out"
        )
    if l2 is not None:
        return non_negative("l2", l2)
    given = number("C", 1.0 if inverse is None else inverse)
    if not given > 0:
        raise InputError(f"C must be a number above 0, got {inverse}; infinity is no penalty")
    if not targets.total:
        return 0.0
    found = (2 if len(targets.classes) == 2 else 1) / given / targets.total
    if not math.isfinite(found):
        raise InputError(
            f"expected a penalty of C={given:g} and weights of {targets.total:g} together that is "
            "finite, got infinity; take a larger C, or give l2"
        )
    return found


def statistics_of(
    x: Any, weight: NDArray[np.float64] | None, method: Method, *, intercept: bool
) -> Preprocessing | None:
    """Preprocessing fitted on the rows; ``None`` for none.

    Args:
        x: (rows, features).
        weight: (rows,) or ``None``.
        method: See :mod:`smx_lightning.preprocessing`.
        intercept: Whether there is one.

    Raises:
        InputError: For a method that is unknown, or whose mean would be an intercept.
    """
    preprocessing = Preprocessing(x.shape[1], method)
    if preprocessing.method == "none":
        return None
    if preprocessing.method == "standardize" and not intercept:
        raise InputError(
            "expected preprocessing 'none' or 'scale' with fit_intercept=False, got 'standardize', "
            "whose means are an intercept in the units of the data; take preprocessing='scale'"
        )
    moments = Moments.empty(x.shape[1])
    along = () if weight is None else (dense(weight),)
    for rows, *own in Parts(x, *along, prepare=lambda rows: rows):
        if own:
            counts = own[0] > 0
            rows, own = rows[counts], [own[0][counts]]
        moments = moments.merged(Moments.of(rows, *own))
    preprocessing.fit(moments)
    return preprocessing


def prepared_by(statistics: Mapping[str, NDArray[Any]], method: Method) -> Preprocessing:
    """The preprocessing that these arrays stand for."""
    preprocessing = Preprocessing(len(statistics["mean"]), method)
    preprocessing.load_state_dict({k: torch.from_numpy(v) for k, v in statistics.items()})
    return preprocessing


def inside(point: Point, preprocessing: Preprocessing | None) -> Point:
    """The same answers of preprocessed rows: W σ and b + W μ."""
    if preprocessing is None:
        return point
    mean, scale = preprocessing.centre.numpy(), preprocessing.scale.double().numpy()
    return Point(point.weight * scale, point.bias + point.weight @ mean)


def outside(point: Point, preprocessing: Preprocessing | None) -> Point:
    """Inverse of :func:`inside`."""
    if preprocessing is None:
        return point
    mean, scale = preprocessing.centre.numpy(), preprocessing.scale.double().numpy()
    weight = point.weight / scale
    return Point(weight, point.bias - weight @ mean)


def point_of(solution: Solution, preprocessing: Preprocessing | None) -> Point:
    """A solution in the units of the data."""
    weight, bias = solution.weight.double().numpy(), solution.bias.double().numpy()
    return outside(Point(weight, bias), preprocessing)


def solve(
    x: Any,
    targets: Targets,
    preprocessing: Preprocessing | None,
    start: Point | None,
    **options: Any,
) -> Solution:
    """The optimum of preprocessed rows, in the dtype of x.

    Args:
        x: (rows, features).
        targets: Of the rows.
        preprocessing: Of the rows.
        start: In the units of the data, or ``None``.
        options: Of :func:`smx_lightning.optim.minimise`.
    """
    along = (targets.y,) if targets.weight is None else (targets.y, targets.weight)
    if start is not None:
        start = inside(start, preprocessing)
    return minimise(
        batches(x, *along, prepare=preprocessing),
        x.shape[1],
        len(targets.classes),
        dtype=getattr(torch, x.dtype.name),
        start=None if start is None else (torch.tensor(start.weight), torch.tensor(start.bias)),
        **options,
    )


def warn_where_short(solution: Solution, max_iter: int) -> None:
    """Say why the solver stopped short of the optimum, where it did."""
    said = f"{solution.message}; its coefficients are the best point so far"
    if solution.status in (Status.CONVERGED, Status.PRECISION):
        if solution.gap <= NEAR:
            return
        said = (
            f"{solution.message}, and yet up to about {solution.gap:.1g} of the objective may be "
            "left to gain; take preprocessing='standardize', float64 or a smaller tol, and look "
            "for rows far from all others"
        )
    elif solution.status is Status.RUNNING:
        said = (
            f"stopped after max_iter={max_iter} passes, with at most about {solution.gap:.1g} of "
            "the objective left to gain; raise max_iter or tol, or take "
            "preprocessing='standardize'"
        )
    warnings.warn(said, ConvergenceWarning, stacklevel=3)

"""A model's coefficients as a named table, with standard errors of its training rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from smx_lightning.checkpoint.matching import has_features
from smx_lightning.coefficients.covariance import Units, contrasts
from smx_lightning.coefficients.optimum import Errors, Weights, covariance_of
from smx_lightning.coefficients.table import Coefficients, Estimates
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import LISTED, number
from smx_lightning.processes.sharding import whole

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression


def coefficients_of(
    model: SoftmaxRegression,
    batches: Any = None,
    *,
    reference: str | None = None,
    errors: Errors | None = None,
    weights: Weights = "frequency",
    level: float = 0.95,
) -> Coefficients:
    """W and b as a named table, in the data's own units and in standardised ones.

    With the rows that the model was trained on come standard errors, z, p-values and intervals:
    of the penalised estimate, whose bias they do not hold (docs/coefficients.md).

    Args:
        model: At its optimum, where errors are wanted.
        batches: The training rows: a data module, a loader, or other batches as ``unpack`` reads
            them, (x, y) or (x, y, weight); in several processes each gives its share.
        reference: A class that the others are compared with; ``None``: with the mean of all.
        errors: ``model`` (the default): right where the model is, A⁻¹ H A⁻¹; ``robust``: A⁻¹ J A⁻¹,
            of White.
        weights: What row weights are: ``frequency``, a row that occurred so often, or ``sampling``,
            one that stands for so many and occurred once.
        level: Of the intervals.

    Raises:
        InputError: For errors that would mean nothing, and for rows and arguments that do not fit.
    """
    names = [str(name) for name in model.class_names]
    chosen = _chosen(reference, names)
    errors, level = _checked(batches, errors, weights, level)
    coding = contrasts(model.num_classes, chosen)
    weight, bias = (whole(p.detach()).double().cpu() for p in model.linear.parameters())
    point = _finite(torch.cat([weight, bias[:, None]], 1))
    found = None if errors is None else covariance_of(model, point, batches, errors, weights)

    def estimates(units: Units) -> Estimates:
        error = None if found is None else units.std_error(found.covariance, coding).numpy()
        return Estimates(units.estimate(coding @ point).numpy(), error, level)

    own = Units(model.preprocessing.centre.cpu(), model.preprocessing.scale.double().cpu())
    return Coefficients(
        feature_names=_feature_names(model),
        class_names=tuple(name for k, name in enumerate(names) if k != chosen),
        own=estimates(own),
        standardised=estimates(Units(0 * own.centre, torch.ones_like(own.spread))),
        reference=reference,
        errors=errors,
        **({} if found is None else {"num_rows": found.rows, "distance": found.distance}),
    )


def _feature_names(model: SoftmaxRegression) -> tuple[str, ...]:
    """The model's, or numbers: what a subclass makes of its inputs goes by no name."""
    if model.feature_names is None or has_features(model):
        return tuple(map(str, range(model.num_features)))
    return tuple(model.feature_names)


def _finite(point: Tensor) -> Tensor:
    if not point.isfinite().all():
        raise InputError(
            "expected a model whose weights are finite, got NaN or infinity in them; train it "
            "anew, on finite features and with a step that converges"
        )
    return point


def _chosen(reference: str | None, names: Sequence[str]) -> int | None:
    if reference is None:
        return None
    if reference not in names:
        known = ", ".join([*names[:LISTED], *["…"] * (len(names) > LISTED)])
        raise InputError(
            f"expected reference to be one of the classes {known}, got {reference!r}; name one of "
            "them, or leave it out"
        )
    return names.index(reference)


def _checked(
    batches: Any, errors: Errors | None, weights: Weights, level: float
) -> tuple[Errors | None, float]:
    """Which errors there are, and the level."""
    for name, value, kinds in (("errors", errors, Errors), ("weights", weights, Weights)):
        if value not in (*get_args(kinds), *([None] if name == "errors" else [])):
            raise InputError(
                f"expected {name} to be {' or '.join(get_args(kinds))}, got {value!r}; take one of "
                "these"
            )
    level = number("level", level)
    if not 0 < level < 1:
        raise InputError(f"expected level between 0 and 1, got {level:g}; take 0.95, say")
    if batches is None and errors is not None:
        raise InputError(
            f"expected the training rows for {errors} standard errors, got none; give batches, a "
            "loader or a data module"
        )
    errors = errors or ("model" if batches is not None else None)
    if weights == "sampling" and errors == "model":
        raise InputError(
            "expected errors='robust' with sampling weights, got errors='model', which takes a "
            "weight for a number of rows; give errors='robust', or weights='frequency'"
        )
    return errors, level

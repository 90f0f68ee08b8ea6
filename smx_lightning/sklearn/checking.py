"""X, y and sample_weight as users give them, in scikit-learn's ways of checking them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import _check_sample_weight, validate_data

from smx_lightning.errors import InputError
from smx_lightning.sklearn.rows import as_array
from smx_lightning.sklearn.targets import Targets, hard_targets, is_soft, soft_targets, targets

if TYPE_CHECKING:
    from smx_lightning.sklearn.classifier import SoftmaxClassifier

FLOATS = [np.float64, np.float32]  # float32 rows stay float32; what is neither becomes float64


class Checked(NamedTuple):
    """Rows (n, d), an array or a matrix of scipy.sparse, their weights (n,), and their targets."""

    x: Any
    weight: NDArray[np.float64] | None
    targets: Targets


@contextmanager
def unchanged_where_refused(estimator: SoftmaxClassifier) -> Iterator[None]:
    """Names and number of features as before, where a fit fails: the last one's answers stand."""
    names = ("n_features_in_", "feature_names_in_")
    before = {name: vars(estimator)[name] for name in names if name in vars(estimator)}
    try:
        yield
    except BaseException:
        for name in names:
            estimator.__dict__.pop(name, None)
        estimator.__dict__.update(before)
        raise


def checked(estimator: SoftmaxClassifier, x: Any, y: Any, sample_weight: Any) -> Checked:
    """What a fit is given; the estimator keeps the names and the number of features.

    Raises:
        InputError: For what is none, or other features than those that a fit goes on from;
            scikit-learn's own ValueError for x and y that are no numbers and labels.
    """
    x, y, sample_weight = map(as_array, (x, y, sample_weight))
    before = getattr(estimator, "n_features_in_", None) if estimator.warm_start else None
    options = {"accept_sparse": "csr", "dtype": FLOATS, "order": "C"}
    known: NDArray[Any]
    if is_soft(y):
        x = validate_data(estimator, x, **options)
        classes, known = soft_targets(y)
        if len(known) != x.shape[0]:
            raise InputError(
                f"expected a target for each of {x.shape[0]} rows, got {len(known)}; give as many "
                "rows in X and y"
            )
    else:
        x, y = validate_data(estimator, x, y, **options)
        classes, known = hard_targets(y)
    if before not in (None, x.shape[1]):
        raise InputError(
            f"expected {before} features, as the fit that warm_start=True goes on from, got "
            f"{x.shape[1]}; set warm_start=False to begin anew"
        )
    weight = _weights(sample_weight, x)
    settings = {name: getattr(estimator, name) for name in ("class_weight", "label_smoothing")}
    return Checked(x, weight, targets(classes, known, weight, **settings))


def _weights(given: Any, x: Any) -> NDArray[np.float64] | None:
    if given is None:
        return None
    weight: NDArray[np.float64] = _check_sample_weight(
        given, x, dtype=np.float64, ensure_non_negative=True
    )
    if not weight.any():
        raise InputError(
            "expected sample_weight with a positive sum, got zeros only; leave it out, or give "
            "some rows a positive one"
        )
    with np.errstate(over="ignore"):
        total = weight.sum()
    if not np.isfinite(total):
        raise InputError(
            f"expected sample_weight with a finite sum, got weights of up to {weight.max():.3g}; "
            "divide all of them by the largest"
        )
    return weight

"""The estimator: scikit-learn's conventions around the exact solver.

Conventions
-----------
Of n rows with d features, labels of K classes and weights c, ``fit`` minimises

    Σ c · -log p_y / Σ c + ½ · l2 · ‖W‖²,    p = softmax(W x + b),

or another activation's loss. With two classes scikit-learn's ``coef_`` (1, d) is W₁ - W₀, and
``decision_function`` (n,) the difference of the two scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from typing_extensions import Self

from smx_lightning.activations import activation_of
from smx_lightning.activations.layers import log_probabilities
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import at_least, flag, non_negative
from smx_lightning.preprocessing import Method
from smx_lightning.preprocessing.digits import wide_columns
from smx_lightning.sklearn import lightning
from smx_lightning.sklearn.checking import FLOATS, checked, unchanged_where_refused
from smx_lightning.sklearn.fitting import (
    Point,
    Statistics,
    inside,
    penalty,
    point_of,
    prepared_by,
    solve,
    statistics_of,
    warn_where_short,
)
from smx_lightning.sklearn.rows import Parts, as_array
from smx_lightning.sklearn.starting import started

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression


class SoftmaxClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Softmax regression to its exact optimum, with scikit-learn's interface.

    Args:
        l2: Weight of the penalty ½‖W‖² beside the mean loss, at least 0; in place of ``C``.
        C: Inverse strength of the penalty as in
            :class:`sklearn.linear_model.LogisticRegression`, for the same answers as its; 1 where
            neither is given.
        class_weight: ``None``, ``"balanced"`` (Σ c / (K · Σ c of the class)), or a dict by label;
            labels that it leaves out weigh 1.
        fit_intercept: Whether there is a bias, which is never penalised.
        tol: Largest entry of the gradient of the mean loss at which to stop.
        max_iter: Passes over the rows, at most.
        warm_start: Whether ``fit`` begins at the coefficients of the last one. Classes may have
            come or gone: those that stay are found by their labels.
        activation: From scores to probabilities: ``softmax``, ``entmax15``, ``sparsemax``, or
            ``{"alpha": 1 to 2}``; see :func:`smx_lightning.activations.activation_of`.
        preprocessing: ``none``, ``standardize`` or ``scale``, fitted on the weighted rows. It
            changes what the penalty is of; ``coef_`` and ``intercept_`` are of the rows as they
            are given.
        label_smoothing: ε: the target q becomes (1 - ε) q + ε / K.

    Attributes:
        classes_: (K,) labels in sorted order.
        coef_: (K, d), or (1, d) of two classes.
        intercept_: (K,), or (1,) of two classes.
        n_iter_: Passes over the rows.
        n_features_in_: d.
        feature_names_in_: (d,) where X had names.
        l2_: Weight of the penalty, also where ``C`` said it.
        objective_: What was minimised, at the solution.
        gap_: How much of it more passes could take off at most, about.
        status_: Name of the solver's :class:`~smx_lightning.optim.Status`.

    >>> from sklearn.datasets import load_wine
    >>> x, y = load_wine(return_X_y=True)
    >>> model = SoftmaxClassifier(l2=1e-3, preprocessing="standardize").fit(x, y)
    >>> model.coef_.shape, model.status_
    ((3, 13), 'CONVERGED')
    """

    _fitted: dict[str, Any]  # the arguments that the answers depend on, whatever is set later
    classes_: NDArray[Any]
    coef_: NDArray[np.floating]
    intercept_: NDArray[np.floating]

    def __init__(
        self,
        *,
        l2: float | None = None,
        C: float | None = None,  # noqa: N803 (scikit-learn's name)
        class_weight: str | Mapping[Any, float] | None = None,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 1000,
        warm_start: bool = False,
        activation: str | dict[str, float] = "softmax",
        preprocessing: Method = "none",
        label_smoothing: float = 0.0,
    ) -> None:
        self.l2 = l2
        self.C = C
        self.class_weight = class_weight
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.activation = activation
        self.preprocessing = preprocessing
        self.label_smoothing = label_smoothing

    # Fitting ---------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:  # noqa: N803
        """Find the optimum of all rows.

        Args:
            X: (n, d) numbers: an array, a data frame, or a matrix of scipy.sparse, which is made
                dense a part at a time.
            y: (n,) labels of any kind, or (n, K) distributions over the classes.
            sample_weight: (n,) numbers of at least 0; ``None`` for ones.

        Returns:
            The estimator itself.

        Raises:
            InputError: For arguments out of their range; scikit-learn's own ValueError for X and y
                that are no numbers and labels.
        """
        known = activation_of(self.activation)
        options: dict[str, Any] = {
            "tol": non_negative("tol", self.tol),
            "max_evaluations": at_least("max_iter", self.max_iter, 1),
        }
        intercept = flag("fit_intercept", self.fit_intercept)
        before = self._before() if flag("warm_start", self.warm_start) else None
        with unchanged_where_refused(self):
            X, weight, found = checked(self, X, y, sample_weight)  # noqa: N806
            l2 = penalty(self.l2, self.C, found)
            prepared = statistics_of(X, weight, self.preprocessing, intercept=intercept)
            settings: dict[str, Any] = {"l2": l2, "activation": known, "intercept": intercept}
            start = None if before is None else started(before, X, found, prepared, **settings)
            solution = solve(X, found, prepared, start, **options, **settings)
        self.classes_, self.l2_ = found.classes, l2
        self._keep(point_of(solution, prepared), prepared, X.dtype)
        self.n_iter_, self.status_ = solution.evaluations, solution.status.name
        self.objective_, self.gap_ = solution.objective, solution.gap
        weights = None if found.class_weight is None else found.class_weight.tolist()
        self._fitted = lightning.settings_of(self, class_weight=weights)
        self._wide = wide_columns(X, None) if prepared is None and isinstance(X, np.ndarray) else []
        warn_where_short(solution, options["max_evaluations"])
        return self

    @property
    def partial_fit(self) -> Any:
        """There is none: the optimum is of all rows, and one batch of them does not tell it.

        Raises:
            AttributeError: With what there is in its place.
        """
        raise AttributeError(
            "SoftmaxClassifier has no partial_fit: the exact solver sees all rows in every pass; "
            "take warm_start=True to go on from the last fit, or to_lightning(), which trains by "
            "mini-batches"
        )

    def _before(self) -> tuple[NDArray[Any], Point] | None:
        """The last fit's classes and its point, if there was one."""
        if not hasattr(self, "coef_"):
            return None
        return self.classes_, self._point()

    def _keep(self, point: Point, prepared: Any, dtype: Any) -> None:
        """The point as ``coef_`` and ``intercept_``, and what rows are standardised with."""
        weight, bias = point
        if len(bias) == 2:
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        # Of standardised rows in float64: the intercept alone may be thousands times a score.
        kept = dtype if prepared is None else np.float64
        self.coef_, self.intercept_ = weight.astype(kept), bias.astype(kept)
        self._statistics: Statistics | None = None
        if prepared is not None:
            self._statistics = {k: v.numpy().copy() for k, v in prepared.state_dict().items()}

    def _point(self) -> Point:
        """Weight (K, d) and bias (K,), those of two classes opposite."""
        weight, bias = (np.asarray(p, np.float64) for p in (self.coef_, self.intercept_))
        if len(self.classes_) == 2:
            weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        return Point(weight, bias)

    # Predicting ------------------------------------------------------------------------------

    def decision_function(self, X: Any) -> NDArray[np.floating]:  # noqa: N803
        """Scores W x + b (n, K); of two classes their difference (n,)."""
        check_is_fitted(self)
        X = validate_data(  # noqa: N806
            self, as_array(X), accept_sparse="csr", dtype=FLOATS, reset=False
        )
        if self._statistics is None:
            scores: NDArray[np.floating] = X @ self.coef_.T + self.intercept_
        else:
            prepared = prepared_by(self._statistics, self._fitted["preprocessing"])
            point = Point(self.coef_.astype(np.float64), self.intercept_.astype(np.float64))
            weight, bias = inside(point, prepared)
            parts = [rows.numpy() for (rows,) in Parts(X, prepare=prepared)]
            scores = np.concatenate([part @ weight.T.astype(part.dtype) + bias for part in parts])
            scores = scores.astype(X.dtype)
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """The label of the largest score of each row, (n,)."""
        scores = self.decision_function(X)
        index = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)
        labels: NDArray[Any] = self.classes_[index]
        return labels

    def predict_log_proba(self, X: Any) -> NDArray[np.floating]:  # noqa: N803
        """Logarithms of the probabilities (n, K); minus infinity of those that are 0."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            scores = np.stack([-scores, scores], 1) / 2
        layer = log_probabilities(activation_of(self._fitted["activation"]))
        with torch.no_grad():
            answer: NDArray[np.floating] = layer(torch.from_numpy(scores)).numpy()
        return answer

    def predict_proba(self, X: Any) -> NDArray[np.floating]:  # noqa: N803
        """Probabilities (n, K), in the order of ``classes_``."""
        probs: NDArray[np.floating] = np.exp(self.predict_log_proba(X))
        return probs

    # The same model elsewhere ----------------------------------------------------------------

    def to_lightning(self, **kwargs: Any) -> SoftmaxRegression:
        """The Lightning module with the same answers.

        Its parameters are those of ``coef_`` and ``intercept_`` in their dtype; of two classes they
        are opposite. Classes are called by their labels as text.

        Args:
            kwargs: Further arguments of :class:`smx_lightning.SoftmaxRegression`, an optimiser for
                instance; by default it is the exact solver.
        """
        check_is_fitted(self)
        return lightning.module_of(self, **kwargs)

    def to_onnx(self, path: str | Path, **kwargs: Any) -> Path:
        """Write one ONNX file, and prove that it is this model.

        Args:
            path: Of the file.
            kwargs: Of :func:`smx_export.export_onnx`; ``data=(X, y)`` adds rows to what is tried,
                with labels as ``fit`` takes them.

        Raises:
            ParityError: Where the file would not be the model.
            InputError: For labels in ``data`` that are none of ``classes_``.
        """
        check_is_fitted(self)
        data = kwargs.get("data")
        if isinstance(data, (tuple, list)) and len(data) in (2, 3):  # 3: with weights
            kwargs["data"] = (*lightning.rows_of(self, *data[:2]), *data[2:])
        if getattr(self, "_wide", []):
            raise InputError(
                "expected features that float32, the input of the file, tells apart, got column "
                f"{self._wide[0]} of X, whose values it moves by more than 2⁻¹⁰ of their standard "
                "deviation; fit with preprocessing='standardize', whose file takes float64"
            )
        written: Path | None = self.to_lightning().to_onnx(path, **kwargs)
        assert written is not None  # of a path
        return written

    @classmethod
    def from_checkpoint(cls, path: str | Path, **kwargs: Any) -> Self:
        """The estimator of a model that Lightning trained, fitted.

        Its labels are the class names, or integers where all names are such.

        Args:
            path: Of the checkpoint.
            kwargs: Of ``SoftmaxRegression.load_from_checkpoint``.

        Raises:
            InputError: For a model with a backbone or a threshold, which this one has not.
        """
        return lightning.estimator_of(cls, path, **kwargs)

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn is told of it."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

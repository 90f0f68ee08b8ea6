"""What scikit-learn's tools ask of a classifier that is a file. No scikit-learn, no torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smx_export.runtime.frames import Frames

SHOWN = 5  # classes in a sentence


class Estimator:
    """Parameters, classes and names of features as scikit-learn's own classifiers have them.

    Its scorers, ``permutation_importance``, ``FrozenEstimator``, ``CalibratedClassifierCV`` of that
    and ``clone`` work; what would fit it is refused.
    """

    _estimator_type = "classifier"  # which scikit-learn before 1.6 looks at
    class_names: list[str]
    num_features: int
    _frames: Frames | None
    _params: dict[str, Any]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments that it was made with, by name."""
        return dict(self._params)

    def set_params(self, **params: Any) -> Any:
        """Open the file again with other arguments."""
        if unknown := params.keys() - self._params.keys():
            raise ValueError(
                f"expected parameters out of {', '.join(self._params)}, got "
                f"{', '.join(sorted(unknown))}; leave them out"
            )
        if params:
            self.__init__(**{**self._params, **params})  # type: ignore[misc]
        return self

    def fit(self, *_: Any, **__: Any) -> Any:
        """Refused: a file is what was trained.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            "expected a classifier that can be trained, got an exported file; train "
            "smx_lightning.SoftmaxRegression, or wrap the file in sklearn.frozen.FrozenEstimator"
        )

    def predict(self, x: Any) -> NDArray[np.int64]:
        """Of the classifier."""
        raise NotImplementedError

    @property
    def classes_(self) -> NDArray[np.int64]:
        """The classes as ``predict`` tells them, (K,): indices, whose names are ``class_names``."""
        return np.arange(len(self.class_names))

    @property
    def feature_names_in_(self) -> NDArray[np.object_]:
        """Names of the columns that a data frame must have, where the file tells them.

        Raises:
            AttributeError: Where it does not.
        """
        if self._frames is None:
            raise AttributeError("the file names no features")
        return np.array(self._frames.columns, dtype=object)

    @property
    def n_features_in_(self) -> int:
        """How many columns a data frame must have; entries of an input where it has no names."""
        return self.num_features if self._frames is None else len(self._frames.columns)

    def score(self, x: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """The share of rows whose class is right.

        Args:
            x: Inputs, as ``predict`` takes them.
            y: (batch,) indices of classes, or their names.
            sample_weight: (batch,) how much each row counts.

        Raises:
            ValueError: For names that no class has, and another number of labels than of rows.
        """
        right = np.asarray(self.predict(x)) == self._indices(np.asarray(y))
        if right.ndim != 1:
            raise ValueError(
                f"expected one label a row, got shape {np.shape(y)}; give as many as rows"
            )
        return float(np.average(right, weights=sample_weight))

    def _indices(self, y: NDArray[Any]) -> NDArray[Any]:
        """Labels as indices of classes."""
        if y.dtype.kind in "iub":
            return y
        places = {name: k for k, name in enumerate(self.class_names)}
        found = np.array([places.get(str(name), -2) for name in y.ravel()]).reshape(y.shape)
        if (found == -2).any():
            known = ", ".join([*self.class_names[:SHOWN], *["…"] * (len(self.class_names) > SHOWN)])
            raise ValueError(
                f"expected labels out of {known}, got {str(y.ravel()[found.ravel().argmin()])!r}; "
                "give indices or names of classes"
            )
        return found

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=False),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(allow_nan=True, string=True, categorical=True),
        )

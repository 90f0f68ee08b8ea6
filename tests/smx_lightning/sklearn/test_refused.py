"""What SoftmaxClassifier refuses, before any work, in one sentence each."""

import numpy as np
import pytest
from sklearn.datasets import load_iris

from smx_lightning import InputError
from smx_lightning.sklearn import SoftmaxClassifier

BAD = [
    ({"l2": 0.1, "C": 1.0}, {}, "expected l2 or C, which are the same penalty in two units"),
    ({"C": 0}, {}, "C must be a number above 0, got 0"),
    ({"C": -1.0}, {}, "C must be a number above 0, got -1.0"),
    ({"C": np.nan}, {}, "C must be a number above 0, got nan"),
    ({"C": "1"}, {}, "C must be a number, got '1'"),
    ({"l2": -1.0}, {}, "l2 must be a finite number of at least 0, got -1.0"),
    ({"tol": -1.0}, {}, "tol must be a finite number of at least 0"),
    ({"max_iter": 0}, {}, "max_iter must be at least 1, got 0"),
    ({"max_iter": 2.5}, {}, "max_iter must be a whole number, got 2.5"),
    ({"activation": "relu"}, {}, "expected an activation out of softmax"),
    ({"activation": {"alpha": 3}}, {}, "expects α from 1 to 2, got 3"),
    ({"preprocessing": "whiten"}, {}, "preprocessing must be one of none, standardize, scale"),
    ({"preprocessing": "standardize", "fit_intercept": False}, {},
     "whose means are an intercept in the units of the data; take preprocessing='scale'"),
    ({"label_smoothing": 1.5}, {}, r"label_smoothing must lie in 0\.\.1, got 1.5"),
    ({"label_smoothing": np.nan}, {}, "label_smoothing must lie in"),
    ({"class_weight": "balance"}, {}, "class_weight must be None, 'balanced' or a dict by label"),
    ({"class_weight": [1, 2, 3]}, {}, "class_weight must be None, 'balanced' or a dict by label"),
    ({"class_weight": {"setosa": 2}}, {}, "names the unknown class 'setosa'; expected some of: 0"),
    ({"class_weight": {0: 0}}, {}, "class_weight must hold positive, finite weights"),
    ({}, {"y": np.zeros(150)}, "expected labels of at least 2 classes in y, got one class only"),
    ({}, {"y": np.full((150, 3), 0.5)}, "divide each row by its sum, and give the sum as its"),
    ({}, {"y": np.tile(np.eye(3), (3, 1))[:7]}, "expected a target for each of 150 rows, got 7"),
    ({}, {"sample_weight": np.zeros(150)}, "[Ss]ample.?weight"),
    ({}, {"sample_weight": -np.ones(150)}, "[Nn]egative values"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "given", "said"), BAD)
def test_what_cannot_be_is_refused_in_a_sentence(settings, given, said):
    x, y = load_iris(return_X_y=True)
    estimator = SoftmaxClassifier(**settings)
    with pytest.raises(ValueError, match=said) as refused:
        estimator.fit(x, **{"y": y, **given})
    assert isinstance(refused.value, InputError) or "ample" in str(refused.value) or "eg" in said
    assert not hasattr(estimator, "coef_")

"""scikit-learn's own checks of an estimator, all of them."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from smx_lightning.sklearn import SoftmaxClassifier

# Checks that it is not to pass, by name, with the reason.
EXPECTED_TO_FAIL: dict[str, str] = {}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # max_iter is 5 there
@parametrize_with_checks(
    [
        SoftmaxClassifier(),
        SoftmaxClassifier(l2=1e-2, preprocessing="standardize", class_weight="balanced"),
        SoftmaxClassifier(fit_intercept=False, preprocessing="scale"),
        SoftmaxClassifier(activation="entmax15", label_smoothing=0.05),
        SoftmaxClassifier(warm_start=True),
    ],
    expected_failed_checks=lambda _: EXPECTED_TO_FAIL,
)
def test_scikit_learn_s_check(estimator, check):
    check(estimator)

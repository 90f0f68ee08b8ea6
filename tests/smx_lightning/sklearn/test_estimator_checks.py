"""scikit-learn's own checks of an estimator, all of them."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from smx_lightning.sklearn import SoftmaxClassifier

# Checks that are not passed, of which estimators, and why.
EQUIVALENCE = "two optima within tol=1e-6 of the gradient are compared to 1e-7; passed at tol=1e-10"
EXPECTED_TO_FAIL = {
    "check_sample_weight_equivalence_on_dense_data": (lambda e: e.tol > 1e-9, EQUIVALENCE),
    "check_sample_weight_equivalence_on_sparse_data": (lambda e: e.tol > 1e-9, EQUIVALENCE),
    "check_class_weight_classifiers": (
        lambda e: not e.fit_intercept,
        "blobs around zero: without an intercept no weight makes one class win everywhere, nor "
        "does it in LogisticRegression(fit_intercept=False)",
    ),
}


def expected(estimator):
    failing = EXPECTED_TO_FAIL.items()
    return {name: reason for name, (of, reason) in failing if of(estimator)}


QUICK = [SoftmaxClassifier(), SoftmaxClassifier(tol=1e-10)]
WHOLE = [
    SoftmaxClassifier(tol=1e-10, l2=1e-2, preprocessing="standardize", class_weight="balanced"),
    SoftmaxClassifier(tol=1e-10, fit_intercept=False, preprocessing="scale"),
    SoftmaxClassifier(tol=1e-10, activation="entmax15", label_smoothing=0.05),
    SoftmaxClassifier(tol=1e-10, warm_start=True),
]
pytestmark = [  # max_iter is 5 in some of them
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
]


@parametrize_with_checks(QUICK, expected_failed_checks=expected, xfail_strict=True)
def test_scikit_learn_s_check(estimator, check):
    check(estimator)


@pytest.mark.whole
@parametrize_with_checks(WHOLE, expected_failed_checks=expected, xfail_strict=True)
def test_scikit_learn_s_check_of_other_arguments(estimator, check):
    check(estimator)

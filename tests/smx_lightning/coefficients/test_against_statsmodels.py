"""Estimates, errors, p-values and intervals against statsmodels' MNLogit, Logit and GLM."""

import warnings
from functools import cache

import numpy as np
import pytest
import statsmodels.api as sm
from at_optimum import at_optimum, drawn
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine

ERRORS = {"model": "nonrobust", "robust": "HC0"}


def made():
    """Features in very different units, four classes of unequal sizes."""
    rng = np.random.default_rng(0)
    units = np.array([1.0, 10.0, 0.1, 300.0])
    x = rng.normal(size=(600, 4))
    weight = np.array([[0, 0, 0, 0], [1, -0.5, 0, 0.2], [0.3, 1, -1, 0], [-0.5, 0.2, 0.5, 1]])
    return x * units + [0, 50, 2, 1700], drawn(x, weight, [0, 0.3, -0.5, 0.2])


@cache
def problem(name):
    """Rows (n, d) and labels: classes that overlap, so that there is an optimum without penalty."""
    if name == "made":
        return made()
    if name == "diabetes":  # disease progression in three parts
        x, score = load_diabetes(return_X_y=True)
        return x[:, :6] * 20, np.digitize(score, np.quantile(score, [0.33, 0.66]))
    if name == "cancer":  # two classes
        data = load_breast_cancer()
        return data.data[:, [1, 4, 8, 9, 11, 14]], data.target
    if name == "wine":  # three classes
        data = load_wine()
        return data.data[:, [1, 2, 3, 4, 7]], data.target
    data = load_digits()  # ten classes, four coarse features
    coarse = data.images.reshape(-1, 2, 4, 2, 4).mean((2, 4)).reshape(-1, 4)
    return coarse, data.target


NAMES = ("made", "diabetes", "cancer", "wine", "digits")


def judged(x, y, errors="model"):
    """statsmodels' result: a row a class but the first, the constant first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the test's own covariance type, and of convergence
        judge = sm.MNLogit(y, sm.add_constant(x))
        return judge.fit(method="newton", disp=0, tol=1e-14, maxiter=200, cov_type=ERRORS[errors])


@pytest.mark.parametrize("errors", ERRORS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("preprocessing", ["none", "standardize", "scale"])
def test_all_of_the_table_is_that_of_mnlogit(name, errors, preprocessing):
    x, y = problem(name)
    judge = judged(x, y, errors)
    model, batches = at_optimum(x, y, int(y.max()) + 1, preprocessing=preprocessing)
    own = model.coefficients(batches, errors=errors, reference="0").own

    np.testing.assert_allclose(own.estimate, judge.params.T, rtol=1e-7)
    np.testing.assert_allclose(own.std_error, judge.bse.T, rtol=1e-7)
    np.testing.assert_allclose(own.z, judge.tvalues.T, rtol=1e-7)
    np.testing.assert_allclose(own.p_value, judge.pvalues.T, rtol=1e-5, atol=1e-300)
    low, high = np.moveaxis(judge.conf_int(), -1, 0)
    np.testing.assert_allclose(own.low, low, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(own.high, high, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_errors_tend_to_mnlogits_as_the_penalty_does_to_none(name):
    x, y = problem(name)
    judge = judged(x, y).bse.T
    off = []
    for l2 in (1e-5, 1e-7, 1e-9, 1e-11):
        model, batches = at_optimum(x, y, int(y.max()) + 1, l2=l2, preprocessing="standardize")
        errors = model.coefficients(batches, reference="0").own.std_error
        off.append(np.abs(errors / judge - 1).max())
    assert off[-1] < 1e-6
    assert off == sorted(off, reverse=True)


@pytest.mark.parametrize("errors", ERRORS)
def test_two_classes_are_logits(errors):
    x, y = problem("cancer")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        judge = sm.Logit(y, sm.add_constant(x)).fit(
            method="newton", disp=0, tol=1e-14, maxiter=200, cov_type=ERRORS[errors]
        )
    model, batches = at_optimum(x, y, 2, preprocessing="standardize")
    own = model.coefficients(batches, errors=errors, reference="0").own
    np.testing.assert_allclose(own.estimate[0], judge.params, rtol=1e-7)
    np.testing.assert_allclose(own.std_error[0], judge.bse, rtol=1e-7)
    # Of the mean over two classes either is half as far, and as significant.
    centred = model.coefficients(batches, errors=errors).own
    np.testing.assert_allclose(centred.std_error, np.array([judge.bse] * 2) / 2, rtol=1e-7)
    np.testing.assert_allclose(centred.z[1], own.z[0], rtol=1e-7)


@pytest.mark.parametrize("reference", range(4))
def test_any_class_may_be_the_reference(reference):
    x, y = made()
    others = [k for k in range(4) if k != reference]
    place = np.empty(4, dtype=int)
    place[[reference, *others]] = range(4)
    judge = judged(x, place[y])  # its reference is class 0
    model, batches = at_optimum(x, y, 4, preprocessing="standardize", class_names=[*"abcd"])
    table = model.coefficients(batches, reference="abcd"[reference])
    assert table.class_names == tuple("abcd"[k] for k in others)
    np.testing.assert_allclose(table.own.std_error, judge.bse.T, rtol=1e-7)
    np.testing.assert_allclose(table.own.estimate, judge.params.T, rtol=1e-7)


def test_frequencies_are_those_of_glm():
    x, y = problem("cancer")
    counts = np.random.default_rng(1).integers(0, 4, len(y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        judge = sm.GLM(
            y, sm.add_constant(x), family=sm.families.Binomial(), freq_weights=counts
        ).fit(tol=1e-14, maxiter=200)
    model, batches = at_optimum(x, y, 2, weight=counts.astype(float), preprocessing="standardize")
    table = model.coefficients(batches, reference="0")
    assert table.num_rows == counts.sum()
    np.testing.assert_allclose(table.own.std_error[0], judge.bse, rtol=1e-7)


def test_proportions_in_groups_are_those_of_glm():
    """A soft target counts as one row: a group of n with proportions q has the weight n."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(40, 2))
    sizes = rng.integers(5, 30, 40)
    hits = rng.binomial(sizes, 1 / (1 + np.exp(-x @ [0.7, -0.4])))
    judge = sm.GLM(
        np.stack([hits, sizes - hits], 1), sm.add_constant(x), family=sm.families.Binomial()
    ).fit(tol=1e-14)
    q = np.stack([sizes - hits, hits], 1) / sizes[:, None]
    model, batches = at_optimum(x, q, 2, weight=sizes.astype(float))
    own = model.coefficients(batches, reference="0").own
    np.testing.assert_allclose(own.estimate[0], judge.params, rtol=1e-7)
    np.testing.assert_allclose(own.std_error[0], judge.bse, rtol=1e-7)

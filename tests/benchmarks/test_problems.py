"""The problems of benchmarks: sizes, seeds, what each is meant to be, and the objective."""

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.datasets import load_iris
from sklearn.preprocessing import StandardScaler

from benchmarks.problems import PROBLEMS, Problem, problem
from benchmarks.regimes.cases import QUICK, REGIMES

QUICKLY_MADE = {
    "iris": (150, 4, 3),
    "wine": (178, 13, 3),
    "digits": (1797, 64, 10),
    "digits-standardised": (1797, 64, 10),
    "made": (5000, 100, 5),
    "table": (16_000, 16, 26),
    "hundred-classes": (20_000, 64, 100),
    "wide-100": (100, 7000, 3),
}
FIRST = {  # the first entry of x and the sum of the first ten labels, as first made
    "made": (1.253641963005066, 11),
    "table": (-0.3309929668903351, 116),
    "hundred-classes": (-0.20913845300674438, 406),
    "wide-100": (-1.1210980415344238, 9),
}


@pytest.mark.parametrize(("name", "size"), QUICKLY_MADE.items())
def test_a_problem_has_its_size_and_every_class_has_rows(name, size):
    data = problem(name)
    assert (*data.x.shape, data.num_classes) == size
    assert (data.x.dtype, data.y.dtype) == (np.float32, np.int64)
    assert data.name == name
    assert np.bincount(data.y, minlength=size[2]).min() > 0
    assert np.isfinite(data.x).all()


@pytest.mark.parametrize(("name", "first"), FIRST.items())
def test_a_made_problem_is_the_same_on_every_machine(name, first):
    data, again = problem(name), problem(name)
    np.testing.assert_array_equal(data.x, again.x)
    np.testing.assert_array_equal(data.y, again.y)
    assert (float(data.x[0, 0]), int(data.y[:10].sum())) == pytest.approx(first, rel=1e-5)


def test_clusters_are_round_and_features_of_the_table_are_correlated():
    made, table = problem("made"), problem("table")
    within = np.concatenate([made.x[made.y == k] - made.x[made.y == k].mean(0) for k in range(5)])
    assert within.std(axis=0) == pytest.approx(np.ones(100), abs=0.05)
    np.testing.assert_allclose(table.x.std(axis=0), 1, rtol=1e-4)
    assert np.linalg.cond(np.corrcoef(table.x.T)) > 1000 > 10 > np.linalg.cond(np.cov(made.x.T))


def test_sklearns_sets_are_standardised_as_sklearn_does():
    x, y = load_iris(return_X_y=True)
    expected = StandardScaler().fit_transform(x)
    np.testing.assert_allclose(problem("iris").x, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(problem("iris").y, y)


def test_the_objective_is_the_mean_loss_and_the_penalty():
    random = np.random.default_rng(5)
    x, y = random.normal(size=(9000, 3)).astype(np.float32), random.integers(0, 4, 9000)
    data = Problem("drawn", x, y, C=0.1)
    weight, bias = random.normal(size=(4, 3)), random.normal(size=4)
    logits = x.astype(np.float64) @ weight.T + bias
    nll = logsumexp(logits, axis=1) - logits[np.arange(9000), y]
    expected = nll.mean() + 0.5 / (0.1 * 9000) * np.square(weight).sum()
    assert data.objective(weight, bias) == pytest.approx(expected, rel=1e-12)
    doubled = data.in_float64()
    assert doubled.x.dtype == np.float64
    assert doubled.objective(weight, bias) == data.objective(weight, bias)


def test_an_unknown_problem_is_refused_with_the_names_of_all():
    with pytest.raises(ValueError, match=r"expected one of iris, wine, .*, got 'irises'"):
        problem("irises")


def test_every_regime_is_of_a_problem():
    assert {regime.problem for regime in REGIMES.values()} <= {*PROBLEMS}
    assert {*QUICK} <= {*REGIMES}
    assert all(regime.name == name for name, regime in REGIMES.items())
    small = REGIMES["digits-standardised-float64"].read()
    assert (small.x.dtype, small.name) == (np.float64, "digits-standardised")

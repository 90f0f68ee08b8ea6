"""A fit that goes on from the last one, with classes that stay, come or go."""

import numpy as np
import pytest
from sampled import sampled
from sklearn.datasets import load_digits
from solving import embeddings, noisy_scores

from smx_lightning.sklearn import SoftmaxClassifier


def digits():
    x, y = load_digits(return_X_y=True)
    return x / 16, y


DATA = {  # rows and labels, l2
    "digits": (digits, 1e-3),
    "embeddings": (lambda: embeddings(2000, 128, 20, 40), 2e-3),
    "table of 26 classes": (lambda: noisy_scores(26, 0, rows=8000), 1e-4),
}
FEWER = 1.4  # times; docs/sklearn.md has what larger ones take
OPTIONS = {"tol": 1e-8}


def passes_to(optimum, fit):
    """The fewest passes after which the objective is within 1e-8 of the optimum's."""
    low, high = 1, 100
    while low < high:
        middle = (low + high) // 2
        reached = fit(middle).objective_ <= optimum * (1 + 1e-8)
        low, high = (low, middle) if reached else (middle + 1, high)
    return low


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # of so few passes
@pytest.mark.parametrize("name", sampled(DATA, named=["digits"]))
@pytest.mark.parametrize("change", ["added", "removed"])
def test_the_cold_optimum_is_reached_in_fewer_passes(name, change):
    problem, l2 = DATA[name]
    x, y = problem()
    fewer = y != 3
    before, after = (slice(None), fewer)[:: 1 if change == "removed" else -1]
    cold = SoftmaxClassifier(l2=l2, **OPTIONS).fit(x[after], y[after])
    last = SoftmaxClassifier(l2=l2, **OPTIONS).fit(x[before], y[before])

    def warm(passes):
        begun = SoftmaxClassifier(l2=l2, warm_start=True, max_iter=passes, **OPTIONS)
        for kept in ("coef_", "intercept_", "classes_", "_statistics", "n_features_in_"):
            setattr(begun, kept, getattr(last, kept))
        return begun.fit(x[after], y[after])

    def anew(passes):
        return SoftmaxClassifier(l2=l2, max_iter=passes, **OPTIONS).fit(x[after], y[after])

    best = min(cold.objective_, warm(100).objective_)
    assert cold.objective_ == pytest.approx(warm(100).objective_, rel=1e-8)
    np.testing.assert_allclose(warm(100).predict_proba(x), cold.predict_proba(x), atol=1e-4)
    assert passes_to(best, warm) * FEWER <= passes_to(best, anew)


def test_the_same_rows_once_more_take_a_single_pass():
    x, y = digits()
    model = SoftmaxClassifier(warm_start=True, preprocessing="standardize").fit(x, y)
    before = model.coef_
    assert model.n_iter_ > 1
    assert model.fit(x, y).n_iter_ == 1
    np.testing.assert_allclose(model.coef_, before, atol=1e-8)


@pytest.mark.parametrize("method", ["none", "standardize", "scale"])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(
    ("before", "after"),
    [("abc", "abcd"), ("abcd", "abd"), ("bd", "abcd"), ("abcd", "bd"), ("ab", "cd"), ("ac", "bc")],
)
def test_any_classes_after_any_others_end_where_a_cold_fit_does(before, after, method, intercept):
    if method == "standardize" and not intercept:
        return
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 5)) + 1
    y = np.array([*"abcd"])[(x @ rng.standard_normal((5, 4)) + rng.gumbel(size=(200, 4))).argmax(1)]
    settings = {"tol": 1e-10, "preprocessing": method, "fit_intercept": intercept}
    warm, cold = SoftmaxClassifier(warm_start=True, **settings), SoftmaxClassifier(**settings)
    for classes in (before, after):
        rows = np.isin(y, [*classes])
        warm.fit(x[rows], y[rows])
    cold.fit(x[rows], y[rows])
    assert warm.classes_.tolist() == [*after]
    np.testing.assert_allclose(warm.predict_proba(x), cold.predict_proba(x), atol=1e-7)


def test_other_features_are_refused_and_the_remedy_works():
    x, y = digits()
    model = SoftmaxClassifier(warm_start=True).fit(x, y)
    with pytest.raises(ValueError, match="expected 64 features, as the fit that warm_start=True"):
        model.fit(x[:, :10], y)
    assert model.score(x, y) > 0.9  # the last fit stands
    assert model.set_params(warm_start=False).fit(x[:, :10], y).coef_.shape == (10, 10)

"""SoftmaxClassifier, judged by scikit-learn's LogisticRegression at its optimum."""

import pickle
import warnings
from copy import deepcopy

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from smx_lightning import InputError
from smx_lightning.sklearn import SoftmaxClassifier, rows

LOADERS = {
    "iris": load_iris,
    "wine": load_wine,
    "digits": load_digits,
    "cancer": load_breast_cancer,  # two classes
}


def data(name, standardised=True):
    x, y = LOADERS[name](return_X_y=True)
    return (StandardScaler().fit_transform(x) if standardised else x), y


def judge(x, y, sample_weight=None, **kwargs):
    made = LogisticRegression(solver="newton-cholesky", tol=1e-12, max_iter=10000, **kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at the limit of float64
        return made.fit(x, y, sample_weight=sample_weight)


def assert_same(found, wanted, x, within=1e-6):
    """Coefficients, those of several classes centred, and every answer."""
    many = len(wanted.classes_) > 2
    centred = [(e.coef_ - many * e.coef_.mean(0), e.intercept_ - many * e.intercept_.mean())
               for e in (found, wanted)]  # fmt: skip
    for ours, theirs in zip(*centred, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=within * max(1, abs(theirs).max()))
    np.testing.assert_allclose(found.predict_proba(x), wanted.predict_proba(x), atol=within)
    np.testing.assert_array_equal(found.predict(x), wanted.predict(x))
    assert found.decision_function(x).shape == wanted.decision_function(x).shape


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_the_answers_are_logistic_regression_s(name, C):  # noqa: N803
    x, y = data(name)
    found, wanted = SoftmaxClassifier(C=C, tol=1e-12).fit(x, y), judge(x, y, C=C)
    assert found.status_ in ("CONVERGED", "PRECISION")
    assert_same(found, wanted, x)
    assert found.score(x, y) == wanted.score(x, y)


@pytest.mark.parametrize("name", ["iris", "cancer"])
@pytest.mark.parametrize("class_weight", [None, "balanced", "dict"])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_weights_of_rows_and_classes_are_scikit_learn_s(name, class_weight, intercept, weighted):
    x, y = data(name)
    c = np.random.default_rng(0).uniform(0, 3, len(y)) if weighted else None
    given = {0: 2.5, 1: 0.5} if class_weight == "dict" else class_weight
    wanted_of = given
    if weighted and given == "balanced":  # older versions of scikit-learn leave the weights out
        counts = np.bincount(y, c)
        wanted_of = dict(enumerate(counts.sum() / (len(counts) * counts)))
    settings = {"C": 0.3, "fit_intercept": intercept}
    found = SoftmaxClassifier(tol=1e-10, class_weight=given, **settings).fit(x, y, c)
    assert_same(found, judge(x, y, c, class_weight=wanted_of, **settings), x)


def test_l2_and_c_are_the_same_penalty_in_two_units():
    for name in ("iris", "cancer"):
        x, y = data(name)
        by_c = SoftmaxClassifier(C=0.2, tol=1e-9).fit(x, y)
        by_l2 = SoftmaxClassifier(l2=by_c.l2_, tol=1e-9).fit(x, y)
        np.testing.assert_array_equal(by_c.coef_, by_l2.coef_)


def test_the_objective_is_the_least_to_ten_digits():
    x, y = data("digits")
    found, best = SoftmaxClassifier(tol=1e-8).fit(x, y), judge(x, y)
    loss = -np.log(best.predict_proba(x)[np.arange(len(y)), y]).mean()
    assert found.objective_ == pytest.approx(
        loss + 0.5 * found.l2_ * (best.coef_**2).sum(), abs=1e-10
    )


@pytest.mark.parametrize("labels", [["b", "a", "c"], [3, -1, 7], [2.0, 0.0, 1.0]])
def test_labels_of_any_kind_come_back(labels):
    x, y = data("iris")
    found = SoftmaxClassifier().fit(x, np.array(labels)[y])
    np.testing.assert_array_equal(found.classes_, np.sort(labels))
    assert set(found.predict(x)) <= set(np.array(labels))
    assert (found.predict(x) == np.array(labels)[y]).mean() > 0.95


@pytest.mark.parametrize("label", [True, "yes"])
def test_two_classes_are_one_perceptron_there(label):
    x, y = data("cancer")
    found = SoftmaxClassifier().fit(x, (y == 1) if label is True else np.where(y, "yes", "no"))
    assert found.coef_.shape == (1, 30)
    assert found.intercept_.shape == (1,)
    assert found.decision_function(x).shape == (len(y),)
    np.testing.assert_allclose(
        found.predict_proba(x)[:, 1], 1 / (1 + np.exp(-found.decision_function(x))), atol=1e-12
    )


@pytest.mark.parametrize("method", ["standardize", "scale"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_preprocessing_is_within_and_coefficients_are_of_the_data(method, weighted, dtype):
    x, y = data("wine", standardised=False)
    x = x.astype(dtype)
    c = np.random.default_rng(0).uniform(0, 3, len(y)) if weighted else None
    wide = x.astype(float)
    z = wide / abs(wide).max()
    if method == "standardize":
        mean = np.average(wide, axis=0, weights=c)
        z = (wide - mean) / np.sqrt(np.average((wide - mean) ** 2, axis=0, weights=c))
    tol, within = (1e-10, 1e-6) if dtype == np.float64 else (1e-6, 1e-3)
    found = SoftmaxClassifier(preprocessing=method, tol=tol, C=3.0).fit(x, y, c)
    wanted = judge(z, y, c, C=3.0)
    np.testing.assert_allclose(found.predict_proba(x), wanted.predict_proba(z), atol=within)
    assert found.predict_proba(x).dtype == dtype
    by_hand = wide @ found.coef_.T + found.intercept_
    np.testing.assert_allclose(found.decision_function(x), by_hand, atol=1e3 * np.finfo(dtype).eps)


def test_float32_stays_float32_and_float64_float64():
    x, y = data("iris")
    for dtype in (np.float32, np.float64):
        found = SoftmaxClassifier().fit(x.astype(dtype), y)
        assert found.coef_.dtype == found.predict_proba(x.astype(dtype)).dtype == dtype
        tensors = torch.tensor(x.astype(dtype)), torch.tensor(y)
        assert SoftmaxClassifier().fit(*tensors).predict_proba(tensors[0]).dtype == dtype
    assert SoftmaxClassifier().fit((x * 10).astype(int), y).coef_.dtype == np.float64


@pytest.mark.parametrize("size", [None, 7])
@pytest.mark.parametrize("method", ["none", "standardize"])
@pytest.mark.parametrize("kind", ["csr", "csc", "read-only", "reversed", "Fortran"])
def test_rows_in_any_form_have_the_same_optimum(kind, method, size, monkeypatch):
    if size:
        monkeypatch.setattr(rows, "MOST_ENTRIES", 64 * 10 * size)
    x, y = load_digits(return_X_y=True)
    x, y = x[:300] / 16, y[:300] % 3
    wanted = SoftmaxClassifier(tol=1e-9, preprocessing=method).fit(x, y)
    given = {
        "csr": scipy.sparse.csr_matrix,
        "csc": scipy.sparse.csc_array,
        "read-only": lambda x: np.frombuffer(x.tobytes()).reshape(x.shape),
        "reversed": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
        "Fortran": np.asfortranarray,
    }[kind](x)
    found = SoftmaxClassifier(tol=1e-9, preprocessing=method).fit(given, y)
    np.testing.assert_allclose(found.coef_, wanted.coef_, atol=1e-6)
    np.testing.assert_allclose(found.predict_proba(given), wanted.predict_proba(x), atol=1e-6)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_names_of_data_frames_are_kept_and_asked_for(frame):
    x, y = data("iris")
    table = frame(dict(zip(("länge", "b,c", "d", "e"), x.T, strict=True)))
    found = SoftmaxClassifier().fit(table, y)
    assert found.feature_names_in_.tolist() == ["länge", "b,c", "d", "e"]
    np.testing.assert_allclose(
        found.predict_proba(table), SoftmaxClassifier().fit(x, y).predict_proba(x)
    )
    with pytest.raises(ValueError, match="feature names should match"):
        found.predict(table[["b,c", "länge", "d", "e"]])


def test_distributions_are_as_many_rows_as_classes():
    x, y = data("iris")
    q = np.random.default_rng(0).dirichlet(np.ones(3), len(y))
    c = np.random.default_rng(1).uniform(0, 2, len(y))
    found = SoftmaxClassifier(tol=1e-9).fit(x, pd.DataFrame(q, columns=["u", "v", "w"]), c)
    apart = judge(np.repeat(x, 3, 0), np.tile([0, 1, 2], len(y)), (c[:, None] * q).ravel())
    np.testing.assert_allclose(found.predict_proba(x), apart.predict_proba(x), atol=1e-7)
    assert found.classes_.tolist() == ["u", "v", "w"]
    assert SoftmaxClassifier().fit(x, q).classes_.tolist() == [0, 1, 2]
    assert SoftmaxClassifier().fit(x, q.tolist()).classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize("class_weight", [None, {0: 3.0}])
def test_smoothing_is_torch_s(class_weight):
    x, y = data("iris")
    found = SoftmaxClassifier(tol=1e-10, label_smoothing=0.1, class_weight=class_weight).fit(x, y)
    weight, bias = (torch.tensor(p, requires_grad=True) for p in (found.coef_, found.intercept_))
    logits = torch.tensor(x) @ weight.T + bias
    by_class = torch.tensor([3.0 if class_weight else 1.0, 1, 1], dtype=torch.float64)
    loss = torch.nn.functional.cross_entropy(
        logits, torch.tensor(y), by_class, label_smoothing=0.1, reduction="sum"
    )
    (loss + 0.5 * weight.square().sum()).backward()  # C = 1
    assert weight.grad.abs().max() < 1e-6
    assert bias.grad.abs().max() < 1e-6


@pytest.mark.parametrize("activation", ["entmax15", "sparsemax", {"alpha": 1.3}])
@pytest.mark.parametrize("name", ["iris", "cancer"])
def test_sparse_activations_have_zeros_and_sum_to_one(activation, name):
    x, y = data(name)
    found = SoftmaxClassifier(activation=activation, C=10).fit(x, y)
    probs = found.predict_proba(x)
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-12)
    assert (probs == 0).any()
    np.testing.assert_array_equal(found.predict(x), found.classes_[probs.argmax(1)])
    assert (found.predict_log_proba(x) == -np.inf).any()


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"max_iter": 2}, "stopped after max_iter=2 passes"), ({"l2": 0.0}, "set l2 above 0")],
)
def test_a_solver_that_stops_short_says_so(settings, said):
    x, y = data("wine")
    with pytest.warns(ConvergenceWarning, match=said) as caught:
        found = SoftmaxClassifier(**settings).fit(x, y)
    assert caught[0].filename == __file__
    assert found.score(x, y) > 0.9


def test_copies_and_pickles_answer_alike_and_hold_plain_arrays():
    x, y = data("iris")
    found = SoftmaxClassifier(preprocessing="standardize").fit(x, y)
    for same in (deepcopy(found), pickle.loads(pickle.dumps(found))):
        np.testing.assert_array_equal(same.predict_proba(x), found.predict_proba(x))
    assert b"torch" not in pickle.dumps(found)
    assert not hasattr(clone(found), "coef_")
    assert clone(found).get_params() == found.get_params()


def test_what_is_set_after_a_fit_is_for_the_next_one():
    x, y = data("wine", standardised=False)
    found = SoftmaxClassifier(preprocessing="standardize", activation="entmax15").fit(x, y)
    before = found.predict_proba(x)
    found.set_params(preprocessing="none", activation="softmax")
    np.testing.assert_array_equal(found.predict_proba(x), before)
    answers = found.to_lightning()(torch.tensor(x)).exp().detach()
    np.testing.assert_allclose(answers, before, atol=1e-12)


def test_there_is_no_partial_fit_and_it_says_why():
    assert not hasattr(SoftmaxClassifier(), "partial_fit")
    with pytest.raises(AttributeError, match="all rows in every pass; take warm_start=True"):
        _ = SoftmaxClassifier().partial_fit


def test_a_fit_leaves_its_rows_and_torch_s_random_numbers_alone():
    x, y = data("iris")
    before, state = x.copy(), torch.get_rng_state()
    SoftmaxClassifier(preprocessing="standardize").fit(x, y)
    np.testing.assert_array_equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_fold_without_a_rare_class_may_name_it_all_the_same():
    x, y = data("iris")
    some = y < 2
    found = SoftmaxClassifier(class_weight={0: 1.0, 1: 2.0, 2: 5.0}).fit(x[some], y[some])
    assert found.classes_.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("settings", "weight", "said"),
    [
        ({}, 1e308, "expected sample_weight with a finite sum"),
        ({"C": 1e-308}, 1e-10, "expected a penalty of C=1e-308 and weights of .* that is finite"),
    ],
)
def test_a_penalty_beyond_float64_is_refused_and_not_taken_for_none(settings, weight, said):
    x, y = data("iris")
    with pytest.raises(InputError, match=said):
        SoftmaxClassifier(**settings).fit(x, y, sample_weight=np.full(len(y), weight))


def test_a_refused_fit_leaves_the_last_one_as_it_was():
    x, y = data("iris")
    model = SoftmaxClassifier().fit(pd.DataFrame(x, columns=[*"abcd"]), y)
    with pytest.raises(InputError, match="one class only"):
        model.fit(pd.DataFrame(x[:, :3], columns=[*"xyz"]), 0 * y)
    assert model.score(pd.DataFrame(x, columns=[*"abcd"]), y) > 0.9


def test_two_columns_of_one_class_are_refused():
    x, y = data("iris")
    with pytest.raises(InputError, match="different classes in y, got two columns 'a'"):
        SoftmaxClassifier().fit(x, pd.DataFrame(np.eye(3)[y], columns=["a", "b", "a"]))

"""Standard errors that would mean nothing are refused, in a sentence with a remedy that works."""

import numpy as np
import pytest
import torch
from at_optimum import at_optimum, drawn
from sklearn.datasets import load_iris

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.coefficients import optimum


def problem(rows=120, features=2):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, features))
    weight = np.resize([[0, 0], [1, -1], [0.5, 0.5]], (3, features))
    return x, drawn(x, weight, [0, 0.2, -0.2])


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e6])
def test_other_rows_than_those_of_the_training(scale):
    x, y = problem()
    model, batches = at_optimum(x * scale, y, 3, preprocessing="standardize")
    model.coefficients(batches)
    with pytest.raises(InputError, match=r"optimum of these rows, .* give the rows that"):
        model.coefficients(batches[:1])


@pytest.mark.parametrize("l2", [0.0, 0.01])
def test_a_model_that_was_not_trained_to_its_optimum(l2):
    x, y = problem()
    model, batches = at_optimum(x, y, 3, l2=l2)
    with torch.no_grad():
        model.linear.weight[0, 0] += 1.0
    with pytest.raises(InputError, match=r"within 0.1 .* may be [\d.e+]+ of them away"):
        model.coefficients(batches)


def test_another_penalty_than_that_of_the_training():
    x, y = problem()
    model, batches = at_optimum(x, y, 3, l2=0.1)
    model.l2 = 0.0
    with pytest.raises(InputError, match="optimum of these rows"):
        model.coefficients(batches)


def test_classes_that_are_separable():
    x, y = load_iris(return_X_y=True)
    model, batches = at_optimum(x, (y == 0).astype(int), 2, preprocessing="standardize")
    with pytest.raises(InputError, match="tells all training rows apart: it has no optimum"):
        model.coefficients(batches)
    model, batches = at_optimum(x, (y == 0).astype(int), 2, l2=1e-3, preprocessing="standardize")
    assert np.isfinite(model.coefficients(batches).own.std_error).all()


@pytest.mark.parametrize("tol", [1e-4, 1e-6, 1e-9])
@pytest.mark.parametrize("rows", [60, 3000])
def test_classes_that_are_separable_in_part(tol, rows):
    """One value of a yes-no feature is one class's without exception; iris has such a class."""
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(size=rows), rng.integers(0, 2, rows)], 1)
    y = np.where(x[:, 1] == 1, 1, drawn(x[:, :1], [[0.0], [1.0]], [0, 0.1]))
    model, batches = at_optimum(x, y, 2, tol=tol)
    early = "optimum of these rows|" * (tol == 1e-4)  # which it may say first
    with pytest.raises(InputError, match=f"{early}optimum lies at infinity, .* l2 above 0"):
        model.coefficients(batches)
    model, batches = at_optimum(x, y, 2, l2=1e-4)
    assert np.isfinite(model.coefficients(batches).own.std_error).all()


def test_iris_is_separable_in_part():
    x, y = load_iris(return_X_y=True)
    model, batches = at_optimum(x, y, 3, preprocessing="standardize", tol=1e-7)
    with pytest.raises(InputError, match="optimum lies at infinity"):
        model.coefficients(batches)


@pytest.mark.parametrize("preprocessing", ["none", "standardize", "scale"])
@pytest.mark.parametrize(
    ("made", "name"),
    [
        (lambda x: x[:, 0] - 2 * x[:, 1] + 3, "x"),
        (lambda x: np.full(len(x), 4.0), "x"),
        (lambda x: np.zeros(len(x)), "x"),
        (lambda x: x[:, 0], "x"),
    ],
)
def test_features_that_determine_one_another(made, name, preprocessing):
    x, y = problem()
    x = np.column_stack([x, made(x)])
    arguments = {"preprocessing": preprocessing, "feature_names": ["a", "b", name]}
    model, batches = at_optimum(x, y, 3, **arguments)
    with pytest.raises(InputError, match=r"feature 'x'|make up a constant"):
        model.coefficients(batches)
    model, batches = at_optimum(x, y, 3, l2=0.01, **arguments)
    assert np.isfinite(model.coefficients(batches).own.std_error).all()


def test_a_class_without_rows():
    x, y = problem()
    model, batches = at_optimum(x, y, 4, l2=0.01, class_names=["a", "b", "c", "rare"])
    with pytest.raises(InputError, match="got none of 'rare'"):
        model.coefficients(batches)


@pytest.mark.parametrize("activation", ["sparsemax", "entmax15", {"alpha": 1.2}, {"normmax": 2.0}])
def test_activations_whose_loss_is_no_likelihood(activation):
    model = SoftmaxRegression(2, 3, activation=activation)
    with pytest.raises(InputError, match="whose loss is no likelihood"):
        model.coefficients([(torch.zeros(3, 2), torch.arange(3))])
    assert model.coefficients().own.estimate.shape == (3, 3)


def test_a_loss_of_ones_own():
    class Focal(SoftmaxRegression):
        def loss(self, scores, y):
            return super().loss(scores, y) ** 2

    with pytest.raises(InputError, match="Focal with one of its own"):
        Focal(2, 3).coefficients([(torch.zeros(3, 2), torch.arange(3))])


def test_too_many_coefficients_before_a_row_is_read():
    model = SoftmaxRegression(200, 100)

    def rows():
        raise AssertionError("read")
        yield

    with pytest.raises(InputError, match=r"at most 10000 .* got 19899, .* 12.7 GB"):
        model.coefficients(rows())
    assert model.coefficients().own.estimate.shape == (100, 201)


def test_the_limit_is_the_largest_that_is_allowed(monkeypatch):
    x, y = problem()
    model, batches = at_optimum(x, y, 3)
    monkeypatch.setattr(optimum, "MOST_UNKNOWNS", 6)
    model.coefficients(batches)
    monkeypatch.setattr(optimum, "MOST_UNKNOWNS", 5)
    with pytest.raises(InputError, match="at most 5 coefficients"):
        model.coefficients(batches)


def test_class_weights_want_robust_errors():
    x, y = problem()
    model, batches = at_optimum(x, y, 3, class_weight=[1, 2, 3])
    with pytest.raises(InputError, match="give errors='robust'"):
        model.coefficients(batches)
    model.coefficients(batches, errors="robust")


def test_label_smoothing_wants_robust_errors():
    x, y = problem()
    model, batches = at_optimum(x, y, 3, label_smoothing=0.1)
    with pytest.raises(InputError, match="a model with label smoothing, got errors='model'"):
        model.coefficients(batches)
    model.coefficients(batches, errors="robust")


GOOD = [(torch.zeros(3, 2, dtype=torch.float64), torch.arange(3))]
ARGUMENTS = [
    ({"reference": "3"}, "one of the classes 0, 1, 2, got '3'"),
    ({"errors": "robust"}, "the training rows for robust standard errors, got none"),
    ({"batches": GOOD, "errors": "hc0"}, "errors to be model or robust, got 'hc0'"),
    ({"batches": GOOD, "weights": "fweight"}, "weights to be frequency or sampling, got 'fweig"),
    ({"batches": GOOD, "weights": "sampling"}, "give errors='robust', or weights='frequency'"),
    ({"level": 95}, "level between 0 and 1, got 95"),
    ({"level": "high"}, "level"),
    ({"batches": 3}, "batches of the training rows, got int"),
    ({"batches": GOOD[0][0]}, "batches of the training rows, got Tensor"),
    ({"batches": []}, "expected training rows, got an epoch without any"),
    ({"batches": [(GOOD[0][0], GOOD[0][1] + 1)]}, "labels must lie in 0..2, got 3"),
    ({"batches": [(GOOD[0][0], GOOD[0][1] - 2)]}, "labels must lie in 0..2, got -2"),
    ({"batches": [(GOOD[0][0], GOOD[0][1][:2])]}, "a label for each of the 3 rows"),
    ({"batches": [(GOOD[0][0][:, :1], GOOD[0][1])]}, "expected 2 features a row, got 1"),
    ({"batches": [(GOOD[0][0] + np.nan, GOOD[0][1])]}, "expected finite features, got NaN"),
    (
        {"batches": [dict(zip("xy", GOOD[0], strict=True), weight=torch.ones(2))]},
        "expected 3 row weights",
    ),
    (
        {"batches": [(*GOOD[0], -torch.ones(3))]},
        "expected 3 row weights in the training rows, finite and not",
    ),
    ({"batches": [(*GOOD[0], torch.zeros(3))]}, "expected training rows, got an epoch without any"),
    ({"batches": [(GOOD[0][0], torch.eye(3)[:, :2])]}, "a distribution over 3 classes"),
]


@pytest.mark.parametrize(("given", "said"), ARGUMENTS)
def test_arguments_and_rows_that_do_not_fit(given, said):
    with pytest.raises(InputError) as error:
        SoftmaxRegression(2, 3).double().coefficients(**given)
    assert said in str(error.value)


def test_a_pair_in_place_of_batches():
    with pytest.raises(InputError, match=r"expected labels as a tensor .* \(x, y\)"):
        SoftmaxRegression(2, 3).coefficients((torch.zeros(3, 2), torch.arange(3)))


def test_rows_that_can_be_iterated_once():
    """Without a second pass a bound decides."""
    x, y = problem()
    model, batches = at_optimum(x, y, 3)
    assert model.coefficients(iter(batches)).distance < 1e-6

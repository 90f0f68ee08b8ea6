"""A bias that is held at 0, judged by scikit-learn without an intercept."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from smx_lightning import InputError
from smx_lightning.activations import activation_of, fenchel_young_loss
from smx_lightning.optim import Status, minimise
from smx_lightning.optim.descent import Descent
from smx_lightning.optim.models import ladder
from smx_lightning.optim.models.hessians import Coupled, PerClass, Whole
from smx_lightning.optim.models.rows import Rows
from smx_lightning.optim.models.spectrum import Diagonal, Spectrum


def drawn(rows, features, classes, seed=0, away=2.0):
    """Rows ``away`` from zero, where an intercept would matter, and labels of every class."""
    rng = np.random.default_rng([rows, features, classes, seed])
    y = np.concatenate([np.arange(classes), rng.integers(classes, size=rows - classes)])
    x = rng.standard_normal((rows, features)) + away
    return x + 0.5 * rng.standard_normal((classes, features))[y], y


def judged(x, y, l2, weights=None):
    """scikit-learn's W (classes, features), zero on average over the classes."""
    total, binary = len(y) if weights is None else weights.sum(), y.max() == 1
    judge = LogisticRegression(
        C=(2 if binary else 1) / (l2 * total),
        fit_intercept=False,
        solver="newton-cholesky",
        tol=1e-13,
        max_iter=10000,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its line search complains at the limit of float64
        weight = judge.fit(x, y, sample_weight=weights).coef_
    weight = np.vstack([-weight, weight]) / 2 if binary else weight
    return weight - weight.mean(0)


def solved(x, y, l2, weights=None, dtype=torch.float64, tol=1e-12, **options):
    batch = [torch.tensor(x, dtype=dtype), torch.tensor(y)]
    batch += [] if weights is None else [torch.tensor(weights)]
    options = {"l2": l2, "tol": tol, "dtype": dtype, "intercept": False, **options}
    return minimise([tuple(batch)], x.shape[1], int(y.max()) + 1, **options)


def assert_same(found, wanted, within=1e-8):
    assert found.status in (Status.CONVERGED, Status.PRECISION)
    assert not found.bias.any()
    np.testing.assert_allclose(found.weight, wanted, rtol=0, atol=within * abs(wanted).max())


SIZES = {
    "few features": (150, 4, 3, 1e-2),
    "two classes": (200, 5, 2, 1e-2),
    "ten classes": (500, 30, 10, 1e-3),
    "wide, two classes": (30, 80, 2, 1e-2),
    "wide": (40, 120, 5, 1e-2),
    "a row a class": (10, 4, 10, 0.1),
    "a row a class, wide": (10, 20, 10, 0.1),
    "one feature": (50, 1, 3, 1e-2),
    "many classes": (2000, 12, 40, 1e-3),
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_optimum_is_scikit_learn_s(name, weighted):
    rows, features, classes, l2 = SIZES[name]
    x, y = drawn(rows, features, classes)
    weights = np.random.default_rng(1).uniform(0.1, 3, rows) if weighted else None
    assert_same(solved(x, y, l2, weights), judged(x, y, l2, weights))


@pytest.mark.parametrize("name", ["two classes", "ten classes", "wide", "a row a class"])
def test_features_far_from_zero_are_not_seen_from_their_mean(name):
    """Where an intercept would take the mean up, nothing does."""
    rows, features, classes, _ = SIZES[name]
    x, y = drawn(rows, features, classes, away=100.0)
    assert_same(solved(x, y, 10.0), judged(x, y, 10.0), within=1e-7)


@pytest.mark.parametrize("model", [Diagonal, Spectrum, PerClass, Coupled, Whole])
def test_every_model_of_the_curvature_leads_there(model, monkeypatch):
    models = (Diagonal, model) if model is not Diagonal else (Diagonal,)
    for module in ("ladder", "choice"):
        monkeypatch.setattr(f"smx_lightning.optim.models.{module}.LADDER", models)
    used = set()

    def aim(self, aimed=Descent._aim):
        used.add(type(self.ladder.model))
        aimed(self)

    monkeypatch.setattr(Descent, "_aim", aim)
    x, y = drawn(400, 6, 4)
    assert_same(solved(x, y, 1e-2), judged(x, y, 1e-2))
    assert model in used


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_some_of_the_rows_in_a_model_s_place_lead_there(dtype, monkeypatch):
    given = []

    class Watched(Rows):
        def _gather(self):
            super()._gather()
            given.append(len(self._x))

    monkeypatch.setattr(ladder, "Rows", Watched)
    x, y = drawn(30000, 5, 4)
    x = x.astype(np.float32).astype(float)
    exact = dtype == torch.float64
    found = solved(x, y, 1e-4, dtype=dtype, tol=1e-11 if exact else 1e-6)
    assert given
    assert_same(found, judged(x, y, 1e-4), within=1e-7 if exact else 1e-3)


@pytest.mark.parametrize("spec", ["sparsemax", "entmax15", {"alpha": 1.2}])
def test_of_other_activations_the_gradient_is_zero(spec):
    x, y = drawn(200, 5, 4)
    found = solved(x, y, 1e-2, activation=spec, tol=1e-10)
    assert found.status is Status.CONVERGED
    weight = found.weight.clone().requires_grad_()
    loss = fenchel_young_loss(torch.tensor(x) @ weight.T, torch.tensor(y), activation_of(spec))
    (loss + 0.5e-2 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-9
    assert not found.bias.any()


def test_distributions_and_batches_are_taken_alike():
    x, y = drawn(90, 4, 3)
    rows, q = torch.tensor(x), torch.eye(3, dtype=torch.float64)[y]
    parts = list(zip(rows.split(17), q.split(17), strict=True))
    found = minimise(parts, 4, 3, l2=1e-2, tol=1e-12, dtype=torch.float64, intercept=False)
    assert_same(found, judged(x, y, 1e-2))


def test_a_class_without_rows_has_an_optimum_where_there_is_no_bias_to_fall():
    x, y = drawn(100, 4, 3)
    options = {"l2": 1e-2, "tol": 1e-10, "dtype": torch.float64}
    rows = [(torch.tensor(x), torch.tensor(y))]
    assert minimise(rows, 4, 4, **options).status is Status.UNSEEN_CLASS
    assert minimise(rows, 4, 4, **options, intercept=False).status is Status.CONVERGED


def test_a_start_is_taken_up_and_its_bias_must_be_zero():
    x, y = drawn(100, 4, 3)
    there = solved(x, y, 1e-2, tol=1e-8)
    assert solved(x, y, 1e-2, tol=1e-8, start=(there.weight, there.bias)).evaluations == 1
    with pytest.raises(InputError, match="bias is 0, where intercept=False holds it"):
        solved(x, y, 1e-2, start=(there.weight, torch.ones(3)))

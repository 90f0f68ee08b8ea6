"""Rows in features of their own: the same logits, the same norms, and the optimum of the rows."""

import numpy as np
import pytest
import torch
from solving import objective, optimum

from smx_lightning.optim import Status, minimise
from smx_lightning.optim.coordinates import basis as module
from smx_lightning.optim.coordinates.basis import Eigen, Triangular, basis
from smx_lightning.optim.coordinates.span import Gathered
from smx_lightning.optim.models.spectrum import Moments

KINDS = {"triangular": 0, "eigen": 1e9}  # passes that uncorrelated features are said to save


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    """Either basis, however few the rows are."""
    monkeypatch.setattr(module, "SAVED", KINDS[request.param])
    return Triangular if request.param == "triangular" else Eigen


def wide(rows=24, features=300, *, mean=5.0, rank=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, features))
    x += rng.standard_normal((rows, features)) + mean * rng.standard_normal(features)
    return x, np.arange(rows) % 3


def spanned(batches, features, classes):
    """The rows of these batches in their span, as a pass gathers them."""
    gathered = Gathered((classes, features + 1))
    for x, y, *c in batches:
        gathered.add(x, y, c[0] if c else None, held=True)
    x = torch.cat([batch[0] for batch in batches] or [torch.zeros(1, features)]).double()
    moments = Moments(len(x), x.sum(0), x.square().sum(0))
    return gathered.spanned(sum(len(batch[0]) for batch in batches), moments)


@pytest.mark.parametrize("mean", [0.0, 5.0, 1e3])
@pytest.mark.parametrize("rows", [2, 24, 63, 64, 65, 150])
def test_the_span_has_the_same_logits_and_norms(kind, rows, mean):
    x, y = map(torch.tensor, wide(rows, mean=mean))
    half = (rows + 1) // 2
    span = spanned([*zip(x.split(half), y.split(half), strict=True)], 300, 3)
    assert isinstance(span.basis, kind)
    inner = span.batch[0]
    seen = x - span.mean
    kernel = seen @ seen.T + span.basis.level
    torch.testing.assert_close(inner @ inner.T, kernel, rtol=0, atol=1e-9 * float(kernel.max()))
    narrow = torch.randn(3, inner.shape[1] + 1, dtype=torch.float64)
    point = span.widen(narrow)
    logits = x @ point[:, :-1].T + point[:, -1]
    same = inner @ narrow[:, :-1].T + narrow[:, -1]
    torch.testing.assert_close(logits, same, rtol=0, atol=1e-8 * float(same.abs().max()))
    shared = span.basis.level * span.basis.outward(narrow[:, :-1]).sum(1).square()
    norms = point[:, :-1].square().sum(1) + shared
    torch.testing.assert_close(norms, narrow[:, :-1].square().sum(1))
    again = span.narrow(point)
    same = inner @ again[:, :-1].T + again[:, -1]
    torch.testing.assert_close(logits, same, rtol=0, atol=1e-8 * float(same.abs().max()))


def test_the_eigenvectors_axes_are_orthonormal_and_lead_back():
    """Of distributions and weights, in batches of two sizes."""
    x, y = wide()
    q, c = np.eye(3)[y], np.random.default_rng(0).uniform(0.5, 2, 24)
    x, q, c = (torch.tensor(part) for part in (x, q, c))
    span = spanned([(x[:10], q[:10], c[:10]), (x[10:], q[10:], c[10:])], 300, 3)
    assert span.basis.rows.shape == (24, 23)
    eye = torch.eye(23, dtype=torch.float64)
    axes = span.basis.outward(eye) @ (x - x.mean(0))
    torch.testing.assert_close(axes @ axes.T, eye, rtol=0, atol=1e-12)
    narrow = torch.randn(3, 24, dtype=torch.float64)
    point = span.widen(narrow)
    logits = x @ point[:, :-1].T + point[:, -1]
    same = span.basis.rows @ narrow[:, :-1].T + narrow[:, -1]
    torch.testing.assert_close(logits, same, rtol=0, atol=1e-10)
    torch.testing.assert_close(span.narrow(point), narrow, rtol=0, atol=1e-10)
    torch.testing.assert_close(point[:, :-1].norm(), narrow[:, :-1].norm())


@pytest.mark.parametrize("spectrum", ["few", "decaying", "flat"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_leading_features_are_where_rows_vary_most(spectrum, dtype):
    """And hardly correlated, where few stand out."""
    rng = np.random.default_rng(1)
    scale = {
        "few": np.where(np.arange(900) < 30, 10.0, 1.0),
        "decaying": np.arange(1, 901) ** -1.0,
        "flat": np.ones(900),
    }[spectrum]
    x = torch.tensor(rng.standard_normal((600, 900)) * scale, dtype=dtype)
    products = x @ x.T
    found = basis(products, 5, centred=False)
    assert isinstance(found, Triangular)
    second = (found.rows.T @ found.rows).double()
    largest = torch.linalg.eigvalsh(products.double())[-64:]
    share = float(second.diagonal()[:64].sum() / largest.sum())
    assert share > {"few": 0.98, "decaying": 0.98, "flat": 0.6}[spectrum]
    if spectrum == "few":
        root = second.diagonal().sqrt()
        correlations = second / root / root[:, None]
        assert (correlations - torch.eye(600)).abs()[:30].max() < 0.05


def repeated(x):
    return x[np.arange(len(x)) // 3]


def mixed(x):
    return np.random.default_rng(2).standard_normal((len(x), 9)) @ x[:9]


def decaying(x):
    return x * 0.9 ** np.arange(x.shape[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("change", [lambda x: x, repeated, mixed, decaying])
def test_it_leads_to_the_optimum_whatever_the_rows(kind, change, intercept, dtype):
    """Where rows repeat there is no triangular one."""
    x, y = wide(60, 400)
    x = change(x)
    batches = [(torch.tensor(x, dtype=dtype), torch.tensor(y))]
    tol = 1e-9 if dtype == torch.float64 else 1e-5
    found = minimise(batches, 400, 3, l2=0.01, tol=tol, dtype=dtype, intercept=intercept)
    assert found.status is Status.CONVERGED
    assert found.evaluations <= (2 if dtype == torch.float64 and change is not decaying else 15)
    best = optimum(x, y, 0.01, intercept=intercept)
    reached = objective(found.weight.numpy(), found.bias.numpy(), x, y, 0.01)
    assert reached == pytest.approx(best, rel=1e-8 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("change", [repeated, mixed])
def test_rows_that_repeat_have_the_eigenvectors_basis(change, monkeypatch):
    monkeypatch.setattr(module, "SAVED", 0)
    x = torch.tensor(change(wide(60, 400)[0]), dtype=torch.float32)
    found = basis(x @ x.T, 3, centred=False)
    assert isinstance(found, Eigen)
    assert found.rows.shape[1] == (20 if change is repeated else 9)


@pytest.mark.parametrize("classes", [3, 120])
def test_an_outlier_does_not_hide_the_other_rows(classes):
    """Its square is all that float32's eigenvalues know."""
    x = wide(240, 500, mean=0.0)[0]
    x[3] *= 1e4
    x = torch.tensor(x, dtype=torch.float32)
    found = basis(x @ x.T, classes, centred=False)
    assert isinstance(found, Triangular)
    usual = basis(x[4:] @ x[4:].T, classes, centred=False)
    assert isinstance(usual, Eigen)


def test_variances_that_decay_leave_few_passes_to_the_rows_themselves():
    """The eigenvectors of float32 dropped 700 of 800 directions, and 80 passes were left to do."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((600, 1500)) / np.arange(1, 1501)
    w = rng.standard_normal((1500, 20))
    y = torch.tensor((x @ w + 0.5 * rng.standard_normal((600, 20))).argmax(1))
    x = torch.tensor(x / x.std(), dtype=torch.float32)
    found = minimise([(x, y)], 1500, 20, l2=1 / 600, tol=1e-4)
    assert found.status in (Status.CONVERGED, Status.UNSEEN_CLASS)
    assert found.evaluations <= 15


@pytest.mark.parametrize(
    "batches",
    [[(torch.ones(5, 9), torch.arange(5) % 2)], [(torch.zeros(1, 9), torch.zeros(1).long())], []],
)
def test_rows_that_are_all_the_same_have_no_span(batches):
    assert spanned(batches, 9, 2) is None


@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan")])
def test_products_that_are_zero_or_not_finite_have_no_basis(kind, value):
    assert basis(torch.full((30, 30), value), 3, centred=True) is None


def test_more_rows_than_features_are_left_alone():
    rows = (torch.randn(10, 4), torch.arange(10) % 2)
    assert spanned([rows], 4, 2) is None

"""The covariance against an obvious second implementation, and what leaves it as it is.

That one takes derivatives of the objective of all K (d + 1) parameters by autograd, row by row, and
leaves out what no prediction depends on by a basis of what remains.
"""

import numpy as np
import pytest
import torch
from at_optimum import at_optimum, drawn, errors_on_shares
from hypothesis import given
from hypothesis import strategies as st
from sampled import sampled

from smx_lightning import InputError
from smx_lightning.coefficients import Estimates
from smx_lightning.optim.evaluation import weighted
from smx_lightning.sklearn import SoftmaxClassifier


def covariance(model, batches, errors, weights):
    """Of W, then b, all (classes, features + 1) of them, flattened, in standardised units."""
    x, y, *rest = (torch.cat(part) for part in zip(*batches, strict=True))
    x = (x - model.preprocessing.centre) / model.preprocessing.scale.double()
    q = torch.nn.functional.one_hot(y, model.num_classes).double() if y.ndim == 1 else y
    q = (1 - model.label_smoothing) * q + model.label_smoothing / model.num_classes
    q, k = weighted(q, None, model.class_weights_for(x))
    r = rest[0].double() if rest else torch.ones(len(x), dtype=torch.float64)
    k = torch.ones_like(r) if k is None else k
    classes, features = model.linear.weight.shape
    point = torch.cat([model.linear.weight, model.linear.bias[:, None]], 1).detach()

    def losses(flat):
        at = flat.view(classes, features + 1)
        return -(q * (x @ at[:, :-1].T + at[:, -1]).log_softmax(1)).sum(1) * k

    def objective(flat):
        penalty = flat.view(classes, features + 1)[:, :-1].square().sum()
        return (r * losses(flat)).sum() + 0.5 * model.l2 * (r * k).sum() * penalty

    flat = point.flatten()
    bread = torch.autograd.functional.hessian(objective, flat)
    if errors == "model":
        meat = torch.autograd.functional.hessian(lambda at: (r * losses(at)).sum(), flat)
    else:
        scores = torch.autograd.functional.jacobian(losses, flat)
        u, a, n = (
            (scores, r, r.sum())
            if weights == "frequency"
            else (scores * r[:, None], torch.ones_like(r), (r > 0).sum())
        )
        total = (a[:, None] * u).sum(0)
        meat = (a[:, None] * u).T @ u - torch.outer(total, total) / n
    # Vectors that sum to zero over the classes.
    basis = np.linalg.svd(np.eye(classes) - 1 / classes)[0][:, : classes - 1]
    basis = torch.from_numpy(np.kron(basis, np.eye(features + 1)))
    inside = torch.linalg.inv(basis.T @ bread @ basis)
    return basis @ inside @ basis.T @ meat @ basis @ inside @ basis.T


def errors_of(cov, model, reference):
    """Standard errors (rows, 1 + features) of all contrasts, in own units and in standardised."""
    classes, features = model.linear.weight.shape
    spread = model.preprocessing.scale.double().numpy()
    centre = model.preprocessing.centre.numpy()
    coding = np.eye(classes)
    coding = coding - (1 / classes if reference is None else coding[reference])
    found = []
    for scale, shift in ((spread, centre), (np.ones(features), np.zeros(features))):
        units = np.zeros((features + 1, features + 1))  # of the bias and of each feature
        units[0, -1] = 1
        units[0, :-1] = -shift / scale
        units[1:, :-1] = np.diag(1 / scale)
        jacobian = np.kron(coding, units)
        variances = np.einsum("ij,jk,ik->i", jacobian, cov.numpy(), jacobian)
        found.append(np.sqrt(np.clip(variances, 0, None)).reshape(classes, features + 1))
    return [np.delete(part, [] if reference is None else [reference], 0) for part in found]


def problem(num_classes=3, rows=200, features=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, features)) * 10.0 ** np.arange(features) + 5 * np.arange(features)
    weight = rng.normal(size=(num_classes, features)) / 10.0 ** np.arange(features)
    y = drawn(x - x.mean(0), weight, rng.normal(size=num_classes) / 2, seed)
    y[:num_classes] = range(num_classes)
    return x, y


GRID = [
    (errors, weights, weighted, l2, class_weight, smoothing)
    for errors, weights in (("model", "frequency"), ("robust", "frequency"), ("robust", "sampling"))
    for weighted in (False, True)
    for l2 in (0.0, 0.003, 1.0)
    for class_weight in (None, [1.0, 3.0, 0.5])
    for smoothing in (0.0, 0.2)
    if errors == "robust" or (class_weight is None and not smoothing)
]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    ("errors", "weights", "weighted", "l2", "class_weight", "smoothing"), sampled(GRID, every=5)
)
def test_errors_are_those_of_a_dense_computation(
    errors, weights, weighted, l2, class_weight, smoothing, soft
):
    x, y = problem()
    rng = np.random.default_rng(1)
    if soft:
        y = 0.7 * np.eye(3)[y] + 0.3 * rng.dirichlet(np.ones(3), len(x))
    weight = rng.choice([0.0, 0.5, 1, 2.5], len(x)) if weighted else None
    model, batches = at_optimum(
        *(x, y, 3),
        weight=weight,
        l2=l2,
        class_weight=class_weight,
        label_smoothing=smoothing,
        preprocessing="standardize",
    )
    cov = covariance(model, batches, errors, weights)
    for reference in (None, 1):
        name = None if reference is None else str(reference)
        table = model.coefficients(batches, errors=errors, weights=weights, reference=name)
        for part, wanted in zip(
            (table.own, table.standardised), errors_of(cov, model, reference), strict=True
        ):
            np.testing.assert_allclose(part.std_error, wanted, rtol=1e-7, atol=1e-12)


@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 2**32), st.sampled_from([1e-4, 0.1]))
def test_errors_of_other_sizes(num_classes, features, seed, l2):
    x, y = problem(num_classes, 60, features, seed)
    model, batches = at_optimum(x, y, num_classes, l2=l2, preprocessing="standardize")
    for errors in ("model", "robust"):
        wanted, _ = errors_of(covariance(model, batches, errors, "frequency"), model, None)
        table = model.coefficients(batches, errors=errors)
        np.testing.assert_allclose(table.own.std_error, wanted, rtol=1e-6, atol=1e-9)


# What leaves the errors as they are ---------------------------------------------------------------


@pytest.mark.parametrize("errors", ["model", "robust"])
@pytest.mark.parametrize("l2", [0.0, 0.01])
def test_frequencies_are_rows_that_are_repeated(errors, l2):
    x, y = problem()
    counts = np.random.default_rng(2).integers(0, 4, len(x))
    kept = {"l2": l2, "preprocessing": "standardize"}
    once, batches = at_optimum(x, y, 3, weight=counts.astype(float), **kept)
    many, rows = at_optimum(x.repeat(counts, 0), y.repeat(counts), 3, **kept)
    one, other = once.coefficients(batches, errors=errors), many.coefficients(rows, errors=errors)
    np.testing.assert_allclose(one.own.std_error, other.own.std_error, rtol=1e-9)
    assert one.num_rows == other.num_rows == counts.sum()


def test_sampling_weights_may_be_in_any_unit():
    x, y = problem()
    weight = np.random.default_rng(3).uniform(0.5, 4, len(x))
    model, batches = at_optimum(x, y, 3, weight=weight, l2=0.01)
    scaled = [(x, y, 1000 * w) for x, y, w in batches]
    ours, theirs = (
        model.coefficients(rows, errors="robust", weights="sampling") for rows in (batches, scaled)
    )
    np.testing.assert_allclose(ours.own.std_error, theirs.own.std_error, rtol=1e-10)
    assert ours.num_rows == len(x)
    assert theirs.distance == pytest.approx(ours.distance, rel=1e-3, abs=1e-9)
    with torch.no_grad():
        model.linear.weight[0, 0] += 1
    for rows in (batches, scaled, [(x, y, w / 1000) for x, y, w in batches]):
        with pytest.raises(InputError, match=r"within 0.1 standard errors of the optimum"):
            model.coefficients(rows, errors="robust", weights="sampling")


def test_the_size_of_a_batch_and_the_order_of_rows_do_not_matter():
    x, y = problem()
    model, batches = at_optimum(x, y, 3, l2=0.01)
    x, y = (torch.cat(part) for part in zip(*batches, strict=True))
    order = torch.randperm(len(x))
    singly = [*zip(x[order].split(1), y[order].split(1), strict=True), (x[:0], y[:0])]
    for errors in ("model", "robust"):
        one = model.coefficients(batches, errors=errors).own.std_error
        other = model.coefficients(singly, errors=errors).own.std_error
        np.testing.assert_allclose(one, other, rtol=1e-10)


def test_a_constant_for_all_classes_is_not_seen():
    x, y = problem()
    model, batches = at_optimum(x, y, 3)
    before = model.coefficients(batches)
    with torch.no_grad():
        model.linear.weight += torch.randn(3)
        model.linear.bias += 5
    after = model.coefficients(batches)
    np.testing.assert_allclose(after.own.estimate, before.own.estimate, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(after.own.std_error, before.own.std_error, rtol=1e-9)


def test_rows_without_a_label_are_left_out():
    x, y = problem()
    model, batches = at_optimum(x, y, 3, weight=np.ones(len(x)))
    bare = model.coefficients(batches)
    x, y, weight = batches[0]
    unlabelled = [*batches, (1e6 * x, torch.full_like(y, -1), weight)]
    both = model.coefficients(unlabelled)
    assert np.array_equal(both.own.std_error, bare.own.std_error)
    assert both.num_rows == bare.num_rows == 200


def test_the_models_mode_and_gradients_stay_as_they_were():
    x, y = problem()
    model, batches = at_optimum(x, y, 3)
    model.train()
    model.smx.eval()
    model.coefficients(batches)
    assert (model.training, model.smx.training) == (True, False)
    assert model.linear.weight.grad is None
    assert model.linear.weight.requires_grad


@pytest.mark.parametrize(("processes", "l2"), sampled([(3, 0.01), (1, 0.0), (2, 0.0)], every=3))
def test_processes_add_up_their_rows(processes, l2, ranks):
    x, y = problem()
    model, batches = at_optimum(x, y, 3, l2=l2)
    tables = [model.coefficients(batches, errors=errors) for errors in ("model", "robust")]
    for answer in ranks.run(processes, errors_on_shares, x, y, 3, l2):
        for table, (std_error, num_rows) in zip(tables, answer, strict=True):
            np.testing.assert_allclose(std_error, table.own.std_error, rtol=1e-9)
            assert num_rows == table.num_rows


# How accurate float32 is --------------------------------------------------------------------------


@pytest.mark.parametrize("l2", [0.0, 1e-3, 0.1])
def test_a_model_in_float32_has_nearly_the_same_errors(l2):
    x, y = problem()
    model, batches = at_optimum(x, y, 3, l2=l2, preprocessing="standardize")
    exact = model.coefficients(batches)
    model.float()
    rounded = model.coefficients([(x.float(), y) for x, y in batches])
    np.testing.assert_allclose(rounded.own.std_error, exact.own.std_error, rtol=1e-5)
    assert rounded.distance < 1e-3
    assert exact.distance < 1e-8


@pytest.mark.parametrize("l2", [1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize("errors", ["model", "robust"])
def test_features_that_others_determine_have_errors_however_small_the_penalty(l2, errors):
    """Those of the limit, by a pseudo-inverse: A⁻¹ M A⁻¹ as written is its own rounding there."""
    rng = np.random.default_rng(0)
    x = np.c_[rng.normal(size=200), np.eye(3)[rng.integers(0, 3, 200)]]  # all of the one-hot ones
    y = (x[:, 0] + rng.logistic(size=200) > 0).astype(int)
    head = SoftmaxClassifier(l2=l2, tol=1e-10).fit(x, y)
    model, batches = head.to_lightning(), [(torch.from_numpy(x), torch.from_numpy(y))]
    table = model.coefficients(batches, reference="0", errors=errors)
    p = head.predict_proba(x)[:, 1]
    w = p * (1 - p)
    centred = x - w @ x / w.sum()  # the bias, which is free, taken out
    inverse = np.linalg.pinv(centred.T @ (w[:, None] * centred), rcond=1e-10)
    u = centred * (p - y)[:, None]
    wanted = inverse if errors == "model" else inverse @ u.T @ u @ inverse
    np.testing.assert_allclose(table.own.std_error[0, 1:], np.diag(wanted) ** 0.5, rtol=100 * l2)


def test_an_interval_of_nearly_all_is_none_of_an_error():
    own = Estimates(np.ones((1, 2)), np.ones((1, 2)), level=1 - 2**-53)
    assert own.low is not None
    assert np.isfinite(own.low).all()

"""Products with the Hessian of some rows: judged by autograd, a dense solution, and the optimum."""

import jobs
import numpy as np
import pytest
import torch
from sampled import sampled
from solving import batches, embeddings, objective, optimum, trainer_for

from smx_lightning import SoftmaxRegression
from smx_lightning.optim import ExactSolver, Status, minimise
from smx_lightning.optim.models import ladder
from smx_lightning.optim.models.rows import Rows
from smx_lightning.optim.models.spectrum import Diagonal, Moments, Spectrum

L2 = 0.1


def kept(wanted=1e9, rows=40, features=5, classes=4, weighted=True):
    """All rows of a small problem at some point, or about as many as wanted; the objective."""
    generator = torch.Generator().manual_seed(0)
    x, point, c = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((rows, features), (classes, features + 1), (rows,))
    )
    y = torch.arange(rows) % classes
    c = c.abs() + 0.1 if weighted else torch.ones(rows, dtype=torch.float64)

    def loss(flat):
        weight = flat.view(classes, features + 1)
        nll = torch.nn.functional.cross_entropy(
            x @ weight[:, :-1].T + weight[:, -1], y, reduction="none"
        )
        return (c * nll).sum() / c.sum() + 0.5 * L2 * weight[:, :-1].square().sum()

    probs = (x @ point[:, :-1].T + point[:, -1]).softmax(1).T
    spread = float((c * (1 - probs.square().sum(0))).sum())
    model = Rows((classes, features + 1), wanted=wanted, spread=spread, like=x)
    for part in (slice(0, 7), slice(7, 7), slice(7, rows)):
        model.add(x[part], probs[:, part], torch.ones(rows)[part].double(), c[part])
    moments = Moments(float(c.sum()), c @ x, c @ x.square())
    metric = Diagonal.of(moments, classes, L2).at((probs * (1 - probs)) @ c / c.sum())
    model.finish(metric, float(c.sum()), L2, lambda tensor: tensor)
    model._gather()
    return model, loss, point


def test_products_are_the_hessian_s():
    model, loss, point = kept()
    hessian = torch.autograd.functional.hessian(loss, point.flatten())
    direction = torch.randn(point.shape, dtype=torch.float64)
    wanted = (hessian @ direction.flatten()).view(point.shape)
    torch.testing.assert_close(model._product(direction), wanted, rtol=1e-10, atol=1e-12)


def test_the_solution_is_newton_s(monkeypatch):
    monkeypatch.setattr("smx_lightning.optim.models.rows.RESIDUAL", 1e-12)
    model, loss, point = kept()
    hessian = torch.autograd.functional.hessian(loss, point.flatten())
    gradient = torch.autograd.functional.jacobian(loss, point.flatten())
    wanted = torch.linalg.lstsq(hessian, gradient[:, None], driver="gelsd").solution
    wanted = wanted.view(point.shape)
    found = model.solve(gradient.view(point.shape) - gradient.view(point.shape).mean(0))
    torch.testing.assert_close(found - found.mean(0), wanted - wanted.mean(0), rtol=0, atol=1e-8)


def turned(least, monkeypatch, rows=60, features=12, classes=9, one=1.0):
    """All rows in the directions with ``least`` of the penalty; the Hessian and gradient there."""
    monkeypatch.setattr("smx_lightning.optim.models.rows.RESIDUAL", 1e-12)
    monkeypatch.setattr("smx_lightning.optim.models.rows.DECIDED", least)
    monkeypatch.setattr("smx_lightning.optim.models.rows.PRODUCTS", 100)  # turning always pays
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, features, generator=generator, dtype=torch.float64)
    x = (x + 2) * 0.5 ** torch.arange(features)
    point = torch.randn(classes, features + 1, generator=generator, dtype=torch.float64)
    probs = (x @ point[:, :-1].T + point[:, -1]).softmax(1).T
    spread = float((1 - probs.square().sum(0)).sum())
    model = Rows((classes, features + 1), wanted=1e9, spread=spread, like=x, one=one)
    model.add(x, probs, x.new_ones(rows), None)
    metric = Spectrum(classes, features + 1, expected=rows, rows=rows, like=x, one=one)
    metric.add(x, probs, x.new_ones(rows), None)
    metric.finish(rows, L2, lambda tensor: tensor)
    metric = metric.at((probs * (1 - probs)).mean(1))
    model.finish(metric, rows, L2, lambda tensor: tensor)
    wide = torch.cat([x, x.new_full((rows, 1), one)], 1)
    at = torch.diag_embed(probs.T) - probs.T[:, :, None] * probs.T[:, None]
    hessian = torch.einsum("nij,na,nb->iajb", at, wide, wide) / rows
    gradient = torch.randn(point.shape, generator=generator, dtype=torch.float64)
    gradient[:, -1] *= one
    return model, metric, hessian, gradient - gradient.mean(0)


def dense(metric, hessian, gradient, leading):
    """The same step from matrices: the metric's own Hessian, but for the leading directions."""
    classes, width = gradient.shape
    back = torch.eye(width, dtype=torch.float64)  # from the metric's directions to parameters
    back[:-1, :-1] = metric.vectors
    back[-1, :-1] = -metric.mean @ metric.vectors
    penalty = torch.diag(back.new_tensor([L2] * (width - 1) + [0.0]))
    whole = hessian + torch.einsum("ij,ab->iajb", torch.eye(classes).double(), penalty)
    whole = torch.einsum("iajb,ac,bd->icjd", whole, back, back)
    model = torch.diag(metric.scales.flatten()).view(whole.shape)
    first = width - 1 - leading
    model[:, first:, :, first:] = whole[:, first:, :, first:]
    size = classes * width
    along = (gradient @ back).flatten()
    step = torch.linalg.lstsq(model.view(size, size), along[:, None], driver="gelsd").solution
    step = step.view(classes, width) @ back.T
    return step - step.mean(0)


@pytest.mark.parametrize("one", [0.0, 1.0])
@pytest.mark.parametrize("least", [1e-12, 1e-3, 0.03, 0.3, 1e9])
def test_in_few_directions_the_step_is_newton_s_and_the_metric_s_in_the_others(
    least, one, monkeypatch
):
    model, metric, hessian, gradient = turned(least, monkeypatch, one=one)
    leading = metric.leading(least)
    assert {1e-12: leading == 12, 1e9: leading == 0}.get(least, 0 < leading < 12)
    step = model.solve(gradient)
    assert model._narrow == (leading if leading < 12 else None)
    assert model._x.shape == (60, leading)
    if leading == 12:
        metric.vectors, metric.mean = torch.eye(12).double(), torch.zeros(12).double()
    wanted = dense(metric, hessian, gradient, leading)
    ends = slice(None) if one else slice(-1)  # a bias that does not move has no Hessian
    torch.testing.assert_close((step - step.mean(0))[:, ends], wanted[:, ends], rtol=0, atol=1e-8)


def test_rows_are_turned_only_where_products_pay_for_it():
    for classes, features, wanted in ((100, 768, 200), (2, 768, None), (100, 20, None)):
        masses = torch.full((classes,), 0.1).double()
        metric = Spectrum(classes, features + 1, expected=1.0, rows=1.0, like=masses)
        values = torch.zeros(features).double()
        values[-200:] = 1.0
        metric._set(torch.zeros(features).double(), values, L2, 1e-16)
        metric.vectors = torch.eye(features).double()
        model = Rows((classes, features + 1), wanted=9, spread=1.0, like=masses)
        model.finish(metric.at(masses), 1.0, L2, lambda tensor: tensor)
        model._gather()
        assert model._narrow == wanted


@pytest.mark.parametrize("wanted", [50, 400, 1900])
def test_as_many_rows_are_kept_as_wanted_and_weigh_as_much_as_all(wanted):
    model, *_ = kept(wanted=wanted, rows=2000, weighted=False)
    assert len(model._x) <= wanted + 3 * wanted**0.5
    assert len(model._x) >= 0.6 * wanted  # of those that must go in some count twice
    assert float(model._weights.sum()) == pytest.approx(1, rel=0.6 if wanted < 100 else 0.1)
    assert model._weights.min() >= 1 / 2000 - 1e-12


@pytest.fixture
def used(monkeypatch):
    """How many rows each step along products was given."""
    given = []

    class Watched(Rows):
        def _gather(self):
            super()._gather()
            given.append(len(self._x))

    monkeypatch.setattr(ladder, "Rows", Watched)
    return given


def many(rows=30000, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 5))
    scores = x @ rng.standard_normal((5, 4)) + 2 * rng.gumbel(size=(rows, 4))
    return x, scores.argmax(1)


PROBLEMS = {"many rows": (many, 1e-4), "embeddings": (lambda: embeddings(2000, 400, 50, 60), 2e-3)}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_few_rows_will_do_they_lead_to_the_optimum(name, dtype, used):
    problem, l2 = PROBLEMS[name]
    x, y = problem()
    rows = [(torch.tensor(x, dtype=dtype), torch.tensor(y))]
    tol = 1e-9 if dtype == torch.float64 else 1e-6
    found = minimise(rows, x.shape[1], int(y.max()) + 1, l2=l2, tol=tol, dtype=dtype)
    assert found.status is Status.CONVERGED
    assert used
    assert max(used) <= len(x) / 2
    reached = objective(found.weight.double().numpy(), found.bias.double().numpy(), x, y, l2)
    assert reached == pytest.approx(optimum(x, y, l2), rel=1e-8 if tol < 1e-8 else 1e-4)


def test_rows_of_the_last_pass_are_not_put_together(used, monkeypatch):
    finished, finish = [], Rows.finish
    monkeypatch.setattr(Rows, "finish", lambda *args: (finished.append(1), finish(*args))[1])
    x, y = embeddings(2000, 400, 50, 60)
    rows = [(torch.from_numpy(x), torch.from_numpy(y))]
    found = minimise(rows, 400, 50, l2=2e-3, tol=1e-4, dtype=torch.float64)
    assert found.status is Status.CONVERGED
    assert len(used) == len(finished) - 1


@pytest.mark.whole
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_keep_rows_of_their_own_and_find_the_same_optimum(ranks, name, processes):
    problem, l2 = PROBLEMS[name]
    x, y = problem()
    answers = ranks.run(processes, jobs.solved_on_shares, x, y, l2)
    one = minimise(
        [(torch.tensor(x), torch.tensor(y))],
        x.shape[1],
        int(y.max()) + 1,
        l2=l2,
        tol=1e-9,
        dtype=torch.float64,
    )
    for weight, status in answers:
        assert status == "CONVERGED"
        np.testing.assert_array_equal(weight, answers[0][0])
        np.testing.assert_allclose(weight, one.weight, atol=1e-4)


@pytest.mark.parametrize("name", sampled(PROBLEMS, named=["embeddings"]))
@pytest.mark.parametrize("epoch", sampled(range(1, 8), named=[4]))
def test_a_resumed_run_takes_the_same_steps(name, epoch, used, tmp_path, monkeypatch):
    monkeypatch.setattr("smx_lightning.optim.exact.EPOCH_WORK", 1e6)  # no matrix is cheap enough
    problem, l2 = PROBLEMS[name]
    x, y = problem()

    def run(most, path=None):
        torch.manual_seed(0)
        trainer = trainer_for(max_epochs=most)
        model = SoftmaxRegression(x.shape[1], int(y.max()) + 1, l2=l2, optimizer=ExactSolver)
        trainer.fit(model, batches(x, y, 5000), ckpt_path=path)
        return trainer, model.linear.weight.detach()

    whole = run(10)[1]
    assert used
    run(epoch)[0].save_checkpoint(tmp_path / "part.ckpt")
    assert torch.equal(run(10, tmp_path / "part.ckpt")[1], whole)

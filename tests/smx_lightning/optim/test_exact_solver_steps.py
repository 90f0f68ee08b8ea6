"""Step lengths, restarts and what curvature costs: what a wrong choice makes slow, not wrong.

The solver runs in a plain loop, without a Trainer: what is judged is the method.
"""

import warnings

import jobs
import numpy as np
import pytest
import torch
from references import gradient
from sklearn.linear_model import LogisticRegression
from solving import embeddings, few_rows, noisy_scores, objective, optimum

from smx_lightning.optim import ExactSolver, Status
from smx_lightning.optim.steps.search import RATIOS


def epochs(x, y, l2, *, tol=1e-6, start=None, batches=1):
    """The points (K, d + 1) that the epochs evaluate, and whether each was rejected; the solver."""
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    torch.manual_seed(0)
    layer = torch.nn.Linear(x.shape[1], int(y.max()) + 1, dtype=x.dtype)
    if start is not None:
        with torch.no_grad():
            layer.weight.copy_(start)
            layer.bias.zero_()
    solver = ExactSolver(layer.parameters(), tol=tol)
    points, rejected = [], []
    while solver.status is Status.RUNNING and solver.evaluations < 1000:
        solver.begin_epoch(l2=l2, batches=batches)
        points.append(solver.trial.numpy())
        for rows, labels in zip(x.chunk(batches), y.chunk(batches), strict=True):
            solver.add(rows, labels)
        solver.step()
        rejected.append(solver.rejected)
    return points, rejected, solver


def rare_features(rows, features, often, seed):
    """Standardised features that most rows lack: a step may turn over rows that were certain."""
    rng = np.random.default_rng([rows, features, 10, seed])
    x = (rng.random((rows, features)) < often) * rng.gamma(2.0, 1.0, (rows, features))
    x = x[:, x.any(0)]
    x = (x - x.mean(0)) / x.std(0)
    scores = x @ rng.standard_normal((x.shape[1], 10))
    y = (scores / scores.std() + 0.3 * rng.gumbel(size=scores.shape)).argmax(1)
    return x, np.unique(y, return_inverse=True)[1]


@pytest.mark.whole
def test_steps_that_must_be_shortened_take_few_epochs(monkeypatch):
    """Where epochs are dear, a quarter of scikit-learn's L-BFGS's iterations, to the same entry."""
    monkeypatch.setattr("smx_lightning.optim.exact.EPOCH_WORK", 1.5e9)
    l2, taken, theirs = 1e-3, 0, 0
    for seed in range(6):
        x, y = rare_features(600, 100, 0.01, seed)
        points, rejected, solver = epochs(x, y, l2)
        assert solver.status is Status.CONVERGED
        assert any(rejected)
        taken += len(points)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            judge = LogisticRegression(C=1 / (l2 * len(y)), tol=1e-6, max_iter=3000).fit(x, y)
        theirs += int(judge.n_iter_[0])
    assert taken <= theirs / 4


def at(point, x, y, l2):
    return objective(point[:, :-1], point[:, -1], x, y, l2)


@pytest.mark.parametrize(
    "problem",
    [few_rows(64, 1, 64, 0), rare_features(600, 100, 0.01, 1), noisy_scores(64, 0)],
    ids=["one row a class", "rare features", "noisy scores"],
)
def test_what_follows_a_rejected_step_is_what_the_documentation_says(problem):
    """docs/solver.md: where the slope is zero, between lengths at which the epoch measured it.

    Or, where it did not, the least point of the parabola through both values and the slope.
    """
    (x, y), l2 = problem, 1e-3
    points, rejected, _ = epochs(x, y, l2)
    shortened = 0
    best = points[0]
    for point, failed, after in zip(points[1:-1], rejected[1:-1], points[2:], strict=True):
        if not failed:
            best = point
            continue
        step, rise = point - best, at(point, x, y, l2) - at(best, x, y, l2)
        slopes = [slope_at(best + t * step, step, x, y, l2) for t in (0, *RATIOS, 1)]
        if abs(rise) < 1e-9:  # rounding may hide the parabola
            break
        parabola = max(-slopes[0] / (2 * (rise - slopes[0])), 0.1) if rise > slopes[0] else 0.1
        wanted = [best + min(length, 0.5) * step for length in (parabola, zero_of(slopes))]
        shortened += 1
        assert min(abs(after - one).max() / abs(step).max() for one in wanted) < 1e-6
    assert shortened


def slope_at(point, step, x, y, l2):
    return (gradient(point[:, :-1], point[:, -1], x, y, l2) * step).sum()


def zero_of(slopes):
    """Where the slope is zero, linear between the lengths; at a tenth of the gap to either side."""
    lengths = (0, *RATIOS, 1)
    above = next(k for k, slope in enumerate(slopes) if slope >= 0)
    share = np.clip(slopes[above - 1] / (slopes[above - 1] - slopes[above]), 0.05, 0.95)
    return lengths[above - 1] + share * (lengths[above] - lengths[above - 1])


def test_a_step_far_too_long_is_taken_back_though_it_descended():
    """From zero most of the way was lost again behind the least point of the line."""
    x, y = embeddings(1000, 100, 50, 20)
    points, rejected, solver = epochs(x, y, 1e-3)
    zero, too_far, nearer = (at(point, x, y, 1e-3) for point in points[1:4])
    assert rejected[2]
    assert nearer < 0.5 * too_far < 0.5 * zero
    assert solver.status is Status.CONVERGED


def test_a_start_that_is_worse_than_zero_begins_again_from_zero():
    """Also where some of its weights are zero already."""
    x, y = noisy_scores(5, 0)
    start = torch.zeros(5, 16, dtype=torch.float64)
    start[2, 3] = 50.0
    points, _, solver = epochs(x, y, 1e-3, start=start)
    np.testing.assert_allclose(points[0][:, :-1], start - start.mean(0), atol=1e-15)
    np.testing.assert_array_equal(points[1], np.zeros((5, 17)))
    assert solver.status is Status.CONVERGED
    assert solver.evaluation.objective == pytest.approx(optimum(x, y, 1e-3), rel=1e-8)


def test_a_start_at_the_optimum_stops_there():
    x, y = noisy_scores(5, 0)
    points, _, _ = epochs(x, y, 1e-3, tol=1e-9)
    start = torch.as_tensor(points[-1])
    again, _, solver = epochs(x, y, 1e-3, tol=1e-6, start=start[:, :-1])  # without the bias
    assert solver.status is Status.CONVERGED
    assert len(again) < len(points)
    np.testing.assert_allclose(again[-1], points[-1], atol=1e-4)


@pytest.mark.parametrize(("epoch", "times"), [(1.5e9, 2), (1e8, 0)])
def test_curvature_is_bought_where_the_epochs_cost_as_much(epoch, times, monkeypatch):
    """By the documented prices: the whole Hessian costs eight epochs here, or seventy.

    Its 2709 unknowns take 16 rows each of 301² multiplications and as many additions, less a
    quarter by symmetry, and a third of 2709³: 1.25e10; the products of an epoch 4 · 2000 · 301 · 32
    = 8e7.
    """
    bought = []
    factored = torch.linalg.cholesky_ex

    def watched(matrix):
        bought.append(matrix.shape[-1])
        return factored(matrix)

    monkeypatch.setattr(torch.linalg, "cholesky_ex", watched)
    monkeypatch.setattr("smx_lightning.optim.exact.EPOCH_WORK", epoch)
    x, y = noisy_scores(10, 0, rows=2000, features=300)
    points, _, solver = epochs(x, y, 1e-3, tol=1e-10)
    assert solver.status is Status.CONVERGED
    assert bought.count(9 * 301) == times
    assert len(points) <= 40


def test_an_empty_first_batch_changes_nothing():
    x, y = (torch.as_tensor(part) for part in noisy_scores(5, 0))
    found = []
    for parts in ([(x, y)], [(x[:0], y[:0]), (x, y)]):
        layer = torch.nn.Linear(16, 5, dtype=torch.float64)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        solver = ExactSolver(layer.parameters(), tol=1e-9)
        while solver.status is Status.RUNNING and solver.evaluations < 100:
            solver.begin_epoch(l2=1e-3, batches=len(parts))
            for rows, labels in parts:
                solver.add(rows, labels)
            solver.step()
        assert solver.status is Status.CONVERGED
        found.append((solver.evaluations, layer.weight.detach()))
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-8, atol=1e-10)


@pytest.mark.whole
def test_a_process_without_rows_takes_the_same_steps(ranks):
    x, y = noisy_scores(5, 0)
    points, _, _ = epochs(x, y, 1e-3, tol=1e-9, start=torch.zeros(5, 16))
    answers = ranks.run(3, jobs.solved_by_the_first, x, y, 1e-3)
    for weight, epochs_taken, status in answers:
        assert status == "CONVERGED"
        assert epochs_taken == len(points)
        np.testing.assert_array_equal(weight, answers[0][0])
        np.testing.assert_allclose(weight, points[-1][:, :-1], atol=1e-10)

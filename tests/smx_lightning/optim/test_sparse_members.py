"""Sparsemax, entmax15 and what lies between: the solver ends at the least objective, and says so.

The judge is a bound from below by Fenchel's dual in numpy (``sparse_optima``), and scipy's L-BFGS.
"""

import math

import jobs
import numpy as np
import pytest
import torch
from optima import Problem, drawn
from optima import optimum as softmax_optimum
from sampled import sampled
from solutions import CLOSE, point_of, solved
from solving import few_rows, noisy_scores
from sparse_optima import ALPHAS, by_lbfgs, gap, margins, value

from smx_lightning import InputError
from smx_lightning.activations.family import SOFTMAX, Activation, Entmax
from smx_lightning.optim import ExactSolver, Status, minimise

FEW = 6  # seeds of ``make test``, each with every α
LEAST_L2 = 1e-6
TOO_HARD = 34  # 20 rows of 20 classes in 2 features of scale 10³: 10⁻⁹ of the objective is left
HELD = 1e-11  # of an objective whose rows' losses are of order 1 at zero: they are rounded
SEEDS = [seed for seed in range(60) if seed != TOO_HARD]


def entmax_solved(problem, alpha, dtype="float64", **kwargs):
    tol = {"float64": 1e-12, "float32": 1e-7}[dtype]
    return solved(problem, dtype, **{"tol": tol, "activation": {"alpha": alpha}, **kwargs})


def drawn_problem(seed):
    problem, _ = drawn(seed)
    return problem._replace(l2=max(problem.l2, LEAST_L2))


def spread_rows(seed=0, rows=60, features=5, classes=4, l2=1e-3):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, features))
    return Problem(x, np.eye(classes)[rng.integers(classes, size=rows)], np.ones(rows), l2)


def separable(classes=3, each=7, seed=0):
    """Rows around centres far apart, without a penalty."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), each)
    x = 10 * np.eye(classes)[y] + rng.standard_normal((len(y), classes))
    return Problem(x, np.eye(classes)[y], np.ones(len(y)), 0.0)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("seed", sampled(SEEDS, named=SEEDS[:FEW]))
def test_the_objective_is_the_least(seed, alpha):
    """295 problems: classes, rows, scales, weights, soft targets, more features than rows."""
    problem = drawn_problem(seed)
    found = entmax_solved(problem, alpha)
    distance, objective = gap(point_of(found), problem, alpha)
    assert found.status in (Status.CONVERGED, Status.PRECISION) or objective < HELD, found
    assert distance <= CLOSE["float64"] + HELD / objective, (found.status, distance, objective)
    assert found.objective == pytest.approx(objective, rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_where_the_optimum_is_missed_nothing_else_is_said(alpha):
    problem = drawn_problem(TOO_HARD)
    found = entmax_solved(problem, alpha)
    left = gap(point_of(found), problem, alpha)[0]
    assert found.objective < 1e-8
    honest = found.status in (Status.STALLED, Status.RUNNING) and found.gap > 0.5
    assert left <= CLOSE["float64"] or honest


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("make", [(noisy_scores, 10, 0), (few_rows, 8, 4, 30, 0)])
def test_the_optimum_is_l_bfgs_s_and_so_is_its_support(make, alpha):
    x, y = make[0](*make[1:])
    problem = Problem(x, np.eye(int(y.max()) + 1)[y], np.ones(len(y)), 1e-2)
    point = point_of(entmax_solved(problem, alpha))
    judge, least = by_lbfgs(problem, alpha)
    assert value(point, problem, alpha)[0] == pytest.approx(least, rel=1e-8)
    found, wanted = (margins(at, problem, alpha) for at in (point, judge))
    clear = abs(wanted) > 1e-3  # what L-BFGS can tell from the threshold
    np.testing.assert_array_equal((found > 0)[clear], (wanted > 0)[clear])
    assert clear.mean() > 0.8
    if alpha > 1.3:  # some of both
        assert 0.01 < (wanted < 0).mean() < 0.99


@pytest.mark.parametrize("alpha", ALPHAS)
def test_float32_ends_at_the_optimum(alpha):
    x, y = noisy_scores(10, 0)
    x = x.astype(np.float32).astype(float)
    problem = Problem(x, np.eye(10)[y], np.ones(len(y)), 1e-3)
    found = entmax_solved(problem, alpha, "float32")
    assert found.status in (Status.CONVERGED, Status.PRECISION)
    assert gap(point_of(found), problem, alpha)[0] <= CLOSE["float32"]


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_without_a_penalty_zero_loss_is_reached(alpha):
    """Softmax has no minimum there."""
    problem = separable()
    assert entmax_solved(problem, 1.0, tol=0.0).status is Status.SEPARABLE
    found = entmax_solved(problem, alpha, tol=1e-10)
    objective, gradient, _ = value(point_of(found), problem, alpha)
    assert found.status is Status.CONVERGED
    assert objective < 1e-12
    assert abs(gradient).max() < 2e-10


def test_past_the_margin_all_is_exactly_zero():
    problem = separable()
    start = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    found = entmax_solved(problem, 2.0, start=start, tol=0.0)
    assert (found.status, found.objective, found.gap) == (Status.CONVERGED, 0.0, 0.0)
    assert found.evaluations == 1


@pytest.mark.parametrize("alpha", ALPHAS[1:])
@pytest.mark.parametrize("l2", [0.0, 1e-2])
def test_a_class_without_rows_gets_no_probability_and_leaves_a_minimum(alpha, l2):
    problem = spread_rows(l2=l2)
    wider = problem._replace(q=np.hstack([problem.q, np.zeros((60, 1))]))
    assert entmax_solved(wider, 1.0, tol=1e-6).status is Status.UNSEEN_CLASS
    found, alone = (entmax_solved(each, alpha, tol=1e-10) for each in (wider, problem))
    assert found.status is alone.status is Status.CONVERGED
    assert found.objective == pytest.approx(alone.objective, rel=1e-8)
    assert value(point_of(found), wider, alpha)[2][:, -1].max() < 1e-6


def test_towards_alpha_1_the_optimum_is_softmax_s():
    problem = spread_rows()
    best, _ = softmax_optimum(problem)
    distances = [
        abs(point_of(entmax_solved(problem, 1 + step, tol=1e-9)) - best).max()
        for step in (1e-1, 1e-2, 1e-3)
    ]
    assert distances[0] > 5 * distances[1] > 25 * distances[2]
    assert distances[-1] < 1e-2


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_the_gap_that_is_said_covers_what_is_left(alpha):
    """With an l2, pass by pass, up to the estimate for the biases."""
    problem = spread_rows(rows=200, l2=1e-2)
    least = value(point_of(entmax_solved(problem, alpha)), problem, alpha)[0]
    for passes in range(1, 12):
        found = entmax_solved(problem, alpha, max_evaluations=passes)
        objective = value(point_of(found), problem, alpha)[0]
        assert objective - least <= 1.25 * found.gap * objective + 1e-13


@pytest.mark.parametrize("size", [1, 7])
def test_batches_change_nothing(size):
    problem = spread_rows()
    whole, parts = (entmax_solved(problem, 1.5, size=each) for each in (60, size))
    torch.testing.assert_close(whole.weight, parts.weight, rtol=0, atol=1e-11)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_rows_far_from_zero_are_seen_from_their_mean(alpha):
    """The same optimum with features shifted by 10⁶ of their spreads."""
    near = spread_rows()
    far = near._replace(x=near.x + 1e6)
    one, other = (entmax_solved(problem, alpha, tol=1e-9) for problem in (near, far))
    assert other.status in (Status.CONVERGED, Status.PRECISION)
    torch.testing.assert_close(one.weight, other.weight, rtol=0, atol=1e-5)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_rows_in_their_span_have_the_same_activation(alpha):
    """More features than rows: two passes, the second at the optimum."""
    problem = spread_rows(rows=40, features=600, l2=0.1)
    found = entmax_solved(problem, alpha, tol=1e-9)
    assert found.evaluations <= 3
    assert gap(point_of(found), problem, alpha)[0] <= CLOSE["float64"]


@pytest.mark.parametrize("processes", sampled([2, 3], named=[3]))
def test_processes_find_the_same_weights(ranks, processes):
    x, y = noisy_scores(5, 0)
    problem = Problem(x, np.eye(5)[y], np.ones(len(y)), 1e-2)
    one = entmax_solved(problem, 2.0, size=100).weight.numpy()
    for weight, status in ranks.run(processes, jobs.entmax_on_shares, x, y, 1e-2, 2.0):
        assert status == "CONVERGED"
        np.testing.assert_allclose(weight, one, rtol=0, atol=1e-12)


def stepped(solver, x, y, activation, passes):
    while solver.evaluations < passes and solver.status is Status.RUNNING:
        solver.begin_epoch(l2=1e-3, batches=1, activation=activation)
        solver.add(x, y)
        solver.step()
    return solver


def fresh(x, y):
    layer = torch.nn.Linear(x.shape[1], int(y.max()) + 1, dtype=torch.float64)
    return ExactSolver([torch.nn.init.zeros_(part) for part in layer.parameters()], tol=1e-9)


@pytest.mark.parametrize("activation", [Entmax(2.0), Entmax(1.3)])
@pytest.mark.parametrize("passes", [1, 3])
def test_a_resumed_run_takes_the_same_steps(activation, passes):
    x, y = (torch.as_tensor(part) for part in noisy_scores(5, 0))
    whole = stepped(fresh(x, y), x, y, activation, 1000)
    part, again = stepped(fresh(x, y), x, y, activation, passes), fresh(x, y)
    again.load_state_dict(part.state_dict())
    stepped(again, x, y, activation, 1000)
    assert whole.status is again.status is Status.CONVERGED
    assert torch.equal(whole.weight, again.weight)
    assert whole.evaluations == again.evaluations > passes


def test_a_checkpoint_of_another_activation_is_no_start():
    x, y = (torch.as_tensor(part) for part in noisy_scores(5, 0))
    part = stepped(fresh(x, y), x, y, Entmax(2.0), 2)
    again = fresh(x, y)
    again.load_state_dict(part.state_dict())
    with pytest.raises(InputError, match=r"began with, 'sparsemax', got 'softmax'"):
        stepped(again, x, y, SOFTMAX, 1000)
    with pytest.raises(InputError, match="began with"):  # nor in the middle of a run
        stepped(part, x, y, Entmax(1.5), 1000)
    stepped(again, x, y, Entmax(2.0), 1000)  # the remedy
    assert again.status is Status.CONVERGED


class Another(Activation):
    """A member whose Jacobian is none of this form."""

    spec = "another"
    sparse = True

    def probs(self, scores, dim=-1):
        return scores.softmax(dim)

    def entropy(self, q, dim=-1):
        return q.sum(dim)

    def jacobian(self, probs, dim=-1):
        raise NotImplementedError

    def difference(self, threshold):
        return threshold


@pytest.mark.parametrize("activation", [{"alpha": 2.5}, {"normmax": 2.0}, Another()])
def test_what_has_no_such_curvature_is_refused_before_the_first_pass(activation):
    def batches():
        raise AssertionError("a pass began")
        yield

    with pytest.raises(InputError, match=r"from 1 to 2, got .*take .*or another optimiser"):
        minimise(batches(), 3, 2, activation=activation)


def test_the_loss_at_zero_weights_needs_no_pass():
    """A start that is worse: zero weights, at Ω*(0)."""
    problem = spread_rows()
    start = 100 * torch.ones(4, 5, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    start[0][0] = -100
    for alpha in (1.0, *ALPHAS):
        found = entmax_solved(problem, alpha, start=start, max_evaluations=1)
        expected = value(np.zeros((4, 6)), problem, alpha)[0]
        assert found.objective == pytest.approx(expected, rel=1e-12)
    assert math.isclose(found.objective, 0.375)  # (1 - 1/4) / 2 of sparsemax

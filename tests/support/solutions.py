"""The plain loop's solutions of the problems in ``optima``, and what is asked of them."""

import numpy as np
import torch
from certificates import least
from optima import value

from smx_lightning.optim import Status, minimise

TOL = {"float64": 1e-10, "float32": 1e-6}
CLOSE = {"float64": 1e-8, "float32": 1e-5}  # relative gap
DIGITS = 1e-14  # of an objective of about 1, at the start: a tiny one has no more of its own
TIGHTER = 1e-3  # times the tolerance, where a tiny objective asks for more than its gradient


def solved(problem, dtype="float64", size=10**6, **kwargs):
    """A solution of rows in batches, labels where every target is one class."""
    x, q, c = (torch.tensor(part) for part in problem[:3])
    y = q.argmax(1) if (q.amax(1) == 1).all() else q
    batches = list(zip(x.split(size), y.split(size), c.split(size), strict=True))
    kwargs = {"tol": TOL[dtype], "dtype": getattr(torch, dtype), "l2": problem.l2, **kwargs}
    return minimise(batches, x.shape[1], q.shape[1], **kwargs)


def point_of(solution):
    weight, bias = solution.weight.double(), solution.bias.double()
    return torch.cat([weight, bias[:, None]], 1).numpy()


def rounding(point, problem, dtype):
    """What the products' rounding may do to each entry of a gradient: 16 ε (1 + Σ |w| r) r."""
    typical = np.append(np.sqrt((problem.c @ problem.x**2) / problem.c.sum()), 1.0)
    return 16 * np.finfo(dtype).eps * (1 + (abs(point) @ typical).max()) * typical


def errors_of_rounding(solution, problem, dtype):
    """What rounding is measured to do to the gradient by W, its largest entry.

    Of products, all computed in ``dtype``; and of parameters, each moved to the next number.
    """
    x, q, c = (torch.tensor(part, dtype=getattr(torch, dtype)) for part in problem[:3])
    residuals = ((x @ solution.weight.T + solution.bias).softmax(1) - q) * (c / c.sum())[:, None]
    rounded = residuals.T @ x + problem.l2 * solution.weight
    point = point_of(solution)
    ways = np.random.default_rng(0).choice([-np.inf, np.inf], point.shape).astype(dtype)
    moved = np.nextafter(point.astype(dtype), ways).astype(float)
    gradient, other = (value(at, problem)[1][:, :-1] for at in (point, moved))
    return max(abs(rounded.double().numpy() - gradient).max(), abs(other - gradient).max())


def solved_close(problem, dtype, **kwargs):
    """At the test's tolerance, and a tighter one where the gap that is said asks for it."""
    found = solved(problem, dtype, **kwargs)
    for tol in (TOL[dtype] * TIGHTER, TOL[dtype] * TIGHTER**2):
        if found.status is not Status.CONVERGED or found.gap <= CLOSE[dtype]:
            break
        start = found.weight, found.bias
        found = solved(problem, dtype, **{**kwargs, "tol": tol, "start": start})
    return found


def assert_certified(problem, dtype, name, **kwargs):
    """CONVERGED and near the optimum, or PRECISION where rounding explains the gradient.

    In float64 PRECISION, too, must be near the optimum, unless next to nothing is left of the
    objective; in float32 p - q has no digits once rows are certain: there the gradient must
    be what rounding is measured to do to it, 16 times at most. Returns the solution.
    """
    found = solved_close(problem, dtype, **kwargs)
    point = point_of(found)
    objective, gradient, _ = value(point, problem)
    bound, _ = least(problem, point, CLOSE[dtype] / 10)
    gap = (objective - bound) / objective
    where = (name, dtype, found.status, found.evaluations, objective, bound, found.gap)
    assert found.status in (Status.CONVERGED, Status.PRECISION), where
    if found.status is Status.CONVERGED or dtype == "float64":
        assert gap <= CLOSE[dtype] + DIGITS / objective, where
    else:
        assert (abs(gradient) <= 2 * rounding(point, problem, dtype)).all(), where
        explained = 16 * errors_of_rounding(found, problem, dtype)
        assert gap <= CLOSE[dtype] or abs(gradient[:, :-1]).max() <= explained, where
    return found

"""Seeded problems of softmax regression, and their optima by a plain Newton's method in numpy."""

from typing import NamedTuple

import numpy as np


class Problem(NamedTuple):
    """Rows x (n, d), targets q (n, K), weights c (n,), all float64, and how W is penalised."""

    x: np.ndarray
    q: np.ndarray
    c: np.ndarray
    l2: float


def _with_ones(x):
    return np.hstack([x, np.ones((len(x), 1))])


def value(point, problem):
    """The objective at (K, d + 1), its gradient, and the rows' probabilities."""
    x, q, c, l2 = problem
    logits = _with_ones(x) @ point.T
    logits -= logits.max(1, keepdims=True)
    sums = np.log(np.exp(logits).sum(1, keepdims=True))
    p = np.exp(logits - sums)
    loss = -(c @ np.where(q > 0, q * (logits - sums), 0).sum(1)) / c.sum()
    gradient = ((p - q) * c[:, None]).T @ _with_ones(x) / c.sum()
    gradient[:, :-1] += l2 * point[:, :-1]
    return loss + 0.5 * l2 * (point[:, :-1] ** 2).sum(), gradient, p


def _hessian(p, problem):
    x, _, c, l2 = problem
    rows, (classes, width) = _with_ones(x), (p.shape[1], x.shape[1] + 1)
    scaled = np.einsum("nk,nd->nkd", p, rows).reshape(len(rows), -1)
    hessian = -(scaled * c[:, None]).T @ scaled
    for k in range(classes):
        block = slice(k * width, (k + 1) * width)
        hessian[block, block] += (rows * (c * p[:, k])[:, None]).T @ rows
    hessian /= c.sum()
    penalty = np.tile(np.append(np.full(width - 1, l2), 0.0), classes)
    # What all classes share is left where it is.
    shared = np.kron(np.ones((classes, classes)), np.eye(width)) / classes
    return hessian + np.diag(penalty) + np.trace(hessian) / len(hessian) * shared


def optimum(problem, steps=500):
    """(K, d + 1) and the objective there: Newton's method, each step halved until it descends."""
    point = np.zeros((problem.q.shape[1], problem.x.shape[1] + 1))
    objective, gradient, p = value(point, problem)
    for _ in range(steps):
        hessian = _hessian(p, problem)
        damping = 1e-15 * np.trace(hessian) / len(hessian) * np.eye(len(hessian))
        step = -np.linalg.solve(hessian + damping, gradient.ravel()).reshape(point.shape)
        slope = (gradient * step).sum()
        length = 1.0
        while length > 1e-12:
            trial = value(point + length * step, problem)
            if trial[0] <= objective + 1e-4 * length * slope:
                break
            length /= 2
        else:
            break
        point = point + length * step
        gained, (objective, gradient, p) = objective - trial[0], trial
        if gained <= 1e-15 * objective:
            break
    return point, objective


def condition(problem):
    """The Hessian's at the optimum, what all classes share left out, scaled to a diagonal of ones.

    That is the best diagonal scaling up to a factor of the number of unknowns (van der Sluis 1969).
    """
    point, _ = optimum(problem)
    classes, width = point.shape
    centred = np.linalg.qr(np.eye(classes) - 1 / classes)[0][:, : classes - 1]
    apart = np.kron(centred, np.eye(width))
    hessian = apart.T @ _hessian(value(point, problem)[2], problem) @ apart
    scale = np.sqrt(np.diag(hessian))
    return np.linalg.cond(hessian / scale / scale[:, None])


def drawn(seed, most=400):
    """A problem of at most about ``most`` unknowns, its dtype ("float32" or "float64")."""
    rng = np.random.default_rng([13, seed])
    classes = int(rng.choice([2, 2, 3, 4, 7, 10, 20, 40, 100]))
    features = int(rng.choice([1, 2, 3, 5, 8, 16, 30, 64]))
    features = max(1, min(features, most // classes - 1))
    each = int(rng.choice([1, 1, 2, 5, 20, 100]))
    each = max(1, min(each, 2000 // classes))
    y = np.repeat(np.arange(classes), each)
    spread = rng.choice([0.0, 0.3, 1.0, 3.0])
    x = rng.standard_normal((len(y), features))
    x = x + spread * rng.standard_normal((classes, features))[y]
    if rng.random() < 0.3:  # correlated, and of unequal scales
        x = x @ rng.standard_normal((features, features)) * 10 ** rng.uniform(-1, 1, features)
    if rng.random() < 0.3:
        x = x + 3 * rng.standard_normal(features)
    if rng.random() < 0.5:
        x = (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1)
    else:
        x = x * 10.0 ** rng.integers(-3, 4)
    q = np.eye(classes)[y]
    if rng.random() < 0.25:
        q = rng.dirichlet(np.full(classes, rng.choice([0.1, 1.0])), len(y)) * 0.5 + q * 0.5
    return finished(rng, x, y, q)


def finished(rng, x, y, q):
    """The problem of these rows with weights, a dtype that holds them, and a penalty drawn."""
    c = np.ones(len(y))
    if rng.random() < 0.4:
        each = len(y) // q.shape[1]
        c = rng.uniform(0.1, 3, q.shape[1])[y] * (rng.uniform(0, 2, len(y)) if each > 1 else 1)
    dtype = "float32" if rng.random() < 0.4 else "float64"
    x = x.astype(dtype).astype(float)
    q, c = (part.astype(np.float32).astype(float) for part in (q, c))
    q /= q.sum(1, keepdims=True)
    return Problem(x, q, c, 10.0 ** rng.uniform(-8, 0)), dtype

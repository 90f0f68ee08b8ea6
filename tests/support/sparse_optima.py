"""The objective with α-entmax in place of softmax, in float64 numpy, and how far it is from least.

p by sorting where α is 2 or 1.5 (Martins & Astudillo 2016; Peters, Niculae & Martins 2019), by
bisection elsewhere. The certificate is Fenchel's dual: for every μ with a distribution μᵢ a row and
Σ c (μ - q) = 0

    f(W, b) ≥ -Σ c Ω(μ) / Σ c - ‖Σ c (q - μ) xᵀ / Σ c‖² / (2 l2)

whatever W and b, since Ω*(z) ≥ ⟨z, μ⟩ - Ω(μ). At the optimum's μ = p both are equal.
"""

import numpy as np
from scipy.optimize import minimize

ALPHAS = (1.1, 1.3, 1.5, 1.7, 2.0)


def entmax(scores, alpha):
    """(n, K) probabilities."""
    z = np.asarray(scores, dtype=np.float64)
    z = z - z.max(1, keepdims=True)
    if alpha == 1:
        p = np.exp(z)
        return p / p.sum(1, keepdims=True)
    z = (alpha - 1) * z
    if alpha not in (1.5, 2):
        return _bisected(z, alpha)
    ranked, count = -np.sort(-z, axis=1), np.arange(1, z.shape[1] + 1)
    mean = ranked.cumsum(1) / count
    if alpha == 2:
        tau = mean - 1 / count
    else:
        spread = count * ((ranked**2).cumsum(1) / count - mean**2)
        tau = mean - np.sqrt(np.maximum((1 - spread) / count, 0))
    size = (tau <= ranked).sum(1, keepdims=True)
    return np.maximum(z - np.take_along_axis(tau, size - 1, 1), 0) ** (1 / (alpha - 1))


def _bisected(z, alpha):
    low, high = np.full((len(z), 1), -1.0), np.zeros((len(z), 1))
    for _ in range(60):
        middle = (low + high) / 2
        above = (np.maximum(z - middle, 0) ** (1 / (alpha - 1))).sum(1, keepdims=True) >= 1
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    p = np.maximum(z - low, 0) ** (1 / (alpha - 1))
    return p / p.sum(1, keepdims=True)


def entropy(p, alpha):
    """-Ω(p) of each row, (n,), as a sum of p (1 - p^(α-1)): digits where p is nearly one class."""
    p = np.clip(p, 0, 1)
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    if alpha == 1:
        return -(p * logs).sum(1)
    return -(p * np.expm1((alpha - 1) * logs)).sum(1) / (alpha * (alpha - 1))


def value(point, problem, alpha):
    """The objective at (K, d + 1), its gradient, and the rows' probabilities."""
    x, q, c, l2 = problem
    rows, share = np.hstack([x, np.ones((len(x), 1))]), c / c.sum()
    z = rows @ point.T
    z -= z.max(1, keepdims=True)
    p = entmax(z, alpha)
    loss = entropy(p, alpha) + ((p - q) * z).sum(1)
    gradient = ((p - q) * share[:, None]).T @ rows
    gradient[:, :-1] += l2 * point[:, :-1]
    return share @ loss + 0.5 * l2 * (point[:, :-1] ** 2).sum(), gradient, p


def bound(p, problem, alpha):
    """A number that f is nowhere below, from distributions near the optimum's."""
    x, q, c, l2 = problem
    share = (c / c.sum())[:, None]
    lacking = (share * (q - p)).sum(0)  # of the biases' gradients, made 0 by moving mass
    total = (share * p).sum(0)
    removed = p * np.maximum(-lacking, 0) / np.where(total > 0, total, 1)
    wanted = np.maximum(lacking, 0)
    mu = p - removed
    if wanted.sum() > 0:
        mu = mu + removed.sum(1, keepdims=True) * wanted / wanted.sum()
    across = (share * (q - mu)).T @ x
    return share[:, 0] @ entropy(mu, alpha) - (across**2).sum() / (2 * l2)


def gap(point, problem, alpha):
    """(f - its bound) / f, and f; neither a loss nor a penalty is less than zero."""
    objective, _, p = value(point, problem, alpha)
    least = max(bound(p, problem, alpha), 0.0)
    return (objective - least) / objective, objective


def margins(point, problem, alpha):
    """How far each score, times α - 1, lies above the threshold of its row's support, (n, K)."""
    z = np.hstack([problem.x, np.ones((len(problem.x), 1))]) @ point.T
    z -= z.max(1, keepdims=True)
    return (alpha - 1) * z + entmax(z, alpha).max(1, keepdims=True) ** (alpha - 1)


def by_lbfgs(problem, alpha, start=None):
    """scipy's L-BFGS-B, from zero: the point and its objective."""
    shape = (problem.q.shape[1], problem.x.shape[1] + 1)

    def told(flat):
        objective, gradient, _ = value(flat.reshape(shape), problem, alpha)
        return objective, gradient.ravel()

    start = np.zeros(shape) if start is None else start
    options = {"maxiter": 50000, "maxfun": 100000, "ftol": 1e-16, "gtol": 1e-11, "maxcor": 50}
    found = minimize(told, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(shape), found.fun

"""How far a point is from the optimum at most, without knowing the optimum.

With l2 > 0, F(W) = min_b f(W, b) is strongly convex with modulus l2: f less its penalty is convex
in (W, b) together, and remains so when b is minimised out. Its gradient at W is f's by W where b
is best, so that

    F(W) - f* ≤ ‖g_W(W, b(W))‖² / (2 l2)

at every W whatsoever. The bound is loose where l2 is small. So Newton's method, its systems solved
by conjugate gradients, walks on from the point until the bound says enough: all in float64 numpy,
and with none of the solver's code.
"""

import numpy as np
from optima import value
from scipy.sparse import diags_array
from scipy.sparse.linalg import LinearOperator, cg

DENSE = 500  # classes, up to which their Hessian is solved by a factorisation
STEPS = 60  # of Newton; each halves the distance at the least, near the optimum it squares it


def in_span(problem):
    """The same least objective in fewer features than rows: Q of the centred rows' transpose."""
    x = problem.x - problem.x.mean(0)
    if x.shape[0] > x.shape[1]:
        return problem._replace(x=x)
    basis, _ = np.linalg.qr(x.T)  # (d, n): the optimum's W has no part across it
    return problem._replace(x=x @ basis)


def narrowed(point, problem):
    """Of (K, d + 1) what stands for it in :func:`in_span`; a part across the span is dropped."""
    weight, mean = point[:, :-1], problem.x.mean(0)
    bias = point[:, -1] + weight @ mean
    if problem.x.shape[0] <= problem.x.shape[1]:
        basis, _ = np.linalg.qr((problem.x - mean).T)
        weight = weight @ basis
    return np.column_stack([weight, bias])


def _bias_system(p, weighted, g):
    """(diag(Σ c p) - Σ c p pᵀ)⁻¹ g, up to what is added to all biases: that changes nothing."""
    classes, masses = len(g), weighted.sum(0)
    if classes > DENSE:
        hessian = LinearOperator((classes,) * 2, lambda v: masses * v - weighted.T @ (p @ v))
        return cg(hessian, g, rtol=1e-8, maxiter=100, M=diags_array(1 / masses))[0]
    hessian = np.diag(masses) - p.T @ weighted
    hessian += np.trace(hessian) / classes**2 + 1e-15 * np.eye(classes)
    return np.linalg.solve(hessian, g)


def with_best_biases(point, problem, steps=50):
    """The biases minimised out by Newton's method in K unknowns, W held.

    Returns:
        The point, its objective, gradient and probabilities, and what the biases could still gain.
    """
    objective, gradient, p = value(point, problem)
    for _ in range(steps):
        g = gradient[:, -1]
        step = -_bias_system(p, p * (problem.c / problem.c.sum())[:, None], g)
        gain = -(g @ step) / 2
        length = 1.0
        while length > 1e-10 and gain > 1e-16 * objective:
            moved = point.copy()
            moved[:, -1] += length * step
            trial = value(moved, problem)
            if trial[0] <= objective - 1e-4 * length * gain:
                break
            length /= 2
        else:
            break
        point, (objective, gradient, p) = moved, trial
    return point, objective, gradient, p, gain


class _System:
    """H v of the objective at a point, and a preconditioner: (m_k S + l2)⁻¹, S the covariance."""

    def __init__(self, p, problem, spectrum):
        self.p, self.problem = p, problem
        self.share = (problem.c / problem.c.sum())[:, None]
        self.masses = (self.share * p * (1 - p)).sum(0)
        self.values, self.vectors = spectrum

    def times(self, v):
        z = self.problem.x @ v[:, :-1].T + v[:, -1]
        z = self.p * (z - (self.p * z).sum(1, keepdims=True)) * self.share
        product = np.column_stack([z.T @ self.problem.x, z.sum(0)])
        product[:, :-1] += self.problem.l2 * v[:, :-1]
        return product

    def preconditioned(self, g):
        scaled = self.masses[:, None] * self.values + self.problem.l2
        weight = (g[:, :-1] @ self.vectors / scaled) @ self.vectors.T
        return np.column_stack([weight, g[:, -1] / np.maximum(self.masses, 1e-12)])

    def solution(self, gradient, most=150):
        """-H⁻¹ g, to a tenth of the gradient or better where it is small already."""
        v = np.zeros_like(gradient)
        residual = -gradient
        z = self.preconditioned(residual)
        direction, rz = z, (residual * z).sum()
        target = rz * min(1e-2, np.sqrt(rz)) ** 2
        for _ in range(most):
            product = self.times(direction)
            curvature = (direction * product).sum()
            if not curvature > 0:
                break
            v = v + rz / curvature * direction
            residual = residual - rz / curvature * product
            z = self.preconditioned(residual)
            before, rz = rz, (residual * z).sum()
            if not rz > target:
                break
            direction = z + rz / before * direction
        return v if v.any() else -self.preconditioned(gradient)


def least(problem, start, enough):
    """A number that f* is not below, to a relative ``enough`` of the best value found; that value.

    Args:
        problem: With l2 > 0.
        start: (K, d + 1), any; the nearer the optimum the cheaper.
        enough: Relative distance between the two at which to stop.
    """
    narrow = in_span(problem)
    share = (problem.c / problem.c.sum())[:, None]
    spectrum = np.linalg.eigh(narrow.x.T @ (share * narrow.x))
    spectrum = (np.maximum(spectrum[0], 0), spectrum[1])
    point = narrowed(start, problem)
    bound, best = -np.inf, np.inf
    for _ in range(STEPS):
        point, objective, gradient, p, gain = with_best_biases(point, narrow)
        best = min(best, objective)
        below = (gradient[:, :-1] ** 2).sum() / (2 * problem.l2) + 2 * gain
        bound = max(bound, objective - below)
        if best - bound <= enough * best:
            break
        step = _System(p, narrow, spectrum).solution(gradient)
        slope, length = (gradient * step).sum(), 1.0
        while length > 1e-6:
            if value(point + length * step, narrow)[0] <= objective + 1e-4 * length * slope:
                break
            length /= 2
        point = point + length * step
    return bound, best

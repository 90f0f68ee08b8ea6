"""A class's row of W and b beside those of others, which stay: where a larger problem begins.

With s = w x + b of the new class and L = log Σ exp z over the others' scores, its probability is
σ(s - L), and of its share q of a row's target the loss is

    f(w, b) = Σ c · (log(1 + exp(s - L)) - q (s - L)) / Σ c + ½ · l2 · ‖w‖²,

a logistic regression with an offset: d + 1 unknowns in place of K (d + 1). Newton's method with
conjugate gradients (Nocedal & Wright, "Numerical Optimization", 2006, algorithm 7.1) needs some
dozens of products with the rows, each of which costs 1/K of one with W.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from smx_lightning.optim.steps.search import ARMIJO

MOST_STEPS = 12
MOST_PRODUCTS = 30  # a step
ENOUGH = 1e-3  # of the first gradient's norm: the rows of the others will move, too
SHORTEST = 2.0**-10


def row_beside(
    x: Tensor,
    others: Tensor,
    wanted: Tensor,
    weights: Tensor | None,
    *,
    l2: float,
    intercept: bool = True,
) -> Tensor:
    """w and b (features + 1,) float64 of the class, the bias last.

    Args:
        x: (rows, features).
        others: L (rows,).
        wanted: q (rows,), 0 or 1 where rows have labels.
        weights: c (rows,), or ``None``.
        l2: Weight of the penalty.
        intercept: Whether b moves; it is 0 otherwise.
    """
    x = torch.nn.functional.pad(x.double(), (0, 1), value=float(intercept))
    others, q = others.double(), wanted.double()
    c = torch.ones_like(others) if weights is None else weights.double()
    c = c / c.sum()
    penalty = torch.full_like(x[0], l2)
    penalty[-1] = 0.0 if intercept else 1.0  # nothing else is seen of it
    point, share = torch.zeros_like(penalty), float(c @ q)
    if intercept and 0 < share < 1:
        point[-1] = c @ others + math.log(share / (1 - share))

    def loss(point: Tensor) -> Tensor:
        s = x @ point - others
        return c @ (torch.nn.functional.softplus(s) - q * s) + 0.5 * penalty @ point.square()

    first, before = 0.0, loss(point)
    for steps in range(MOST_STEPS):
        p = torch.sigmoid(x @ point - others)
        gradient = x.T @ (c * (p - q)) + penalty * point
        size = float(gradient.norm())
        if steps == 0:
            first = size
        if not size > (ENOUGH * first if steps else 0.0):
            break
        step = _solved(x, c * p * (1 - p), penalty, -gradient)
        slope, length = float(gradient @ step), 1.0
        while not (after := loss(point + length * step)) <= before + ARMIJO * length * slope:
            length /= 2
            if length < SHORTEST:  # rounding has the upper hand
                return point
        point, before = point + length * step, after
    return point


def _solved(x: Tensor, h: Tensor, penalty: Tensor, right: Tensor) -> Tensor:
    """(xᵀ diag(h) x + diag(penalty))⁻¹ right, about, preconditioned by its diagonal."""
    diagonal = (h @ x.square() + penalty).clamp(min=torch.finfo(x.dtype).tiny)
    answer, rest = torch.zeros_like(right), right
    towards = better = rest / diagonal
    first = size = float(rest @ better)
    for _ in range(MOST_PRODUCTS):
        product = x.T @ (h * (x @ towards)) + penalty * towards
        curvature = float(towards @ product)
        if not curvature > 0:
            break
        answer = answer + size / curvature * towards
        rest = rest - size / curvature * product
        better = rest / diagonal
        before, size = size, float(rest @ better)
        if not size > 1e-4 * first:
            break
        towards = better + size / before * towards
    return answer

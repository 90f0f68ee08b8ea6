"""What a file may make of its scores: α-entmax, by its α; 1 is softmax. In float64, without torch.

With β = 1 / (α - 1) and z = (α - 1) (s - max s), α-entmax is pₖ = relu(zₖ - τ)^β at the threshold
τ in [-1, 0] where Σ relu(z - τ)^β = 1 (Peters, Niculae & Martins, "Sparse sequence-to-sequence
models", ACL 2019). Sorted, the classes with p > 0 are the first few: of sparsemax and entmax15 τ is
then the root of a polynomial of degree one or two, which is written out; of others Newton's method
finds it, in float64 to the last digit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.errors import FileError

Array = NDArray[np.float64]

NAMED = {"softmax": 1.0, "entmax15": 1.5, "sparsemax": 2.0}
SOFTMAX, ENTMAX15, SPARSEMAX = NAMED.values()
NEWTON_STEPS = 200  # at most; one falls short of the last digit by a quarter of what is left


def alpha_of(spec: Any) -> float:
    """α of what hyper-parameters and metadata call an activation: a name, or ``{"alpha": 1.3}``.

    Raises:
        FileError: For anything else.
    """
    if isinstance(spec, str) and spec in NAMED:
        return NAMED[spec]
    value = spec.get("alpha") if isinstance(spec, dict) and len(spec) == 1 else None
    if isinstance(value, (int, float)) and type(value) is not bool and 1 <= value < math.inf:
        return float(value)
    raise FileError(
        f"expected an activation out of {', '.join(NAMED)}, or {{'alpha': a number of at least "
        f"1}}, got {spec!r}"
    )


def difference(threshold: float, alpha: float = SOFTMAX) -> float:
    """s₁ - s₀ of two classes where p₁ = γ: class 1 is chosen where it is at least as far ahead."""
    if alpha == SOFTMAX:
        return math.log(threshold) - math.log1p(-threshold)
    power = alpha - 1
    return float((threshold**power - (1 - threshold) ** power) / power)


def distances(scores: Array, alpha: float) -> Array:
    """relu(z - τ) of scores (n, K), for α > 1: p is its power 1 / (α - 1).

    NaN in all classes of a row with NaN or +∞ in it, or with nothing but -∞; where a score is -∞
    otherwise its p is 0.
    """
    with np.errstate(invalid="ignore"):
        z = (alpha - 1) * (scores - scores.max(1, keepdims=True))
    unknown = np.isnan(z).any(1)
    z = np.where(unknown[:, None], 0, z.clip(-1))  # τ is at least -1
    ordered = -np.sort(-z, axis=1)
    tau = {SPARSEMAX: _of_degree_1, ENTMAX15: _of_degree_2}.get(alpha, _by_newton)(ordered, alpha)
    return np.where(unknown[:, None], np.nan, (z - tau.clip(-1)[:, None]).clip(0))


def probabilities(scores: Array, alpha: float) -> Array:
    """The probabilities of scores (n, K)."""
    if alpha > SOFTMAX:
        return np.asarray(distances(scores, alpha) ** (1 / (alpha - 1)))
    with np.errstate(invalid="ignore"):  # infinite scores, which become NaN
        exps = np.exp(scores - scores.max(1, keepdims=True))
        return np.asarray(exps / exps.sum(1, keepdims=True))


def _of_degree_1(ordered: Array, alpha: float) -> Array:
    """Σ (z - τ) = 1 of the first k classes has its largest root where these are the support."""
    count = np.arange(1, ordered.shape[1] + 1)
    return np.asarray(((ordered.cumsum(1) - 1) / count).max(1))


def _of_degree_2(ordered: Array, alpha: float) -> Array:
    """Σ (z - τ)² = 1 of the first k classes; they are the support as long as zₖ > τ."""
    count = np.arange(1, ordered.shape[1] + 1)
    mean = ordered.cumsum(1) / count
    spread = (ordered**2).cumsum(1) - count * mean**2
    tau = mean - np.sqrt((1 - spread).clip(0) / count)
    last = (tau <= ordered).sum(1) - 1
    return np.asarray(tau[np.arange(len(tau)), last])


def _by_newton(ordered: Array, alpha: float) -> Array:
    """The norm (Σ relu(z - τ)^β)^(1/β) is convex in τ: from -1 Newton's steps stay below."""
    power = 1 / (alpha - 1)
    tau = np.full((len(ordered), 1), -1.0)
    for _ in range(NEWTON_STEPS):
        left = (ordered - tau).clip(0)
        slopes = left ** (power - 1)
        total = (left * slopes).sum(1, keepdims=True)
        step = (total - total ** (2 - alpha)) / slopes.sum(1, keepdims=True)
        tau += step
        if not (np.abs(step) > np.finfo(np.float64).eps).any():
            break
    return np.asarray(tau[:, 0])

"""How far float32 rounding may move an answer. No torch.

Symbols: u = 2⁻²⁴ is float32's unit roundoff; γₙ = n·u / (1 − n·u) bounds the relative error of n
roundings in a row (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, sec. 3.1).

The linear layer. A float32 dot product of n non-zero terms, summed in any order, is off by at most
γₙ · Σ|w||x|; the bias is one more term, the weights' own rounding to float32 one more γ₁, and so is
the subtraction where the file subtracts the mean first (or, of a file of float64 inputs, the
rounding of the difference to float32; float64's own is nothing beside it):

    e = γₙ₊₃ · (Σ|w||x| + |b|)                                      one bound a logit z

The log-softmax. ``z - log Σ exp z`` moves by at most e[k] + max e when the logits move by e, since
log-sum-exp is 1-Lipschitz in the largest change. Its own rounding: subtracting the maximum,
taking the logarithm and subtracting again, in whichever order, cost a few u·(|z|max + |log p|), and
the sum of K exponentials a relative γ_K, which the logarithm turns into an absolute one:

    tolerance[k] = e[k] + max e + 4u·(|z|max + |log p[k]|) + γ_{K+8}

α-entmax. p[k] = r[k]^β, r = relu((α - 1)·(z - max z) - τ), β = 1/(α - 1). τ is 1-Lipschitz in the
largest change of what it is subtracted from: it moves with a shift of all, and never falls where
one rises. So r[k] moves by at most (α - 1)·(e[k] + max e) when the logits move by e. Rounding of
what is subtracted is relative, and r is 0 where it is more than 1: 3u. τ is the root of the norm
(Σ r^β)^(1/β) = 1, whose slope is at least 1 where it is less than 1: a sum of K terms moves it by
at most γ_K, its other roundings and the last of Newton's steps by a few u. In all r[k] is off by
at most

    δ[k] = (α - 1)·(e[k] + max e) + γ_{K+16}

and as r^β is convex, p[k] by (r[k] + δ[k])^β - r[k]^β. The power costs a few u of log p, and so
does the logarithm. The bound is one of probabilities, since log p may be -∞: a p that is no more
than δ^β may be 0 in a file, and the other way around.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Smaller probabilities may be flushed to zero, or be exp(-87) where a runtime's exp ends there.
NEAR_ZERO = 2 * float(np.finfo(np.float32).tiny)

UNIT_ROUNDOFF = 2.0**-24


def gamma(n: Array | float) -> Array:
    """γₙ = n·u / (1 - n·u), and infinity where n·u ≥ 1 leaves no bound."""
    nu = np.asarray(n, np.float64) * UNIT_ROUNDOFF
    return np.where(nu < 1, nu / np.maximum(1 - nu, 1e-300), np.inf)


def logit_error(roundings: Array | float, x: Array, weight: Array, bias: Array) -> Array:
    """How far logits (n, K) may be off after so many roundings, one number or (n, 1).

    Of x (n, d), weight (K, d) and bias (K,).
    """
    return np.asarray(gamma(roundings) * (np.abs(x) @ np.abs(weight).T + np.abs(bias)))


def answer_tolerance(e: Array, logits: Array, log_probs: Array) -> Array:
    """How far log-probabilities (n, K) may be off, in nats, where the logits are off by ``e``."""
    size = np.abs(logits).max(1, keepdims=True) + np.abs(log_probs)
    rounding = 4 * UNIT_ROUNDOFF * size + gamma(logits.shape[1] + 8)
    return np.asarray(e + e.max(1, keepdims=True) + rounding)


def score_tolerance(e: Array, scores: Array) -> Array:
    """How far the scores (n, K) of a file may be off where the products are by ``e``."""
    return np.asarray(e + 4 * UNIT_ROUNDOFF * np.abs(scores).max(1, keepdims=True))


def entmax_tolerance(e: Array, distances: Array, alpha: float) -> Array:
    """How far probabilities (n, K) of α-entmax may be off where the logits are off by ``e``.

    Args:
        e: (n, K).
        distances: relu((α - 1)·(z - max z) - τ), (n, K).
        alpha: α, above 1 and at most 2.
    """
    power = 1 / (alpha - 1)
    off = (alpha - 1) * (e + e.max(1, keepdims=True)) + gamma(distances.shape[1] + 16)
    with np.errstate(over="ignore"):
        most = np.minimum((distances + off) ** power, 2.0)
        nats = -np.log(np.maximum(most, np.finfo(np.float64).tiny))
    rounding = 4 * UNIT_ROUNDOFF * most * (4 + np.abs(nats))
    return np.asarray(np.minimum(most - distances**power + rounding, 1.0) + NEAR_ZERO)

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
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

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

"""What the file should answer, in float64, and how far a correct float32 file may be from it.

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

import copy
from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray

from smx_export.judge import UNIT_ROUNDOFF, Array, Expected, gamma, log_softmax
from smx_export.shipped import has_own_head, is_linear
from smx_lightning import InputError, SoftmaxRegression

SAFETY = 16.0  # another summation order may be unluckier than the one that was measured


class Reference(ABC):
    """Something that knows the answers."""

    @abstractmethod
    def expected(self, x: NDArray[np.floating]) -> Expected:
        """The answers to inputs (n, …)."""


def reference_of(model: SoftmaxRegression) -> Reference:
    """The sharpest reference there is for a model."""
    return LinearReference(model) if is_linear(model) else MeasuredReference(model)


class LinearReference(Reference):
    """The plain model, computed by numpy from its arrays alone.

    Args:
        model: What to compute.
        roundings: How many roundings its features already carry; γₐ and γₙ make γₐ₊ₙ.
    """

    def __init__(self, model: SoftmaxRegression, *, roundings: float = 0) -> None:
        self.roundings = roundings
        linear, statistics = model.linear, model.preprocessing
        shift = statistics.fold(linear).shift
        self.shift = np.zeros(1) if shift is None else shift.numpy()
        self.weight, self.bias, self.mean, self.scale = (
            tensor.detach().double().numpy()
            for tensor in (linear.weight, linear.bias, statistics.centre, statistics.scale)
        )

    def expected(self, x: NDArray[np.floating]) -> Expected:
        """Answers with the forward error bound of the module's docstring."""
        rows = x.reshape(len(x), -1).astype(np.float64)
        centred = (rows - self.mean) / self.scale
        logits = centred @ self.weight.T + self.bias
        log_probs = log_softmax(logits)

        # The file multiplies the raw features with folded weights …
        folded = self.weight / self.scale
        folded_bias = self.bias - folded @ (self.mean - self.shift)
        shifted = rows - self.shift
        terms = np.count_nonzero(shifted, axis=1)[:, None] + 3 + self.roundings
        file = gamma(terms) * (np.abs(shifted) @ np.abs(folded).T + np.abs(folded_bias))
        # … the live model the standardised ones: no term is zero, and two more roundings each.
        terms = rows.shape[1] + 4 + self.roundings
        live = gamma(terms) * (np.abs(centred) @ np.abs(self.weight).T + abs(self.bias))

        def tolerance(e: Array) -> Array:
            classes = logits.shape[1]
            size = np.abs(logits).max(1, keepdims=True) + np.abs(log_probs)
            return np.asarray(
                e + e.max(1, keepdims=True) + 4 * UNIT_ROUNDOFF * size + gamma(classes + 8)
            )

        return Expected(log_probs, tolerance(file), tolerance(live), logits)


class MeasuredReference(Reference):
    """A subclass with more than the linear layer: its own copy in float64.

    No bound is known for a backbone, so the model's float32 rounding is measured, live against its
    float64 copy, relative to ``1 + max |log p|`` of the row; the file may err ``SAFETY`` times as
    much. Where the live model was lucky (a saturated tanh, a large bias that cancels) that says
    nothing about the file: our own head's bound is added, for features ``SAFETY`` roundings off.
    """

    def __init__(self, model: SoftmaxRegression) -> None:
        self.live = model
        self.exact = copy.deepcopy(model).double()
        self.head = LinearReference(model, roundings=SAFETY) if has_own_head(model) else None

    @torch.no_grad()
    def expected(self, x: NDArray[np.floating]) -> Expected:
        """Answers with the measured tolerance."""
        batch = torch.from_numpy(x)
        try:
            if self.head is None:
                log_probs = self.exact(batch.double()).double().numpy()
            else:
                features = self.exact.checked_features(batch.double())
                log_probs = self.exact.head(features).double().numpy()
        except RuntimeError as error:
            raise InputError(
                f"expected a model that also runs in float64, which the parity check compares "
                f"with, got: {' '.join(str(error).split())}; features() should keep its input's "
                "dtype (x / 255 rather than x.float() / 255)"
            ) from error
        # Where float32 overflows and float64 does not, what overflows is the answer.
        live = self.live(batch).double().numpy()
        log_probs = np.where(np.isfinite(live), log_probs, live)
        # log-sum-exp hands the largest error of a row to all of its classes.
        size = np.broadcast_to(1 + np.abs(log_probs).max(1, keepdims=True), log_probs.shape)
        errors = np.abs(live - log_probs) / size
        rounding = errors[np.isfinite(errors)].max(initial=0)
        backbone = SAFETY * rounding * size
        if self.head is None:
            rest = gamma(self.live.num_features + self.live.num_classes + 8) * size
            return Expected(log_probs, backbone + rest, backbone + rest)
        head = self.head.expected(features.double().numpy())
        return Expected(
            log_probs, backbone + head.tolerance, backbone + head.live_tolerance, head.scores
        )

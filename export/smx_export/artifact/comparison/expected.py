"""The right answers, in float64, and how far a correct float32 file may be from them. No torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.tolerance import NEAR_ZERO, Array


class Expected(NamedTuple):
    """Of n rows and K classes, all float64 (n, K).

    The answers of a softmax are compared in nats, those of a sparse activation as probabilities.

    Attributes:
        log_probs: The answer.
        tolerance: How far a correct float32 file may be from it; infinite in rows on which float32
            keeps too few digits to tell a right file from a wrong one. They are not compared.
        live_tolerance: How far the live model in float32 may be from it.
        scores: The logits, where the model has any.
        score_tolerance: How far a file's may be from them; of a softmax ``tolerance``.
        sparse: Whether probabilities may be 0.
    """

    log_probs: Array
    tolerance: Array
    live_tolerance: Array
    scores: Array | None = None
    score_tolerance: Array | None = None
    sparse: bool = False

    @property
    def comparable(self) -> NDArray[np.bool_]:
        """Of each row, whether its answers are numbers and its tolerance tells right from wrong."""
        return self.answered & ~np.isinf(self.tolerance).any(1)

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Of each row, whether its answers are numbers."""
        return np.asarray(np.isfinite(self.in_units(self.log_probs)).all(1))

    def in_units(self, log_probs: NDArray[np.floating]) -> Array:
        """Log-probabilities as they are compared: in nats, or as probabilities."""
        return np.asarray(np.exp(log_probs, dtype=np.float64) if self.sparse else log_probs)

    @property
    def probs_tolerance(self) -> Array:
        """How far probabilities may be from the right ones."""
        if self.sparse:
            return self.tolerance
        # p = exp(log p): t nats off is a factor of exp(t), and p is never above 1.
        most = np.exp(np.minimum(self.log_probs + self.tolerance, 0))
        return np.asarray(most * -np.expm1(-self.tolerance) + NEAR_ZERO)

    @property
    def far(self) -> Array:
        """Of each row, how far its classes lie apart, in nats; of sparse ones, of their scores."""
        if self.sparse and self.scores is not None:
            return np.asarray(np.ptp(self.scores, axis=1))
        return np.asarray(-self.log_probs.min(1))

    def rows(self, which: slice | NDArray[np.bool_ | np.intp]) -> Expected:
        """The answers to some of the rows."""
        scores, near = (None if of is None else of[which] for of in self[3:5])
        first, file, live = (of[which] for of in self[:3])
        return Expected(first, file, live, scores, near, self.sparse)

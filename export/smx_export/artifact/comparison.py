"""Are a file's outputs the model's? Answers in float64 against what float32 rounding allows.

The tolerance, of :mod:`smx_export.artifact.tolerance`, comes with what is expected; here
outputs of whichever runtime are held against it. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.tolerance import Array, gamma
from smx_export.contract import LABEL, LOG_PROBS, PROBS, SCORES

Outputs = Mapping[str, NDArray[Any]]

# Smaller probabilities may be flushed to zero, or be exp(-87) where a runtime's exp ends there.
NEAR_ZERO = 2 * float(np.finfo(np.float32).tiny)
SUM = "sum"  # of a row's probabilities


class Expected(NamedTuple):
    """Of n rows and K classes, all float64 (n, K), in nats.

    Attributes:
        log_probs: The answer.
        tolerance: How far a correct float32 file may be from it; infinite in rows on which float32
            keeps too few digits to tell a right file from a wrong one. They are not compared.
        live_tolerance: How far the live model in float32 may be from it.
        scores: The logits, where the model has any; a file's are held against ``tolerance`` too.
    """

    log_probs: Array
    tolerance: Array
    live_tolerance: Array
    scores: Array | None = None

    @property
    def comparable(self) -> NDArray[np.bool_]:
        """Of each row, whether its answers are numbers and its tolerance tells right from wrong."""
        return np.asarray(np.isfinite(self.log_probs).all(1) & ~np.isinf(self.tolerance).any(1))

    def rows(self, which: slice | NDArray[np.bool_ | np.intp]) -> Expected:
        """The answers to some of the rows."""
        scores = None if self.scores is None else self.scores[which]
        return Expected(
            self.log_probs[which], self.tolerance[which], self.live_tolerance[which], scores
        )


class Changed(NamedTuple):
    """A row whose choice is not the expected one: classes, and the nats between them."""

    row: int
    right: int
    chosen: int
    margin: float
    tolerance: float


@dataclass(frozen=True)
class Compared:
    """What :func:`compare` found.

    Attributes:
        faults: Outputs of another shape, or with NaN or infinity where the answer has none.
        ratios: Largest error over tolerance of each output, and of the probabilities' sum.
        changed: Rows whose choice differs.
    """

    faults: tuple[str, ...]
    ratios: dict[str, float]
    changed: tuple[Changed, ...]

    @property
    def right(self) -> bool:
        """Whether nothing differs by more than rounding explains."""
        return not self.wrong

    @property
    def wrong(self) -> str:
        """The first thing that is, in words; empty where nothing is."""
        if self.faults:
            return self.faults[0]
        for change in self.beyond_rounding:
            return f"row {change.row}: class {change.chosen} in place of class {change.right}"
        for name, ratio in self.ratios.items():
            if not ratio <= 1:  # NaN is not
                return f"{name} is {ratio:.3g} times what rounding allows from the answer"
        return ""

    @property
    def ratio(self) -> float:
        """The largest of all, NaN where one is."""
        return max_or_nan(self.ratios.values())

    @property
    def beyond_rounding(self) -> tuple[Changed, ...]:
        """Changed choices that no rounding explains."""
        return tuple(c for c in self.changed if not c.margin <= c.tolerance)


def compare(expected: Expected, outputs: Outputs, *, threshold: float | None = None) -> Compared:
    """Hold the outputs of n rows against what is expected.

    Args:
        expected: The answers.
        outputs: Some of log_probs, probs, scores (n, K) and label (n,).
        threshold: γ of a binary problem, which the label obeys.
    """
    truth = expected.log_probs
    with np.errstate(invalid="ignore", over="ignore"):
        faults = [*_shape_faults(truth.shape, outputs)] or [*_value_faults(expected, outputs)]
        # Rows with a NaN in them hold nothing else: what remains are whole rows.
        rows = np.flatnonzero(expected.comparable)
        if faults or not len(rows):
            return Compared(tuple(faults), {}, ())
        truth, tolerance = truth[rows], expected.tolerance[rows]
        ratios: dict[str, float] = {}
        for name, output in outputs.items():
            values = output[rows].astype(np.float64)
            if name == LOG_PROBS:
                ratios[name] = worst(values - truth, tolerance)
            elif name == SCORES and expected.scores is not None:
                ratios[name] = worst(values - expected.scores[rows], tolerance)
            elif name == PROBS:
                # p = exp(log p): t nats off is a factor of exp(t), and p is never above 1.
                allowed = np.exp(np.minimum(truth + tolerance, 0)) * -np.expm1(-tolerance)
                ratios[name] = worst(values - np.exp(truth), allowed + NEAR_ZERO)
                ratios[SUM] = worst(values.sum(1) - 1, gamma(2.0 * truth.shape[1] + 16))
        changed = {
            change.row: change
            for name, output in outputs.items()
            for change in _changed(name, output[rows], rows, truth, tolerance, threshold)
        }
    return Compared((), ratios, tuple(changed.values()))


def log_probs_of(outputs: Outputs) -> Array | None:
    """Log-probabilities out of whichever output tells them; ``None`` of a label alone."""
    with np.errstate(divide="ignore"):
        if LOG_PROBS in outputs:
            return outputs[LOG_PROBS].astype(np.float64)
        if PROBS in outputs:
            return np.asarray(np.log(outputs[PROBS].astype(np.float64)))
        return log_softmax(outputs[SCORES].astype(np.float64)) if SCORES in outputs else None


def log_softmax(logits: Array) -> Array:
    """Row-wise ``z - log Σ exp z``, shifted by the maximum so that nothing overflows."""
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def handicap(threshold: float) -> float:
    """log(γ / (1 - γ)): class 1 is chosen where its log-probability is ahead by at least this."""
    return math.log(threshold) - math.log1p(-threshold)


def worst(error: Array, tolerance: Array) -> float:
    """The largest error over tolerance; NaN where one is."""
    return float(np.max(np.abs(error) / tolerance))


def max_or_nan(values: Any) -> float:
    """The largest, NaN where one is, 0 of none: Python's own ``max`` passes over NaN."""
    return float(np.max(list(values), initial=0.0))


def _shape_faults(shape: tuple[int, ...], outputs: Outputs) -> list[str]:
    # Exact shapes first: numpy would broadcast (4, 3) against (1, 3) to a difference of zero.
    wanted = {name: shape[:1] if name == LABEL else shape for name in outputs}
    return [
        f"{name} is {output.dtype} {output.shape}, not {wanted[name]}"
        for name, output in outputs.items()
        if output.shape != wanted[name]
    ]


def _value_faults(expected: Expected, outputs: Outputs) -> list[str]:
    truth = expected.log_probs
    faults = []
    for name, output in outputs.items():
        right = expected.scores if name == SCORES else truth
        if name == LABEL or right is None:
            continue
        # A class ruled out, log p = -inf, has a finite probability: 0.
        numbers = ~np.isnan(right) if name == PROBS else np.isfinite(right)
        same = np.array_equal(np.isnan(output), np.isnan(right))
        if not (same and np.array_equal(np.isfinite(output), numbers)):
            faults.append(f"{name} is not finite where the answer is")
    return faults


def _changed(
    name: str,
    output: NDArray[Any],
    rows: NDArray[np.intp],
    truth: Array,
    tolerance: Array,
    threshold: float | None,
) -> list[Changed]:
    """Rows whose choice differs; a label outside the classes differs by an infinite margin."""
    ahead = truth.copy()
    if name == LABEL and threshold is not None:
        ahead[:, 0] += handicap(threshold)
    right = ahead.argmax(1)
    chosen = output.astype(np.int64) if name == LABEL else output.argmax(1)
    classes = truth.shape[1]
    changed = []
    for i in np.flatnonzero(chosen != right):
        k, j = int(right[i]), int(chosen[i])
        known = 0 <= j < classes
        margin = float(ahead[i, k] - ahead[i, j]) if known else math.inf
        allowed = float(tolerance[i, k] + tolerance[i, j]) if known else 0.0
        if margin > 0:
            changed.append(Changed(int(rows[i]), k, j, margin, allowed))
    return changed

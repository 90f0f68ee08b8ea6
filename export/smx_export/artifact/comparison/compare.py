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

from smx_export.artifact.activation import SOFTMAX, difference, probabilities
from smx_export.artifact.comparison.expected import Expected
from smx_export.artifact.comparison.top import differences_of_top, unfit_top, worst
from smx_export.artifact.tolerance import Array, gamma
from smx_export.contract import LABEL, LOG_PROBS, PROBS, SCORES, TOP, TOP_CLASSES

Outputs = Mapping[str, NDArray[Any]]

SUM = "sum"  # of a row's probabilities


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


def compare(
    expected: Expected,
    outputs: Outputs,
    *,
    threshold: float | None = None,
    top_k: int | None = None,
) -> Compared:
    """Hold the outputs of n rows against what is expected.

    Args:
        expected: The answers.
        outputs: Some of log_probs, probs, scores (n, K), label (n,), top_classes and top_probs
            (n, k).
        threshold: γ of a binary problem, which the label obeys.
        top_k: k.
    """
    truth = expected.log_probs
    with np.errstate(invalid="ignore", over="ignore"):
        faults = _shape_faults(truth.shape, outputs, top_k) or _value_faults(expected, outputs)
        # Rows with a NaN in them hold nothing else: what remains are whole rows.
        rows = np.flatnonzero(expected.comparable)
        if faults or not len(rows):
            return Compared(tuple(faults), {}, ())
        part, ratios = expected.rows(rows), dict[str, float]()
        for name, output in outputs.items():
            ratios |= _ratios(name, output[rows].astype(np.float64), part)
        if TOP_CLASSES in outputs:
            top = {name: outputs[name][rows] for name in TOP if name in outputs}
            ratios |= differences_of_top(part, top)
        changed = {
            change.row: change
            for name, output in outputs.items()
            for change in _changed(name, output[rows], rows, part, threshold)
        }
    return Compared((), ratios, tuple(changed.values()))


def _ratios(name: str, values: Array, expected: Expected) -> dict[str, float]:
    """The largest error over tolerance of an output's rows, and of the sum of probabilities."""
    truth, tolerance = expected.log_probs, expected.tolerance
    if name == SCORES and expected.scores is not None:
        allowed = expected.score_tolerance
        right = expected.scores
        return {name: worst(values - right, tolerance if allowed is None else allowed)}
    if name == LOG_PROBS:
        apart = expected.in_units(values) - expected.in_units(truth)
        return {name: worst(apart, tolerance)}
    if name != PROBS:
        return {}
    sums = values.sum(1) - 1
    if expected.sparse:
        of_sums = np.maximum(tolerance.sum(1), gamma(2.0 * truth.shape[1]))
        return {name: worst(values - np.exp(truth), tolerance), SUM: worst(sums, of_sums)}
    error = worst(values - np.exp(truth), expected.probs_tolerance)
    return {name: error, SUM: worst(sums, gamma(2.0 * truth.shape[1] + 16))}


def log_probs_of(outputs: Outputs, alpha: float = SOFTMAX) -> Array | None:
    """Log-probabilities out of whichever output tells them; ``None`` of a label alone.

    Args:
        outputs: Of a file.
        alpha: α of its activation.
    """
    with np.errstate(divide="ignore"):
        if LOG_PROBS in outputs:
            return outputs[LOG_PROBS].astype(np.float64)
        if PROBS in outputs:
            return np.asarray(np.log(outputs[PROBS].astype(np.float64)))
        if SCORES not in outputs:
            return None
        scores = outputs[SCORES].astype(np.float64)
        return log_softmax(scores) if alpha == SOFTMAX else np.log(probabilities(scores, alpha))


def log_softmax(logits: Array) -> Array:
    """Row-wise ``z - log Σ exp z``, shifted by the maximum so that nothing overflows."""
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def max_or_nan(values: Any) -> float:
    """The largest, NaN where one is, 0 of none: Python's own ``max`` passes over NaN."""
    return float(np.max(list(values), initial=0.0))


def _shape_faults(shape: tuple[int, ...], outputs: Outputs, top_k: int | None) -> list[str]:
    # Exact shapes first: numpy would broadcast (4, 3) against (1, 3) to a difference of zero.
    wanted = {name: shape_of(name, shape, top_k) for name in outputs}
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
        if name in TOP:
            faults += unfit_top(name, output, truth)
            continue
        # A class ruled out, log p = -inf, has a finite probability: 0.
        as_probs = name == PROBS or (name == LOG_PROBS and expected.sparse)
        numbers = ~np.isnan(right) if as_probs else np.isfinite(right)
        got = expected.in_units(output) if name == LOG_PROBS else output
        same = np.array_equal(np.isnan(output), np.isnan(right))
        if not (same and np.array_equal(np.isfinite(got), numbers)):
            faults.append(f"{name} is not finite where the answer is")
    return faults


def shape_of(name: str, shape: tuple[int, ...], top_k: int | None) -> tuple[int, ...]:
    """Shape of an output, where that of log-probabilities is (n, K)."""
    if name == LABEL:
        return shape[:1]
    return (shape[0], top_k or 0) if name in TOP else shape


def _changed(
    name: str,
    output: NDArray[Any],
    rows: NDArray[np.intp],
    expected: Expected,
    threshold: float | None,
) -> list[Changed]:
    """Rows whose choice differs; a label outside the classes differs by an infinite margin."""
    if name in TOP and name != TOP_CLASSES:
        return []
    tolerance = expected.tolerance
    ahead = expected.in_units(expected.log_probs).copy()
    if name == LABEL and threshold is not None:
        # Of probabilities of two classes, p₁ ≥ γ is p₁ - p₀ ≥ 2γ - 1.
        ahead[:, 0] += 2 * threshold - 1 if expected.sparse else difference(threshold)
    right = ahead.argmax(1)
    if name in (LABEL, TOP_CLASSES):
        chosen = output.astype(np.int64).reshape(len(output), -1)[:, 0]
    else:
        chosen = output.argmax(1)
    classes = ahead.shape[1]
    changed = []
    for i in np.flatnonzero(chosen != right):
        k, j = int(right[i]), int(chosen[i])
        known = 0 <= j < classes
        margin = float(ahead[i, k] - ahead[i, j]) if known else math.inf
        allowed = float(tolerance[i, k] + tolerance[i, j]) if known else 0.0
        if margin > 0:
            changed.append(Changed(int(rows[i]), k, j, margin, allowed))
    return changed

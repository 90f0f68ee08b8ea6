"""Which inputs a file is tested with: ordinary rows, and the same where arithmetic is strained.

No torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.comparison import Expected
from smx_export.artifact.rows import scaled
from smx_export.artifact.tolerance import UNIT_ROUNDOFF, Array
from smx_export.artifact.vectors import Vectors, bfloat16
from smx_export.errors import FileError

ROWS = 2
STRESS = 1000.0  # nats between the classes of a stressed row, at least
MOST_FACTOR = 2.0**40
BORDER_FACTORS = tuple(2.0**k for k in range(-8, 9))
COARSE = 1 / 16  # of a feature's spread: a row that bfloat16 moves by more is kept in float32


def choose(
    rows: NDArray[Any],
    answer: Callable[[NDArray[Any]], Expected],
    spread: NDArray[np.floating] | float,
) -> Vectors:
    """Vectors out of ordinary rows.

    Args:
        rows: (m, *shape) float32, float64 of a file that takes that, or uint8 images.
        answer: The float64 answers to inputs.
        spread: Deviation of the features, unrolled: it says whether bfloat16 is fine enough.

    Raises:
        FileError: Where float32 can tell the answer to none of the rows.
    """
    factors = [1.0]
    if rows.dtype == np.uint8:
        rows = np.concatenate([rows, np.full_like(rows[:1], 255)])
    else:
        if rows.dtype == np.float32:
            brief = bfloat16(rows)
            moved = np.abs(brief - rows).reshape(len(rows), -1)
            rows = brief if (moved <= COARSE * spread).all() else rows
        factors += [_stress_factor(rows, answer)]
    inputs = [(row, factor) for factor in factors for row in range(len(rows))] + [(0, 0.0)]
    inputs += [] if rows.dtype == np.uint8 else _at_a_border(rows, answer)
    return _kept(rows, inputs, answer)


def choose_mixed(
    rows: NDArray[Any], answer: Callable[[NDArray[Any]], Expected], *, stressed: bool
) -> Vectors:
    """Vectors out of rows of several inputs, or of integers.

    Args:
        rows: As :mod:`smx_export.artifact.rows` has them.
        answer: The float64 answers to inputs.
        stressed: Whether floating-point numbers may also be zero, and as large as they like.

    Raises:
        FileError: As :func:`choose`.
    """
    inputs = [(row, 1.0) for row in range(len(rows))]
    if stressed:
        factor = _stress_factor(rows, answer)
        inputs += [(row, factor) for row in range(len(rows))] + [(0, 0.0)]
    return _kept(rows, inputs, answer)


def _kept(
    rows: NDArray[Any],
    inputs: list[tuple[int, float]],
    answer: Callable[[NDArray[Any]], Expected],
) -> Vectors:
    """Those of the inputs that float32 can tell the answer to, with their answers."""
    vectors = Vectors(rows, tuple(inputs), np.empty((0, 0), np.float32), np.empty(0))
    expected = answer(vectors.x)
    kept = np.flatnonzero(expected.comparable)
    if not len(kept):
        raise FileError(
            "expected a model that answers some ordinary row with numbers that float32 can hold, "
            "got none for the self-test; smaller weights or standardised inputs may help, and a "
            "backbone must take numbers around 0, with x.clamp(min=1e-6) before a logarithm for one"
        )
    return answered(rows, tuple(inputs[i] for i in kept), expected.rows(kept))


def answered(
    rows: NDArray[Any], inputs: tuple[tuple[int, float], ...], expected: Expected
) -> Vectors:
    """Vectors of rows and inputs with their answers, whose tolerance float32 widens."""
    truth = expected.log_probs
    scores = expected.scores
    if expected.sparse:
        widened = expected.tolerance.max(1) + 2 * UNIT_ROUNDOFF
        return Vectors(
            rows,
            inputs,
            truth.astype(np.float32),
            widened,
            scores=None if scores is None else scores.astype(np.float32),
            score_tolerance=_widened(expected.score_tolerance, scores),
            sparse=True,
        )
    norms = None if scores is None else (scores - truth).mean(1)
    # float32 rounds the answers, and the norm is one number for all classes of a row.
    stored = 2 * UNIT_ROUNDOFF * np.abs(truth).max(1)
    return Vectors(
        rows, inputs, truth.astype(np.float32), expected.tolerance.max(1) + stored, norms
    )


def _widened(tolerance: Array | None, scores: Array | None) -> Array | None:
    if tolerance is None or scores is None:
        return None
    return np.asarray(tolerance.max(1) + 2 * UNIT_ROUNDOFF * np.abs(scores).max(1))


def _stress_factor(rows: NDArray[Any], answer: Callable[[NDArray[Any]], Expected]) -> float:
    """The least power of two that takes the classes of every row ``STRESS`` nats apart."""
    factor = 1.0
    while factor < MOST_FACTOR:
        factor *= 2
        expected = answer(scaled(rows, factor))
        if not expected.comparable.all():  # beyond float32 it would test nothing
            return factor / 2
        if expected.far.min() >= STRESS:
            break
    return factor


def _at_a_border(
    rows: NDArray[Any], answer: Callable[[NDArray[Any]], Expected]
) -> list[tuple[int, float]]:
    """The row and power of two with the least probability above 0 beside one of 0.

    None where there is none, as of a softmax.
    """
    found: list[tuple[float, int, float]] = []
    for factor in BORDER_FACTORS:
        expected = answer(scaled(rows, factor))
        if not expected.sparse:
            return []
        for row in np.flatnonzero(expected.comparable):
            probs = np.exp(expected.log_probs[row])
            least = float(probs[probs > 0].min())
            if least < 1 and (probs == 0).any():
                found.append((least, int(row), factor))
    return [min(found)[1:]] if found else []

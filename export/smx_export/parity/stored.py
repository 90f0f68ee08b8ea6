"""Are the vectors that a file bears those that its model gives?"""

from __future__ import annotations

import numpy as np

from smx_export.artifact.rows import are_floats, numbers
from smx_export.artifact.vectors import Vectors
from smx_export.graph.inference_copy import is_linear
from smx_export.parity.inputs import ParityInputs
from smx_export.parity.reference import SAFETY

STEP = 2.0**-7  # between two numbers of bfloat16, relative
LOOSEST = 2.0  # how far tolerances may be from those of this version, of a file of an earlier one


def differences(found: Vectors, inputs: ParityInputs) -> str:
    """What a file's vectors differ in from those that its model gives, in words; empty if nothing.

    Another machine may round the rows by a step, and the answers within their tolerance. What a
    backbone's rounding is measured to be differs there by more, and with it which rows are kept.
    """
    own, exact = inputs.vectors, is_linear(inputs.inference.model)
    if found.rows.dtype != own.rows.dtype or found.rows.shape != own.rows.shape:
        return "inputs of another kind than the model's"
    if found.log_probs.shape[1] != own.log_probs.shape[1]:
        return "answers of another number of classes"
    rows = numbers(own.rows)
    moved = np.abs(numbers(found.rows) - rows)
    steps = STEP * np.abs(rows) * are_floats(own.rows)  # integers are the same everywhere
    if (exact and found.inputs != own.inputs) or (moved > steps).any():
        return "other inputs than the model's"
    if found.inputs != own.inputs or moved.any():
        own = inputs.answered(found)
    if found.sparse != own.sparse:
        return "answers of another activation"
    if found.tells_scores != own.tells_scores:
        return "scores without norms to hold them against, or norms without scores"
    units = own.expected.in_units
    far = np.abs(units(found.log_probs.astype(np.float64)) - units(own.log_probs)).max(1)
    if found.log_norm is not None and own.log_norm is not None:
        far = np.maximum(far, np.abs(found.log_norm - own.log_norm))
    if found.scores is not None and own.scores is not None and own.score_tolerance is not None:
        off = np.abs(found.scores.astype(np.float64) - own.scores).max(1)
        far = np.maximum(far, off / own.score_tolerance * own.tolerance)
    judged = np.isfinite(own.tolerance)  # the others tell nothing here, and did where it was made
    error, factor = (value[judged] / own.tolerance[judged] for value in (far, found.tolerance))
    if not (error <= 1).all() or not judged.any():
        return f"answers {error.max(initial=0):.3g} times their tolerance from the model's"
    most = LOOSEST if exact else SAFETY
    if found.score_tolerance is not None and own.score_tolerance is not None:
        of_scores = found.score_tolerance[judged] / own.score_tolerance[judged]
        factor = np.concatenate([factor, of_scores])
    if not ((1 / most <= factor) & (factor <= most)).all():
        return f"tolerances of {factor.max():.3g} times those that rounding explains"
    return ""

"""Test inputs, and their answers: of the parity check, of other runtimes, of the self-test."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.comparison import Expected
from smx_export.artifact.vectors import ROWS, Vectors, choose
from smx_export.contract import SCORES
from smx_export.graph.inference_copy import InferenceCopy, is_linear
from smx_export.parity.probes import RANDOM_ROWS, Probe, image_probes, ordinary, probes
from smx_export.parity.reference import SAFETY, Reference
from smx_export.parity.user_data import UserRows

MOST_ONE_HOTS_TRACED = 16  # a backbone's rows are expensive, and its weights not seen one by one
STEEP = 1e4  # nats between classes on the huge rows: far beyond where exp leaves float32, at 104
MOST_HUGE = 1e20  # multiplied by the features' own size, still float32
STEP = 2.0**-7  # between two numbers of bfloat16, relative
LOOSEST = 2.0  # how far tolerances may be from those of this version, of a file of an earlier one
MOST_ROWS = 4096  # of your data that other runtimes are tried on


class ParityInputs:
    """Test inputs for an inference copy, and the answers where they are kept.

    Args:
        inference: The model in the shape of a profile.
        reference: It computes the answers.
    """

    def __init__(self, inference: InferenceCopy, reference: Reference) -> None:
        self.inference = inference
        self.reference = reference

    def probes(self) -> Iterable[Probe]:
        """The test inputs of the parity check."""
        model, (centre, spread) = self.inference.model, self._statistics()
        most: dict[str, Any] = {} if is_linear(model) else {"one_hots": MOST_ONE_HOTS_TRACED}
        if self.inference.profile.image:
            return image_probes(model.input_shape, **most)
        if not is_linear(model):
            # What max-pooling makes of a NaN differs between correct runtimes.
            most |= {"dtype": self.inference.dtype}
            return probes(model.input_shape, centre, spread, nan_row=False, **most)
        weight = self.inference.unrounded.linear.weight.double()
        steepness = float((weight - weight.mean(0)).norm(dim=1).max())
        shift = model.preprocessing.fold(model.linear).shift
        return probes(
            model.input_shape, centre, spread,
            origin=0.0 if shift is None else shift.numpy(),
            huge=STEEP / max(steepness, STEEP / MOST_HUGE),
            dtype=self.inference.dtype,
        )  # fmt: skip

    @cached_property
    def vectors(self) -> Vectors:
        """Self-test vectors for the file."""
        inference = self.inference

        def answer(x: NDArray[Any]) -> Any:
            with np.errstate(invalid="ignore", over="ignore"):
                return self.reference.expected(inference.given(x))

        vectors = choose(inference.fed(self.ordinary(ROWS)), answer, self._statistics()[1])
        if SCORES in inference.profile.outputs:
            return vectors
        return replace(vectors, log_norm=None)

    def answered(self, vectors: Vectors) -> Vectors:
        """The same inputs with the model's answers."""
        with np.errstate(invalid="ignore", over="ignore"):
            expected = self.reference.expected(self.inference.given(vectors.x))
        scores = expected.scores if SCORES in self.inference.profile.outputs else None
        return Vectors(
            vectors.rows,
            vectors.inputs,
            np.asarray(expected.log_probs, np.float32),
            expected.tolerance.max(1),
            None if scores is None else (scores - expected.log_probs).mean(1),
        )

    def batches(self, own: UserRows | None) -> list[tuple[NDArray[Any], Expected]]:
        """Random rows and the first of yours, as the file takes them, with their answers."""
        given = [self.ordinary(RANDOM_ROWS)]
        given += [] if own is None else [own.x[:MOST_ROWS]]
        return [(self.inference.fed(x), self.reference.expected(x)) for x in given]

    def ordinary(self, rows: int) -> NDArray[np.float32]:
        """Random rows (n, *input_shape), as the inference copy takes them."""
        inference = self.inference
        return ordinary(
            rows,
            inference.model.input_shape,
            *self._statistics(),
            dtype=inference.dtype,
            pixels=inference.profile.image,
        )

    def _statistics(self) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Where the inputs lie: mean and deviation of the features, or 0 and 1."""
        if not (is_linear(self.inference.model) or self.inference.wide):
            return np.float32(0), np.float32(1)
        statistics = self.inference.unrounded.preprocessing
        return statistics.centre.numpy(), statistics.scale.numpy()


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
    moved = np.abs(found.rows.astype(np.float64) - own.rows.astype(np.float64))
    if (exact and found.inputs != own.inputs) or (moved > STEP * np.abs(own.rows)).any():
        return "other inputs than the model's"
    if found.inputs != own.inputs or moved.any():
        own = inputs.answered(found)
    if (found.log_norm is None) != (own.log_norm is None):
        return "scores without norms to hold them against, or norms without scores"
    far = np.abs(found.log_probs.astype(np.float64) - own.log_probs).max(1)
    if found.log_norm is not None and own.log_norm is not None:
        far = np.maximum(far, np.abs(found.log_norm - own.log_norm))
    judged = np.isfinite(own.tolerance)  # the others tell nothing here, and did where it was made
    error, factor = (value[judged] / own.tolerance[judged] for value in (far, found.tolerance))
    if not (error <= 1).all() or not judged.any():
        return f"answers {error.max(initial=0):.3g} times their tolerance from the model's"
    most = LOOSEST if exact else SAFETY
    if not ((1 / most <= factor) & (factor <= most)).all():
        return f"tolerances of {factor.max():.3g} times those that rounding explains"
    return ""

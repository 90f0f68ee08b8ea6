"""What the file should answer, in float64, and how far a correct float32 file may be from it.

The tolerance of the linear layer and the log-softmax is derived in
:mod:`smx_export.artifact.tolerance`. A backbone in front has no such bound: see
:class:`MeasuredReference`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smx_export.artifact.activation import distances
from smx_export.artifact.comparison import Expected, log_softmax
from smx_export.artifact.tolerance import (
    UNIT_ROUNDOFF,
    Array,
    answer_tolerance,
    entmax_tolerance,
    gamma,
    logit_error,
    score_tolerance,
)
from smx_export.graph.arrays import each_float, tensors_of
from smx_export.graph.inference_copy import alpha_of_model, has_own_head, is_linear, is_mixed
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.activations import SOFTMAX

SAFETY = 16.0  # another summation order may be unluckier than the one that was measured
# √u is half of float32's digits: a problem that loses more is ill-conditioned in float32.
LARGEST_ROUNDING = UNIT_ROUNDOFF**0.5
DRAWS = 4  # of roundings, to see how far they move an answer


class Reference(ABC):
    """Something that knows the answers."""

    @abstractmethod
    def expected(self, x: NDArray[np.floating]) -> Expected:
        """The answers to inputs (n, …)."""

    def moved(self, x: NDArray[np.floating]) -> Array:
        """How far rounding alone may move each of the answers (n,), in nats, where it is known."""
        return np.full(len(x), np.inf)

    def widened(self, x: NDArray[np.floating], expected: Expected) -> Expected:
        """What is expected where the live model may have been lucky on all rows at once."""
        return expected


def reference_of(model: SoftmaxRegression) -> Reference:
    """The sharpest reference there is for a model."""
    if model._smx_activation != SOFTMAX:
        return EntmaxReference(model)
    return LinearReference(model) if is_linear(model) else MeasuredReference(model)


class Logits(NamedTuple):
    """Logits in float64, and how far those of the file and of the live model may be off, (n, K)."""

    exact: Array
    file: Array
    live: Array


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
        """Answers, and how far rounding may move the file's and the live model's."""
        logits, file, live = self.logits(x)
        log_probs = log_softmax(logits)
        if not np.isfinite(log_probs).any():  # nothing that rounding could move
            unknown = np.full_like(log_probs, np.nan)
            return Expected(log_probs, unknown, unknown, logits)
        file, live = (answer_tolerance(e, logits, log_probs) for e in (file, live))
        return Expected(log_probs, file, live, logits)

    def logits(self, x: NDArray[np.floating]) -> Logits:
        """Logits, and how far rounding may move them."""
        rows = x.reshape(len(x), -1).astype(np.float64)
        centred = (rows - self.mean) / self.scale
        logits = centred @ self.weight.T + self.bias
        # The file multiplies the raw features with folded weights …
        folded = self.weight / self.scale
        folded_bias = self.bias - folded @ (self.mean - self.shift)
        shifted = rows - self.shift
        terms = np.count_nonzero(shifted, axis=1)[:, None] + 3 + self.roundings
        file = logit_error(terms, shifted, folded, folded_bias)
        # … the live model the standardised ones: no term is zero, and two more roundings each.
        terms = rows.shape[1] + 4 + self.roundings
        return Logits(logits, file, logit_error(terms, centred, self.weight, self.bias))


class MeasuredReference(Reference):
    """A subclass with more than the linear layer: its own copy in float64.

    No bound is known for a backbone, so the model's float32 rounding is measured, live against its
    float64 copy, relative to ``1 + max |log p|`` of the row; the file may err ``SAFETY`` times as
    much. Where the live model was lucky (a saturated tanh, a large bias that cancels) that says
    nothing about the file: our own head's bound is added, for features ``SAFETY`` roundings off.

    What is measured is taken for rounding up to ``LARGEST_ROUNDING`` only, beyond the head's bound.
    A row that is further off has an infinite tolerance: it tells nothing about a file.
    """

    def __init__(self, model: SoftmaxRegression) -> None:
        self.live = model
        self.exact = copy.deepcopy(model).double()
        self.head = LinearReference(model, roundings=SAFETY) if has_own_head(model) else None

    @torch.no_grad()
    def expected(self, x: NDArray[np.floating]) -> Expected:
        """Answers with the measured tolerance."""
        log_probs, features = self._exactly(x)
        # Where float32 overflows and float64 does not, what overflows is the answer.
        live = self.live(tensors_of(x)).double().numpy()
        log_probs = np.where(np.isfinite(live), log_probs, live)
        # log-sum-exp hands the largest error of a row to all of its classes.
        size = np.broadcast_to(1 + np.abs(log_probs).max(1, keepdims=True), log_probs.shape)
        if features is None or self.head is None:
            rest = gamma(self.live.num_features + self.live.num_classes + 8) * size
            file, own, scores = rest, rest, None
        else:
            head = self.head.expected(features)
            file, own, scores = head.tolerance, head.live_tolerance, head.scores
        errors = np.abs(live - log_probs)
        lost = (errors > LARGEST_ROUNDING * size + own).any(1)
        rounding = _largest((errors / size)[~lost])
        if lost.any() or SAFETY * rounding > LARGEST_ROUNDING:
            # Of rows that are alike some were lucky: what rounding does to them counts, too.
            limit = SAFETY * LARGEST_ROUNDING * size + own
            lost |= self.moved(x) > limit.max(1)
            rounding = _largest((errors / size)[~lost])
        backbone = SAFETY * min(rounding, LARGEST_ROUNDING) * size
        backbone = np.where(lost[:, None], np.inf, backbone)
        return Expected(log_probs, backbone + file, backbone + own, scores)

    def widened(self, x: NDArray[np.floating], expected: Expected) -> Expected:
        """Of whole numbers, and of one value in all places, float32 may round nothing at all.

        What a mean of other numbers would lose, and a division by their deviation multiply, is not
        measured then. How far rounding of inputs and weights moves the answers is allowed besides.
        """
        size = 1 + np.abs(expected.log_probs).max(1)
        most = SAFETY * LARGEST_ROUNDING * size
        moved = self.moved(x)
        more = np.where(moved > most, np.inf, moved)[:, None]
        return expected._replace(
            tolerance=expected.tolerance + more, live_tolerance=expected.live_tolerance + more
        )

    @torch.no_grad()
    def moved(self, x: NDArray[np.floating]) -> Array:
        """The answers' largest movement when inputs and weights are rounded ``SAFETY`` times.

        None where they move without that: randomness and state are no rounding.
        """
        answers, _ = self._exactly(x)
        moved = np.zeros(len(x))
        generator = torch.Generator().manual_seed(0)

        def shaken(values: Tensor) -> Tensor:
            signs = torch.randint(0, 2, values.shape, generator=generator) * 2 - 1
            return values * (1 + SAFETY * UNIT_ROUNDOFF * signs)

        batch = each_float(Tensor.double, tensors_of(x))
        exact = x.dtype == np.float64  # of a wide file neither inputs nor means are rounded
        state = [*self.exact.named_parameters(), *self.exact.named_buffers()]
        weights = {
            name: tensor
            for name, tensor in state
            if tensor.is_floating_point() and not (exact and name.startswith("preprocessing.mean"))
        }
        for _ in range(DRAWS):
            other = {name: shaken(tensor) for name, tensor in weights.items()}
            given = batch if exact else each_float(shaken, batch)
            with self._integers_become_double():
                rounded = torch.func.functional_call(self.exact, other, (given,)).numpy()
            moved = np.fmax(moved, np.abs(rounded - answers).max(1))
        again, _ = self._exactly(x)
        return moved if np.array_equal(again, answers, equal_nan=True) else np.zeros(len(x))

    def _exactly(self, x: NDArray[np.float32]) -> tuple[Array, Array | None]:
        """Log-probabilities in float64, and the features where the head is our own."""
        batch = each_float(Tensor.double, tensors_of(x))
        try:
            if self.head is None:
                with self._integers_become_double():
                    return self.exact(batch).double().numpy(), None
            with self._integers_become_double():
                features = self.exact.checked_features(batch)
            return self.exact.head(features).double().numpy(), features.double().numpy()
        except RuntimeError as error:
            raise InputError(
                f"expected a model that also runs in float64, which the parity check compares "
                f"with, got: {' '.join(str(error).split())}; features() should keep its input's "
                "dtype (x / 255 rather than x.float() / 255), and make numbers of integers with "
                "x.to(self.linear.weight.dtype)"
            ) from error

    @contextmanager
    def _integers_become_double(self) -> Iterator[None]:
        """In float64 what is made of integers, such as a mean over a mask, is as wide as all else.

        Of a model of floating-point numbers nothing changes.
        """
        default = torch.get_default_dtype()
        if is_mixed(self.live):
            torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


class EntmaxReference(Reference):
    """A model that ends in α-entmax: the exact threshold at the logits of its softmax twin.

    The twin's log-probabilities are logits shifted by a number a row, which α-entmax does not see;
    how far rounding may move them is known as of any softmax.
    """

    def __init__(self, model: SoftmaxRegression) -> None:
        self.alpha = alpha_of_model(model)
        twin = copy.deepcopy(model)
        twin.smx = nn.Sequential(twin.linear, nn.LogSoftmax(dim=1))
        twin._smx_activation = SOFTMAX
        self.twin: LinearReference | MeasuredReference = (
            LinearReference(twin) if is_linear(twin) else MeasuredReference(twin)
        )

    def expected(self, x: NDArray[np.floating]) -> Expected:
        """Answers, and how far rounding may move the file's and the live model's."""
        if isinstance(self.twin, LinearReference):
            return self._answered(self.twin.logits(x))
        return self._of_twin(self.twin.expected(x))

    def widened(self, x: NDArray[np.floating], expected: Expected) -> Expected:
        """See :class:`MeasuredReference`."""
        if isinstance(self.twin, LinearReference):
            return expected
        return self._of_twin(self.twin.widened(x, self.twin.expected(x)))

    def moved(self, x: NDArray[np.floating]) -> Array:
        """See :class:`Reference`; no probability moves by more than twice as much as a logit."""
        return 2 * self.twin.moved(x)

    def _of_twin(self, expected: Expected) -> Expected:
        logits = expected.log_probs if expected.scores is None else expected.scores
        known = np.isfinite(expected.log_probs)  # what overflows is the answer
        exact = np.where(known, logits, expected.log_probs)
        return self._answered(Logits(exact, expected.tolerance, expected.live_tolerance))

    def _answered(self, logits: Logits) -> Expected:
        far = distances(logits.exact, self.alpha)
        with np.errstate(divide="ignore"):
            log_probs = np.log(far) / (self.alpha - 1)
        file, live = (entmax_tolerance(e, far, self.alpha) for e in logits[1:])
        lost = ~np.isfinite(logits.file).all(1, keepdims=True)
        file, live = (np.where(lost, np.inf, tolerance) for tolerance in (file, live))
        near = score_tolerance(logits.file, logits.exact)
        return Expected(log_probs, file, live, logits.exact, near, sparse=True)


def _largest(values: Array) -> float:
    """Of the finite ones; 0 of none."""
    return float(values[np.isfinite(values)].max(initial=0))

"""What a plain loop is given: its start, its batches and their checks, in the first pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from smx_lightning.errors import InputError
from smx_lightning.errors.checks import at_least, check_dense, check_features, class_indices
from smx_lightning.errors.targets import LARGEST, SMALLEST, check_row_weights, check_targets
from smx_lightning.optim.evaluation import gathered, weighted

Batches = Iterable[Sequence[Tensor]]


class Problem:
    """Rows and targets as the method takes them.

    Only the ratios of weights count, but far from 1 their products would leave float32's range. So
    all are multiplied by a power of two that the first batches tell.

    Args:
        num_features: Entries of a row.
        num_classes: Of the targets, at least 2.
        class_weight: (classes,) or ``None``.
        dtype: Of the parameters.
        intercept: Whether the bias moves.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        class_weight: Tensor | None,
        *,
        dtype: torch.dtype = torch.float32,
        intercept: bool = True,
    ) -> None:
        self._dtype, self._intercept = dtype, intercept
        self.num_features = num_features
        self.num_classes = at_least("num_classes", num_classes, 2)
        self.class_weight = class_weight
        self._exponent = 0

    def start(self, given: tuple[Tensor, Tensor] | None) -> Tensor:
        """Weight and bias as one point (classes, features + 1) float64; zero where none is given.

        Raises:
            InputError: For other shapes, for what is not finite, and for a bias that is not 0 where
                it is to stay there.
        """
        wanted = (self.num_classes, self.num_features + 1)
        if self.class_weight is not None:
            check_row_weights(self.class_weight, self.num_classes, "class weights")
        if given is None:
            return torch.zeros(wanted, dtype=torch.float64)
        weight, bias = map(torch.as_tensor, given)
        if weight.shape != (wanted[0], wanted[1] - 1) or bias.shape != wanted[:1]:
            raise InputError(
                f"expected a start of shapes {(wanted[0], wanted[1] - 1)} and {wanted[:1]}, got "
                f"{tuple(weight.shape)} and {tuple(bias.shape)}; give weight and bias of the layer"
            )
        point = torch.cat([weight, bias[:, None]], 1).double()
        if not point.isfinite().all():
            raise InputError(
                "expected a start of finite numbers, got NaN or infinity; leave it out to start "
                "from zero"
            )
        if not self._intercept and bias.any():
            raise InputError(
                "expected a start whose bias is 0, where intercept=False holds it, got another; "
                "give zeros, or intercept=True"
            )
        return point

    def weighted(
        self, batches: Batches, *, first: bool
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Batches (x, y) or (x, y, weight) as (x, y, weights), those of the classes included.

        Args:
            batches: Of one pass.
            first: Whether it is the first one, in which they are looked at.
        """
        for x, y, *rest in self._begun(batches) if first else batches:
            y, weights = self._weighted(y, rest[0] if rest else None)
            if self._exponent:
                ones = x.new_ones(len(x), dtype=torch.float64) if weights is None else weights
                weights = ones * math.ldexp(1.0, self._exponent)
            yield x.flatten(1), y, weights

    def _begun(self, batches: Batches) -> Iterator[Sequence[Tensor]]:
        """The same batches, checked; all processes agree on a scale by the first ones of each."""
        checked = map(self._checked, batches)
        start = next(checked, None)
        exponent = -math.inf if start is None else self._exponent_of(*start[1:])
        exponent = max(gathered(exponent))
        if math.isfinite(exponent):
            self._exponent = int(min(max(exponent, SMALLEST), LARGEST) - exponent)
        return checked if start is None else chain([start], checked)

    def _weighted(self, y: Tensor, row_weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
        y = class_indices(y)
        row_weight, class_weight = (
            None if weight is None else weight.double()
            for weight in (row_weight, self.class_weight)
        )
        return weighted(y, row_weight, class_weight, self._dtype)

    def _exponent_of(self, y: Tensor, row_weight: Tensor | None = None) -> float:
        """Of 2 in the largest weight; minus infinity where none is positive."""
        _, weights = self._weighted(y, row_weight)
        largest = 1.0 if weights is None else float(weights.max()) if len(weights) else 0.0
        return math.frexp(largest)[1] if largest > 0 else -math.inf

    def _checked(self, batch: Any) -> Sequence[Tensor]:
        names = ("rows", "targets", "row weights")
        given: list[Any] = [*batch] if isinstance(batch, (tuple, list)) else [batch]
        real = all(isinstance(part, Tensor) and not part.is_complex() for part in given)
        if not (2 <= len(given) <= 3 and real):
            kinds = ", ".join(
                str(part.dtype) if isinstance(part, Tensor) else type(part).__name__
                for part in given
            )
            raise InputError(
                "expected batches of real tensors, (x, y) or (x, y, weight), got "
                f"{type(batch).__name__} of {kinds}; make tensors with torch.as_tensor"
            )
        for part, name in zip(given, names, strict=False):
            check_dense(part, name)
        x, y, *rest = given
        self._check(x, class_indices(y), rest[0] if rest else None)
        return given

    def _check(self, x: Tensor, y: Tensor, row_weight: Tensor | None) -> None:
        check_features(x, self.num_features)
        if len(y) != len(x):
            raise InputError(f"expected a target for each of {len(x)} rows, got {len(y)}")
        if row_weight is not None:
            check_row_weights(row_weight, len(x))
        check_targets(y, self.num_classes, "batches")

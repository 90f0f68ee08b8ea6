"""What a plain loop is given: its start, its batches and their checks, in the first pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from smx_lightning.errors import InputError
from smx_lightning.errors.checks import check_features, check_labels
from smx_lightning.optim.evaluation import weighted

SUMS_TO = 1e-3  # how far from 1 a distribution may sum: of float16 targets, say


class Problem(NamedTuple):
    """Rows of num_features entries, targets of num_classes, weights (classes,) or ``None``."""

    num_features: int
    num_classes: int
    class_weight: Tensor | None

    def start(self, given: tuple[Tensor, Tensor] | None) -> Tensor:
        """Weight and bias as one point (classes, features + 1) float64; zero where none is given.

        Raises:
            InputError: For other shapes, and for what is not finite.
        """
        wanted = (self.num_classes, self.num_features + 1)
        if self.class_weight is not None:
            _check_weights(self.class_weight, self.num_classes, "class weights")
        if given is None:
            return torch.zeros(wanted, dtype=torch.float64)
        weight, bias = given
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
        return point

    def weighted(
        self, batches: Iterable[Sequence[Tensor]], *, check: bool
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Batches (x, y) or (x, y, weight) as (x, y, weights), those of the classes included."""
        for x, y, *rest in batches:
            row_weight = rest[0] if rest else None
            if check:
                self._check(x, y, row_weight)
            y = y if y.is_floating_point() else y.long()
            yield x, *weighted(y, row_weight, self.class_weight)

    def _check(self, x: Tensor, y: Tensor, row_weight: Tensor | None) -> None:
        check_features(x, self.num_features)
        if len(y) != len(x):
            raise InputError(f"expected a target for each of {len(x)} rows, got {len(y)}")
        if row_weight is not None:
            _check_weights(row_weight, len(x), "row weights")
        if y.ndim != 2:
            check_labels(y, self.num_classes, "batches")
        elif y.shape[1] != self.num_classes or not y.is_floating_point():
            raise InputError(
                f"expected labels, or a distribution over {self.num_classes} classes a row, got "
                f"{str(y.dtype).removeprefix('torch.')} targets of shape {tuple(y.shape)}"
            )
        elif not ((y >= 0).all() and ((y.sum(1) - 1).abs() <= SUMS_TO).all()):
            raise InputError(
                "expected distributions over the classes, got targets below 0 or rows that do not "
                "sum to 1; divide each row by its sum, and give the sum as the row's weight"
            )


def _check_weights(weights: Tensor, count: int, what: str) -> None:
    if weights.shape != (count,) or not ((weights >= 0) & weights.isfinite()).all():
        raise InputError(
            f"expected {count} {what}, finite and not below 0, got shape {tuple(weights.shape)}, "
            f"{weights.min().item() if weights.numel() else 'nothing'} to "
            f"{weights.max().item() if weights.numel() else 'nothing'}"
        )

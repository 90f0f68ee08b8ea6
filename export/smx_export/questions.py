"""What a file is asked: by the parity check, by other runtimes, and by its own self-test."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.contract import SCORES
from smx_export.judge import Expected
from smx_export.labelled import OwnRows
from smx_export.probes import RANDOM_ROWS, Probe, image_probes, ordinary, probes
from smx_export.reference import Reference
from smx_export.shipped import Shipped, is_linear
from smx_export.vectors import ROWS, Vectors, choose

MOST_ONE_HOTS_TRACED = 16  # a backbone's rows are dear, and its weights not seen one by one
STEEP = 1e4  # nats between classes on the huge rows: far beyond where exp leaves float32, at 104
MOST_HUGE = 1e20  # leaves room in float32 for the features' own size
MOST_ROWS = 4096  # of your data that other runtimes are asked about


class Questions:
    """Inputs for a shipped model, and the answers where they are kept.

    Args:
        shipped: The model in the shape of a profile.
        reference: What knows the answers.
    """

    def __init__(self, shipped: Shipped, reference: Reference) -> None:
        self.shipped = shipped
        self.reference = reference

    def probes(self) -> Iterable[Probe]:
        """What the parity check asks."""
        model, (centre, spread) = self.shipped.model, self._statistics()
        most: dict[str, Any] = {} if is_linear(model) else {"one_hots": MOST_ONE_HOTS_TRACED}
        if self.shipped.profile.image:
            return image_probes(model.input_shape, **most)
        if not is_linear(model):
            # What max-pooling makes of a NaN differs between correct runtimes.
            most |= {"dtype": self.shipped.dtype}
            return probes(model.input_shape, centre, spread, nan_row=False, **most)
        weight = self.shipped.unrounded.linear.weight.double()
        steepness = float((weight - weight.mean(0)).norm(dim=1).max())
        shift = model.preprocessing.fold(model.linear).shift
        return probes(
            model.input_shape, centre, spread,
            origin=0.0 if shift is None else shift.numpy(),
            huge=STEEP / max(steepness, STEEP / MOST_HUGE),
            dtype=self.shipped.dtype,
        )  # fmt: skip

    def vectors(self) -> Vectors:
        """Self-test vectors for the file."""
        shipped = self.shipped

        def answer(x: NDArray[Any]) -> Any:
            with np.errstate(invalid="ignore", over="ignore"):
                return self.reference.expected(shipped.given(x))

        vectors = choose(shipped.fed(self.ordinary(ROWS)), answer, self._statistics()[1])
        if SCORES in shipped.profile.outputs:
            return vectors
        return replace(vectors, log_norm=None)

    def batches(self, own: OwnRows | None) -> list[tuple[NDArray[Any], Expected]]:
        """Random rows and the first of yours, as the file takes them, with their answers."""
        given = [self.ordinary(RANDOM_ROWS)]
        given += [] if own is None else [own.x[:MOST_ROWS]]
        return [(self.shipped.fed(x), self.reference.expected(x)) for x in given]

    def ordinary(self, rows: int) -> NDArray[np.float32]:
        """Random rows (n, *input_shape), as the shipped model takes them."""
        shipped = self.shipped
        return ordinary(
            rows,
            shipped.model.input_shape,
            *self._statistics(),
            dtype=shipped.dtype,
            pixels=shipped.profile.image,
        )

    def _statistics(self) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Where the inputs lie: mean and deviation of the features, or 0 and 1."""
        if not (is_linear(self.shipped.model) or self.shipped.wide):
            return np.float32(0), np.float32(1)
        statistics = self.shipped.unrounded.preprocessing
        return statistics.centre.numpy(), statistics.scale.numpy()

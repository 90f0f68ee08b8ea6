"""Your own rows: as the file takes them, and what rounding the weights costs on them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from smx_export.probes import Probe
from smx_export.report import Flip, Rounding
from smx_export.shipped import Shipped
from smx_lightning import InputError, SoftmaxRegression

Data = ArrayLike | tuple[ArrayLike, ArrayLike | None]
YOUR_DATA = "your data"
NUMPYS = (torch.float16, torch.float32, torch.float64)  # of torch's floats


@dataclass(frozen=True)
class OwnRows:
    """Checked rows.

    Attributes:
        x: (n, *input_shape) float32, or float64 of a wide file, as the shipped model takes them.
        y: (n,) class indices, or ``None``.
    """

    x: NDArray[np.floating]
    y: NDArray[np.int64] | None

    @classmethod
    def of(cls, shipped: Shipped, data: Data | None) -> OwnRows | None:
        """Rows out of what a user gave.

        Raises:
            InputError: Where it does not fit the model, or has no labels where they are needed.
        """
        model, profile = shipped.model, shipped.profile
        given_x, given_y = _pair(data)
        if profile.weights is not None and given_y is None:
            raise InputError(
                f"expected labelled data to judge what {profile.weights} weights cost, got none; "
                "give it with --data FILE.npz (in Python: data=(x, y)), or choose another profile"
            )
        if given_x is None:
            return None
        dtype = np.dtype(np.float64) if profile.image else shipped.dtype
        x = shipped.seen(_inputs(given_x, model.input_shape, dtype))
        if given_y is None:
            return cls(x, None)
        y = _array(given_y)
        if y.dtype.kind not in "iu":
            raise InputError(
                f"expected labels as class indices, got {y.dtype}; look names up in "
                "model.class_names"
            )
        if y.shape != (len(x),) or y.min() < 0 or y.max() >= model.num_classes:
            raise InputError(
                f"expected one label in 0..{model.num_classes - 1} for each of {len(x)} rows, got "
                f"{y.tolist() if y.size < 5 else f'{y.shape}, {y.min()} to {y.max()}'}"
            )
        return cls(x, y.astype(np.int64))

    def blocks(self, width: int) -> Iterator[tuple[Probe, NDArray[np.int64] | None]]:
        """The rows in batches that fit in memory, with their labels."""
        for block in Probe(YOUR_DATA, self.x).blocks(width):
            rows = slice(block.first, block.first + len(block.x))
            yield block, None if self.y is None else self.y[rows]


def _pair(data: Data | None) -> tuple[Any, Any]:
    """Inputs and labels; ``None`` for what is not given."""
    if not isinstance(data, tuple):
        return data, None
    if len(data) != 2:
        raise InputError(
            f"expected data as inputs, or as a pair (inputs, labels), got a tuple of {len(data)}; "
            "leave the rest out"
        )
    x, y = data
    return x, y


def inputs_of(data: Data | None, shape: Sequence[int]) -> NDArray[np.floating]:
    """The inputs (n, *shape) float32 in what a user gave; none where nothing was given.

    Raises:
        InputError: Where they are no real numbers, or of another shape.
    """
    x, _ = _pair(data)
    dtype = np.dtype(np.float32)
    return np.empty((0, *shape), dtype) if x is None else _inputs(x, shape, dtype)


def _inputs(given: Any, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[np.floating]:
    x, wanted = _numbers(given, dtype), math.prod(shape)
    if x.ndim < 2 or len(x) == 0 or x[0].size != wanted:
        raise InputError(
            f"expected data of shape (rows, {wanted}), got {x.shape}; it must be what the "
            "model was trained on"
        )
    return x.reshape(len(x), *shape)


def _numbers(given: Any, dtype: np.dtype[Any]) -> NDArray[np.floating]:
    """Real numbers in ``dtype``, of which those that a mask hides are NaN."""
    array = _array(given)
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"expected data of real numbers, got {array.dtype}; encode it as the training data were"
        )
    with np.errstate(over="ignore"):  # to infinity, as in training
        return np.ma.filled(array.astype(dtype, copy=False), np.nan)


def _array(given: Any) -> NDArray[Any]:
    """A tensor of whatever device, graph and precision, or what else numpy takes, as an array."""
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu()
        if given.is_floating_point() and given.dtype not in NUMPYS:
            given = given.float()  # exact: the others are all narrower
    try:
        return given if isinstance(given, np.ma.MaskedArray) else np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"expected data as one array, got {type(given).__name__} that is none ({error}); give "
            "inputs, or (inputs, labels) as a tuple"
        ) from error


@dataclass
class Score:
    """Accuracy and mean negative log-likelihood of rows that arrive in parts."""

    rows: int = 0
    correct: int = 0
    nats: float = 0.0

    def add(
        self,
        log_probs: NDArray[np.floating] | None,
        chosen: NDArray[np.int64],
        labels: NDArray[np.int64],
    ) -> None:
        """Count a part: log-probabilities (n, classes) if there are any, choices, labels (n,)."""
        self.rows += len(labels)
        self.correct += int((chosen == labels).sum())
        if log_probs is None:  # a label alone
            self.nats = math.nan
        else:
            self.nats -= float(log_probs[np.arange(len(labels)), labels].sum(dtype=np.float64))

    @property
    def accuracy(self) -> float:
        """Share of rows that were chosen right."""
        return self.correct / self.rows

    @property
    def nll(self) -> float:
        """Nats a row."""
        return self.nats / self.rows


def decided(model: SoftmaxRegression, log_probs: NDArray[np.floating]) -> NDArray[np.int64]:
    """The class of each row, at the threshold γ where there is one."""
    chosen: NDArray[np.int64] = model.decide(torch.from_numpy(log_probs)).numpy()
    return chosen


def cost_of_rounding(shipped: Shipped, own: OwnRows) -> Rounding:
    """What rounding the weights costs on labelled rows, of which those without an answer are left.

    Raises:
        InputError: Where no row has one.
    """
    before, after, flips = Score(), Score(), []
    names = shipped.model.class_names
    for block, labels in own.blocks(shipped.width):
        assert labels is not None
        x = torch.from_numpy(block.x)
        with torch.no_grad():
            exact = shipped.unrounded(x).double().numpy()
            coarse = shipped.model(x).double().numpy()
        answered = ~np.isnan(exact).any(1)
        exact, coarse, labels = exact[answered], coarse[answered], labels[answered]
        chosen, moved = decided(shipped.model, exact), decided(shipped.model, coarse)
        before.add(exact, chosen, labels)
        after.add(coarse, moved, labels)
        for row in np.flatnonzero(chosen != moved):
            k, j = chosen[row], moved[row]
            margin = float(exact[row, k] - exact[row, j])
            given = block.first + int(np.flatnonzero(answered)[row])
            flips.append(Flip(YOUR_DATA, given, names[k], names[j], margin, 0))
    if not before.rows:
        raise InputError(
            "expected data with rows that have an answer, got NaN or what overflows in all of "
            f"{len(own.x)}; remove or impute such rows"
        )
    return Rounding(
        before.rows, before.accuracy, after.accuracy, before.nll, after.nll, tuple(flips)
    )

"""Digits that float32 cannot hold: which columns have them, and whether they reach the model.

See :mod:`smx_lightning.preprocessing` for what *wide* means. Standardisation keeps such digits;
everything else that would lose them without a word is refused here, before training.
"""

from __future__ import annotations

import math
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.callbacks import WeightAveraging
from numpy.typing import NDArray
from torch import Tensor

from smx_lightning.errors import InputError
from smx_lightning.errors.inputs import FLOAT
from smx_lightning.preprocessing.moments import LOST, ROUNDED, Moments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lightning.pytorch import Trainer

    from smx_lightning.module import SoftmaxRegression

CHUNK_ELEMENTS = 1_000_000  # 8 MB of float64: a few such arrays are in use at a time
NOISE = 1e-13  # of its size: what float64 arithmetic leaves of variation in a constant
EXACT = ("float32", "float16", "uint16", "int16", "uint8", "int8", "bool")  # in float32


def wide_columns(x: NDArray[Any], name: str | None = "x") -> list[int]:
    """The columns (of rows unrolled) that need float64, in chunks of rows.

    Args:
        x: Inputs (n, …) of real numbers.
        name: What they are called in complaints; ``None``: there is nothing to complain of.

    Raises:
        InputError: For a column that varies by so little that float64 cannot tell it either.
    """
    if x.dtype.name in EXACT or x.size == 0:
        return []
    rows = x.reshape(len(x), -1)
    columns = _candidates(rows)
    if len(columns) == 0:
        return []
    moments = Moments.empty(len(columns))
    step = max(1, CHUNK_ELEMENTS // len(columns))
    for start in range(0, len(rows), step):
        part = rows[start : start + step, columns].astype(np.float64)
        moments = moments.merged(Moments.of(torch.from_numpy(part)))
    noise = 0.0 if x.dtype.kind in "iu" else NOISE
    beyond = moments.constant & (moments.deviation > noise * moments.magnitude)
    for k in [] if name is None else beyond.nonzero().flatten().tolist():
        raise InputError(
            f"expected columns that float64 can standardise, got column {columns[k]} of {name}, "
            f"whose values of {float(moments.magnitude[k]):.3g} vary by only "
            f"{float(moments.deviation[k]):.2g}; subtract an offset from it first"
        )
    return [int(k) for k in columns[moments.wide.numpy()]]


def _candidates(rows: NDArray[Any]) -> NDArray[np.intp]:
    """The columns that may be wide, or vary by next to nothing, by their extremes alone.

    Of n rows the deviation is at least range / √(2n), and float32 moves nothing by more than 2⁻²⁴
    of the magnitude.
    """
    low, high = rows.min(0), rows.max(0)
    varies = low != high  # as they are: float64 may round them to one value
    low, high = low.astype(np.float64), high.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused elsewhere
        most = np.maximum(np.abs(low), np.abs(high)) * 2.0**-24 * math.sqrt(2 * len(rows))
        return np.flatnonzero(varies & (most > LOST * (high - low)))


def check_digits(model: SoftmaxRegression, columns: Sequence[int] | None = None) -> None:
    """Complain about wide inputs that the attached trainer, or the model, would round.

    Args:
        model: Attached to a trainer, where the columns are not told.
        columns: The wide columns, where they are known; else those that the data module names in
            training, and those of a trained model's statistics.

    Raises:
        InputError: Where their digits would be lost; it names the first such column.
    """
    if model.input_dtype != FLOAT:  # integers are not rounded on their way to an embedding
        return
    if columns is None:
        if model.trainer.training:
            columns = getattr(getattr(model.trainer, "datamodule", None), "wide_columns", ())
        else:
            columns = model.preprocessing.wide_features
    if not columns:
        return
    reason = _reason(model)
    if reason is None:
        return
    found, remedy = reason
    raise InputError(
        f"expected inputs that float32 can hold, got column {columns[0]} "
        f"({len(columns)} such columns), which rounding to float32 moves by more than 1/1024 of "
        f"its standard deviation, {found}; {remedy}, or subtract an offset from such columns first"
    )


def check_batch(model: SoftmaxRegression, batch: Any) -> None:
    """:func:`check_digits` of one training batch; of float32 or less it costs nothing.

    Somebody's own DataLoader is known by its batches alone.
    """
    x = None
    with suppress(InputError):  # a step of its own may read them otherwise
        x, *_ = model.unpack(batch)
    if isinstance(x, Tensor) and x.dtype in ROUNDED and x.ndim > 1 and _reason(model) is not None:
        wide = Moments.of(x.flatten(1)).wide
        check_digits(model, wide.nonzero().flatten().tolist())


def check_unconverted(model: SoftmaxRegression, batch: Any) -> None:
    """:func:`check_batch` of one as its loader gave it, where a precision would narrow it."""
    if _taken(model.trainer) != torch.float64:
        check_batch(model, batch)


def keep_equal_averages(trainer: Trainer) -> None:
    """Let averages of weights leave alone what does not change: in float32 d·a + (1-d)·a is not a.

    Means and scales, and integer counts most of all, would wander off with every update.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        averaged: Any = getattr(callback, "_average_model", None)
        average = getattr(averaged, "avg_fn", None)
        if isinstance(callback, WeightAveraging) and average is not None:
            averaged.avg_fn = partial(_average, average)


def _average(average: Callable[..., Any], old: Tensor, new: Tensor, count: Any) -> Tensor:
    return torch.where(old == new, old, average(old, new, count))


def _taken(trainer: Trainer) -> torch.dtype:
    """What the Trainer's precision makes of float64 inputs."""
    zero: Tensor = trainer.precision_plugin.convert_input(torch.zeros(1, dtype=torch.float64))
    return zero.dtype


def _reason(model: SoftmaxRegression) -> tuple[str, str] | None:
    """Why wide inputs would lose their digits, and what helps; ``None`` where they would not."""
    for hook in ("features", "forward", "head"):
        if getattr(type(model), hook) is not getattr(model._smx_hooks.kind, hook):
            name = type(model).__name__
            return f"with {name}.{hook}, which need not keep them", f"leave {hook} as it is"
    method = model.preprocessing.method
    if method != "standardize":
        return f"with preprocessing={method!r}", "take preprocessing='standardize'"
    try:
        trainer = model.trainer
    except RuntimeError:  # not attached to any
        return None
    taken = _taken(trainer)
    if taken != torch.float64:
        return (
            f"with Trainer precision {trainer.precision}, which makes inputs "
            f"{str(taken).removeprefix('torch.')}",
            "take precision 32-true or bf16-mixed",
        )
    if trainer.strategy.root_device.type == "mps":
        return "on mps, which has no float64", "take accelerator='cpu'"
    return None

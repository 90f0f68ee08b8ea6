"""The rows of a batch that count: those with a label and a weight above 0.

The others are left out before anything sees them, so that a batch is, to the bit, the one without
them. On a CPU that costs a look at the least label. Elsewhere a look would wait for the device: so
a batch is looked at before it is moved there, and again there only where some rows do not count, or
where that is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.utils.data import TensorDataset

from smx_lightning.data.loading import Rows
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import check_as_many, class_indices, in_words
from smx_lightning.errors.targets import check_row_weights, check_scale, is_soft
from smx_lightning.processes.distributed import raised_anywhere
from smx_lightning.training.batches import parts_of

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression

TRANSFER = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class Labelled(NamedTuple):
    """Rows that count: x as ``features`` takes it; y int64 (n,) or distributions (n, classes)."""

    x: Any
    y: Tensor
    weight: Tensor | None


def labelled(model: SoftmaxRegression, batch: Any, where: str, *, remedy: str = "") -> Labelled:
    """What a model unpacks of a batch of labelled rows, as far as they count.

    Args:
        model: Its ``unpack`` may be a subclass's own.
        batch: As the Trainer hands it to a step.
        where: Which rows they are, for the complaint.
        remedy: What else helps, likewise.

    Raises:
        InputError: Where there are no targets, or none that are a tensor, and for weights that are
            no finite numbers of at least 0.
    """
    x, y, weight = parts_of(model, batch)
    if not isinstance(y, Tensor):
        found = "none" if y is None else in_words(y)
        raise InputError(
            f"expected labels as a tensor in the {where}, got {found} in {in_words(batch)}; give "
            f"batches (x, y), or override unpack(batch), which returns (x, y){remedy}"
        )
    y = class_indices(y)
    if weight is not None:
        weight = checked_weight(weight, y.shape[:1].numel(), where)
    noted = model._smx_objective
    if noted.all_count:
        noted.all_count = False  # of this batch alone
        return Labelled(x, y, weight)
    return counting(x, y, weight, model.ignore_index)


def checked_weight(weight: Any, rows: int, where: str = "train batches") -> Tensor | None:
    """Weights as floating-point numbers (n,), float32 at least; on a CPU their values are checked.

    Raises:
        InputError: For others than finite numbers of at least 0, one a row.
    """
    if weight is None:
        return None
    what = f"row weights in the {where}"
    if isinstance(weight, Tensor) and weight.ndim == 2 and weight.shape[1] == 1:
        weight = weight[:, 0]
    if not isinstance(weight, Tensor) or weight.is_complex() or weight.shape != (rows,):
        check_row_weights(weight, rows, what)
    given: Tensor = weight
    if not given.is_floating_point() or given.dtype.itemsize < 4:
        given = given.float() if given.is_floating_point() else given.to(_widest(given))
    if given.device.type == "cpu":  # elsewhere looking would wait for the device
        check_row_weights(given, rows, what)
        check_scale(given, what)
    return given


def counting(x: Any, y: Tensor, weight: Tensor | None, ignore_index: int) -> Labelled:
    """The rows that count of inputs x, targets y and weights.

    Raises:
        InputError: Where some do not, and the inputs are nothing that rows can be taken out of.
    """
    counts = _which(y, weight, ignore_index)
    if counts is None:
        return Labelled(x, y, weight)
    index = counts.nonzero()[:, 0]
    kept = None if weight is None else weight[index]
    return Labelled(_taken(x, index, len(y)), y[index], kept)


def look(model: SoftmaxRegression, batch: Any) -> None:
    """Note whether all rows of a batch that is about to leave the CPU count.

    Nothing is known where hooks of a subclass or of a data module may change it on the way.
    """
    trainer = model.trainer
    data = trainer.datamodule  # type: ignore[attr-defined]
    changed = any(
        is_overridden(hook, model, LightningModule)
        or (data is not None and is_overridden(hook, data, LightningDataModule))
        for hook in TRANSFER[1:]
    )
    if changed:
        return
    try:
        _, y, weight = parts_of(model, batch)
    except Exception:  # what unpack expects may be made later; a step says what is wrong
        return
    if isinstance(y, Tensor) and y.device.type == "cpu" and y.ndim:
        y = class_indices(y)
        counts = _which(y, checked_weight(weight, len(y)), model.ignore_index)
        model._smx_objective.all_count = counts is None


def all_are_alike(trainer: Trainer, model: SoftmaxRegression) -> bool:
    """Whether all training rows are known to count, each as 1; every process must ask."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    given = getattr(trainer.train_dataloader, "dataset", None)
    changed = type(model).unpack is not model._smx_hooks.kind.unpack or any(
        is_overridden(hook, model, LightningModule)
        or (data is not None and is_overridden(hook, data, LightningDataModule))
        for hook in TRANSFER
    )
    y = None
    if isinstance(given, Rows) and given.weight is None:
        y = given.y
    elif isinstance(given, TensorDataset) and len(given.tensors) == 2:
        y = given.tensors[1]
    alike = isinstance(y, Tensor) and not changed
    if isinstance(y, Tensor) and alike:
        alike = not is_soft(y) and _which(class_indices(y), None, model.ignore_index) is None
    return not raised_anywhere(not alike, model.device)


def _which(y: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor | None:
    """Which rows count, (n,) bool; ``None``: all of them."""
    counts = None
    if y.dtype == torch.int64 and y.ndim == 1:
        # The least label costs half of a comparison.
        all_labels = not len(y) or (ignore_index < 0 and y.min().item() >= 0)
        counts = None if all_labels else y != ignore_index
    elif is_soft(y):
        counts = ~y.isnan().all(1)
    if weight is not None:
        check_as_many(y, len(weight))
        counts = weight > 0 if counts is None else counts & (weight > 0)
    return None if counts is None or bool(counts.all()) else counts


def _taken(x: Any, index: Tensor, rows: int) -> Any:
    """Some rows of inputs: a tensor, or tensors by name or place, of which others stay whole."""
    if isinstance(x, Tensor):
        if x.ndim == 0 or len(x) != rows:
            return x
        return x.index_select(0, index) if x.layout != torch.strided else x[index]
    if isinstance(x, Mapping):
        return {name: _taken(part, index, rows) for name, part in x.items()}
    if isinstance(x, (list, tuple)) and all(isinstance(p, Tensor) and len(p) == rows for p in x):
        return type(x)([_taken(part, index, rows) for part in x])
    if isinstance(x, list) and len(x) == rows:
        return [x[k] for k in index.tolist()]
    raise InputError(
        f"expected inputs as tensors, of which rows without a label can be left out, got "
        f"{in_words(x)}; let unpack(batch) return tensors, or leave such rows out in it"
    )


def _widest(weight: Tensor) -> torch.dtype:
    """Of whole numbers, float64 where the device has it."""
    return torch.float32 if weight.device.type == "mps" else torch.float64

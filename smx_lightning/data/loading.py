"""Loaders of shared batches, which a checkpoint resumes in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.distributed
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import (
    DataLoader,
    Dataset,
    default_collate,
)

from smx_lightning.data.sharing import EpochOrder, GlobalBatches, InOrder
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import class_indices

UNSELECTED = (torch.uint16, torch.uint32, torch.uint64)  # of which torch knows brackets alone


@dataclass(frozen=True)
class Rows(Dataset[tuple[Tensor, ...]]):
    """Rows; an index, a slice or a tensor of them selects (x, y), or (x, y, weight) of weighted.

    Args:
        x: Inputs (n, …).
        y: Labels (n,), integers of any dtype, held as int64, -1 of rows without one; or
            distributions over the classes (n, classes), NaN of such rows.
        weight: (n,) numbers of at least 0, held as floating-point ones; ``None``: all count alike.
    """

    x: Tensor
    y: Tensor
    weight: Tensor | None = None

    def __post_init__(self) -> None:
        if isinstance(self.y, Tensor):
            object.__setattr__(self, "y", class_indices(self.y))
        if isinstance(self.weight, Tensor) and not self.weight.is_floating_point():
            object.__setattr__(self, "weight", self.weight.double())

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        if isinstance(index, Tensor) and index.dtype == torch.int64 and index.ndim == 1:
            # Three times as fast as brackets, for a batch of images.
            pair = _selected(self.x, index), self.y.index_select(0, index)
            return pair if self.weight is None else (*pair, self.weight.index_select(0, index))
        pair = self.x[index], self.y[index]
        return pair if self.weight is None else (*pair, self.weight[index])


def _selected(x: Tensor, index: Tensor) -> Tensor:
    if x.dtype in UNSELECTED:
        return x[index]
    return x.index_select(0, index)


@dataclass(frozen=True)
class Inputs(Dataset[Tensor]):
    """Inputs x (n, …) alone; an index, a slice or a tensor of them selects."""

    x: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> Tensor:
        return self.x[index]


class BatchLoader(DataLoader[Any]):
    """A DataLoader of :class:`GlobalBatches`, which a checkpoint resumes in the middle of an epoch.

    The Trainer says which epoch it is; in a loop without one, each whole pass is the next epoch.

    >>> rows = torch.utils.data.TensorDataset(torch.arange(5.0))
    >>> [len(x) for (x,) in BatchLoader(rows, batch_size=2, shuffle=True)]
    [2, 2, 1]

    Args:
        dataset: Has a length; a tuple of arrays or tensors (x,), (x, y) or (x, y, weight), as long
            as each other, are the rows themselves, see :class:`Rows`.
        batch_size: Rows of a batch, over all processes together.
        shuffle: A new order every epoch.
        seed: The order is a pure function of this and the epoch.
        rank: Of this process; asked of torch.distributed where it is ``None``.
        world_size: Number of processes that share the rows; likewise.
        batch_sampler: In place of all these, as Lightning does when it makes a loader anew.
        collate_fn: As of every DataLoader.
        kwargs: Passed on to DataLoader: workers, pinned memory.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        batch_sampler: Any = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        **kwargs: Any,
    ) -> None:
        dataset = _rows_of(dataset)
        # Of rows in memory a whole batch is one indexing operation.
        whole = isinstance(dataset, (Rows, Inputs)) and not kwargs.get("num_workers")
        if batch_sampler is None:
            order = (EpochOrder if shuffle else InOrder)(dataset, shuffle=shuffle, seed=seed)
            batch_sampler = GlobalBatches(
                order, batch_size, rank=rank, world_size=world_size, tensors=whole
            )
        if not (whole or isinstance(collate_fn, _Collate)):
            collate_fn = _Collate(dataset, collate_fn or default_collate)
        for settled in ("sampler", "drop_last"):
            kwargs.pop(settled, None)
        super().__init__(dataset, batch_sampler=batch_sampler, collate_fn=collate_fn, **kwargs)
        # DataLoader names a plain one here; Lightning asks it whether the rows are shared out.
        self.__dict__["sampler"] = batch_sampler.sampler
        self._whole = whole
        self._start = self._taken = 0

    def __iter__(self) -> Any:  # a generator: it begins when Lightning has set the epoch
        start, self._start = self._start, 0
        if start:
            self.batch_sampler.start = start  # type: ignore[union-attr]
        self._taken = start
        for batch in self.batches():
            self._taken += 1
            yield batch
        if isinstance(self.sampler, EpochOrder):
            self.sampler.set_epoch(self.sampler.epoch + 1)

    def batches(self) -> Iterable[Any]:
        """Shares of batches, from the batch on that the batch sampler starts at."""
        if self._whole:
            return map(self.dataset.__getitem__, cast("GlobalBatches", self.batch_sampler))
        return super().__iter__()

    def state_dict(self) -> dict[str, int]:
        """How many batches of the epoch have been taken."""
        return {"batches": self._taken}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let the next epoch begin after as many batches."""
        self._start = state_dict["batches"] % len(self)


def _rows_of(dataset: Any) -> Dataset[Any]:
    """A data set as it is, or made of a tuple of arrays.

    Raises:
        InputError: For arrays of different lengths.
    """
    arrays = isinstance(dataset, tuple) and all(
        isinstance(p, (Tensor, np.ndarray)) for p in dataset
    )
    if not arrays or hasattr(dataset, "_fields") or not 1 <= len(dataset) <= 3:
        return cast("Dataset[Any]", dataset)
    parts = [torch.as_tensor(part) for part in dataset]
    if len({part.shape[:1] for part in parts}) > 1 or not parts[0].ndim:
        shapes = ", ".join(str(tuple(part.shape)) for part in parts)
        raise InputError(
            f"expected (x, y) or (x, y, weight) with as many rows each, got shapes {shapes}; cut "
            "them alike"
        )
    return Rows(*parts) if len(parts) > 1 else Inputs(parts[0])


class _Collate:
    """Collates samples, also where there are none: as the first row of the data set, cut to 0."""

    def __init__(self, dataset: Any, collate_fn: Callable[[list[Any]], Any]) -> None:
        self.dataset, self.collate_fn = dataset, collate_fn

    def __call__(self, samples: list[Any]) -> Any:
        if samples:
            return self.collate_fn(samples)
        return tree_map_only(Tensor, lambda rows: rows[:0], self.collate_fn([self.dataset[0]]))

"""Batches that are the same on any number of processes, and after any interruption.

The rows' order is a pure function of (seed, epoch). Cut into batches of ``batch_size`` rows *over
all processes together*, it gives process r of R every R-th row of each batch, beginning with the
r-th: nothing is repeated to make shares even, nothing is dropped, and every process takes equally
many batches, the smallest of which may leave some process without a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.distributed
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    Sampler,
    SequentialSampler,
    default_collate,
)

from smx_lightning.errors import InputError
from smx_lightning.errors.checks import at_least

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Rows(Dataset[tuple[Tensor, Tensor]]):
    """Inputs x (n, …) and labels y (n,) int64; an index, a slice or a tensor of them selects."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        if isinstance(index, Tensor) and index.dtype == torch.int64 and index.ndim == 1:
            # Three times as fast as brackets, for a batch of images.
            return self.x.index_select(0, index), self.y.index_select(0, index)
        return self.x[index], self.y[index]


@dataclass(frozen=True)
class Inputs(Dataset[Tensor]):
    """Inputs x (n, …) alone; an index, a slice or a tensor of them selects."""

    x: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> Tensor:
        return self.x[index]


class EpochOrder(DistributedSampler[Any]):
    """All rows in the order of one epoch, the same on every process.

    A DistributedSampler of one replica, because that is what tells Lightning not to put its own
    padding one in its place.

    Args:
        dataset: What the rows are of; only its length matters.
        shuffle: A new order every epoch, or the rows as they are.
        seed: The order is a pure function of this and the epoch.
    """

    def __init__(self, dataset: Dataset[Any], *, shuffle: bool = False, seed: int = 0) -> None:
        super().__init__(dataset, num_replicas=1, rank=0, shuffle=shuffle, seed=seed)

    def indices(self) -> Tensor:
        """The order of the epoch that was set last, (n,) int64."""
        n = self.total_size
        if not self.shuffle:
            return torch.arange(n)
        # Mixed, so that no epoch of one seed is an epoch of another.
        state = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]))
        return torch.randperm(n, generator=generator)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices().tolist())


class _InOrder(EpochOrder, SequentialSampler):
    """Known to Lightning as unshuffled, which is what ``overfit_batches`` wants."""


class GlobalBatches(BatchSampler):
    """The share of every batch that belongs to this process, as indices.

    Args:
        sampler: Gives all rows in an order that is the same on every process.
        batch_size: Rows of a batch, over all processes together.
        drop_last: Must be false: every row counts.
        rank: Of this process; asked of torch.distributed where it is ``None``.
        world_size: Number of processes that share the rows; likewise.
        tensors: Yield (share,) int64 tensors in place of lists.

    Attributes:
        start: Batches that the next iteration leaves out; it goes back to 0 by itself.

    >>> [list(GlobalBatches(range(5), 3, rank=r, world_size=2)) for r in (0, 1)]
    [[[0, 2], [3]], [[1], [4]]]
    """

    def __init__(
        self,
        sampler: Sampler[int] | range,
        batch_size: int,
        drop_last: bool = False,
        *,
        rank: int | None = None,
        world_size: int | None = None,
        tensors: bool = False,
    ) -> None:
        if isinstance(sampler, DistributedSampler) and not isinstance(sampler, EpochOrder):
            raise InputError(
                f"expected a sampler that gives all rows to every process, got "
                f"{type(sampler).__name__}, which shares them out already; set "
                "use_distributed_sampler=False in the Trainer"
            )
        if drop_last:
            raise InputError("expected drop_last=False, got True; batches here keep every row")
        super().__init__(
            cast("Sampler[int]", sampler), at_least("batch_size", batch_size, 1), False
        )
        self.rank, self.world_size, self.tensors = rank, world_size, tensors
        self.start = 0

    def __len__(self) -> int:
        return -(-self._rows // self.batch_size)

    @property
    def _rows(self) -> int:
        return len(cast("range", self.sampler))

    def rows(self, batch: int) -> int:
        """Rows of a batch on all processes together."""
        return min(self.batch_size, self._rows - batch * self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        rank, world_size = self.rank, self.world_size
        if rank is None or world_size is None:
            shared = torch.distributed.is_available() and torch.distributed.is_initialized()
            rank = torch.distributed.get_rank() if shared else 0
            world_size = torch.distributed.get_world_size() if shared else 1
        start, self.start = self.start, 0
        sampler = self.sampler
        order = sampler.indices() if isinstance(sampler, EpochOrder) else torch.tensor([*sampler])
        for batch in torch.split(order, self.batch_size)[start:]:
            share = batch[rank::world_size]
            yield share if self.tensors else share.tolist()


class BatchLoader(DataLoader[Any]):
    """A DataLoader of :class:`GlobalBatches`, which a checkpoint resumes in the middle of an epoch.

    The Trainer says which epoch it is; in a loop without one, each whole pass is the next epoch.

    >>> rows = torch.utils.data.TensorDataset(torch.arange(5.0))
    >>> [len(x) for (x,) in BatchLoader(rows, batch_size=2, shuffle=True)]
    [2, 2, 1]

    Args:
        dataset: Has a length.
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
        # Of rows in memory a whole batch is one indexing operation.
        whole = isinstance(dataset, (Rows, Inputs)) and not kwargs.get("num_workers")
        if batch_sampler is None:
            order = (EpochOrder if shuffle else _InOrder)(dataset, shuffle=shuffle, seed=seed)
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
        batches: Iterable[Any] = super().__iter__()
        if self._whole:
            batches = map(self.dataset.__getitem__, cast("GlobalBatches", self.batch_sampler))
        for batch in batches:
            self._taken += 1
            yield batch
        if isinstance(self.sampler, EpochOrder):
            self.sampler.set_epoch(self.sampler.epoch + 1)

    def state_dict(self) -> dict[str, int]:
        """How many batches of the epoch have been taken."""
        return {"batches": self._taken}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let the next epoch begin after as many batches."""
        self._start = state_dict["batches"] % len(self)


class _Collate:
    """Collates samples, also where there are none: as the first row of the data set, cut to 0."""

    def __init__(self, dataset: Any, collate_fn: Callable[[list[Any]], Any]) -> None:
        self.dataset, self.collate_fn = dataset, collate_fn

    def __call__(self, samples: list[Any]) -> Any:
        if samples:
            return self.collate_fn(samples)
        return tree_map_only(Tensor, lambda rows: rows[:0], self.collate_fn([self.dataset[0]]))

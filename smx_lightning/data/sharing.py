"""How a batch is shared out: the same batches on any number of processes.

The rows' order is a pure function of (seed, epoch). Cut into batches of ``batch_size`` rows *over
all processes together*, it gives process r of R every R-th row of each batch, beginning with the
r-th: nothing is repeated to make shares even, nothing is dropped, and every process takes equally
many batches, the smallest of which may leave some process without a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.distributed
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import (
    BatchSampler,
    Dataset,
    DistributedSampler,
    Sampler,
    SequentialSampler,
)

from smx_lightning.errors import InputError
from smx_lightning.errors.checks import at_least
from smx_lightning.processes.distributed import in_group, sharing

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


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


class InOrder(EpochOrder, SequentialSampler):
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

    def place(self) -> tuple[int, int]:
        """Rank of this process, and the number of processes that share the rows."""
        if self.rank is not None and self.world_size is not None:
            return self.rank, self.world_size
        if not in_group():
            return 0, 1
        return torch.distributed.get_rank(), torch.distributed.get_world_size()

    def __iter__(self) -> Iterator[Any]:
        rank, world_size = self.place()
        start, self.start = self.start, 0
        sampler = self.sampler
        order = sampler.indices() if isinstance(sampler, EpochOrder) else torch.tensor([*sampler])
        for batch in torch.split(order, self.batch_size)[start:]:
            share = batch[rank::world_size]
            yield share if self.tensors else share.tolist()


def share_out(trainer: Trainer, loaders: Any) -> None:
    """Tell loaders which do not know it which share of a batch this process has.

    By themselves they ask torch.distributed, which counts processes that share the classes of one
    model, and must see the same rows.
    """
    rank, shares = sharing(trainer)
    for loader in tree_leaves(loaders):
        sampler = getattr(loader, "batch_sampler", None)
        sampler = getattr(sampler, "_batch_sampler", sampler)  # in Lightning's wrapper
        if isinstance(sampler, GlobalBatches) and sampler.rank is None:
            sampler.rank, sampler.world_size = rank, shares


def rows_of_batch(trainer: Trainer, batch_idx: int) -> int | None:
    """Rows of a training batch over all processes, where its loader knows them."""
    sampler = getattr(trainer.train_dataloader, "batch_sampler", None)
    return sampler.rows(batch_idx) if isinstance(sampler, GlobalBatches) else None

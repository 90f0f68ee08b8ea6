"""Which share of a batch a process has, and loaders that are set to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils._pytree import tree_leaves

from smx_lightning.data.loading import GlobalBatches
from smx_lightning.processes.distributed import sharing

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


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

"""What training on several processes needs beyond Lightning: exact means, and a launcher's word."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from smx_lightning.data.loading import GlobalBatches
from smx_lightning.errors import InputError

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


def check_world_size(trainer: Trainer) -> None:
    """Complain about a Trainer that knows nothing of the processes that a launcher has started.

    Each of them would train a model of its own on all of the data, and write it where the others
    write theirs. Whoever wants that says so with ``plugins=LightningEnvironment()``.

    Raises:
        InputError: Where the numbers of processes differ.
    """
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, LightningEnvironment):
        return
    if TorchElasticEnvironment.detect():
        launcher, started = "torchrun", int(os.environ["WORLD_SIZE"])
    elif SLURMEnvironment.detect():
        launcher, started = "SLURM", int(os.environ["SLURM_NTASKS"])
    else:
        return
    if started != trainer.world_size:
        raise InputError(
            f"expected a Trainer of the {started} processes that {launcher} has started, got one "
            f"of world size {trainer.world_size}; set devices to the processes on each host and "
            "num_nodes to the number of hosts"
        )


def sharing(trainer: Trainer | None) -> tuple[int, int]:
    """Which share of every batch this process has, and of how many: (rank, number of shares)."""
    kwargs = trainer.distributed_sampler_kwargs if trainer is not None else None
    return (kwargs["rank"], kwargs["num_replicas"]) if kwargs else (0, 1)


def rows_of_batch(trainer: Trainer, batch_idx: int) -> int | None:
    """Rows of a training batch over all processes, where its loader knows them."""
    sampler = getattr(trainer.train_dataloader, "batch_sampler", None)
    return sampler.rows(batch_idx) if isinstance(sampler, GlobalBatches) else None


def log_agreed(module: LightningModule, name: str, value: Any, *, prog_bar: bool) -> None:
    """Log what is equal on all processes: their maximum is exactly it, their mean only nearly."""
    module.log(name, value, prog_bar=prog_bar, sync_dist=True, reduce_fx="max")

"""What training on several processes needs beyond Lightning: exact means, launchers, votes."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
import torch.distributed
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from smx_lightning.errors import InputError
from smx_lightning.processes.lock import started

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

VOTE_SECONDS = 0.25

T = TypeVar("T")


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


def restarted() -> bool:
    """Whether a launcher started this process in the place of one that failed."""
    counts = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    return any(os.environ.get(count, "0") != "0" for count in counts)


def run_id() -> str | None:
    """The launcher's name of the job, which its restarts keep; ``None`` without a launcher.

    Where nobody named the job, torchrun says "none": the launching process stands for it then.
    """
    elastic = os.environ.get("TORCHELASTIC_RUN_ID")
    if elastic == "none":
        elastic = f"process {os.getppid()} started {started(os.getppid())}"
    known = [name for name in (elastic, os.environ.get("SLURM_JOB_ID")) if name]
    return " of ".join(known) or None


def decided(trainer: Trainer, decide: Callable[[], T]) -> T:
    """What the first process decides, on all of them; where it fails, all of them do.

    Raises:
        InputError: On the others, with the first one's words.
    """
    answer: T | None = None
    failure: Exception | None = None
    if trainer.is_global_zero:
        try:
            answer = decide()
        except Exception as error:  # the others would wait for ever
            failure = error
    complaint = None if failure is None else str(failure)
    answer, complaint = trainer.strategy.broadcast((answer, complaint))
    if failure is not None:
        raise failure
    if complaint is not None:
        raise InputError(complaint)
    return cast("T", answer)


@cache
def leave_group_at_exit() -> None:
    """End the process group with the process.

    Lightning does so for NCCL only, and torch not at all: gloo's threads then abort some exits
    ("terminate called without an active exception"), and torchrun takes that for a crash.
    """
    atexit.register(_leave_group)


def in_group() -> bool:
    """Whether torch knows of a group of processes that this one is in."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _leave_group() -> None:
    if in_group():
        torch.distributed.destroy_process_group()


def log_agreed(module: LightningModule, name: str, value: Any, *, prog_bar: bool) -> None:
    """Log what is equal on all processes: their maximum is exactly it, their mean only nearly."""
    module.log(
        name,
        value,
        prog_bar=prog_bar,
        sync_dist=True,
        reduce_fx="max",
        add_dataloader_idx=False,  # it is said in the names of what belongs to one of many loaders
    )


def raised_anywhere(flag: bool, device: torch.device) -> bool:
    """Whether any process raises its flag; all of them must ask."""
    if not in_group():
        return flag
    ballot = torch.tensor(int(flag), device=device)
    torch.distributed.all_reduce(ballot, torch.distributed.ReduceOp.MAX)
    return bool(ballot)


class Votes:
    """Occasions on which processes agree: about four a second, because each costs a broadcast.

    Args:
        device: Where the processes' messages are; ``None`` for a process that is alone.
    """

    def __init__(self, device: torch.device | None) -> None:
        self._device = device
        # Calls since the last occasion and from one to the next, which is agreed on too.
        self._since, self._gap = 0, 1
        self._at = time.monotonic()

    def agreed(self, flags: Sequence[bool], *, last: bool = False) -> list[bool]:
        """The flags that any process raises; between two occasions all of them are down.

        Args:
            flags: As many on every process.
            last: Make this an occasion.
        """
        if self._device is None:
            return list(flags)
        self._since += 1
        if self._since < self._gap and not last:
            return [False] * len(flags)
        now = time.monotonic()
        calls = self._since * VOTE_SECONDS / max(now - self._at, 1e-9)
        ballot = torch.tensor([*flags, min(max(int(calls), 1), 2 * self._gap)], device=self._device)
        torch.distributed.all_reduce(ballot, torch.distributed.ReduceOp.MAX)
        *raised, self._gap = ballot.tolist()
        self._since, self._at = 0, now
        return [bool(flag) for flag in raised]


def sharing(trainer: Trainer | None) -> tuple[int, int]:
    """Which share of every batch this process has, and of how many: (rank, number of shares)."""
    kwargs = trainer.distributed_sampler_kwargs if trainer is not None else None
    return (kwargs["rank"], kwargs["num_replicas"]) if kwargs else (0, 1)

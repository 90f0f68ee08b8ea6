"""Our exact solver as benchmarks call it: on batches in memory, from zero weights."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.problems import Problem
from smx_lightning import SoftmaxRegression
from smx_lightning.cli.fitting import large_batch
from smx_lightning.optim import ExactSolver


def batches(data: Problem) -> list[tuple[Tensor, Tensor]]:
    """The rows in slices, as large as the command line takes them; nothing is copied."""
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    rows = large_batch(max(data.x.shape[1], data.num_classes))
    return list(zip(torch.split(x, rows), torch.split(y, rows), strict=True))


def loader(data: Problem) -> DataLoader[Any]:
    """The same for a Trainer."""
    return DataLoader(cast("Any", batches(data)), batch_size=None)


def model(data: Problem, tol: float) -> SoftmaxRegression:
    """A model with zero weights, whose optimiser is the exact solver."""
    made = SoftmaxRegression(
        num_features=data.x.shape[1],
        num_classes=data.num_classes,
        l2=data.l2,
        optimizer=partial(ExactSolver, tol=tol),
    )
    torch.nn.init.zeros_(made.linear.weight)
    torch.nn.init.zeros_(made.linear.bias)
    return made


def trainer(data: Problem, max_epochs: int, callbacks: list[Callback] | None = None) -> Trainer:
    """A Trainer that does nothing but train, in the problem's own precision."""
    return Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        precision="64-true" if data.x.dtype == "float64" else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )

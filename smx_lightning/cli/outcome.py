"""Whether training reached the optimum: what the exact solver knows, or the course of the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from lightning.pytorch import Callback, LightningModule

from smx_lightning.cli.choice import trains_exactly
from smx_lightning.optim.status import NEAR, Status

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from smx_lightning.module import SoftmaxRegression

STILL = 0.01  # of the loss in one epoch: what changes less has settled


class Outcome(NamedTuple):
    """How a training by the exact solver ended.

    Attributes:
        reached: Whether at the optimum.
        line: Why it stopped, after how many epochs, and how much of the objective is left.
    """

    reached: bool
    line: str


def outcome(model: SoftmaxRegression, trainer: Trainer) -> Outcome | None:
    """How a training that has ended did so; ``None`` where another optimiser trained."""
    solver = model.solver
    if solver is None and not trains_exactly(model):
        return None
    why = "stopped by the Trainer before it converged"
    if trainer.max_epochs == trainer.current_epoch:
        why += f": raise max_epochs, which is {trainer.max_epochs}"
    if solver is None:
        return Outcome(False, f"{why} (no epoch was run)")
    if solver.status is not Status.RUNNING:
        why = solver.message
    reached = solver.status is Status.CONVERGED
    if solver.status is Status.PRECISION:  # as close as the digits of features and parameters allow
        reached = solver.gap <= NEAR
        if not reached:
            why += " far from the optimum: standardise, or take --trainer.precision 64-true"
    left = f"at most about {solver.gap:.1g} of the objective to gain"
    return Outcome(reached, f"{why} (epochs: {solver.evaluations}; {left})")


class Course(Callback):
    """Keep the loss of the training rows, an epoch at a time.

    Args:
        name: Under which it is logged.

    Attributes:
        losses: Means over the batches as they came, of the epochs of this run.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.losses: list[float] = []
        self.epoch = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the epoch that the run begins with."""
        self.losses, self.epoch = [], trainer.current_epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the loss of the epoch before: at its end callbacks come before it is logged."""
        self._keep(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the loss of the last epoch."""
        self._keep(trainer)

    def _keep(self, trainer: Trainer) -> None:
        loss = trainer.callback_metrics.get(self.name)
        if loss is not None and trainer.current_epoch > self.epoch:
            self.losses.append(float(loss))
            self.epoch = trainer.current_epoch


def course(
    losses: Sequence[float], name: str, guessing: float, max_epochs: int | None
) -> str | None:
    """What the losses of mini-batches tell of a training that has ended; ``None``: nothing.

    Args:
        losses: Of the epochs of this run.
        name: Of the loss, among the metrics.
        guessing: The loss where all classes are equally probable; infinite where it has no bound.
        max_epochs: Of the Trainer.
    """
    if not losses:
        return None
    first, last, epochs = losses[0], losses[-1], len(losses)
    slower = "lower --model.optimizer.lr, or take the exact solver"
    if not math.isfinite(last) or last > (1 + STILL) * max(first, guessing):
        return f"diverged: {name} went from {first:.4g} to {last:.4g}; {slower}"
    more = "raise max_epochs" + (f", which is {max_epochs}" if max_epochs == epochs else "")
    if last > guessing:
        return (
            f"not converged: {name} is {last:.4g}, and that of guessing {guessing:.4g}; {slower}, "
            f"or {more}"
        )
    if epochs == 1:
        return f"one epoch, which does not tell whether it converged; {more} for that"
    before = losses[-2]
    change = abs(last - before) / abs(before) if before else float(last != before)
    if change <= STILL:
        return f"settled: {name} moved by {change:.1%} in the last epoch"
    way = "fell" if last < before else "rose"
    return f"not converged: {name} {way} by {change:.1%} in the last epoch; {more}"

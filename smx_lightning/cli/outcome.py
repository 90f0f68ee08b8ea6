"""Whether the exact solver, where it trained, reached the optimum."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from smx_lightning.cli.choice import trains_exactly
from smx_lightning.optim.status import Status

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from smx_lightning.module import SoftmaxRegression

NEAR = 0.01  # of the objective: where more is left, digits ended far from the optimum


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

"""Are the parameters worth keeping? Once one is NaN or infinite, no step mends it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from smx_lightning.errors import InputError
from smx_lightning.processes.sharding import local

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from smx_lightning.module import SoftmaxRegression


class NotFiniteError(InputError):
    """Parameters became NaN or infinite."""


def is_finite(trainer: Trainer, model: SoftmaxRegression, kept: str) -> bool:
    """Whether the parameters are, on all processes; if not, the exact solver takes its best point.

    Args:
        trainer: Of all processes, each of which must call this.
        model: Attached to it.
        kept: What is left to the user, for the complaint.

    Raises:
        NotFiniteError: Where they are not, under any other optimiser.
    """
    found = not_finite(model)
    if trainer.strategy.reduce_boolean_decision(found is None):
        return True
    if model.solver is not None:
        return False
    raise NotFiniteError(
        f"expected finite parameters, got {found or 'others'} in epoch {trainer.current_epoch}; "
        f"{kept} with a lower learning rate, or with standardised data"
    )


@torch.no_grad()
def not_finite(model: nn.Module) -> str | None:
    """The first trained parameter with a NaN or infinity, and which of the two; ``None``: none has.

    One pass without a copy: the largest absolute value is infinite or NaN where any entry is.
    """
    for name, parameter in model.named_parameters():
        part = local(parameter)
        if parameter.requires_grad and part.numel():
            largest = float(torch.linalg.vector_norm(part, float("inf")))
            if not math.isfinite(largest):
                return f"{largest} in {name}"
    return None

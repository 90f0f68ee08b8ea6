"""The exact solver: softmax regression's one right answer, inside the Trainer."""

from smx_lightning.optim.exact import ExactSolver, Status

__all__ = ["ExactSolver", "Status"]

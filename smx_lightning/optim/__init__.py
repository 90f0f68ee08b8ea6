"""The exact solver: softmax regression's one right answer, inside the Trainer and without it."""

from smx_lightning.optim.exact import ExactSolver
from smx_lightning.optim.minimise import Solution, minimise
from smx_lightning.optim.status import Status

__all__ = ["ExactSolver", "Solution", "Status", "minimise"]

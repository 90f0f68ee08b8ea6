"""Which optimiser ``fit`` takes where the user names none: the exact solver, for a plain model.

Plain is a model that trains its linear layer alone, on the class-weighted loss of an α-entmax, α
from 1 (softmax) to 2 (sparsemax), and the penalty, with features that are the same in every epoch.
Of a class half of that can be told; what it trains only its instance knows.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from smx_lightning.activations import Activation, Entmax
from smx_lightning.checkpoint.optimizers import OPTIMIZER, in_words, parameters_of, path_of
from smx_lightning.module import SoftmaxRegression
from smx_lightning.optim import ExactSolver
from smx_lightning.optim.members import LARGEST_ALPHA

USUAL = inspect.signature(SoftmaxRegression.__init__).parameters[OPTIMIZER].default
# What says how a model trains. The exact solver goes past these, or cannot go with another one.
TRAINING = (
    "configure_optimizers",
    "loss",
    "objective",
    "penalty",
    "class_weights_for",
    "training_step",
    "forward",
    "head",
    "scores",
    "linear",
    "backward",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_before_zero_grad",
    "optimizer_step",
    "optimizer_zero_grad",
    "configure_gradient_clipping",
    "lr_scheduler_step",
    "automatic_optimization",
)
PREPARING = ("configure_model", "setup", "on_fit_start")  # may add what is trained
EXACT = "for the exact optimum give --model.optimizer ExactSolver"
MINI_BATCHES = "for mini-batches give --model.optimizer torch.optim.Adam"


def solves(activation: Activation) -> bool:
    """Whether the exact solver can be taken for an activation."""
    return isinstance(activation, Entmax) and activation.alpha <= LARGEST_ALPHA


def trains_otherwise(kind: type[SoftmaxRegression]) -> str | None:
    """Why no model of a class is trained by the exact solver unless the user says so, in words."""
    declared = parameters_of(kind, leave_out=()).get(OPTIMIZER)
    if declared is None:
        return f"as {kind.__name__} takes none; for the exact optimum let it pass {OPTIMIZER}= on"
    own = [n for n in TRAINING if getattr(kind, n) is not getattr(SoftmaxRegression, n)]
    if own:
        return f"as {kind.__name__} has its own {own[0]}, which the exact solver knows nothing of"
    own = [n for n in PREPARING if getattr(kind, n) is not getattr(SoftmaxRegression, n)]
    if own:
        return f"as {kind.__name__} has its own {own[0]}, which may add what is trained; {EXACT}"
    if declared.default is not USUAL:
        return f"as {kind.__name__} has it by default; {EXACT}"
    return None


def is_not_plain(model: SoftmaxRegression, passed: Any) -> str | None:
    """Why a model is not trained by the exact solver unless the user says so, in words.

    Args:
        model: As its constructor left it.
        passed: The optimiser that its constructor was called with.
    """
    name = type(model).__name__
    if (otherwise := trains_otherwise(type(model))) is not None:
        return otherwise
    if not solves(model._smx_activation):
        return (
            f"as activation {model._smx_activation.spec} is no α-entmax of α from 1 to "
            f"{LARGEST_ALPHA}, which the exact solver expects"
        )
    if not model.automatic_optimization:
        return f"as {name} is optimised by hand"
    if (model._optimizer, model._lr_scheduler, model.lr) != (passed, None, None):
        return f"as {name} chooses it; for the exact optimum let it leave that to its caller"
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    if trained != {id(model.linear.weight), id(model.linear.bias)}:
        return (
            f"as {name} does not train its linear layer alone; for the exact optimum freeze the "
            "rest with requires_grad_(False)"
        )
    changing = (_DropoutNd, _BatchNorm)
    if any(isinstance(module, changing) and module.training for module in model.modules()):
        return (
            f"as {name} has dropout or batch normalisation in train mode; for the exact optimum "
            "freeze these with eval()"
        )
    return None


def is_exact(description: Any) -> bool:
    """Whether a description of an optimiser, as hyper-parameters hold it, is the exact solver's."""
    return isinstance(description, dict) and description.get("class_path") == path_of(ExactSolver)


def heeds(model: SoftmaxRegression, passed: Any) -> bool:
    """Whether the optimiser that a constructor was called with is the one that trains."""
    return model._optimizer is passed and not _configures(model)


def trains_exactly(model: SoftmaxRegression) -> bool:
    """Whether the injected optimiser is the exact solver, and trains the model."""
    return not _configures(model) and is_exact(model.hparams.get(OPTIMIZER))


def optimizer_of(model: SoftmaxRegression) -> str:
    """The optimiser that trains a model, in words."""
    if _configures(model):
        return f"that of {type(model).__name__}"
    return in_words(model.hparams.get(OPTIMIZER))


def _configures(model: SoftmaxRegression) -> bool:
    return type(model).configure_optimizers is not SoftmaxRegression.configure_optimizers

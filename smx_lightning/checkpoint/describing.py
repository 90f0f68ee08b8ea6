"""What a model writes of itself: its settings, into hyper-parameters and checkpoints."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch

from smx_lightning.activations import SOFTMAX, activation_of
from smx_lightning.checkpoint.injected import describe_injected
from smx_lightning.checkpoint.optimizers import (
    OPTIMIZER,
    SCHEDULE,
    Description,
    parameters_of,
    path_of,
)
from smx_lightning.checkpoint.plain import plain_ones
from smx_lightning.checkpoint.reading import (
    CHECKPOINT_KEY,
    HYPER_PARAMETERS,
    LEFT_OUT,
)
from smx_lightning.data.described import array_in_words
from smx_lightning.errors import InputError
from smx_lightning.errors.class_weight import class_weights

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from smx_lightning.module import SoftmaxRegression

DATA, ACTIVATION = "data_module", "activation"
MISSING = inspect.Parameter.empty
# What a user may set on a model that exists.
LIVE = ("l2", "class_weight", "threshold", "label_smoothing", "ignore_index")
# What no checkpoint and no run said while all had it.
UNSAID: dict[str, Any] = {ACTIVATION: SOFTMAX.spec, "label_smoothing": 0, "ignore_index": -1}
RUN = (OPTIMIZER, SCHEDULE)


@dataclass
class Record:
    """What a model remembers of its making and its training, for the checkpoints it writes.

    Attributes:
        called: Names of the constructor's arguments.
        objects: Those of them that are no plain values, in words.
        identities: Of hyper-parameters that are not plain what one is told from another by.
        run: Descriptions of the optimisers and schedules in use, as the training began.
        began_with: Hash of the weights that a checkpoint brought.
    """

    called: frozenset[str] = frozenset()
    objects: dict[str, str] = field(default_factory=dict)
    identities: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] | None = None
    began_with: str | None = None


def settings_of(model: SoftmaxRegression) -> dict[str, Any]:
    """A model's settings as they are now, as plain values; ``optimizers`` as training began."""
    weights = model.class_weight
    shape = model.linear.weight.shape
    return {
        "num_features": int(shape[1]),
        "num_classes": int(shape[0]),
        "class_names": [str(name) for name in model.class_names],
        **inputs_of(model),
        "feature_names": None if model.feature_names is None else [*model.feature_names],
        "schema": None if model.schema is None else model.schema.to_dict(),
        "l2": float(model.l2),
        "class_weight": class_weights(weights, model.class_names),
        "threshold": None if model.threshold is None else float(model.threshold),
        "label_smoothing": float(model.label_smoothing),
        "ignore_index": int(model.ignore_index),
        "preprocessing": str(model.preprocessing.method),
        "activation": model._smx_activation.spec,
        "optimizers": model._smx_record.run,
    }


def inputs_of(model: SoftmaxRegression) -> dict[str, Any]:
    """What a model takes, as plain values; of several inputs a dict by name."""
    shape, bounds = model.input_shape, model.input_range
    if isinstance(shape, Mapping):
        return {
            "input_shape": {name: [*sides] for name, sides in shape.items()},
            "input_range": bounds and {name: [*pair] for name, pair in bounds.items()},
        }
    return {
        "input_shape": [int(size) for size in shape],
        "input_range": None if bounds is None else [float(bound) for bound in bounds],
    }


def describe(model: SoftmaxRegression) -> None:
    """Put the injected optimiser and schedule, as descriptions, into the hyper-parameters.

    Also a subclass's arguments, where Lightning stopped looking for them: at a decorated
    ``__init__``, as type checkers make them. The activation becomes a plain value. Called in
    ``__init__``.
    """
    optimizer, schedule = describe_injected(model._optimizer, model._lr_scheduler, model.smx)
    called = _arguments(model)
    found = {n: v for call in called for n, v in call.items() if n not in (*model.hparams, *RUN)}
    if called:  # the outermost: what a class gives its parents, it gives them again
        model._smx_record.objects = _objects(type(model), called[-1])
        model._smx_record.called = frozenset(called[-1])
        found |= {n: v for n, v in called[-1].items() if n == ACTIVATION}
    note(model, {**plain_ones(found)[0], OPTIMIZER: optimizer, SCHEDULE: schedule})


def _arguments(model: SoftmaxRegression) -> list[dict[str, Any]]:
    """What the constructors that are running for ``model`` were called with, outer ones last."""
    found: list[dict[str, Any]] = []
    frame = inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if code.co_name == "__init__" and names and frame.f_locals.get(names[0]) is model:
            _, _, extra, values = inspect.getargvalues(frame)
            given = {name: values[name] for name in names[1:] if name in values}
            given = listed(model, {**given, **(values.get(extra, {}) if extra else {})})
            if ACTIVATION in given and _is_member(model, given[ACTIVATION]):
                given[ACTIVATION] = model._smx_activation.spec
            found.append(given)
        frame = frame.f_back
    return found


def listed(model: SoftmaxRegression, values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments, with arrays as lists where they go by the name of one of the base class's own.

    A subclass that passes class names, weights or a shape on is then loaded with the same ones.
    """
    ours = parameters_of(model._smx_hooks.kind, leave_out=())
    arrays = {n for n in ours if n in values and array_in_words(values[n]) is not None}
    return {name: v.tolist() if name in arrays else v for name, v in values.items()}


def _is_member(model: SoftmaxRegression, value: Any) -> bool:
    """Whether an argument names the model's activation; one of a subclass may mean another."""
    try:
        return activation_of(value) == model._smx_activation
    except InputError:
        return False


def note(model: SoftmaxRegression, values: dict[str, Any]) -> None:
    """Add to the hyper-parameters, and to the copy of them that loggers show."""
    for shown in (model.hparams, cast("dict[str, Any]", model._hparams_initial)):
        shown.update(copy.deepcopy(values))


def data_description(data: Any) -> Description:
    """A data module's class and its plain settings, as far as it keeps them under their names."""
    settings, _ = plain_ones(vars(data))
    names = inspect.signature(type(data).__init__).parameters
    return {
        "class_path": path_of(type(data)),
        "init_args": {name: settings[name] for name in names if name in settings},
    }


def write(model: SoftmaxRegression, checkpoint: dict[str, Any]) -> None:
    """Add the model's notes to a checkpoint, and leave only plain hyper-parameters in it."""
    if any(callable(model.hparams.get(what)) for what in RUN):  # a subclass has saved its own
        describe(model)
    checkpoint[HYPER_PARAMETERS], _ = plain_ones(dict(model.hparams))
    for key in ("hparams_type", "hparams_name"):
        checkpoint.pop(key, None)
    checkpoint[CHECKPOINT_KEY] = {
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "training": model.training_summary(),
        "settings": settings_of(model),
        LEFT_OUT: model._smx_record.objects,
    }


def _objects(kind: type[SoftmaxRegression], values: Mapping[str, Any]) -> dict[str, str]:
    """Those of some arguments that are not plain, in words; a class's defaults it knows itself."""
    _, others = plain_ones({n: v for n, v in values.items() if n not in (*RUN, DATA)})
    defaults = {name: p.default for name, p in parameters_of(kind).items()}
    found = {n: what for n, what in others.items() if values[n] is not defaults.get(n, MISSING)}
    return {name: array_in_words(values[name]) or what for name, what in found.items()}


def training_summary(trainer: Trainer) -> dict[str, Any]:
    """Epochs begun, steps taken and finite held-out metrics of a trainer."""
    # Not the training metrics: while a checkpoint is saved they are the epoch before's.
    held_out = {
        name: round(float(value), 6)
        for name, value in sorted(trainer.callback_metrics.items())
        if name.startswith(("val/", "test/")) and torch.isfinite(value)
    }
    epochs = trainer.fit_loop.epoch_progress.current.ready
    return {"epochs": epochs, "steps": trainer.global_step, "metrics": held_out}

"""Whether a model and a checkpoint belong together.

Which settings decide what: the preprocessing belongs to the weights, so another one is refused
wherever weights are loaded. Penalty, class weights, activation, a subclass's own arguments,
optimiser and schedule decide the course of a training, so others are refused where one is resumed.
The threshold decides only what is made of the probabilities: the model's own counts.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from smx_lightning.checkpoint.describing import (
    ACTIVATION,
    DATA,
    LIVE,
    RUN,
    UNSAID,
    settings_of,
)
from smx_lightning.checkpoint.optimizers import said
from smx_lightning.checkpoint.plain import plain_ones
from smx_lightning.checkpoint.reading import (
    HYPER_PARAMETERS,
    LEFT_OUT,
    notes,
    plain_hyper_parameters,
)
from smx_lightning.checkpoint.writing import NAME
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import check_same_problem

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression

BASE = "smx_lightning.module.SoftmaxRegression"
NAMES = "feature_names"
WRAPPED = "_orig_mod."  # torch.compile's word in the names of what it wraps


def check_fits(model: SoftmaxRegression, checkpoint: Mapping[str, Any]) -> None:
    """Complain about a checkpoint whose weights mean something else in this model.

    Raises:
        InputError: For other features, classes or preprocessing; where training is resumed, for
            another objective, too.
    """
    saved, present = saved_settings(checkpoint), settings_of(model)
    check_same_problem(
        {**checkpoint, HYPER_PARAMETERS: saved}, model.linear.weight.shape, model.class_names
    )
    weights = checkpoint.get("state_dict") or ()  # ModelParallelStrategy has dropped them
    whole = model._trainer is not None and model.strict_loading
    if whole and weights and "smx.0.weight" not in weights:
        raise InputError(
            f"expected a checkpoint of {type(model).__name__}, got one of another module, "
            "without smx.0.weight; give it to the module that wrote it"
        )
    method = saved.get("preprocessing", present["preprocessing"])
    if method != present["preprocessing"]:
        raise InputError(
            f"expected a checkpoint with preprocessing={present['preprocessing']!r}, as the model "
            f"has, got one with {method!r}, whose weights are of other features; build the model "
            f"with preprocessing={method!r}"
        )
    _check_features(saved, present)
    if model._trainer is not None:
        _compare_arguments(model, checkpoint, saved, present)


def _check_features(saved: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """Complain about weights of other features, or of the same in another order.

    Raises:
        InputError: Where both have names.
    """
    own, others = present[NAMES], saved.get(NAMES)
    if own is None or others is None or own == others:
        return
    if sorted(own) == sorted(others):
        what = "has in another order"
        remedy = "bring the columns into the checkpoint's order"
    else:
        what, remedy = "has not all of", "take the data it was trained on, or name them alike"
    pairs = enumerate(zip(own, others, strict=False))
    first = next((k for k, (name, other) in pairs if name != other), 0)
    raise InputError(
        f"expected a checkpoint of the features that the data has, got one of features that it "
        f"{what}: feature {first} is {others[first]!r}; {remedy}"
    )


def _compare_arguments(
    model: SoftmaxRegression,
    checkpoint: Mapping[str, Any],
    saved: dict[str, Any],
    present: dict[str, Any],
) -> None:
    """Say which settings differ; where a training is resumed, refuse those that it stands on."""
    arguments, _ = plain_hyper_parameters(checkpoint)
    noted = notes(checkpoint).get(LEFT_OUT)
    objects = noted if isinstance(noted, dict) else {}
    here = _own(model)
    own = [name for name in here if name in arguments or name in objects]
    saved = {**saved, **{name: said(arguments.get(name, objects.get(name))) for name in own}}
    present = {**present, **{name: said(here[name]) for name in own}}
    compared = dict.fromkeys((*LIVE, ACTIVATION, *own))
    differing = [n for n in compared if n in saved and not _same(saved[n], present[n])]
    for name in differing if model.trainer.state.fn == "fit" else []:
        if name == "threshold" or (name in own and _are_paths(saved[name], present[name])):
            continue
        value = "…" if name in model._smx_record.objects else repr(present[name])
        raise InputError(
            f"expected a checkpoint with {name}={present[name]!r}, as the model has, to resume "
            f"from, got one with {name}={saved[name]!r}; leave {name} as it was to go on, or "
            f"{anew(model)} from the weights of load_from_checkpoint(…, {name}={value})"
        )
    if differing:
        told = ", ".join(f"{n}={present[n]!r} and not {saved[n]!r}" for n in differing)
        rank_zero_info(f"The model has other settings than its checkpoint, which count: {told}")


def _same(one: Any, other: Any) -> bool:
    """Whether two plain values are the same; NaN, too, is what it was."""
    return one == other or repr(one) == repr(other)


def _own(model: SoftmaxRegression) -> dict[str, Any]:
    """The arguments that a subclass has of its own, as a checkpoint tells them."""
    inherited = {*inspect.signature(model._smx_hooks.kind.__init__).parameters, *RUN, DATA}
    known = {**model._smx_record.objects, **plain_ones(dict(model.hparams))[0]}
    if known.get(ACTIVATION) != model._smx_activation.spec:  # of hidden layers, say
        inherited.discard(ACTIVATION)
    return {n: v for n, v in known.items() if n in model._smx_record.called - inherited}


def _are_paths(saved: Any, present: Any) -> bool:
    """Whether two texts may name the same file, which lies elsewhere on another machine."""
    if not (isinstance(saved, str) and isinstance(present, str)):
        return False
    exists = os.path.isfile  # which no text is too long for
    return any("/" in text or "\\" in text or exists(text) for text in (saved, present))


def saved_settings(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's settings; of one that version 0.1 wrote, what its arguments tell.

    What none said while all had it is added.
    """
    written = notes(checkpoint)
    settings = written.get("settings")
    if isinstance(settings, dict):
        return {**UNSAID, **settings}
    arguments, _ = plain_hyper_parameters(checkpoint)
    if written.get("class") != BASE:  # a subclass may mean something else by a name
        return {**UNSAID, "class_names": arguments.get("class_names")}
    names = ("class_names", "preprocessing", "l2", "threshold", "class_weight")
    known = {name: arguments[name] for name in names if name in arguments}
    return {**UNSAID, **known}


def anew(model: SoftmaxRegression) -> str:
    """How to begin anew: without the path that was given, or without what Recovery has found."""
    path = model.trainer.ckpt_path
    if path is not None and NAME.fullmatch(Path(path).name):
        return f"remove {path} to train anew,"
    return "train anew, without ckpt_path,"


def has_features(model: SoftmaxRegression) -> bool:
    """Whether a subclass makes features of its own, and so takes inputs of any shape."""
    return type(model).features is not model._smx_hooks.kind.features


def by_names_of(model: nn.Module, weights: Mapping[str, Any]) -> Mapping[str, Any]:
    """A checkpoint's weights by a model's names, whichever parts of either are compiled.

    torch.compile puts a word of its own into the names of what it wraps.
    """
    own = {name.replace(WRAPPED, ""): name for name in model.state_dict()}
    if not any(WRAPPED in name for name in (*weights, *own.values())):
        return weights
    return {own.get(name.replace(WRAPPED, ""), name): value for name, value in weights.items()}

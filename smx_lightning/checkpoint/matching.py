"""Whether a model and a checkpoint belong together.

Which settings decide what: the preprocessing belongs to the weights, so another one is refused
wherever weights are loaded. Penalty, class weights, a subclass's own arguments, optimiser and
schedule decide the course of a training, so others are refused where one is resumed. The threshold
decides only what is made of the probabilities: the model's own counts.
"""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_info

from smx_lightning.checkpoint.describing import DATA, LIVE, RUN, data_description, note, settings_of
from smx_lightning.checkpoint.optimizers import (
    OPTIMIZER,
    PARTIAL,
    SCHEDULE,
    described,
    difference,
    said,
)
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
ADDED = ("maximize", "decoupled_weight_decay", "swa_lr", "initial_lr", "max_lr", "min_lr")
UNTOLD = ("params", "param_names", "foreach", "fused", "capturable", "differentiable", *ADDED)


# What a model writes -------------------------------------------------------------------------


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
    if model._trainer is not None:
        _compare_arguments(model, checkpoint, saved, present)


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
    differing = [n for n in (*LIVE, *own) if n in saved and saved[n] != present[n]]
    for name in differing if model.trainer.state.fn == "fit" else []:
        if name == "threshold" or (name in own and _are_paths(saved[name], present[name])):
            continue
        value = "…" if name in model._record.objects else repr(present[name])
        raise InputError(
            f"expected a checkpoint with {name}={present[name]!r}, as the model has, to resume "
            f"from, got one with {name}={saved[name]!r}; leave {name} as it was to go on, or "
            f"{_anew(model)} from the weights of load_from_checkpoint(…, {name}={value})"
        )
    if differing:
        told = ", ".join(f"{n}={present[n]!r} and not {saved[n]!r}" for n in differing)
        rank_zero_info(f"The model has other settings than its checkpoint, which count: {told}")


def _own(model: SoftmaxRegression) -> dict[str, Any]:
    """The arguments that a subclass has of its own, as a checkpoint tells them."""
    inherited = {*inspect.signature(model._base().__init__).parameters, *RUN, DATA}
    known = {**model._record.objects, **plain_ones(dict(model.hparams))[0]}
    return {n: v for n, v in known.items() if n in model._record.called - inherited}


def _are_paths(saved: Any, present: Any) -> bool:
    """Whether two texts may name the same file, which lies elsewhere on another machine."""
    if not (isinstance(saved, str) and isinstance(present, str)):
        return False
    exists = os.path.isfile  # which no text is too long for
    return any("/" in text or "\\" in text or exists(text) for text in (saved, present))


def saved_settings(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's settings; of one that version 0.1 wrote, what its arguments tell."""
    written = notes(checkpoint)
    settings = written.get("settings")
    if isinstance(settings, dict):
        return settings
    arguments, _ = plain_hyper_parameters(checkpoint)
    if written.get("class") != BASE:  # a subclass may mean something else by a name
        return {"class_names": arguments.get("class_names")}
    names = ("class_names", "preprocessing", "l2", "threshold", "class_weight")
    return {name: arguments[name] for name in names if name in arguments}


def check_loaded(model: SoftmaxRegression, checkpoint: Mapping[str, Any]) -> None:
    """Every check that can be made while a checkpoint is loaded into a model."""
    check_fits(model, checkpoint)
    trainer = model._trainer
    if trainer is None or trainer.state.fn != "fit":
        return
    if trainer.strategy.restore_checkpoint_after_setup:  # the optimisers exist already
        check_same_run(model, checkpoint)


def check_same_run(model: SoftmaxRegression, checkpoint: Mapping[str, Any]) -> None:
    """Complain about an optimiser or a schedule that is not the one whose state is resumed.

    Raises:
        InputError: It names both, and what can be done.
    """
    if "optimizer_states" not in checkpoint:
        raise InputError(
            "expected a checkpoint with the optimiser's state to resume from, got one of the "
            "weights alone, as save_weights_only=True makes it; train anew, without ckpt_path, "
            "from load_from_checkpoint(…)"
        )
    saved = saved_settings(checkpoint).get("optimizers")
    present = model._record.run
    if not isinstance(saved, dict) or not isinstance(present, dict):
        _check_group_names(model, checkpoint)
        return
    for what in RUN:
        one, other = saved.get(what), present.get(what)
        one, other = (of if isinstance(of, list) else [] for of in (one, other))
        for k in range(max(len(one), len(other))):
            found = difference(*(of[k] if k < len(of) else None for of in (one, other)))
            if found is not None:
                raise _other_run(model, what, *found)


def _check_group_names(model: SoftmaxRegression, checkpoint: Mapping[str, Any]) -> None:
    """The same of a checkpoint of version 0.1, which tells no more than the groups' settings."""
    states = checkpoint.get("optimizer_states") or []
    scheduled = bool(checkpoint.get("lr_schedulers"))
    for state, optimizer in zip(states, model.trainer.optimizers, strict=False):
        for groups in zip(state["param_groups"], optimizer.param_groups, strict=False):
            one, other = (_group(group, scheduled=scheduled) for group in groups)
            kind = type(optimizer).__name__
            if one.keys() != other.keys():
                told = ", ".join(sorted(one)) or "no settings"
                raise _other_run(model, OPTIMIZER, f"one with {told}", kind)
            names = [name for name in one if one[name] != other[name]]
            if names:
                saved, present = (", ".join(f"{n}={of[n]!r}" for n in names) for of in (one, other))
                raise _other_run(model, OPTIMIZER, f"one with {saved}", f"{kind}({present})")


def _group(group: Mapping[str, Any], *, scheduled: bool) -> dict[str, Any]:
    """A parameter group's settings as training began, as far as a schedule leaves them known."""
    values = {name: said(value) for name, value in group.items() if name not in UNTOLD}
    if "initial_lr" in group:
        values["lr"] = said(group["initial_lr"])
    elif scheduled:
        values["lr"] = None
    moved = ("momentum", "betas") if "max_momentum" in group else ()
    return {name: None if name in moved else value for name, value in values.items()}


def _anew(model: SoftmaxRegression) -> str:
    """How to begin anew: without the path that was given, or without what Recovery has found."""
    path = model.trainer.ckpt_path
    if path is not None and NAME.fullmatch(Path(path).name):
        return f"remove {path} to train anew,"
    return "train anew, without ckpt_path,"


def _other_run(model: SoftmaxRegression, what: str, saved: str, present: str) -> InputError:
    return InputError(
        f"expected a checkpoint whose {what} was {present}, as the model has, to resume from, got "
        f"{saved}; give the model the same {what} to go on, or {_anew(model)} from "
        f"the weights of load_from_checkpoint(…, {what}=…)"
    )


def has_features(model: SoftmaxRegression) -> bool:
    """Whether a subclass makes features of its own, and so takes inputs of any shape."""
    return type(model).features is not model._base().features


def _injected(model: SoftmaxRegression, made: dict[str, list[Any]]) -> dict[str, Any]:
    """The descriptions of what the model's own callables made, with the learning rate it set."""
    told: dict[str, Any] = {}
    for what, by in ((OPTIMIZER, model._optimizer), (SCHEDULE, model._lr_scheduler)):
        told[what] = copy.deepcopy(model.hparams.get(what))
        whole = isinstance(told[what], dict) and PARTIAL not in told[what]
        if made[what] and not whole:
            told[what] = described(made[what][0], by)
    if model.lr is not None and "lr" in told[OPTIMIZER]["init_args"]:
        told[OPTIMIZER]["init_args"]["lr"] = float(model.lr)
    return told


def begin_run(model: SoftmaxRegression) -> None:
    """Note the optimisers and the data of the training that begins; refuse to resume another's.

    Called when the optimisers are new, and before a checkpoint is read into them.

    Raises:
        InputError: Where the checkpoint that is being resumed had another optimiser or schedule.
    """
    trainer = model.trainer
    made: dict[str, list[Any]] = {
        OPTIMIZER: list(trainer.optimizers),
        SCHEDULE: [config.scheduler for config in trainer.lr_scheduler_configs],
    }
    own = getattr(model.configure_optimizers, "__func__", None)
    if own is model._base().configure_optimizers:
        told = _injected(model, made)
        model._record.run = {what: [told[what]] if made[what] else [] for what in RUN}
    else:
        model._record.run = {what: [described(one) for one in made[what]] for what in RUN}
        told = {w: of[0] if len(of) == 1 else of or None for w, of in model._record.run.items()}
    data = trainer.datamodule  # type: ignore[attr-defined]
    note(model, {**told, DATA: None if data is None else data_description(data)})
    resumed = trainer._checkpoint_connector._loaded_checkpoint
    if resumed:
        check_same_run(model, resumed)

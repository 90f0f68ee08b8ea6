"""Whether a training goes on with the optimisers and schedules that it began with."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from smx_lightning.checkpoint.describing import DATA, RUN, data_description, note
from smx_lightning.checkpoint.differences import HOW_NOT_WHAT, difference
from smx_lightning.checkpoint.matching import anew, check_fits, saved_settings
from smx_lightning.checkpoint.optimizers import OPTIMIZER, PARTIAL, SCHEDULE, described, said
from smx_lightning.errors import InputError

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression


ADDED = ("maximize", "decoupled_weight_decay", "swa_lr", "initial_lr", "max_lr", "min_lr")
UNTOLD = ("params", "param_names", *HOW_NOT_WHAT, *ADDED)


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
    present = model._smx_record.run
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


def _other_run(model: SoftmaxRegression, what: str, saved: str, present: str) -> InputError:
    return InputError(
        f"expected a checkpoint whose {what} was {present}, as the model has, to resume from, got "
        f"{saved}; give the model the same {what} to go on, or {anew(model)} from "
        f"the weights of load_from_checkpoint(…, {what}=…)"
    )


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
    if own is model._smx_hooks.kind.configure_optimizers:
        told = _injected(model, made)
        model._smx_record.run = {what: [told[what]] if made[what] else [] for what in RUN}
    else:
        model._smx_record.run = {what: [described(one) for one in made[what]] for what in RUN}
        told = {w: of[0] if len(of) == 1 else of or None for w, of in model._smx_record.run.items()}
    data = trainer.datamodule  # type: ignore[attr-defined]
    note(model, {**told, DATA: None if data is None else data_description(data)})
    resumed = trainer._checkpoint_connector._loaded_checkpoint
    if resumed:
        check_same_run(model, resumed)

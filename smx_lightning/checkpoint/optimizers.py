"""Optimisers and schedules as plain descriptions.

A description is ``{"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, …}}``, as in a
LightningCLI configuration. It is what hyper-parameters, and so loggers and checkpoints, hold.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch.cli import ReduceLROnPlateau
from torch.optim import lr_scheduler as schedules

from smx_lightning.checkpoint.plain import NotPlainError, plain
from smx_lightning.data.described import array_in_words
from smx_lightning.optim import ExactSolver

Description = dict[str, Any]
PARTIAL = "partial"  # in a description: not all of its arguments could be told
OPTIMIZER, SCHEDULE = "optimizer", "lr_scheduler"
NOT_DESCRIBED = ("self", "params", "optimizer", "last_epoch")  # what no description holds
# Of these a description could hold functions or other schedules only.
MADE_OF_OBJECTS = ("LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler", "CyclicLR")


def _known() -> dict[str, type]:
    optimizers = {
        f"torch.optim.{name}": kind
        for name, kind in vars(torch.optim).items()
        if _is_a(kind, torch.optim.Optimizer)
    }
    schedulers = {
        f"torch.optim.lr_scheduler.{name}": kind
        for name, kind in vars(schedules).items()
        if _is_a(kind, schedules.LRScheduler) and name not in MADE_OF_OBJECTS
    }
    ours = {
        "smx_lightning.optim.ExactSolver": ExactSolver,
        "lightning.pytorch.cli.ReduceLROnPlateau": ReduceLROnPlateau,
    }
    return {**optimizers, **schedulers, **ours}


def _is_a(kind: Any, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base) and kind is not base


KNOWN = _known()
PATHS = {kind: path for path, kind in reversed(KNOWN.items())}


def path_of(kind: type) -> str:
    """The class path of a class, in its customary form where it has one."""
    return PATHS.get(kind, f"{kind.__module__}.{kind.__qualname__}")


def described(made: Any, by: Any = None) -> Description:
    """The description of an optimiser or a schedule.

    Args:
        made: As it was constructed, before its first step.
        by: What made it, where that is known; a class or a ``functools.partial`` of one tells
            arguments that the object keeps no record of.
    """
    given: dict[str, Any] = {}
    parts = [by, *([by.func, *by.args] if isinstance(by, functools.partial) else [])]
    whole = type(made) in parts  # what is not told has its default value
    if whole and isinstance(by, functools.partial):
        given = by.keywords
    kept = {**vars(made), **getattr(made, "defaults", {}), **given, **_of_one_group(made)}
    if "min_lrs" in kept:  # ReduceLROnPlateau's, a value a group
        kept.setdefault("min_lr", kept["min_lrs"])
    init_args: dict[str, Any] = {}
    for name, parameter in parameters_of(type(made)).items():
        value = kept.get(name, inspect.Parameter.empty)
        if value is inspect.Parameter.empty:
            whole = whole and parameter.default is not inspect.Parameter.empty
            continue
        try:
            init_args[name] = _written(value)
        except NotPlainError:
            whole = False
    missing = [n for n in parameters_of(type(made)) if n not in init_args]
    description: Description = {"class_path": path_of(type(made)), "init_args": init_args}
    groups = _groups(made)
    if groups:
        description["groups"] = groups
    if (missing and not whole) or groups:
        description[PARTIAL] = True
    return description


def parameters_of(
    kind: type, leave_out: Sequence[str] = NOT_DESCRIBED
) -> dict[str, inspect.Parameter]:
    """What a class can be constructed with, looking behind ``**kwargs``."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters
        for name, parameter in parameters.items():
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                found.setdefault(name, parameter)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return {name: parameter for name, parameter in found.items() if name not in leave_out}


def _of_one_group(made: Any) -> dict[str, Any]:
    """What the only parameter group of an optimiser has in place of the optimiser's defaults."""
    groups = getattr(made, "param_groups", [])
    if len(groups) != 1:
        return {}
    (group,) = groups
    values = {**group, "lr": group.get("initial_lr", group.get("lr"))}
    moved = ("momentum", "betas") if "max_momentum" in group else ()  # OneCycleLR moves them
    return {n: values[n] for n in made.defaults if n not in moved and values.get(n) is not None}


def _groups(made: Any) -> list[dict[str, Any]]:
    """What sets parameter groups apart, where there is more than one."""
    groups = getattr(made, "param_groups", [])
    if len(groups) < 2:
        return []
    defaults = {**made.defaults, "params": None, "param_names": None, "initial_lr": None}
    apart = []
    for group in groups:
        values = {**group, "lr": group.get("initial_lr", group.get("lr"))}
        own = {n: v for n, v in values.items() if n not in defaults or n in made.defaults}
        apart.append({n: said(v) for n, v in own.items() if said(v) != said(defaults.get(n))})
    return apart


def _written(value: Any) -> Any:
    """The plain form: lists for tuples, which YAML does not know, and numbers for tensors."""
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_meta:
        return value.item()
    if isinstance(value, (torch.Tensor, np.ndarray)) and array_in_words(value) is not None:
        return _written(value.tolist())
    if isinstance(value, Counter):  # MultiStepLR's milestones
        return sorted(value.elements())
    if isinstance(value, (list, tuple)):
        return [_written(entry) for entry in value]
    return plain(value)


def said(value: Any) -> Any:
    """A value in the form in which two are compared: plain, with lists for tuples."""
    try:
        return _written(value)
    except NotPlainError:
        return f"a {type(value).__name__}"


def in_words(description: Any) -> str:
    """A description as one writes it in Python: ``SGD(lr=0.1, momentum=0.9)``, without defaults."""
    if not isinstance(description, dict):
        return "none"
    path, init_args = description.get("class_path"), description.get("init_args")
    kind = KNOWN.get(path) if isinstance(path, str) else None
    usual = {} if kind is None else {n: said(p.default) for n, p in parameters_of(kind).items()}
    arguments = init_args.items() if isinstance(init_args, dict) else ()
    told = [f"{n}={v!r}" for n, v in arguments if n == "lr" or n not in usual or usual[n] != v]
    return f"{str(path).rpartition('.')[2]}({', '.join(told)})"

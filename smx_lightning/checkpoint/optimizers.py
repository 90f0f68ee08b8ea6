"""Optimisers and schedules as plain descriptions, and back.

A description is ``{"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, …}}``, as in a
LightningCLI configuration. It is what hyper-parameters, and so loggers and checkpoints, hold. Back
from one goes a table of known classes: a name is looked up there, and never imported.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import nn
from torch.optim import lr_scheduler as schedules

from smx_lightning.checkpoint.plain import NotPlainError, is_recipe, plain
from smx_lightning.errors import InputError
from smx_lightning.optim import ExactSolver

Description = dict[str, Any]
PARTIAL = "partial"  # in a description: not all of its arguments could be told
OPTIMIZER, SCHEDULE = "optimizer", "lr_scheduler"
SERVANTS = ("self", "params", "optimizer", "last_epoch")  # what no description holds
# Of these a description could hold functions or other schedules only.
MADE_OF_OBJECTS = ("LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler", "CyclicLR")
HOW_NOT_WHAT = ("foreach", "fused", "capturable", "differentiable")  # same steps, other kernels
WHEN_NOT_WHAT = {"smx_lightning.optim.ExactSolver": ("tol",)}  # when to stop, on the same way


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


# To descriptions -----------------------------------------------------------------------------


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


def parameters_of(kind: type) -> dict[str, inspect.Parameter]:
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
    return {name: parameter for name, parameter in found.items() if name not in SERVANTS}


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


def describe_injected(
    optimizer: Callable[..., Any], scheduler: Callable[..., Any] | None, layer: nn.Module
) -> tuple[Description | None, Description | None]:
    """What an optimiser's and a schedule's callables make, tried on parameters of no memory.

    Of a callable that fails on those its name is told; it has done no harm.

    Args:
        optimizer: As of :class:`smx_lightning.SoftmaxRegression`.
        scheduler: Likewise.
        layer: Whose parameters' shapes are taken.
    """
    if isinstance(optimizer, Unrestored):
        made, told = None, optimizer.description
    else:
        parameters = [nn.Parameter(p.detach().to("meta")) for p in layer.parameters()]
        made = _tried(optimizer, parameters)
        told = _unmade(optimizer) if made is None else described(made, optimizer)
    if scheduler is None or isinstance(scheduler, Unrestored):
        return told, None if scheduler is None else scheduler.description
    # Where there is none, any will do to try the schedule on.
    schedule = _tried(scheduler, torch.optim.SGD(_trial_layer()) if made is None else made)
    return told, _unmade(scheduler) if schedule is None else described(schedule, scheduler)


def _unmade(make: Callable[..., Any]) -> Description:
    """What can be told of a callable that made nothing."""
    name = getattr(make, "__qualname__", type(make).__qualname__)
    module = getattr(make, "__module__", type(make).__module__)
    return {"class_path": f"{module}.{name}", "init_args": {}, PARTIAL: True}


def _tried(make: Callable[..., Any], argument: Any) -> Any:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = make(argument)
        except Exception:  # of anybody's code; training will meet it, and say so
            return None
    kinds = (torch.optim.Optimizer, schedules.LRScheduler, schedules.ReduceLROnPlateau)
    return made if isinstance(made, kinds) else None


def _trial_layer() -> list[nn.Parameter]:
    """Weight and bias of the least layer, without memory."""
    return [nn.Parameter(torch.empty(shape, device="meta")) for shape in ((2, 1), (2,))]


# And back ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unrestored:
    """Takes the place of an optimiser or a schedule that a checkpoint could not bring back.

    Attributes:
        argument: ``optimizer`` or ``lr_scheduler``.
        description: What is known of it; ``None`` where nothing is.
    """

    argument: str
    description: Description | None

    def __call__(self, _: Any) -> Any:
        """Refuse to train on with anything else in its place."""
        raise InputError(
            f"expected an {self.argument} to train with, got a model from a checkpoint that "
            f"{self._why()}; give it with load_from_checkpoint(…, {self.argument}=…) or "
            f"--model.{self.argument}"
        )

    def _why(self) -> str:
        if self.description is None:
            return f"does not say which {self.argument} it was trained with"
        return (
            f"was trained with {in_words(self.description)}, which is not made from a file: it is "
            "no class of torch's, or was not told whole"
        )


def restored(
    argument: str, description: Any, allow: Sequence[type] | type = ()
) -> Callable[..., Any] | None:
    """What a description names, ready to be injected; ``None`` for no schedule.

    Args:
        argument: ``optimizer`` or ``lr_scheduler``.
        description: As it stands in a checkpoint; anything, where somebody has changed the file.
        allow: Classes of the caller's, or one, that may be made besides torch's own.
    """
    if description is None:
        return None if argument == SCHEDULE else Unrestored(argument, None)
    base: tuple[type, ...] = (torch.optim.Optimizer,)
    if argument == SCHEDULE:
        base = (schedules.LRScheduler, schedules.ReduceLROnPlateau)
    if not isinstance(description, dict):
        return Unrestored(argument, None)
    allowed = (allow,) if isinstance(allow, type) else allow
    known = {**KNOWN, **{path_of(kind): kind for kind in allowed}}
    path, init_args = description.get("class_path"), description.get("init_args")
    kind = known.get(path) if isinstance(path, str) else None
    if kind is None or not issubclass(kind, base) or not isinstance(init_args, dict):
        return Unrestored(argument, description)
    takes = parameters_of(kind)
    needed = {name for name, p in takes.items() if p.default is inspect.Parameter.empty}
    told = needed <= init_args.keys() <= takes.keys() and not is_recipe(init_args)
    if description.get(PARTIAL) or not told:
        return Unrestored(argument, description)
    tuples = {n: tuple(v) if isinstance(v, list) else v for n, v in init_args.items()}
    make = functools.partial(kind, **tuples)
    trial = _trial_layer() if argument == OPTIMIZER else torch.optim.SGD(_trial_layer())
    return Unrestored(argument, description) if _tried(make, trial) is None else make


# Comparing -----------------------------------------------------------------------------------


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


def difference(saved: Any, present: Any) -> tuple[str, str] | None:
    """What two descriptions differ in that a run's course depends on, each in words.

    Args:
        saved: A description or ``None``.
        present: Likewise.
    """
    if not isinstance(saved, dict) or not isinstance(present, dict):
        return None if saved == present else (in_words(saved), in_words(present))
    one, other = _course(saved), _course(present)
    if one == other:
        return None
    if saved.get("class_path") == present.get("class_path") and one[1] != other[1]:
        names = [n for n in {**one[1], **other[1]} if one[1].get(n) != other[1].get(n)]
        return _only(saved, names), _only(present, names)
    return in_words(saved), in_words(present)


def _course(description: Description) -> tuple[Any, dict[str, Any], Any]:
    path, init_args = description.get("class_path"), description.get("init_args")
    aside = (*HOW_NOT_WHAT, *WHEN_NOT_WHAT.get(str(path), ()))
    arguments = init_args.items() if isinstance(init_args, dict) else ()
    return path, {n: said(v) for n, v in arguments if n not in aside}, description.get("groups")


def _only(description: Description, names: Iterable[str]) -> str:
    """The same of what two descriptions differ in."""
    _, arguments, _ = _course(description)
    told = ", ".join(f"{name}={arguments[name]!r}" for name in names if name in arguments)
    return f"{str(description['class_path']).rpartition('.')[2]}({told})"

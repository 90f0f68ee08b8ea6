"""The callables that make a model's optimiser and schedule: described, and made of descriptions.

From a description back to a class leads a table of known ones: a name is looked up there, and never
imported.
"""

from __future__ import annotations

import copy
import functools
import inspect
import multiprocessing
import pickle
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler as schedules

from smx_lightning.checkpoint.optimizers import (
    KNOWN,
    OPTIMIZER,
    PARTIAL,
    SCHEDULE,
    Description,
    described,
    in_words,
    parameters_of,
    path_of,
)
from smx_lightning.checkpoint.plain import is_recipe
from smx_lightning.errors import InputError

REMEDY = (
    "make it a class, functools.partial(torch.optim.SGD, lr=0.1) or a function that is defined at "
    "the top of a module"
)
CALLABLES = {"_optimizer": OPTIMIZER, "_lr_scheduler": SCHEDULE}  # a model's attributes


def describe_injected(
    optimizer: Callable[..., Any], scheduler: Callable[..., Any] | None, layer: nn.Module
) -> tuple[Description | None, Description | None]:
    """What an optimiser's and a schedule's callables make, tried on parameters of no memory.

    A callable that fails on them is described by its name alone; calling it changed nothing.

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
    complete = needed <= init_args.keys() <= takes.keys() and not is_recipe(init_args)
    if description.get(PARTIAL) or not complete:
        return Unrestored(argument, description)
    tuples = {n: tuple(v) if isinstance(v, list) else v for n, v in init_args.items()}
    make = functools.partial(kind, **tuples)
    trial = _trial_layer() if argument == OPTIMIZER else torch.optim.SGD(_trial_layer())
    return Unrestored(argument, description) if _tried(make, trial) is None else make


class Unpickled(Unrestored):
    """Likewise of one that a pickle cannot hold, as no name leads to it."""

    def __call__(self, _: Any) -> Any:
        """Refuse to train on with anything else in its place."""
        raise InputError(
            f"expected an {self.argument} to train with, got a model from a pickle, which cannot "
            f"hold {_name(self.description)}; {REMEDY}"
        )


@dataclass(frozen=True)
class Kept:
    """An injected callable in the state of a model that is copied or pickled.

    A pickle holds functions by their names, which lambdas have none of. What is described whole is
    pickled as that; of the rest the description alone, which is refused once it is to train. Where
    a process is being started, that is now.

    Attributes:
        argument: ``optimizer`` or ``lr_scheduler``.
        make: The callable.
        description: As hyper-parameters hold it.
    """

    argument: str
    make: Callable[..., Any]
    description: Description | None

    def __deepcopy__(self, memo: dict[int, Any]) -> Kept:
        return Kept(self.argument, copy.deepcopy(self.make, memo), copy.deepcopy(self.description))

    def __reduce__(self) -> tuple[Any, ...]:
        make: Any = self.make
        try:
            pickle.dumps(make)
        except Exception:  # of anybody's objects; no pickle can hold them, whatever they raise
            make = self._described()
        return Kept, (self.argument, make, self.description)

    def _described(self) -> Callable[..., Any]:
        """What the description makes, or what refuses to train in its place."""
        made = restored(self.argument, self.description)
        if made is not None and not isinstance(made, Unrestored):
            return made
        if _starting_a_process():
            raise InputError(
                f"expected an {self.argument} that can be sent to the processes to be started, got "
                f"{_name(self.description)}; {REMEDY}"
            )
        return Unpickled(self.argument, self.description)


def _starting_a_process() -> bool:
    """Whether what is being pickled is for a process that this one is about to start."""
    return multiprocessing.context.get_spawning_popen() is not None


def _name(description: Description | None) -> str:
    return "a function without a name" if description is None else in_words(description)

"""Arguments of an optimiser that is not named, as ``--model.optimizer.tol 1e-4``: whose they are.

The parser takes them for those of the default in Python, Adam, so that a learning rate alone makes
mini-batches. What only the exact solver has is the exact solver's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch.cli import LightningArgumentParser

from smx_lightning.checkpoint.optimizers import (
    OPTIMIZER,
    SCHEDULE,
    parameters_of,
    path_of,
)
from smx_lightning.errors import InputError
from smx_lightning.optim import ExactSolver

NAMING = (None, "class_path", "init_args")  # a class, or a file of its settings
FILES = re.compile(r"(--config|-c|--model)(=|$)")  # may name one, too


@contextmanager
def raising(*parsers: LightningArgumentParser) -> Iterator[None]:
    """Let parsers raise what they would print before they end the process."""
    before = [parser.exit_on_error for parser in parsers]
    for parser in parsers:
        parser.exit_on_error = False
    try:
        yield
    finally:
        for parser, exits in zip(parsers, before, strict=True):
            parser.exit_on_error = exits


def named(parse: Callable[[Sequence[str]], Namespace], args: Sequence[str]) -> Sequence[str]:
    """Arguments that the parser has refused, with the exact solver named where that helps.

    Args:
        parse: Raises ArgumentError for what it does not take.
        args: Of a command line.

    Raises:
        InputError: For arguments of a class that is neither named nor told by them.
    """
    if "fit" not in args:
        return args
    at = args.index("fit") + 1  # before all else: whoever names another one goes before it
    completed = [*args[:at], f"--model.{OPTIMIZER}={path_of(ExactSolver)}", *args[at:]]
    try:
        parse(completed)
    except ArgumentError:
        return completed if _only_its_own(args) else args
    return completed


def _only_its_own(args: Sequence[str]) -> bool:
    """Whether arguments of an optimiser that is not named are the exact solver's alone."""
    if _unnamed(SCHEDULE, args):
        raise InputError(
            f"expected a schedule before its arguments, got {', '.join(_unnamed(SCHEDULE, args))} "
            f"alone; name it, as in --model.{SCHEDULE} torch.optim.lr_scheduler.ExponentialLR"
        )
    given = {*_unnamed(OPTIMIZER, args)}
    if given and not any(
        given <= {*parameters_of(kind)} for kind in (torch.optim.Adam, ExactSolver)
    ):
        raise InputError(
            "expected arguments that torch.optim.Adam or ExactSolver takes, as no optimiser is "
            f"named, got {', '.join(sorted(given))}; name yours before them, as in "
            f"--model.{OPTIMIZER} torch.optim.SGD"
        )
    return bool(given) and given <= {*parameters_of(ExactSolver)}


def _unnamed(what: str, args: Sequence[str]) -> list[str]:
    """The names of arguments of an optimiser or a schedule, if nothing says which one it is."""
    argument = re.compile(rf"--model\.(?:init_args\.)?{what}(?:\.init_args)?(?:\.(\w+))?(?:=|$)")
    given = [match[1] for arg in args if (match := argument.match(arg))]
    told = any(name in NAMING for name in given) or any(FILES.match(arg) for arg in args)
    return [] if told else given
